//! Observed: what a node finds of its containers — how one ended, which ones exist.
//!
//! Reads:   nothing; plain values.
//! Writes:  nothing.
//! Never:   knows how a container is made.
//! Start:   [`Found`], [`Exit`].

use swarm_types::task::ContainerStatus;
use swarm_types::time::Timestamp;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Exit code; killed by signal n: 128 + n.
    pub code: i32,
    /// The kernel killed it for using more memory than its limit.
    pub oom_killed: bool,
    /// When, by the node's clock; zero if nobody saw it.
    pub at: Timestamp,
}

/// A container that exists on the node, found after a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id, its pid if it runs.
    pub container: ContainerStatus,
    /// What it does.
    pub state: FoundState,
}

/// What a container that was found does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// It was made and never started.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Exited(Exit),
}
