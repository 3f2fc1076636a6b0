//! Where a cluster keeps its things: a disk directory and a run directory, both named after it.

use std::path::{Path, PathBuf};

/// The two roots below which clusters live.
///
/// `run` is the registry of the machine (sockets are there too, so it stays short); `disk` holds state
/// and logs and may be elsewhere per user: `SWARM_DEV_ROOT`.
#[derive(Clone, Debug)]
pub struct Places {
    pub disk: PathBuf,
    pub run: PathBuf,
}

impl Places {
    /// `/var/lib/swarm-dev` (or `SWARM_DEV_ROOT`) and `/run/swarm-dev`.
    pub fn from_env() -> Places {
        let disk = std::env::var_os("SWARM_DEV_ROOT").filter(|root| !root.is_empty());
        Places {
            disk: disk.map_or_else(|| PathBuf::from("/var/lib/swarm-dev"), PathBuf::from),
            run: PathBuf::from("/run/swarm-dev"),
        }
    }

    pub(crate) fn of(&self, cluster: &str) -> Place {
        let run = self.run.join(cluster);
        let disk = std::fs::read_link(run.join("disk")).unwrap_or_else(|_| self.disk.join(cluster));
        Place { disk, run }
    }
}

/// The directories of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) disk: PathBuf,
    pub(crate) run: PathBuf,
}

impl Place {
    pub(crate) fn record(&self) -> PathBuf {
        self.disk.join("cluster.json")
    }

    pub(crate) fn hosts_file(&self) -> PathBuf {
        self.disk.join("hosts")
    }

    pub(crate) fn host(&self, host: &str) -> PathBuf {
        self.disk.join(host)
    }

    pub(crate) fn log(&self, host: &str) -> PathBuf {
        self.host(host).join("log/swarmd.log")
    }

    pub(crate) fn socket(&self, host: &str) -> PathBuf {
        self.run.join(format!("{host}.sock"))
    }
}

/// Says whether `name` may name a cluster: short, so that sockets and namespaces stay within their limits.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=8).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The last `lines` lines of a file, or a word about why there are none.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let Ok(bytes) = std::fs::read(path) else { return format!("  (no file {})", path.display()) };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    if all.is_empty() {
        return format!("  ({} is empty)", path.display());
    }
    let last: Vec<String> = all.iter().rev().take(lines).rev().map(|line| format!("  {line}")).collect();
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["1", "demo", "a2345678"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a23456789", "A", "a-b", "../x", "a b", "é"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_socket_fits_into_its_address() {
        let place = Places::from_env().of("a2345678");
        assert!(place.socket("w100").as_os_str().len() < 108);
    }

    #[test]
    fn tail_shows_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(tail(&log, 2).contains("no file"));
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "  two\n  three");
    }
}
