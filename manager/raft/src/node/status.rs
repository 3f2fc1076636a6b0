//! What a manager knows about itself and the others, for whoever watches.

use std::time::Instant;

use crate::core::{Core, Role};
use crate::members::{Member, MemberRole, quorum};

/// One manager as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Whether it answers. Only the leader hears from all; a follower knows of itself and its leader.
    pub reachable: bool,
    /// When it was last heard; none for never, and for this manager itself.
    pub last_contact: Option<Instant>,
}

/// How many managers answer and how many must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Voters that answer.
    pub reachable: usize,
    /// All voters.
    pub total: usize,
    /// Voters needed.
    pub needed: usize,
}

impl Quorum {
    /// True if enough answer.
    pub fn is_there(&self) -> bool {
        self.reachable >= self.needed
    }
}

impl std::fmt::Display for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Quorum { reachable, total, needed } = self;
        write!(f, "{reachable} of {total} managers reachable, {needed} needed")
    }
}

/// A manager's view. Watchers are woken by a change of role, term, leader, members, reachability,
/// removal or failure; the indexes and contact times are as of the last look.
#[derive(Debug, Clone)]
pub struct Status {
    /// This manager's raft id.
    pub id: u64,
    /// What it does.
    pub role: Role,
    /// In which term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<Member>,
    /// Everybody, by raft id.
    pub members: Vec<MemberStatus>,
    /// The newest applied entry.
    pub applied: u64,
    /// The newest committed entry.
    pub committed: u64,
    /// The newest snapshot.
    pub snapshot: u64,
    /// This manager was removed from the cluster, for good.
    pub removed: bool,
    /// The driver ended because of this; the manager must be started anew.
    pub failure: Option<String>,
    /// The driver has ended.
    pub stopped: bool,
}

impl Status {
    pub(super) fn of(core: &Core, contacts: &dyn Fn(u64) -> Option<Instant>) -> Self {
        let reachable = core.reachable();
        let member = |m: &Member| MemberStatus {
            member: m.clone(),
            reachable: reachable.contains(&m.raft_id),
            last_contact: contacts(m.raft_id),
        };
        Self {
            id: core.id(),
            role: core.role(),
            term: core.term(),
            leader: core.leader().and_then(|id| core.members().get(id)).cloned(),
            members: core.members().iter().map(member).collect(),
            applied: core.applied(),
            committed: core.committed(),
            snapshot: core.snapshot().index,
            removed: core.is_removed(),
            failure: None,
            stopped: false,
        }
    }

    /// True if somebody should be woken.
    pub(super) fn differs(&self, other: &Status) -> bool {
        let plain = |s: &Status| {
            let members: Vec<_> = s.members.iter().map(|m| (m.member.clone(), m.reachable)).collect();
            (s.role, s.term, s.leader.clone(), members, s.removed, s.stopped)
        };
        plain(self) != plain(other) || self.failure != other.failure
    }

    /// True on the leader.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// This manager itself, once it is a member.
    pub fn me(&self) -> Option<&Member> {
        self.members.iter().map(|m| &m.member).find(|m| m.raft_id == self.id)
    }

    /// Whether enough voters answer, as far as this manager can tell.
    pub fn quorum(&self) -> Quorum {
        let voters = self.members.iter().filter(|m| m.member.role == MemberRole::Voter);
        let (mut total, mut reachable) = (0, 0);
        for v in voters {
            total += 1;
            reachable += usize::from(v.reachable);
        }
        Quorum { reachable, total, needed: quorum(total) }
    }
}
