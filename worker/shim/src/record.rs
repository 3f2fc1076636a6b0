//! Records: the small files by which supervisor and daemon tell each other what happened.
//!
//! Each is written whole to a temporary name and renamed, so a reader sees all of it or none.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Process {
    /// Number in the host's pid namespace.
    pub pid: i32,
    /// Clock ticks between boot and its start (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// Which boot of the machine: numbers and times begin anew with each.
    pub boot: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn find(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))?;
        Ok(Self { pid, start_time, boot: boot()? })
    }

    /// True if it is still there (perhaps as a zombie).
    pub fn is_present(self) -> bool {
        Self::find(self.pid).is_ok_and(|now| now == self)
    }

    /// `pid start_time boot`, as in the lock file.
    pub fn to_line(self) -> String {
        format!("{} {} {}\n", self.pid, self.start_time, self.boot)
    }

    /// Reads [`Process::to_line`].
    pub fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.strip_suffix('\n')?.split(' ');
        let pid = fields.next()?.parse().ok()?;
        let [start_time, boot] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
        Some(Self { pid, start_time, boot })
    }
}

/// The first half of the kernel's boot id, a random number.
fn boot() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).map_err(io::Error::other)
}

/// Field 22; the name in field 2 may hold blanks and brackets, so count from the last bracket.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The container's first process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Started {
    /// The container's first process.
    pub init: Process,
    /// Its supervisor.
    pub supervisor: Process,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
}

/// The container never ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct StartFailure {
    /// Docker's exit codes: 127 not found, 126 not executable, 125 all else.
    pub code: i32,
    /// What was attempted and why it failed.
    pub message: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub failed_at_ms: u64,
}

impl StartFailure {
    /// A failure to set the container up.
    pub fn setup(message: impl Into<String>) -> Self {
        Self { code: 125, message: message.into(), failed_at_ms: 0 }
    }
}

/// How the container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Milliseconds since 1970.
    pub finished_at_ms: u64,
    /// Why there is no better news (it never started, or its supervisor was lost).
    pub error: Option<String>,
}

/// Whether a record must survive a loss of power once it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It means nothing after a reboot.
    ThisBoot,
    /// Its bytes are on disk before its name is.
    Synced,
}

/// Writes a record so that readers see all or nothing.
pub fn write<T: Serialize>(path: &Path, record: &T, durability: Durability) -> io::Result<()> {
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&text)?;
    if durability == Durability::Synced {
        file.sync_data()?;
    }
    std::fs::rename(&temporary, path)
}

/// Reads a record; `None` if there is none. A torn one (power was lost) counts as none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_start_time_behind_an_odd_name() {
        let mut fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        fields[0] = "S".into();
        let stat = format!("17 (a) b (c) {}", fields.join(" "));
        assert_eq!(start_time(&stat), Some(22));
        assert_eq!(start_time("17 (x) S 1"), None);
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let me = Process::find(i32::try_from(std::process::id()).expect("pid")).expect("found");
        assert!(me.is_present());
        assert!(!Process { start_time: me.start_time + 1, ..me }.is_present());
        assert!(!Process { boot: me.boot ^ 1, ..me }.is_present());
        assert_eq!(Process::from_line(&me.to_line()), Some(me));
        assert_eq!(Process::from_line("12"), None);
        assert_eq!(Process::from_line("12 13 14"), None, "torn");
    }

    #[test]
    fn torn_records_count_as_none() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("exit.json");
        assert_eq!(read::<Exit>(&path).expect("readable"), None);
        let exit =
            Exit { code: 3, signal: None, oom_killed: false, finished_at_ms: 9, error: Some("x".into()) };
        write(&path, &exit, Durability::Synced).expect("written");
        assert_eq!(read::<Exit>(&path).expect("readable"), Some(exit));
        std::fs::write(&path, b"{\"code\":").expect("torn");
        assert_eq!(read::<Exit>(&path).expect("readable"), None);
    }
}
