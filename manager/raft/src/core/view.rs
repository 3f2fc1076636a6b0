//! What can be seen of a core from outside.

use std::collections::BTreeSet;

use raft::{GetEntriesContext, StateRole, Storage as _};

use super::convert::from_entry;
use super::{CAUGHT_UP, Core, Entry, Role};
use crate::members::Members;
use crate::snapshot::SnapshotMeta;

impl Core {
    /// This manager's raft id.
    pub fn id(&self) -> u64 {
        self.settings.id
    }
    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }
    /// What this manager does.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }
    /// The leader's raft id, if known.
    pub fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|&id| id != 0)
    }
    /// The members as of the last applied entry.
    pub fn members(&self) -> &Members {
        &self.members
    }
    /// True once the removal of this manager is applied here.
    pub fn is_removed(&self) -> bool {
        self.members.was_removed(self.settings.id)
    }
    /// The newest committed index known here.
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }
    /// The newest index handed out and advanced over.
    pub fn applied(&self) -> u64 {
        self.node.raft.raft_log.applied
    }
    /// The last index of the log.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }
    /// The term of the entry at `index`, while it is kept.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok().filter(|&t| t != 0)
    }
    /// The entries from `low` up to `high` (exclusive) that are kept and durable. For the simulator's invariants.
    pub fn entries(&self, low: u64, high: u64) -> Vec<Entry> {
        let context = GetEntriesContext::empty(false);
        let found = self.node.store().entries(low, high, None, context);
        found.unwrap_or_default().iter().map(from_entry).collect()
    }
    /// The newest snapshot.
    pub fn snapshot(&self) -> &SnapshotMeta {
        &self.node.store().snapshot
    }
    /// The log before and at this index is gone.
    pub fn compacted(&self) -> u64 {
        self.node.store().base_index()
    }
    /// Bytes of payload the log holds in memory.
    pub fn log_bytes(&self) -> usize {
        self.node.store().bytes()
    }
    /// True if a manager needs a snapshot newer than the newest: make one, then [`Core::snapshotted`].
    pub fn wants_snapshot(&self) -> bool {
        self.node.store().wants_snapshot()
    }
    /// True while handing leadership over.
    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// The managers heard within the last one and a half election timeouts, this one included.
    /// A leader hears all that work; a follower only its leader; a candidate those that answer.
    pub fn reachable(&self) -> BTreeSet<u64> {
        let patience = (self.settings.election_ticks + self.settings.election_ticks_max) as u64;
        let recent = |&(_, &at): &(&u64, &u64)| self.ticks - at <= patience;
        let heard = self.heard.iter().filter(recent).map(|(&id, _)| id);
        heard.chain([self.settings.id]).collect()
    }

    /// The managers heard in this very tick.
    pub fn heard_now(&self) -> Vec<u64> {
        self.heard.iter().filter(|&(_, &at)| at == self.ticks).map(|(&id, _)| id).collect()
    }

    /// On the leader: learners that lack almost nothing.
    pub fn caught_up_learners(&self) -> Vec<u64> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let near = |id: &u64| {
            let progress = self.node.raft.prs().get(*id);
            progress.is_some_and(|p| p.matched > 0 && p.matched + CAUGHT_UP >= self.last_index())
        };
        self.members.learners().into_iter().filter(near).collect()
    }

    /// On the leader: the voter best suited to take over, if any answers.
    pub fn best_successor(&self) -> Option<u64> {
        if self.role() != Role::Leader {
            return None;
        }
        let reachable = self.reachable();
        let others = self.members.voters().into_iter().filter(|id| *id != self.settings.id);
        let matched = |id: &u64| self.node.raft.prs().get(*id).map_or(0, |p| p.matched);
        others.filter(|id| reachable.contains(id)).max_by_key(|id| (matched(id), u64::MAX - id))
    }
}
