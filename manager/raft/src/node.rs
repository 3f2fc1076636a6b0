//! The driver: one thread that ties the core to a clock, a disk and a transport.
//!
//! Everything that must be in order happens on that thread, in the order that [`crate::core`]
//! demands: persist, then promise. The state machine is applied there too: it is memory, an entry
//! takes microseconds, and an entry is answered without waking a second thread. What may be slow
//! is elsewhere: [`StateMachine::snapshot`] only captures, writing it is a thread of its own.

mod disk;
mod driver;
mod handle;
mod snapshotter;
mod status;
mod waiters;

use std::any::Any;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::id::{NodeId, Seed};

use crate::core::CoreSettings;
use crate::log::LogOptions;
use crate::members::Member;
use crate::seal::DataKey;
use crate::transport::Transport;

pub use disk::StartError;
pub use handle::{
    Applied, IncomingSnapshot, ProposeError, RaftHandle, ReadError, ReceiveError, WeakRaftHandle,
};
pub use status::{MemberStatus, Quorum, Status};

/// What applying an entry gives to whoever proposed it, on the manager that proposed it.
pub type Response = Box<dyn Any + Send>;

/// What the entries mean. Deterministic: all managers apply the same ones in the same order.
pub trait StateMachine: Send + 'static {
    /// Makes a committed entry true. Must not fail and not wait.
    fn apply(&mut self, index: u64, term: u64, data: &[u8]) -> Response;

    /// Some entries were applied, up to this one: the moment to publish once for all of them.
    fn applied(&mut self, _index: u64) {}

    /// Captures the state as it is now, cheaply; it is written later, on another thread.
    fn snapshot(&mut self) -> Box<dyn SnapshotSource>;

    /// Replaces the state by what a snapshot holds. Called at start, and when this manager was
    /// away for so long that it is sent a snapshot.
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), RestoreError>;
}

/// A captured state on its way to disk.
pub trait SnapshotSource: Send {
    /// Writes all of it, piece by piece.
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()>;
}

/// A snapshot's content could not be taken over.
#[derive(Debug, thiserror::Error)]
#[error("the state cannot be restored from the snapshot: {0}")]
pub struct RestoreError(pub String);

impl From<io::Error> for RestoreError {
    fn from(e: io::Error) -> Self {
        Self(e.to_string())
    }
}

/// When to make snapshots and what to keep. May be changed while running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// After this many entries.
    pub every_entries: u64,
    /// Or after this many bytes of entries.
    pub every_bytes: u64,
    /// Entries kept before a snapshot, for followers that are a little slow.
    pub keep_entries: u64,
    /// Snapshots kept besides the newest.
    pub keep_old: usize,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { every_entries: 10_000, every_bytes: 64 << 20, keep_entries: 500, keep_old: 0 }
    }
}

/// The first manager of a new cluster.
#[derive(Debug, Clone)]
pub struct Founder {
    /// The node it is.
    pub node_id: NodeId,
    /// Where others will reach it.
    pub address: String,
}

/// How a manager takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who it is, and how patient. The seed must be a new one for each start.
    pub core: CoreSettings,
    /// Length of a tick.
    pub tick: Duration,
    /// Set to found a cluster; ignored if the directory holds one already.
    pub founder: Option<Founder>,
    /// Managers known from joining: used to reach them until the member table arrives.
    pub known: Vec<Member>,
    /// How long a proposal or a read may take before its caller is told that it is not known.
    pub timeout: Duration,
    /// When to make snapshots.
    pub snapshots: SnapshotPolicy,
    /// How the log is cut into files.
    pub log: LogOptions,
}

impl Settings {
    /// The usual settings: ticks of 100 ms, answers within 10 s.
    pub fn new(id: u64, seed: Seed) -> Self {
        Self {
            core: CoreSettings::new(id, seed),
            tick: Duration::from_millis(100),
            founder: None,
            known: Vec::new(),
            timeout: Duration::from_secs(10),
            snapshots: SnapshotPolicy::default(),
            log: LogOptions::default(),
        }
    }

    /// The settings of the first manager of a new cluster; its raft id is 1.
    pub fn found(node_id: NodeId, address: String, seed: Seed) -> Self {
        Self { founder: Some(Founder { node_id, address }), ..Self::new(1, seed) }
    }
}

/// Starts managers.
pub struct RaftNode;

impl RaftNode {
    /// Opens the directory, restores the state machine and starts the driver's thread. Blocks
    /// while reading the disk.
    pub fn start(
        settings: Settings,
        dir: &Path,
        key: DataKey,
        machine: Box<dyn StateMachine>,
        transport: Arc<dyn Transport>,
    ) -> Result<RaftHandle, StartError> {
        driver::start(settings, dir, &key, machine, transport)
    }

    /// The raft id under which this directory took part, if it ever did.
    pub fn stored_id(dir: &Path) -> Result<Option<u64>, StartError> {
        disk::stored_id(dir)
    }
}
