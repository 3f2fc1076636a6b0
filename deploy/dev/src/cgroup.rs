//! The cgroups of a cluster: `swarm-dev/N/HOST` holds everything of a host, so that one write ends it all.
//!
//! Processes are in the v2 hierarchy (on a hybrid machine the one at `/sys/fs/cgroup/unified`); daemons
//! may make cgroups of the same path in v1 hierarchies for limits, and those are removed here as well.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::SystemError;

/// The first part of every cluster's cgroup path.
pub(crate) const PARENT: &str = "swarm-dev";
const LIMIT: Duration = Duration::from_secs(10);

/// Mount points of the cgroup hierarchies: the v2 one, and the v1 ones.
fn hierarchies() -> (Option<PathBuf>, Vec<PathBuf>) {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut v2 = None;
    let mut v1 = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        match (words.next(), words.next()) {
            (Some(path), Some("cgroup2")) => v2 = v2.or_else(|| Some(PathBuf::from(path))),
            (Some(path), Some("cgroup")) => v1.push(PathBuf::from(path)),
            _ => {}
        }
    }
    (v2, v1)
}

pub(crate) fn has_v2() -> bool {
    hierarchies().0.is_some()
}

/// Makes the cgroup of a host; returns the directory its processes enter.
///
/// On a pure v2 machine controllers are handed down to `swarm-dev/N/HOST`; processes sit in a leaf `host`
/// because a v2 cgroup holds either processes or children with controllers.
pub(crate) fn make(cluster: &str, host: &str) -> Result<PathBuf, SystemError> {
    let (v2, _) = hierarchies();
    let mut at = v2.unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup"));
    hand_down(&at);
    for part in [PARENT, cluster, host] {
        at.push(part);
        make_dir(&at)?;
        hand_down(&at);
    }
    at.push("host");
    make_dir(&at)?;
    Ok(at)
}

fn make_dir(path: &Path) -> Result<(), SystemError> {
    std::fs::create_dir_all(path).map_err(SystemError::file("make the cgroup", path))
}

fn hand_down(path: &Path) {
    let controllers = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_ascii_whitespace() {
        // a controller that cannot be handed down (the parent holds processes) is the daemon's to miss
        std::fs::write(path.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// Kills every process in the cgroup (`N` or `N/HOST`) and waits until none is left, then removes it from
/// every hierarchy.
pub(crate) fn end(path: &str) -> Result<(), SystemError> {
    let (v2, v1) = hierarchies();
    let relative = Path::new(PARENT).join(path);
    for root in v2.iter().chain(&v1) {
        let dir = root.join(&relative);
        if dir.is_dir() {
            kill_all(&dir);
            remove_tree(&dir)?;
        }
    }
    Ok(())
}

/// Removes `swarm-dev` where no cluster is left in it.
pub(crate) fn tidy() {
    let (v2, v1) = hierarchies();
    for root in v2.iter().chain(&v1) {
        std::fs::remove_dir(root.join(PARENT)).ok();
    }
}

/// The cgroup directories a cluster has, in any hierarchy.
pub(crate) fn directories(cluster: &str) -> Vec<PathBuf> {
    let (v2, v1) = hierarchies();
    v2.iter().chain(&v1).map(|root| root.join(PARENT).join(cluster)).filter(|dir| dir.is_dir()).collect()
}

/// The processes in a cgroup and below.
pub(crate) fn processes(dir: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(children(dir).iter().flat_map(|child| processes(child)));
    pids
}

fn kill_all(dir: &Path) {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        // cgroup.kill (Linux 5.14) takes all at once; elsewhere one by one until none appears any more
        if std::fs::write(dir.join("cgroup.kill"), "1").is_err() {
            for pid in processes(dir) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        if processes(dir).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a tree of cgroups; the kernel calls one busy for a moment after its last process ended.
fn remove_tree(dir: &Path) -> Result<(), SystemError> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    let end = Instant::now() + LIMIT;
    loop {
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= end => {
                return Err(SystemError::file("remove the cgroup", dir)(error));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
