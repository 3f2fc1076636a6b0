//! CgroupPlan: which control groups a container gets and what is written into them.
//!
//! The runtime knows the machine's hierarchies (version 1, 2 or both) and makes the plan; the
//! supervisor only carries it out, without having to look around first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// All control groups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupPlan {
    /// One per hierarchy.
    pub groups: Vec<Group>,
    /// The file whose `oom_kill` line counts processes killed for want of memory.
    pub oom_file: Option<PathBuf>,
    /// What to mount below `/sys/fs/cgroup` in the container.
    pub views: Vec<View>,
}

/// One control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Absolute path of its directory; its parent belongs to the runtime.
    pub dir: PathBuf,
    /// Files of it and their content, in this order.
    #[serde(default)]
    pub writes: Vec<(String, String)>,
}

/// The ways into a container's groups.
///
/// To move a process by its number the kernel waits for all processors to pass a quiet point, some
/// ten milliseconds. Neither being born into a group (version 2) nor a single thread's moving of
/// itself (version 1) has to wait.
#[derive(Debug, Default)]
pub struct Doors {
    /// `tasks` files of version 1.
    tasks: Vec<fs::File>,
    /// Directory of version 2: new processes are born into it.
    pub(crate) born_into: Option<fs::File>,
}

impl Doors {
    /// Moves the calling process, which must have one thread, into the version 1 groups.
    pub(crate) fn enter(self) -> io::Result<()> {
        use std::io::Write;
        self.tasks.into_iter().try_for_each(|mut tasks| tasks.write_all(b"0"))
    }
}

/// What a container sees of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Directory below `/sys/fs/cgroup`; empty: that directory itself.
    pub name: String,
    /// `cgroup` or `cgroup2`.
    pub fstype: String,
    /// Mount options (`memory`; nothing for version 2).
    pub options: String,
}

impl CgroupPlan {
    /// Makes the groups and sets the limits. What it returns lets a process into them, also one that
    /// does not see their directories any more.
    ///
    /// # Errors
    /// The thing attempted and the cause.
    pub fn make(&self) -> Result<Doors, String> {
        let mut doors = Doors::default();
        for group in &self.groups {
            make(&group.dir).map_err(|e| format!("create cgroup {}: {e}", group.dir.display()))?;
            for (file, value) in &group.writes {
                put(&group.dir.join(file), value)
                    .map_err(|e| format!("write {value} to {}: {e}", group.dir.join(file).display()))?;
            }
            let open = |e| format!("open cgroup {}: {e}", group.dir.display());
            match fs::OpenOptions::new().write(true).open(group.dir.join("tasks")) {
                Ok(tasks) => doors.tasks.push(tasks),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    doors.born_into = Some(fs::File::open(&group.dir).map_err(open)?);
                }
                Err(e) => return Err(open(e)),
            }
        }
        Ok(doors)
    }

    /// True if the kernel killed a process of the container for want of memory.
    pub fn oom_killed(&self) -> bool {
        self.oom_file.as_ref().is_some_and(|file| {
            fs::read_to_string(file).is_ok_and(|text| {
                text.lines()
                    .filter_map(|line| line.strip_prefix("oom_kill "))
                    .any(|count| count.trim() != "0")
            })
        })
    }

    /// Processes that are still in any of the groups.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.groups.iter().flat_map(|g| processes(&g.dir)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Removes the groups that are empty; true if none is left.
    pub fn remove(&self) -> bool {
        self.groups.iter().filter(|g| !remove_tree(&g.dir)).count() == 0
    }
}

/// The processes in one group and the groups below it.
pub fn processes(dir: &Path) -> Vec<i32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|l| l.parse().ok()).filter(|p| *p > 0).collect();
    pids.extend(below(dir).iter().flat_map(|d| processes(d)));
    pids
}

/// Removes a group and those that the container made below it; true if it is gone.
pub fn remove_tree(dir: &Path) -> bool {
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(_) => {
            let children = below(dir);
            !children.is_empty() && children.iter().all(|d| remove_tree(d)) && fs::remove_dir(dir).is_ok()
        }
    }
}

/// The groups directly below `dir`.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir),
        other => other,
    }
}

/// Control files take one write per value and must not be truncated or made.
fn put(file: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_oom_counter_of_both_versions() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("events");
        let plan = CgroupPlan { oom_file: Some(file.clone()), ..Default::default() };
        assert!(!plan.oom_killed());
        fs::write(&file, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n").expect("write");
        assert!(!plan.oom_killed());
        fs::write(&file, "low 0\noom 1\noom_kill 1\noom_group_kill 0\n").expect("write");
        assert!(plan.oom_killed());
    }

    #[test]
    fn removes_what_the_container_made_below() {
        let dir = tempfile::tempdir().expect("temp dir");
        let group = dir.path().join("c");
        fs::create_dir_all(group.join("a/b")).expect("mkdir");
        assert!(remove_tree(&group));
        assert!(remove_tree(&group), "gone already");
    }

    #[test]
    fn a_failure_names_the_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let group = Group { dir: dir.path().join("g"), writes: vec![("cpu.max".into(), "1 2".into())] };
        let plan = CgroupPlan { groups: vec![group], ..Default::default() };
        let error = plan.make().expect_err("no such control file");
        assert!(error.contains("cpu.max"), "{error}");
    }
}
