//! [`ContainerSpec`]: what is to run, as the user said it.

use std::time::Duration;

use crate::meta::Labels;

/// The program of a task and its surroundings. Empty fields mean "as the image says".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSpec {
    /// Image reference, as the user wrote it.
    pub image: String,
    /// Replaces the image's entrypoint (Docker calls it `Command`).
    pub entrypoint: Vec<String>,
    /// Arguments: replace the image's command (Docker calls it `Args`).
    pub args: Vec<String>,
    /// `NAME=value` pairs, over the image's.
    pub env: Vec<String>,
    /// Host name in the container; may hold placeholders such as `{{.Task.Slot}}`.
    pub hostname: String,
    /// Working directory.
    pub dir: String,
    /// `user[:group]`, names or numbers.
    pub user: String,
    /// Labels of the container (not of the service).
    pub labels: Labels,
    /// Bind and tmpfs mounts.
    pub mounts: Vec<Mount>,
    /// Signal that asks the container to stop, e.g. `SIGTERM`.
    pub stop_signal: String,
    /// Time between the stop signal and SIGKILL; none means the default of 10 s.
    pub stop_grace_period: Option<Duration>,
    /// Root file system mounted read-only.
    pub read_only: bool,
    /// Which network the container sees.
    pub network: ContainerNetwork,
}

/// Which network a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerNetwork {
    /// Its own, with nothing but loopback.
    #[default]
    Loopback,
    /// Its own, with a way out through the node.
    Bridge,
    /// The node's.
    Host,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Path on the node (bind); empty for tmpfs.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Cannot be written through this mount.
    pub read_only: bool,
}

/// The kinds of [`Mount`], with what only they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the node, which must exist.
    Bind {
        /// How mounts made later are seen on the other side.
        propagation: Propagation,
        /// Mounts below the source come along.
        recursive: bool,
    },
    /// Memory, gone with the container.
    Tmpfs {
        /// Size limit in bytes; 0 means the kernel's default (half of memory).
        size_bytes: u64,
        /// Permission bits of its root; 0 means 1777.
        mode: u32,
    },
}

impl Default for MountKind {
    fn default() -> Self {
        MountKind::Bind { propagation: Propagation::default(), recursive: true }
    }
}

/// Mount propagation (mount_namespaces(7)). `rprivate` is Docker's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Propagation {
    #[default]
    RPrivate,
    Private,
    RShared,
    Shared,
    RSlave,
    Slave,
}

impl Propagation {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::RPrivate => "rprivate",
            Propagation::Private => "private",
            Propagation::RShared => "rshared",
            Propagation::Shared => "shared",
            Propagation::RSlave => "rslave",
            Propagation::Slave => "slave",
        }
    }
    /// The propagation that Docker's word names.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::RPrivate, Self::Private, Self::RShared, Self::Shared, Self::RSlave, Self::Slave]
            .into_iter()
            .find(|p| p.as_str() == word)
    }
}
