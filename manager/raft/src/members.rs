//! Members: which managers take part, under which raft id and address, and which changes are safe.
//!
//! The table is part of the replicated state: changes travel in the log, the whole table in every
//! snapshot, so that each manager knows every other one. A raft id is never used twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use swarm_types::id::NodeId;

use crate::codec::{Decoder, Encoder, Malformed};

/// The most managers a cluster may have, learners included.
pub const MAX_MEMBERS: usize = swarm_types::defaults::MAX_MANAGERS;

/// Whether a manager's vote counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberRole {
    /// Counts for quorum and may lead.
    Voter,
    /// Receives the log but does not count: a manager that is joining.
    Learner,
}

/// One manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number in this cluster; never zero, never given twice.
    pub raft_id: u64,
    /// The node it is.
    pub node_id: NodeId,
    /// Where the other managers reach it, `host:port`.
    pub address: String,
    /// Whether its vote counts.
    pub role: MemberRole,
}

/// One step of change. Only one may be under way at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A manager joins, as a learner. Its raft id must be [`Members::next_id`].
    Add(Member),
    /// A learner becomes a voter.
    Promote(u64),
    /// A manager leaves for good.
    Remove(u64),
    /// A manager moved.
    UpdateAddress {
        /// Who.
        raft_id: u64,
        /// Where to.
        address: String,
    },
}

/// Why a change of members is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Nobody has that raft id.
    #[error("no manager has the raft id {0}")]
    Unknown(u64),
    /// That node already takes part.
    #[error("node {0} is already a manager of this cluster")]
    AlreadyMember(NodeId),
    /// The raft id was given to somebody before.
    #[error("raft id {id} cannot be given: the next free one is {next}")]
    IdTaken {
        /// The one asked for.
        id: u64,
        /// The one that is free.
        next: u64,
    },
    /// More than [`MAX_MEMBERS`].
    #[error("a cluster has at most {MAX_MEMBERS} managers")]
    TooMany,
    /// It votes already.
    #[error("manager {0} is a voter already")]
    AlreadyVoter(u64),
    /// The last voter cannot go.
    #[error("the last manager cannot be removed")]
    LastVoter,
    /// The change would leave the cluster without a quorum.
    #[error(
        "this would leave the cluster without a quorum: {reachable} of {voters} managers would be reachable, {needed} needed"
    )]
    QuorumGivenAway {
        /// Voters that would be reachable.
        reachable: usize,
        /// Voters there would be.
        voters: usize,
        /// Voters needed to decide anything.
        needed: usize,
    },
}

/// How many of `voters` are needed to decide.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// All managers of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    by_id: BTreeMap<u64, Member>,
    next_id: u64,
}

impl Members {
    /// The members of a cluster that consists of one manager.
    pub fn founder(node_id: NodeId, address: String) -> Self {
        let member = Member { raft_id: 1, node_id, address, role: MemberRole::Voter };
        Self { by_id: BTreeMap::from([(1, member)]), next_id: 2 }
    }

    /// The raft id for whoever joins next.
    pub fn next_id(&self) -> u64 {
        self.next_id.max(1)
    }
    /// True before this manager has learned anything.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
    /// The member with that raft id.
    pub fn get(&self, raft_id: u64) -> Option<&Member> {
        self.by_id.get(&raft_id)
    }
    /// The member that is that node.
    pub fn by_node(&self, node: &NodeId) -> Option<&Member> {
        self.iter().find(|m| m.node_id == *node)
    }
    /// All members by raft id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }
    /// Raft ids of the voters.
    pub fn voters(&self) -> BTreeSet<u64> {
        self.iter().filter(|m| m.role == MemberRole::Voter).map(|m| m.raft_id).collect()
    }
    /// Raft ids of the learners.
    pub fn learners(&self) -> BTreeSet<u64> {
        self.iter().filter(|m| m.role == MemberRole::Learner).map(|m| m.raft_id).collect()
    }
    /// True for an id that was given out and taken away again.
    pub fn was_removed(&self, raft_id: u64) -> bool {
        raft_id != 0 && raft_id < self.next_id && !self.by_id.contains_key(&raft_id)
    }

    /// Whether the change makes sense, and leaves a quorum that is `reachable` now.
    ///
    /// `reachable` are the raft ids that answer, the asker included.
    pub fn check(&self, change: &Change, reachable: &BTreeSet<u64>) -> Result<(), ChangeRefused> {
        let mut voters = self.voters();
        match change {
            Change::Add(m) => {
                if self.by_node(&m.node_id).is_some() {
                    return Err(ChangeRefused::AlreadyMember(m.node_id));
                }
                if m.raft_id != self.next_id() {
                    return Err(ChangeRefused::IdTaken { id: m.raft_id, next: self.next_id() });
                }
                if self.by_id.len() >= MAX_MEMBERS {
                    return Err(ChangeRefused::TooMany);
                }
                return Ok(());
            }
            Change::UpdateAddress { raft_id, .. } => {
                return self.get(*raft_id).map(|_| ()).ok_or(ChangeRefused::Unknown(*raft_id));
            }
            Change::Promote(id) => {
                self.get(*id).ok_or(ChangeRefused::Unknown(*id))?;
                if !voters.insert(*id) {
                    return Err(ChangeRefused::AlreadyVoter(*id));
                }
            }
            Change::Remove(id) => {
                self.get(*id).ok_or(ChangeRefused::Unknown(*id))?;
                if !voters.remove(id) {
                    return Ok(());
                }
                if voters.is_empty() {
                    return Err(ChangeRefused::LastVoter);
                }
            }
        }
        let needed = quorum(voters.len());
        let answering = voters.intersection(reachable).count();
        if answering < needed {
            return Err(ChangeRefused::QuorumGivenAway {
                reachable: answering,
                voters: voters.len(),
                needed,
            });
        }
        Ok(())
    }

    /// Makes a committed change. What no longer makes sense changes nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Add(m) if m.raft_id >= self.next_id() => {
                self.next_id = m.raft_id + 1;
                self.by_id.insert(m.raft_id, m.clone());
            }
            Change::Add(_) => {}
            Change::Promote(id) => {
                if let Some(m) = self.by_id.get_mut(id) {
                    m.role = MemberRole::Voter;
                }
            }
            Change::Remove(id) => {
                self.by_id.remove(id);
            }
            Change::UpdateAddress { raft_id, address } => {
                if let Some(m) = self.by_id.get_mut(raft_id) {
                    m.address.clone_from(address);
                }
            }
        }
    }

    /// As bytes, for a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.u8(1).u64(self.next_id).u32(u32::try_from(self.by_id.len()).expect("a handful"));
        for m in self.iter() {
            encode_member(&mut e, m);
        }
        e.finish()
    }

    /// From the bytes of [`Members::encode`].
    pub fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut d = Decoder::new(data);
        if d.u8()? != 1 {
            return Err(Malformed("unknown version of the member table"));
        }
        let next_id = d.u64()?;
        let mut by_id = BTreeMap::new();
        for _ in 0..d.u32()? {
            let m = decode_member(&mut d)?;
            by_id.insert(m.raft_id, m);
        }
        d.end()?;
        Ok(Self { by_id, next_id })
    }
}

impl Change {
    /// Whom it is about.
    pub fn raft_id(&self) -> u64 {
        match self {
            Change::Add(m) => m.raft_id,
            Change::Promote(id) | Change::Remove(id) => *id,
            Change::UpdateAddress { raft_id, .. } => *raft_id,
        }
    }

    /// As bytes, for the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        match self {
            Change::Add(m) => encode_member(e.u8(1), m),
            Change::Promote(id) => {
                e.u8(2).u64(*id);
            }
            Change::Remove(id) => {
                e.u8(3).u64(*id);
            }
            Change::UpdateAddress { raft_id, address } => {
                e.u8(4).u64(*raft_id).bytes(address.as_bytes());
            }
        }
        e.finish()
    }

    /// From the bytes of [`Change::encode`].
    pub fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut d = Decoder::new(data);
        let change = match d.u8()? {
            1 => Change::Add(decode_member(&mut d)?),
            2 => Change::Promote(d.u64()?),
            3 => Change::Remove(d.u64()?),
            4 => Change::UpdateAddress { raft_id: d.u64()?, address: d.string()? },
            _ => return Err(Malformed("unknown kind of membership change")),
        };
        d.end()?;
        Ok(change)
    }
}

fn encode_member(e: &mut Encoder, m: &Member) {
    e.u64(m.raft_id).bytes(m.node_id.as_str().as_bytes()).bytes(m.address.as_bytes());
    e.u8(match m.role {
        MemberRole::Voter => 1,
        MemberRole::Learner => 2,
    });
}

fn decode_member(d: &mut Decoder) -> Result<Member, Malformed> {
    Ok(Member {
        raft_id: d.u64()?,
        node_id: d.string()?.parse().map_err(|_| Malformed("a node id is not one"))?,
        address: d.string()?,
        role: match d.u8()? {
            1 => MemberRole::Voter,
            2 => MemberRole::Learner,
            _ => return Err(Malformed("unknown member role")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learner(id: u64) -> Member {
        Member {
            raft_id: id,
            node_id: NodeId::new(format!("n{id}")),
            address: format!("10.0.0.{id}:2377"),
            role: MemberRole::Learner,
        }
    }

    fn voters(n: u64) -> Members {
        let mut m = Members::founder(NodeId::new("n1"), "10.0.0.1:2377".into());
        for id in 2..=n {
            m.apply(&Change::Add(learner(id)));
            m.apply(&Change::Promote(id));
        }
        m
    }

    fn up(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn quorum_is_never_given_away() {
        let three = voters(3);
        assert_eq!(three.check(&Change::Remove(2), &up(&[1, 2, 3])), Ok(()));
        assert_eq!(three.check(&Change::Remove(3), &up(&[1, 2])), Ok(()), "the dead one may go");
        assert_eq!(
            three.check(&Change::Remove(2), &up(&[1, 2])),
            Err(ChangeRefused::QuorumGivenAway { reachable: 1, voters: 2, needed: 2 })
        );
        assert_eq!(voters(1).check(&Change::Remove(1), &up(&[1])), Err(ChangeRefused::LastVoter));
        let mut one = voters(1);
        one.apply(&Change::Add(learner(2)));
        assert_eq!(one.check(&Change::Promote(2), &up(&[1, 2])), Ok(()));
        assert!(matches!(
            one.check(&Change::Promote(2), &up(&[1])),
            Err(ChangeRefused::QuorumGivenAway { .. })
        ));
        assert_eq!(one.check(&Change::Remove(2), &up(&[1])), Ok(()), "a learner may always go");
    }

    #[test]
    fn a_removed_id_is_never_used_again() {
        let mut m = voters(3);
        m.apply(&Change::Remove(3));
        assert!(m.was_removed(3));
        assert_eq!(m.next_id(), 4);
        m.apply(&Change::Add(learner(3)));
        assert!(m.get(3).is_none());
        assert_eq!(
            m.check(&Change::Add(learner(3)), &up(&[1, 2])),
            Err(ChangeRefused::IdTaken { id: 3, next: 4 })
        );
        assert!(!m.was_removed(4), "an id of the future was not removed");
    }

    #[test]
    fn seven_at_most_and_no_node_twice() {
        let m = voters(7);
        let all = up(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(m.check(&Change::Add(learner(8)), &all), Err(ChangeRefused::TooMany));
        let mut again = learner(4);
        again.node_id = NodeId::new("n1");
        assert!(matches!(voters(3).check(&Change::Add(again), &all), Err(ChangeRefused::AlreadyMember(_))));
    }

    #[test]
    fn encodings_come_back() {
        let m = voters(5);
        assert_eq!(Members::decode(m.encode().into()).unwrap(), m);
        for c in [
            Change::Add(learner(9)),
            Change::Promote(2),
            Change::Remove(3),
            Change::UpdateAddress { raft_id: 4, address: "h:1".into() },
        ] {
            let bytes = Bytes::from(c.encode());
            assert_eq!(Change::decode(bytes.clone()).unwrap(), c);
            for n in 0..bytes.len() {
                assert!(Change::decode(bytes.slice(..n)).is_err());
            }
        }
    }
}
