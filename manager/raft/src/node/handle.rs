//! The handle: what the rest of a manager says to the driver. Cheap to clone.

use std::io::{self, Write};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use bytes::Bytes;
use swarm_types::id::NodeId;
use tokio::sync::{Semaphore, oneshot, watch};

use super::waiters::{ProposeAnswer, ReadAnswer};
use super::{Quorum, Response, SnapshotPolicy, Status};
use crate::core::{Core, MAX_PROPOSAL, StepError};
use crate::members::{ChangeRefused, Member};
use crate::snapshot::{SnapshotError, SnapshotWriter, Snapshots, Written};

/// Proposals under way at most; more wait their turn.
const MAX_PROPOSALS: usize = 4096;

/// A proposal that was committed and applied here.
pub struct Applied {
    /// Its place in the log.
    pub index: u64,
    /// What the state machine answered.
    pub response: Response,
}

impl std::fmt::Debug for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applied").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Why a proposal was not applied. All but [`ProposeError::Unknown`] mean: it never will be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Somebody else leads, or nobody does yet.
    #[error("this manager is not the leader{}", .leader.as_ref().map(|l| format!(": {} is", l.address)).unwrap_or_default())]
    NotLeader {
        /// Who leads, if known.
        leader: Option<Member>,
    },
    /// Too few managers answer.
    #[error("the cluster has no quorum: {0}")]
    QuorumLost(Quorum),
    /// Another leader put something else in its place.
    #[error("leadership was lost and the proposal with it")]
    LostLeadership,
    /// It may have been committed, or may yet be.
    #[error("it is not known whether the proposal was committed: {reason}")]
    Unknown {
        /// Why not.
        reason: String,
    },
    /// Larger than a proposal may be, in bytes.
    #[error("a proposal of {size} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// There is nothing in it.
    #[error("a proposal is empty")]
    Empty,
    /// The leader has too much under way, or is handing over.
    #[error("the leader is busy")]
    Busy,
    /// Not a safe change of managers.
    #[error(transparent)]
    Change(#[from] ChangeRefused),
    /// The driver has ended.
    #[error("this manager has stopped")]
    Stopped,
}

/// Why a linearizable read cannot go ahead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader answered in time.
    #[error("no leader answered in time: {0}")]
    NoLeader(Quorum),
    /// The driver has ended.
    #[error("this manager has stopped")]
    Stopped,
}

/// Why a snapshot that is coming in is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The message.
    #[error(transparent)]
    Message(#[from] StepError),
    /// It announces no snapshot.
    #[error("the message announces no snapshot")]
    NoSnapshot,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] SnapshotError),
    /// The driver has ended.
    #[error("this manager has stopped")]
    Stopped,
}

/// A change of managers as it is asked for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Add { node_id: NodeId, address: String },
    Remove(u64),
    UpdateAddress { raft_id: u64, address: String },
}

/// What the driver is told.
pub(super) enum Event {
    Propose(Bytes, ProposeAnswer),
    Change(Wanted, ProposeAnswer),
    Read(ReadAnswer),
    Step(Bytes),
    Unreachable(u64),
    SnapshotSent { to: u64, arrived: bool },
    SnapshotReceived { message: Bytes, written: Written },
    SnapshotMade(Result<Written, SnapshotError>),
    Policy(SnapshotPolicy),
    Transfer(Option<u64>),
    Stop,
    Abort,
}

pub(super) struct Shared {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) snapshots: Snapshots,
    pub(super) timeout: Duration,
    pub(super) permits: Semaphore,
}

/// Speaks to a running manager. When the last handle is dropped, the driver ends.
#[derive(Clone)]
pub struct RaftHandle(pub(super) Arc<Shared>);

/// A handle that does not keep the driver running: for what the driver itself holds.
#[derive(Clone)]
pub struct WeakRaftHandle(Weak<Shared>);

impl WeakRaftHandle {
    /// The handle, while there are others.
    pub fn upgrade(&self) -> Option<RaftHandle> {
        self.0.upgrade().map(RaftHandle)
    }
}

pub(super) fn permits() -> Semaphore {
    Semaphore::new(MAX_PROPOSALS)
}

impl RaftHandle {
    /// A handle that does not keep the driver running.
    pub fn downgrade(&self) -> WeakRaftHandle {
        WeakRaftHandle(Arc::downgrade(&self.0))
    }

    /// Proposes an entry; returns when it is committed and applied here. Only the leader can.
    pub async fn propose(&self, data: impl Into<Bytes>) -> Result<Applied, ProposeError> {
        let data = data.into();
        if data.len() > MAX_PROPOSAL {
            return Err(ProposeError::TooLarge { size: data.len(), limit: MAX_PROPOSAL });
        }
        if data.is_empty() {
            return Err(ProposeError::Empty);
        }
        self.ask(|answer| Event::Propose(data, answer)).await
    }

    /// Adds a manager as a learner; it becomes a voter by itself once it has caught up. Gives back
    /// its entry in the member table. Asking again for a learner with the same node gives the same one.
    pub async fn add_member(&self, node_id: NodeId, address: String) -> Result<Member, ProposeError> {
        let wanted = Wanted::Add { node_id, address };
        self.ask(|answer| Event::Change(wanted, answer)).await?;
        let status = self.status();
        let mut members = status.members.into_iter().map(|m| m.member);
        members.find(|m| m.node_id == node_id).ok_or_else(|| ProposeError::Unknown {
            reason: "the manager was removed again at once".to_owned(),
        })
    }

    /// Removes a manager for good. A leader that is asked to remove itself hands over first and
    /// answers [`ProposeError::NotLeader`] with its successor: ask there.
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), ProposeError> {
        self.ask(|answer| Event::Change(Wanted::Remove(raft_id), answer)).await.map(|_| ())
    }

    /// Notes that a manager is reached under another address.
    pub async fn update_address(&self, raft_id: u64, address: String) -> Result<(), ProposeError> {
        let wanted = Wanted::UpdateAddress { raft_id, address };
        self.ask(|answer| Event::Change(wanted, answer)).await.map(|_| ())
    }

    /// Returns the applied index once everything that was committed before the call is applied
    /// here. Works on every member.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let (answer, result) = oneshot::channel();
        self.tell(Event::Read(answer)).map_err(|()| ReadError::Stopped)?;
        match tokio::time::timeout(self.0.timeout, result).await {
            Ok(answer) => answer.unwrap_or(Err(ReadError::Stopped)),
            Err(_) => Err(ReadError::NoLeader(self.status().quorum())),
        }
    }

    /// Hands leadership to a voter (none: the best one) and returns when somebody else leads, or
    /// `false` if that did not work within the timeout.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> bool {
        let mut status = self.watch();
        let me = status.borrow().id;
        if self.tell(Event::Transfer(to)).is_err() {
            return false;
        }
        let moved = |s: &Status| s.leader.as_ref().is_some_and(|l| l.raft_id != me);
        let waiting = status.wait_for(moved);
        matches!(tokio::time::timeout(self.0.timeout, waiting).await, Ok(Ok(_)))
    }

    /// Takes a message from another manager. Answers go out by the transport.
    pub fn step(&self, message: Bytes) {
        let _stopped = self.tell(Event::Step(message));
    }

    /// Messages to that manager got lost.
    pub fn report_unreachable(&self, raft_id: u64) {
        let _stopped = self.tell(Event::Unreachable(raft_id));
    }

    /// Begins to receive a snapshot; `message` is what [`crate::OutgoingSnapshot`] carried.
    pub fn receive_snapshot(&self, message: Bytes) -> Result<IncomingSnapshot, ReceiveError> {
        let meta = Core::announced_snapshot(&message)?.ok_or(ReceiveError::NoSnapshot)?;
        let writer = self.0.snapshots.create(&meta)?;
        Ok(IncomingSnapshot { message, writer, shared: self.0.clone() })
    }

    /// What this manager knows now.
    pub fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// To be woken when it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// Changes when snapshots are made and what is kept.
    pub fn set_snapshot_policy(&self, policy: SnapshotPolicy) {
        let _stopped = self.tell(Event::Policy(policy));
    }

    /// Ends the driver: hands leadership over first, writes what is left, returns when the
    /// directory is free.
    pub async fn stop(&self) {
        let _stopped = self.tell(Event::Stop);
        self.ended().await;
    }

    /// Ends the driver at once, as a crash would.
    pub async fn abort(&self) {
        let _stopped = self.tell(Event::Abort);
        self.ended().await;
    }

    /// Returns when the driver has ended, for whatever reason.
    pub async fn ended(&self) {
        let mut status = self.watch();
        // An error means that the driver is gone: the same.
        let _gone = status.wait_for(|s| s.stopped).await;
    }

    fn tell(&self, event: Event) -> Result<(), ()> {
        self.0.events.send(event).map_err(|_| ())
    }

    async fn ask(&self, event: impl FnOnce(ProposeAnswer) -> Event) -> Result<Applied, ProposeError> {
        let _permit = self.0.permits.acquire().await.map_err(|_| ProposeError::Stopped)?;
        let (answer, result) = oneshot::channel();
        self.tell(event(answer)).map_err(|()| ProposeError::Stopped)?;
        match tokio::time::timeout(self.0.timeout, result).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::Unknown { reason: "this manager stopped".to_owned() }),
            Err(_) => Err(ProposeError::Unknown { reason: self.why_late() }),
        }
    }

    fn why_late(&self) -> String {
        let quorum = self.status().quorum();
        if quorum.is_there() {
            format!("no answer within {:?}", self.0.timeout)
        } else {
            format!("the cluster has no quorum: {quorum}")
        }
    }
}

/// A snapshot that is coming in. Blocking writes; dropped before the end, it leaves nothing.
pub struct IncomingSnapshot {
    message: Bytes,
    writer: SnapshotWriter,
    shared: Arc<Shared>,
}

impl Write for IncomingSnapshot {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.writer.write(data)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl IncomingSnapshot {
    /// All of it is here: makes it durable and hands it to the driver.
    pub fn finish(self) -> Result<(), ReceiveError> {
        let written = self.writer.finish()?;
        let event = Event::SnapshotReceived { message: self.message, written };
        self.shared.events.send(event).map_err(|_| ReceiveError::Stopped)
    }
}
