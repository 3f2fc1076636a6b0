//! Control groups of this machine: which controllers exist in which hierarchy, what limits they can
//! enforce, and where the groups of a container lie.
//!
//! Both versions are found in the field, also at once ("hybrid": controllers in version 1, an empty
//! version 2 beside them). A limit that no controller here can enforce is dropped with a warning.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use swarm_worker_shim::cgroup::{CgroupPlan, Group, View, below, processes, remove_tree};
use swarm_worker_shim::config::Limits;

use crate::device_filter;

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// One hierarchy per controller or few.
    V1,
    /// One hierarchy for all.
    V2,
}

/// One mounted hierarchy: of version 1 with controllers that we use, or of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its version.
    pub version: Version,
    /// Its controllers, as far as we use them.
    pub controllers: BTreeSet<String>,
}

/// What this machine has. Plain data: what is advertised to the cluster is read from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controllers {
    /// At most one per controller.
    pub hierarchies: Vec<Hierarchy>,
}

/// What a container used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in bytes, without page cache that can be dropped at once.
    pub memory_bytes: u64,
    /// Limit of memory in bytes; 0: none.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A failure to prepare the parent group.
#[derive(Debug, thiserror::Error)]
#[error("prepare cgroup {}", path.display())]
pub struct PrepareError {
    /// The group or file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

const USED: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];
const PERIOD_US: u64 = 100_000;
const LONGEST_PERIOD_US: u64 = 1_000_000;
const SHORTEST_QUOTA_US: u64 = 1_000;

/// What Docker lets a container do with devices: make any node, use the harmless ones.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

impl Controllers {
    /// Looks at this machine.
    ///
    /// # Errors
    /// If the mount table cannot be read.
    pub fn probe() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::from_mounts(&mounts, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        }))
    }

    /// `mounts` is a mountinfo table; `available` reads the controllers of a version 2 hierarchy.
    fn from_mounts(mounts: &str, available: impl Fn(&Path) -> String) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let right: Vec<&str> = right.split(' ').collect();
            let left: Vec<&str> = left.split(' ').collect();
            let (Some(root), Some(mount)) = (left.get(3), left.get(4)) else { continue };
            let (fstype, options) = (right[0], right.get(2).copied().unwrap_or_default());
            let mount = PathBuf::from(mount);
            if *root != "/" {
                continue;
            }
            let (version, names) = match fstype {
                "cgroup" => (Version::V1, options.replace(',', " ")),
                "cgroup2" => (Version::V2, available(&mount)),
                _ => continue,
            };
            found.add(mount, version, &names);
        }
        found
    }

    fn add(&mut self, mount: PathBuf, version: Version, names: &str) {
        let known: BTreeSet<String> =
            self.hierarchies.iter().flat_map(|h| h.controllers.iter().cloned()).collect();
        let controllers: BTreeSet<String> = names
            .split_whitespace()
            .filter(|name| USED.contains(name) && !known.contains(*name))
            .map(str::to_owned)
            .collect();
        // Version 2 keeps processes apart even where version 1 has all the controllers.
        if !controllers.is_empty() || version == Version::V2 {
            self.hierarchies.push(Hierarchy { mount, version, controllers });
        }
    }

    fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.controllers.contains(controller))
    }

    /// True if limits on `cpu`, `memory` or `pids` can be enforced here.
    pub fn has(&self, controller: &str) -> bool {
        self.with(controller).is_some()
    }

    /// `1`, `2`, `hybrid` (controllers in version 1, version 2 beside them; Docker says 1 to that), or nothing
    /// if there are no control groups.
    pub fn version(&self) -> &'static str {
        let any = |version| self.hierarchies.iter().any(|h| h.version == version);
        match (any(Version::V1), any(Version::V2)) {
            (true, true) => "hybrid",
            (true, false) => "1",
            (false, true) => "2",
            (false, false) => "",
        }
    }

    /// Makes the group below which all our containers live, in every hierarchy.
    ///
    /// # Errors
    /// The first group that cannot be made.
    pub fn prepare_parent(&self, parent: &str) -> Result<(), PrepareError> {
        for hierarchy in &self.hierarchies {
            let dir = within(&hierarchy.mount, parent);
            fs::create_dir_all(&dir).map_err(|source| PrepareError { path: dir.clone(), source })?;
            if hierarchy.version == Version::V2 {
                delegate(hierarchy, &dir);
                if !self.has("devices") {
                    device_filter::attach(&dir)
                        .map_err(|source| PrepareError { path: dir.clone(), source })?;
                }
            }
            if hierarchy.version == Version::V1 && hierarchy.controllers.contains("devices") {
                restrict_devices(&dir).map_err(|source| PrepareError { path: dir, source })?;
            }
        }
        Ok(())
    }

    /// The groups for one container and the limits written into them, and a warning for each limit
    /// that is dropped because nothing here can enforce it.
    pub fn plan(&self, parent: &str, id: &str, limits: Limits) -> (CgroupPlan, Vec<String>) {
        let mut plan = CgroupPlan::default();
        for hierarchy in &self.hierarchies {
            let dir = within(&hierarchy.mount, parent).join(id);
            if hierarchy.controllers.contains("memory") {
                plan.oom_file = Some(dir.join(match hierarchy.version {
                    Version::V1 => "memory.oom_control",
                    Version::V2 => "memory.events",
                }));
            }
            plan.groups.push(Group { dir, writes: writes(hierarchy, limits) });
            plan.views.extend(view(hierarchy));
        }
        let asked = [("cpu", limits.nano_cpus), ("memory", limits.memory_bytes), ("pids", limits.pids)];
        let dropped = asked.iter().filter(|(name, value)| *value > 0 && !self.has(name));
        let warnings = dropped.map(|(name, _)| format!("{name} limit dropped: no {name} controller here"));
        (plan, warnings.collect())
    }

    /// What the container `id` uses now; zero where there is no controller to ask.
    pub fn stats(&self, parent: &str, id: &str) -> Stats {
        let dir = |controller| self.with(controller).map(|h| (within(&h.mount, parent).join(id), h.version));
        let mut stats = Stats::default();
        match dir("cpuacct") {
            Some((dir, Version::V1)) => stats.cpu_nanos = number(&dir.join("cpuacct.usage")),
            _ => {
                if let Some((dir, Version::V2)) = dir("cpu") {
                    stats.cpu_nanos = field(&dir.join("cpu.stat"), "usage_usec").saturating_mul(1000);
                }
            }
        }
        if let Some((dir, version)) = dir("memory") {
            let (usage, limit, cache) = match version {
                Version::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
                Version::V2 => ("memory.current", "memory.max", "inactive_file"),
            };
            let droppable = field(&dir.join("memory.stat"), cache);
            stats.memory_bytes = number(&dir.join(usage)).saturating_sub(droppable);
            let limit = number(&dir.join(limit));
            stats.memory_limit_bytes = if limit >= 1 << 62 { 0 } else { limit }; // version 1's "none"
        }
        if let Some((dir, _)) = dir("pids") {
            stats.pids = number(&dir.join("pids.current"));
        }
        stats
    }

    /// Names of the groups below `parent`, in whatever hierarchy.
    pub fn ids(&self, parent: &str) -> BTreeSet<String> {
        let dirs = self.hierarchies.iter().flat_map(|h| below(&within(&h.mount, parent)));
        dirs.filter_map(|d| Some(d.file_name()?.to_str()?.to_owned())).collect()
    }

    /// The processes of `id`, in whatever hierarchy.
    pub fn processes(&self, parent: &str, id: &str) -> BTreeSet<i32> {
        self.hierarchies.iter().flat_map(|h| processes(&within(&h.mount, parent).join(id))).collect()
    }

    /// Removes the groups of `id`; true if none is left.
    pub fn remove(&self, parent: &str, id: &str) -> bool {
        self.hierarchies.iter().filter(|h| !remove_tree(&within(&h.mount, parent).join(id))).count() == 0
    }

    /// Removes the parent group itself, if it is empty.
    pub fn remove_parent(&self, parent: &str) {
        for hierarchy in &self.hierarchies {
            // Other daemons may have groups below it.
            let _removed = fs::remove_dir(within(&hierarchy.mount, parent));
        }
    }
}

fn within(mount: &Path, group: &str) -> PathBuf {
    mount.join(group.trim_start_matches('/'))
}

fn writes(hierarchy: &Hierarchy, limits: Limits) -> Vec<(String, String)> {
    let mut writes = Vec::new();
    let mut write = |file: &str, value: String| writes.push((file.to_owned(), value));
    let has = |name: &str| hierarchy.controllers.contains(name);
    let (period, quota) = cpu_quota(limits.nano_cpus);
    let memory = limits.memory_bytes;
    match hierarchy.version {
        Version::V1 => {
            if has("cpu") && limits.nano_cpus > 0 {
                write("cpu.cfs_period_us", period.to_string());
                write("cpu.cfs_quota_us", quota.to_string());
            }
            if has("memory") && memory > 0 {
                write("memory.limit_in_bytes", memory.to_string());
                if hierarchy.mount.join("memory.memsw.limit_in_bytes").exists() {
                    write("memory.memsw.limit_in_bytes", memory.to_string());
                }
            }
        }
        Version::V2 => {
            if has("cpu") && limits.nano_cpus > 0 {
                write("cpu.max", format!("{quota} {period}"));
            }
            if has("memory") && memory > 0 {
                write("memory.max", memory.to_string());
                if Path::new("/proc/swaps").exists() {
                    write("memory.swap.max", "0".to_owned());
                }
            }
        }
    }
    if has("pids") && limits.pids > 0 {
        write("pids.max", limits.pids.to_string());
    }
    writes
}

/// Period and quota in microseconds. The kernel takes no quota below 1 ms, so a small share gets a
/// longer period.
fn cpu_quota(nano_cpus: u64) -> (u64, u64) {
    let share = |period: u64| nano_cpus.saturating_mul(period) / 1_000_000_000;
    let period = if share(PERIOD_US) < SHORTEST_QUOTA_US { LONGEST_PERIOD_US } else { PERIOD_US };
    (period, share(period).max(SHORTEST_QUOTA_US))
}

fn view(hierarchy: &Hierarchy) -> Option<View> {
    match hierarchy.version {
        Version::V2 if hierarchy.controllers.is_empty() => None,
        Version::V2 => {
            Some(View { name: String::new(), fstype: "cgroup2".to_owned(), options: String::new() })
        }
        Version::V1 => {
            // Programs look for their limits here; nobody looks for their devices.
            if hierarchy.controllers.iter().all(|c| c == "devices") {
                return None;
            }
            let options = hierarchy.controllers.iter().cloned().collect::<Vec<_>>().join(",");
            let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
            Some(View { name, fstype: "cgroup".to_owned(), options })
        }
    }
}

/// Hands the controllers down from the root to `dir`. A controller that cannot be handed down shows
/// when a limit is written, with its file's name.
fn delegate(hierarchy: &Hierarchy, dir: &Path) {
    let chain: Vec<&Path> = dir.ancestors().take_while(|d| d.starts_with(&hierarchy.mount)).collect();
    for group in chain.into_iter().rev() {
        for controller in &hierarchy.controllers {
            let _enabled = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// Groups made below inherit this. It cannot be written once there are some, and need not be.
fn restrict_devices(dir: &Path) -> io::Result<()> {
    let allowed = fs::read_to_string(dir.join("devices.list"))?;
    if !allowed.starts_with("a ") || !below(dir).is_empty() {
        return Ok(());
    }
    fs::write(dir.join("devices.deny"), "a")?;
    DEVICES.iter().try_for_each(|rule| fs::write(dir.join("devices.allow"), rule))
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or_default()
}

fn field(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 27 0:21 / /proc rw - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 /x /elsewhere rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn limits() -> Limits {
        Limits { nano_cpus: 1_500_000_000, memory_bytes: 4096, pids: 7 }
    }

    #[test]
    fn hybrid_uses_version_1_and_drops_what_is_missing() {
        let found = Controllers::from_mounts(HYBRID, |_| "hugetlb\n".to_owned());
        assert_eq!((found.hierarchies.len(), found.version()), (4, "hybrid"));
        let (plan, warnings) = found.plan("/swarmd", "c1", limits());
        assert_eq!(warnings, ["pids limit dropped: no pids controller here"]);
        assert_eq!(plan.groups[0].dir, Path::new("/sys/fs/cgroup/cpu,cpuacct/swarmd/c1"));
        assert_eq!(plan.groups[0].writes[1], ("cpu.cfs_quota_us".into(), "150000".into()));
        assert_eq!(
            plan.oom_file.as_deref(),
            Some(Path::new("/sys/fs/cgroup/memory/swarmd/c1/memory.oom_control"))
        );
        let views: Vec<_> = plan.views.iter().map(|v| (v.name.as_str(), v.options.as_str())).collect();
        assert_eq!(plan.groups[3].dir, Path::new("/sys/fs/cgroup/unified/swarmd/c1"), "apart in both");
        assert_eq!(views, [("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory")]);
    }

    #[test]
    fn version_2_has_one_group_with_all_limits() {
        let line = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Controllers::from_mounts(line, |_| "cpuset cpu io memory pids\n".to_owned());
        let (plan, warnings) = found.plan("/a/b", "c1", limits());
        assert!(warnings.is_empty());
        assert_eq!((plan.groups.len(), found.version()), (1, "2"));
        assert_eq!(plan.groups[0].dir, Path::new("/sys/fs/cgroup/a/b/c1"));
        let writes: Vec<_> = plan.groups[0].writes.iter().map(|(f, v)| format!("{f}={v}")).collect();
        assert_eq!(writes, ["cpu.max=150000 100000", "memory.max=4096", "memory.swap.max=0", "pids.max=7"]);
    }

    #[test]
    fn without_control_groups_every_limit_is_dropped() {
        let (plan, warnings) = Controllers::default().plan("/p", "c", limits());
        assert_eq!((plan, warnings.len()), (CgroupPlan::default(), 3));
        assert_eq!(Controllers::default().version(), "");
        let old: String =
            HYBRID.lines().filter(|l| !l.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
        assert_eq!(Controllers::from_mounts(&old, |_| String::new()).version(), "1");
    }

    #[test]
    fn small_shares_get_a_longer_period() {
        assert_eq!(cpu_quota(500_000_000), (100_000, 50_000));
        assert_eq!(cpu_quota(5_000_000), (1_000_000, 5_000));
        assert_eq!(cpu_quota(1), (1_000_000, 1_000));
    }
}
