//! The plain values that go into the core and come out of it.

use bytes::Bytes;
use swarm_types::id::Seed;

use super::MAX_PROPOSAL;
use crate::members::ChangeRefused;
use crate::snapshot::SnapshotMeta;

/// Who this manager is, and how patient. Times are in ticks.
#[derive(Debug, Clone)]
pub struct CoreSettings {
    /// This manager's raft id, not zero.
    pub id: u64,
    /// From which the election jitter is drawn.
    pub seed: Seed,
    /// A leader that hears from no quorum for this long steps down; a follower that heard from
    /// its leader within this time ignores candidates.
    pub election_ticks: usize,
    /// A follower that hears nothing asks for votes after a draw between `election_ticks + 1`
    /// and this, inclusive; again after 2 to `election_ticks` if that made nobody leader.
    pub election_ticks_max: usize,
    /// A leader sends heartbeats this often.
    pub heartbeat_ticks: usize,
}

impl CoreSettings {
    /// The usual patience: heartbeat every tick, election after 6 to 10 silent ones.
    pub fn new(id: u64, seed: Seed) -> Self {
        Self { id, seed, election_ticks: 5, election_ticks_max: 10, heartbeat_ticks: 1 }
    }
}

/// What a manager promised and knows, durable before it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The newest entry known to be committed.
    pub commit: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A proposal (or, if its data is empty, the mark of a new leader).
    Normal,
    /// A change of members.
    Membership,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// The term of the leader that made it. Index and term together name a proposal.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// What was proposed; for the library's own use if this is a membership change.
    pub data: Bytes,
    /// The encoded [`Change`] of a membership change; else empty.
    pub context: Bytes,
}

/// What this manager is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes (or whether it would get them).
    Candidate,
    /// Leads.
    Leader,
}

/// A message for another manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Raft id of the receiver.
    pub to: u64,
    /// For the receiver's [`Core::step`].
    pub message: Bytes,
    /// Set if the message announces a snapshot: its content must reach the receiver before the
    /// message is stepped there, and the outcome must come back by [`Core::report_snapshot`].
    pub snapshot: Option<SnapshotMeta>,
}

/// The answer to a [`Core::read_index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadState {
    /// The caller's number for the read.
    pub ctx: u64,
    /// Once this index is applied, reading is linearizable.
    pub index: u64,
}

/// What must be done now. See the module's text for the order.
#[derive(Debug)]
pub struct Ready {
    /// To persist, if changed.
    pub hard_state: Option<HardState>,
    /// False if `hard_state` differs only in its commit index and nothing else is to be persisted:
    /// then it may be written lazily.
    pub must_sync: bool,
    /// To persist; they replace whatever has the same or a higher index.
    pub entries: Vec<Entry>,
    /// To persist and install before anything else of this value is applied.
    pub snapshot: Option<SnapshotMeta>,
    /// May be sent before anything is persisted.
    pub messages: Vec<Envelope>,
    /// May be sent only after everything is persisted.
    pub persisted_messages: Vec<Envelope>,
    /// To apply, in order.
    pub committed: Vec<Entry>,
    /// Reads that may go ahead.
    pub read_states: Vec<ReadState>,
    /// True if role, leader or term changed.
    pub role_changed: bool,
    pub(super) inner: raft::Ready,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Not a message.
    #[error("malformed raft message: {0}")]
    Malformed(String),
    /// For another manager, or of a kind that does not travel.
    #[error("raft message is not for manager {0}")]
    NotForMe(u64),
    /// Its sender is no longer a member.
    #[error("manager {0} was removed from the cluster")]
    Removed(u64),
    /// The leader counts on entries that are not here.
    #[error(
        "the leader has acknowledged entries up to {commit} from here, but this log ends at {last}: was the state directory replaced?"
    )]
    LostLog {
        /// What the leader believes.
        commit: u64,
        /// What is here.
        last: u64,
    },
}

/// Why a proposal was not even started. None of these leaves anything in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only the leader takes proposals.
    #[error("this manager is not the leader")]
    NotLeader,
    /// Above [`MAX_PROPOSAL`].
    #[error("a proposal of {0} bytes is larger than {MAX_PROPOSAL}")]
    TooLarge(usize),
    /// Nothing proposed.
    #[error("a proposal is empty")]
    Empty,
    /// Too much is under way, or leadership is being handed over.
    #[error("too much is under way")]
    Busy,
    /// One membership change at a time.
    #[error("another change of managers is under way")]
    ChangePending,
    /// A leader hands over first, then leaves.
    #[error("the leader cannot remove itself: leadership must be handed over first")]
    RemovesLeader,
    /// Not a safe change.
    #[error(transparent)]
    Change(#[from] ChangeRefused),
}

/// Names a proposal: it happened if and only if the entry at `index` is committed with `term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId {
    /// Place in the log.
    pub index: u64,
    /// Term in which it was proposed.
    pub term: u64,
}
