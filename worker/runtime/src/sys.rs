//! The kernel calls of this crate that have no safe wrapper, and nothing else.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(result).expect("a descriptor fits in 32 bits");
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A handle of a process; readable once it has ended.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process behind a handle.
pub(crate) fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open and the siginfo may be null.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A handle that becomes readable when one of the watched directories changes.
pub(crate) fn inotify() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    descriptor(libc::c_long::from(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }))
}

/// Watches a directory: what is written, made, moved or removed in it, and its own end.
pub(crate) fn inotify_watch(inotify: BorrowedFd<'_>, dir: &Path) -> io::Result<()> {
    let mask = libc::IN_MODIFY
        | libc::IN_CREATE
        | libc::IN_MOVED_TO
        | libc::IN_MOVED_FROM
        | libc::IN_MOVE_SELF
        | libc::IN_DELETE_SELF;
    let dir = CString::new(dir.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open and the path is a C string.
    let result = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), dir.as_ptr(), mask) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a program that decides about devices to a control group, in place of one that is there.
pub(crate) fn attach_device_filter(group: BorrowedFd<'_>, program: &[u64]) -> io::Result<()> {
    #[repr(C)]
    struct Load {
        kind: u32,
        length: u32,
        program: u64,
        license: u64,
        log: [u64; 2],
        version_and_flags: u64,
    }
    #[repr(C)]
    struct Attach {
        group: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    const PROG_LOAD: libc::c_long = 5;
    const PROG_ATTACH: libc::c_long = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const CGROUP_DEVICE: u32 = 6;
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        length: u32::try_from(program.len()).map_err(io::Error::other)?,
        program: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log: [0; 2],
        version_and_flags: 0,
    };
    // SAFETY: both structures have the layout the kernel expects of these commands and live, with
    // what they point to, through the calls.
    unsafe {
        let size = std::mem::size_of::<Load>();
        let program = descriptor(libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size))?;
        let attach = Attach {
            group: group.as_raw_fd().cast_unsigned(),
            program: program.as_raw_fd().cast_unsigned(),
            kind: CGROUP_DEVICE,
            flags: 0,
        };
        let size = std::mem::size_of::<Attach>();
        match libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Lets a future wait until a descriptor is readable.
pub(crate) fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the AsyncFd, so it is open for as long as it is registered.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(|e| e.into_parts().1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn signal_zero_only_asks() {
        let me = pidfd_open(i32::try_from(std::process::id()).expect("pid")).expect("open");
        pidfd_send_signal(me.as_fd(), 0).expect("we are here");
        assert!(pidfd_open(i32::MAX).is_err());
    }
}
