//! ContainerConfig: all that the supervisor has to know to make a container real.
//!
//! A plain format of our own. `version` changes when an older supervisor could not read it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupPlan;

/// The version that this code writes. From 2 on a container may join a network namespace.
pub const CONFIG_VERSION: u32 = 2;
/// The oldest version that it reads: all that an older one can say means the same.
pub const OLDEST_VERSION: u32 = 1;

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerConfig {
    /// [`CONFIG_VERSION`].
    pub version: u32,
    /// Name of the container: `[A-Za-z0-9][A-Za-z0-9_.-]*`.
    pub id: String,
    /// The image's layers as directories in overlay format, topmost first. At least one.
    pub layers: Vec<PathBuf>,
    /// Program and arguments. The program is searched in the container's `$PATH`.
    pub args: Vec<String>,
    /// `NAME=value`. `PATH`, `HOSTNAME` and `HOME` are added where missing, as Docker does.
    pub env: Vec<String>,
    /// Working directory; made if missing. Empty: `/`.
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty: root. Names are looked up in the container.
    pub user: String,
    /// Additional groups, names or numbers.
    pub groups: Vec<String>,
    /// Host name. Empty: the first twelve characters of the id.
    pub hostname: String,
    /// The root may not be written to.
    pub read_only: bool,
    /// In this order, over the root.
    pub mounts: Vec<Mount>,
    /// Files of the host that lie over files of the container (`/etc/hosts`, …).
    pub files: Vec<FileMount>,
    /// `CAP_…` names.
    pub capabilities: Vec<String>,
    /// Programs cannot gain rights by set-user-id bits.
    pub no_new_privileges: bool,
    /// Resource limits of the first process.
    pub rlimits: Vec<Rlimit>,
    /// What the container may use.
    pub limits: Limits,
    /// How the limits are made real on this machine; filled in by the runtime.
    pub cgroup: CgroupPlan,
    /// Network namespace.
    pub network: Network,
    /// Paths that read as empty.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written to.
    pub read_only_paths: Vec<String>,
    /// Docker's default system call filter.
    pub seccomp: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// -1000..=1000: how eagerly the kernel kills this container when the machine is out of memory.
    pub oom_score_adj: i32,
    /// The signal that asks the container to end.
    pub stop_signal: i32,
    /// Bounds of the log.
    pub log: LogSettings,
    /// Kept with the container, read back by `list`.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Something mounted over the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Mount {
    /// A directory or file of the host (also: a volume).
    Bind {
        /// Absolute path on the host; must exist.
        source: PathBuf,
        /// Absolute path in the container; made if missing.
        target: String,
        /// Cannot be written to (mounts below it neither).
        #[serde(default)]
        read_only: bool,
        /// What later mounts on either side do to the other.
        #[serde(default)]
        propagation: Propagation,
        /// Leave out the mounts below the source.
        #[serde(default)]
        non_recursive: bool,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path in the container; made if missing.
        target: String,
        /// Bytes; 0: half of the machine's memory.
        #[serde(default)]
        size_bytes: u64,
        /// Permission bits of its root; 0: 1777.
        #[serde(default)]
        mode: u32,
    },
}

/// Mount propagation, in the kernel's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither side sees the other's mounts, below neither.
    #[default]
    Rprivate,
    /// Neither side sees the other's mounts.
    Private,
    /// The container sees the host's later mounts, below too.
    Rslave,
    /// The container sees the host's later mounts.
    Slave,
    /// Both see each other's later mounts, below too.
    Rshared,
    /// Both see each other's later mounts.
    Shared,
}

/// A file of the host over a file of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Cannot be written to.
    #[serde(default)]
    pub read_only: bool,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, `core`, … as `ulimit` in Docker.
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Upper bounds; 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// Memory (and swap: none on top).
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What the container sees of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A namespace of its own with loopback only.
    #[default]
    None,
    /// The host's.
    Host,
    /// One that somebody made, by its file. Who made it has switched its loopback on.
    Namespace(PathBuf),
}

/// Bounds of the log: at most `max_size × max_files` bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Bytes after which a new file is begun.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 3 }
    }
}

impl Default for ContainerConfig {
    /// An empty root-user container with Docker's default confinement.
    fn default() -> Self {
        Self {
            version: CONFIG_VERSION,
            id: String::new(),
            layers: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            groups: Vec::new(),
            hostname: String::new(),
            read_only: false,
            mounts: Vec::new(),
            files: Vec::new(),
            capabilities: crate::capability::DEFAULT.iter().map(|c| (*c).to_owned()).collect(),
            no_new_privileges: false,
            rlimits: Vec::new(),
            limits: Limits::default(),
            cgroup: CgroupPlan::default(),
            network: Network::None,
            masked_paths: MASKED.iter().map(|p| (*p).to_owned()).collect(),
            read_only_paths: READ_ONLY.iter().map(|p| (*p).to_owned()).collect(),
            seccomp: true,
            shm_bytes: 64 << 20,
            oom_score_adj: 0,
            stop_signal: libc::SIGTERM,
            log: LogSettings::default(),
            labels: std::collections::BTreeMap::new(),
        }
    }
}

/// Docker's masked paths.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Docker's read-only paths.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_through_json_unchanged() {
        let mut config = ContainerConfig { id: "a".into(), ..Default::default() };
        config.mounts.push(Mount::Tmpfs { target: "/t".into(), size_bytes: 1, mode: 0o700 });
        let text = serde_json::to_string(&config).expect("serializes");
        assert_eq!(serde_json::from_str::<ContainerConfig>(&text).expect("parses"), config);
    }

    #[test]
    fn a_network_of_the_first_version_means_the_same() {
        for (text, network) in [("\"none\"", Network::None), ("\"host\"", Network::Host)] {
            assert_eq!(serde_json::from_str::<Network>(text).expect("parses"), network);
            assert_eq!(serde_json::to_string(&network).expect("serializes"), text);
        }
    }

    #[test]
    fn refuses_fields_it_does_not_know() {
        assert!(serde_json::from_str::<ContainerConfig>(r#"{"privileged": true}"#).is_err());
    }

    #[test]
    fn a_bind_needs_only_source_and_target() {
        let mount: Mount =
            serde_json::from_str(r#"{"type":"bind","source":"/a","target":"/b"}"#).expect("parses");
        let Mount::Bind { propagation, read_only, .. } = mount else { panic!("not a bind") };
        assert_eq!((propagation, read_only), (Propagation::Rprivate, false));
    }
}
