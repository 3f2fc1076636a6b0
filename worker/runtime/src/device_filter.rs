//! Device filter: what version 1's devices controller does, for version 2, where it is a small
//! program in the kernel. Attached to the parent group it holds for every container.
//!
//! Docker's rules: a container may make any node, and use only the harmless ones.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::sys;

/// Character devices that may be used: null, zero, full, random, urandom, tty, console, ptmx.
const USABLE: [(i32, i32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Pseudo terminals, whatever their number.
const TERMINALS: i32 = 136;

const CHARACTER: i32 = 2;
const READ_OR_WRITE: i32 = 6;

/// Attaches the filter to a group, in place of one that is there.
///
/// # Errors
/// If the kernel cannot filter devices by program.
pub(crate) fn attach(group: &Path) -> io::Result<()> {
    sys::attach_device_filter(File::open(group)?.as_fd(), &program())
}

/// One instruction: operation, destination and source register, offset, value.
fn op(code: u8, registers: u8, offset: i16, value: i32) -> u64 {
    let [c, r] = [u64::from(code), u64::from(registers)];
    let [o, v] = [u64::from(offset.cast_unsigned()), u64::from(value.cast_unsigned())];
    if cfg!(target_endian = "little") {
        c | r << 8 | o << 16 | v << 32
    } else {
        c << 56 | r << 48 | o << 32 | v
    }
}

/// Register 1 points to three words on entry: what is asked (high half) of what kind of device (low
/// half), its major and its minor number. Register 0 is the answer.
fn program() -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const UNLESS_EQUAL: u8 = 0x55;
    const EXIT: u8 = 0x95;
    let answer = |yes: i32| [op(SET, 0, 0, yes), op(EXIT, 0, 0, 0)];

    let mut program = vec![
        op(LOAD_WORD, 0x12, 0, 0),
        op(LOAD_WORD, 0x14, 4, 0),
        op(LOAD_WORD, 0x15, 8, 0),
        op(MOVE, 0x23, 0, 0),
        op(AND, 3, 0, 0xffff),
        op(SHIFT_RIGHT, 2, 0, 16),
        op(AND, 2, 0, READ_OR_WRITE),
        op(UNLESS_EQUAL, 2, 2, 0), // only to be made
    ];
    program.extend(answer(1));
    program.push(op(0x15, 3, 2, CHARACTER)); // skip the refusal if equal
    program.extend(answer(0));
    for (major, minor) in USABLE {
        program.push(op(UNLESS_EQUAL, 4, 3, major));
        program.push(op(UNLESS_EQUAL, 5, 2, minor));
        program.extend(answer(1));
    }
    program.push(op(UNLESS_EQUAL, 4, 2, TERMINALS));
    program.extend(answer(1));
    program.extend(answer(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn unified() -> Option<std::path::PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let line = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2"))?.to_owned();
        line.split(' ').nth(1).map(Into::into)
    }

    #[test]
    fn a_group_with_the_filter_has_only_the_harmless_devices() {
        let Some(mount) = unified() else { return };
        let group = mount.join(format!("swarmd-device-test-{}", std::process::id()));
        fs::create_dir(&group).expect("mkdir");
        let attached = attach(&group).and_then(|()| attach(&group));
        let dir = tempfile::tempdir().expect("temp dir");
        let script = "echo 0 > $GROUP/cgroup.procs && cat < /dev/null && head -c1 /dev/zero > /dev/null && \
                      mknod disk b 7 99 && mknod port c 10 1 && ! cat disk && ! cat port";
        let output = Command::new("sh")
            .args(["-c", script])
            .env("GROUP", &group)
            .env("LC_ALL", "C")
            .current_dir(dir.path())
            .output();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while fs::remove_dir(&group).is_err() {
            assert!(std::time::Instant::now() < deadline, "group stays");
        }
        attached.expect("attach, twice");
        let output = output.expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches("Operation not permitted").count(), 2, "{said}");
    }
}
