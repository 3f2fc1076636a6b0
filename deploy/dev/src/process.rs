//! A process that is surely ours: a pid is reused, but not with the same start time in the same boot.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks from the boot of the machine to its start (`/proc/PID/stat`, field 22).
    start: u64,
    boot: String,
}

impl Process {
    /// The process that has this pid now; none if it is gone or a zombie.
    pub(crate) fn of(pid: i32) -> Option<Process> {
        let (state, start) = stat(pid)?;
        (state != 'Z' && state != 'X').then(|| Process { pid, start, boot: boot_id() })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_alive() && stat(self.pid).is_some_and(|(state, _)| state == 'T' || state == 't')
    }

    /// Sends a signal if the process is still the one recorded; says whether it was.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }
}

fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name is in parentheses and may hold anything, also a parenthesis
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_not_another_of_the_same_pid() {
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive() && !own.is_stopped());
        let other = Process { start: own.start + 1, ..own };
        assert!(!other.is_alive());
        assert!(!other.signal(Signal::SIGKILL));
    }

    #[test]
    fn a_stopped_process_is_seen_and_a_zombie_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        assert!(process.signal(Signal::SIGSTOP));
        assert!(until(|| process.is_stopped()));
        assert!(process.signal(Signal::SIGKILL));
        assert!(until(|| !process.is_alive()));
        child.wait().unwrap();
    }

    fn until(mut condition: impl FnMut() -> bool) -> bool {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::time::Instant::now() < end {
            if condition() {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        false
    }
}
