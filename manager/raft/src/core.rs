//! The sans-IO consensus core: tick, step, propose in; one [`Ready`] after the other out.
//!
//! The only file (with its private modules) that names the consensus library. No clock, no disk,
//! no network, no randomness: the election jitter is drawn from a seed, per manager, term and attempt.
//!
//! The caller's duty for each [`Ready`], in this order:
//! 1. send `messages`;
//! 2. make `snapshot`, `hard_state` and `entries` durable (lazily if not `must_sync`);
//! 3. send `persisted_messages`;
//! 4. install `snapshot`, apply `committed`;
//! 5. [`Core::advance`]. Then ask for the next one, until there is none.

mod convert;
mod logger;
mod memory;
mod restored;
#[cfg(test)]
mod tests;
mod types;
mod view;

use std::collections::BTreeMap;

use bytes::Bytes;
use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Message, MessageType};
use swarm_types::id::{IdSource, Seed};

use crate::members::{Change, MemberRole, Members};
use crate::snapshot::SnapshotMeta;
use convert::{envelope, from_entry, from_library, parse, read_state, same_members, to_library};
use memory::Memory;
use restored::reconcile;

pub use restored::{Restored, StartError};
pub use types::{
    CoreSettings, Entry, EntryKind, Envelope, HardState, ProposalId, ReadState, Ready, Refused, Role,
    StepError,
};

/// The largest proposal, in bytes.
pub const MAX_PROPOSAL: usize = 8 << 20;
/// Entries a learner may lack and still be called caught up.
const CAUGHT_UP: u64 = 64;
/// More silent ticks than there will ever be.
const NEVER: usize = 1 << 40;
/// The library keeps at most this much unreplicated data before it refuses more.
const MAX_UNCOMMITTED: u64 = 64 << 20;

/// One manager's part in the consensus.
pub struct Core {
    settings: CoreSettings,
    node: RawNode<Memory>,
    members: Members,
    /// How often it asked for votes: part of the next draw.
    attempts: u64,
    /// It asked for votes and nobody leads yet.
    in_vain: bool,
    ticks: u64,
    /// When each other manager was last heard, in ticks.
    heard: BTreeMap<u64, u64>,
    seen: (Role, u64, u64),
}

impl Core {
    /// Starts from what was found on disk; [`Restored::default`] for a manager that joins.
    pub fn new(settings: CoreSettings, restored: Restored) -> Result<Self, StartError> {
        let snapshot = restored.snapshot.clone();
        let (hard_state, entries) = reconcile(restored)?;
        let config = raft::Config {
            id: settings.id,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            // The library draws its patience between these two from a global generator: let the
            // draw have one outcome, and that one be never. `tick` does the waiting.
            min_election_tick: NEVER,
            max_election_tick: NEVER + 1,
            applied: snapshot.index,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            max_uncommitted_size: MAX_UNCOMMITTED,
            max_committed_size_per_ready: 16 << 20,
            ..raft::Config::default()
        };
        let members = snapshot.members.clone();
        let memory = Memory::new(hard_state, snapshot, entries.into_iter().map(to_library).collect());
        let node = RawNode::new(&config, memory, &logger::to_tracing())
            .map_err(|e| StartError::Library(e.to_string()))?;
        let mut core = Self {
            settings,
            node,
            members,
            attempts: 0,
            in_vain: false,
            ticks: 0,
            heard: BTreeMap::new(),
            seen: (Role::Follower, 0, 0),
        };
        core.seen = core.now();
        Ok(core)
    }

    /// The start of a new cluster of one: an already applied snapshot that carries the member table.
    ///
    /// Its content is the state machine's own first snapshot, and both must be durable before
    /// [`Core::new`] is called with this.
    pub fn bootstrap(members: Members) -> Restored {
        Restored {
            hard_state: HardState { term: 1, vote: 0, commit: 1 },
            snapshot: SnapshotMeta { index: 1, term: 1, members },
            entries: Vec::new(),
        }
    }

    /// One tick of the logical clock went by.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.node.tick();
        self.in_vain &= self.leader().is_none();
        let raft = &self.node.raft;
        let impatient = raft.election_elapsed >= self.patience() || self.is_only_voter();
        if self.role() != Role::Leader && raft.promotable() && impatient {
            self.attempts += 1;
            self.in_vain = true;
            self.node.raft.election_elapsed = 0;
            // Refused by the library while committed membership changes are not applied yet.
            let _refused = self.node.campaign();
        }
    }

    /// Takes a message from another manager; one that announces a snapshot belongs to
    /// [`Core::step_snapshot`] and is refused here.
    pub fn step(&mut self, message: &[u8]) -> Result<(), StepError> {
        let m = parse(message)?;
        if m.get_msg_type() == MessageType::MsgSnapshot {
            return Err(StepError::Malformed("a snapshot without its content".into()));
        }
        self.take(m)
    }

    /// Takes a message that announces a snapshot whose content is here and durable. If the next
    /// [`Ready`] holds no `snapshot`, it was not needed.
    pub fn step_snapshot(&mut self, message: &[u8]) -> Result<(), StepError> {
        let m = parse(message)?;
        if m.get_msg_type() != MessageType::MsgSnapshot {
            return Err(StepError::Malformed("it announces no snapshot".into()));
        }
        self.take(m)
    }

    /// What snapshot a message announces; none if it is another kind of message.
    pub fn announced_snapshot(message: &[u8]) -> Result<Option<SnapshotMeta>, StepError> {
        let m = parse(message)?;
        let is_snapshot = m.get_msg_type() == MessageType::MsgSnapshot;
        is_snapshot.then(|| from_library(m.get_snapshot())).transpose()
    }

    fn take(&mut self, m: Message) -> Result<(), StepError> {
        self.check_message(&m)?;
        self.heard.insert(m.from, self.ticks);
        // What the library still refuses is a response of somebody it does not know (yet).
        let _unknown_peer = self.node.step(m);
        Ok(())
    }

    fn check_message(&self, m: &Message) -> Result<(), StepError> {
        use MessageType as T;
        let me = self.settings.id;
        if m.to != me || m.from == 0 || m.from == me {
            return Err(StepError::NotForMe(me));
        }
        if self.members.was_removed(m.from) {
            return Err(StepError::Removed(m.from));
        }
        match m.get_msg_type() {
            T::MsgPropose | T::MsgTransferLeader => Err(StepError::NotForMe(me)),
            T::MsgReadIndex | T::MsgReadIndexResp if m.entries.len() != 1 => {
                Err(StepError::Malformed("a read carries one context".into()))
            }
            T::MsgHeartbeat if m.term >= self.term() && m.commit > self.last_index() => {
                Err(StepError::LostLog { commit: m.commit, last: self.last_index() })
            }
            T::MsgSnapshot => {
                let meta = from_library(m.get_snapshot())?;
                let wire = convert::to_wire(&meta);
                if !same_members(&wire, m.get_snapshot()) {
                    return Err(StepError::Malformed("its two lists of managers differ".into()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Proposes several things at once, each an entry of its own; they share one [`Ready`].
    ///
    /// Either all are in the log (the names come in order) or none.
    pub fn propose(&mut self, batch: Vec<Bytes>) -> Result<Vec<ProposalId>, Refused> {
        if self.role() != Role::Leader {
            return Err(Refused::NotLeader);
        }
        if let Some(big) = batch.iter().find(|d| d.len() > MAX_PROPOSAL) {
            return Err(Refused::TooLarge(big.len()));
        }
        if batch.is_empty() || batch.iter().any(Bytes::is_empty) {
            return Err(Refused::Empty);
        }
        let count = batch.len() as u64;
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgPropose);
        m.from = self.settings.id;
        for data in batch {
            m.mut_entries().push(raft::eraftpb::Entry { data, ..Default::default() });
        }
        self.node.step(m).map_err(|_| Refused::Busy)?;
        let (last, term) = (self.last_index(), self.term());
        Ok((last + 1 - count..=last).map(|index| ProposalId { index, term }).collect())
    }

    /// Proposes a change of members. Checked against the members as they are applied now.
    pub fn propose_change(&mut self, change: &Change) -> Result<ProposalId, Refused> {
        if self.role() != Role::Leader {
            return Err(Refused::NotLeader);
        }
        if self.node.raft.has_pending_conf() {
            return Err(Refused::ChangePending);
        }
        self.members.check(change, &self.reachable())?;
        if *change == Change::Remove(self.settings.id) {
            return Err(Refused::RemovesLeader);
        }
        let mut single = ConfChangeSingle { node_id: change.raft_id(), ..Default::default() };
        single.set_change_type(self.change_type(change));
        let mut cc = ConfChangeV2::default();
        cc.mut_changes().push(single);
        self.node.propose_conf_change(change.encode(), cc).map_err(|_| Refused::Busy)?;
        Ok(ProposalId { index: self.last_index(), term: self.term() })
    }

    fn change_type(&self, change: &Change) -> ConfChangeType {
        let votes = |id| self.members.get(id).is_some_and(|m| m.role == MemberRole::Voter);
        match change {
            Change::Add(_) => ConfChangeType::AddLearnerNode,
            Change::Promote(_) => ConfChangeType::AddNode,
            Change::Remove(_) => ConfChangeType::RemoveNode,
            // To the library: what it is already, which changes nothing.
            Change::UpdateAddress { raft_id, .. } if votes(*raft_id) => ConfChangeType::AddNode,
            Change::UpdateAddress { .. } => ConfChangeType::AddLearnerNode,
        }
    }

    /// Asks for a linearizable read; the answer comes as a [`ReadState`] with the same number.
    ///
    /// `ctx` must be new each time. False: cannot be asked now (no leader, or a leader that has
    /// not committed anything in its term). Even if true it may be lost: ask again after a while.
    pub fn read_index(&mut self, ctx: u64) -> bool {
        let ready = match self.role() {
            Role::Leader => self.node.raft.commit_to_current_term(),
            _ => self.leader().is_some(),
        };
        if ready {
            let mut key = self.settings.id.to_be_bytes().to_vec();
            key.extend_from_slice(&ctx.to_be_bytes());
            self.node.read_index(key);
        }
        ready
    }

    /// Starts handing leadership to `to`. Proposals are refused until it worked or, after
    /// `election_ticks`, was given up.
    pub fn transfer_leader(&mut self, to: u64) {
        if self.role() == Role::Leader {
            self.node.transfer_leader(to);
        }
    }

    /// Messages to that manager were lost.
    pub fn report_unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    /// Whether a snapshot reached that manager.
    pub fn report_snapshot(&mut self, id: u64, arrived: bool) {
        use raft::SnapshotStatus::{Failure, Finish};
        self.node.report_snapshot(id, if arrived { Finish } else { Failure });
    }

    /// A snapshot of what is applied was made durable: the log before it may go, but for `keep` entries.
    pub fn snapshotted(&mut self, meta: SnapshotMeta, keep: u64) {
        if meta.index > self.node.store().snapshot.index && meta.index <= self.applied() {
            self.node.mut_store().compact(meta, keep);
        }
    }

    /// What must be done now, if anything. Call [`Core::advance`] before anything else is called.
    pub fn ready(&mut self) -> Option<Ready> {
        if !self.node.has_ready() {
            return None;
        }
        let mut inner = self.node.ready();
        let snapshot = (!inner.snapshot().is_empty())
            .then(|| from_library(inner.snapshot()).expect("checked when it was stepped"));
        let messages = inner.take_messages().into_iter().map(envelope).collect();
        let persisted_messages = inner.take_persisted_messages().into_iter().map(envelope).collect();
        let me = self.settings.id;
        let now = self.now();
        let role_changed = std::mem::replace(&mut self.seen, now) != now;
        Some(Ready {
            hard_state: inner.hs().map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit }),
            must_sync: inner.must_sync(),
            entries: inner.entries().iter().map(from_entry).collect(),
            snapshot,
            messages,
            persisted_messages,
            committed: inner.take_committed_entries().iter().map(from_entry).collect(),
            read_states: inner.take_read_states().into_iter().filter_map(|r| read_state(me, &r)).collect(),
            role_changed,
            inner,
        })
    }

    /// All that `ready` asked for is done.
    pub fn advance(&mut self, ready: Ready) {
        let store = self.node.mut_store();
        if let Some(meta) = &ready.snapshot {
            store.install(meta.clone());
            self.members = meta.members.clone();
        }
        let store = self.node.mut_store();
        if let Some(hs) = ready.hard_state {
            store.hard_state = hs;
        }
        store.append(ready.inner.entries().clone());
        let number = ready.inner.number();
        self.node.advance_append_async(ready.inner);
        self.node.on_persist_ready(number);
        for entry in &ready.committed {
            if entry.kind == EntryKind::Membership {
                self.apply_change(entry);
            }
        }
        if ready.snapshot.is_some() || !ready.committed.is_empty() {
            self.node.advance_apply();
        }
    }

    fn apply_change(&mut self, entry: &Entry) {
        let cc =
            ConfChangeV2::parse_from_bytes(&entry.data).expect("the library parsed it when it was proposed");
        self.node.apply_conf_change(&cc).expect("checked when it was proposed, one at a time");
        if let Ok(change) = Change::decode(entry.context.clone()) {
            self.members.apply(&change);
            if let Change::Remove(id) = change {
                self.heard.remove(&id);
            }
        }
        if self.role() == Role::Leader && !self.members.voters().contains(&self.settings.id) {
            let term = self.term();
            self.node.raft.become_follower(term, 0);
        }
    }

    /// Silent ticks after which this manager asks for votes: drawn anew for each term and attempt.
    fn patience(&self) -> usize {
        let mut mixed = self.settings.seed.0;
        for part in [self.settings.id, self.term(), self.attempts] {
            mixed = IdSource::new(Seed(mixed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15))).next_u64();
        }
        let (low, high) = if self.in_vain {
            // Votes were split or lost: nobody leads who could be disturbed, so do not wait as long.
            (2, self.settings.election_ticks.max(2))
        } else {
            (self.settings.election_ticks + 1, self.settings.election_ticks_max)
        };
        low + usize::try_from(mixed % (high - low + 1) as u64).unwrap_or(0)
    }

    fn now(&self) -> (Role, u64, u64) {
        (self.role(), self.leader().unwrap_or(0), self.term())
    }
    fn is_only_voter(&self) -> bool {
        self.members.voters().iter().eq([&self.settings.id])
    }
}
