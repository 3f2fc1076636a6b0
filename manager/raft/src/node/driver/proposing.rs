//! Putting what callers want into the log, or telling them why not.

use super::Driver;
use crate::core::{MAX_PROPOSAL, Refused, Role};
use crate::members::{Change, Member, MemberRole};
use crate::node::handle::Wanted;
use crate::node::{Applied, ProposeError, Response};

impl Driver {
    pub(super) fn propose_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.batch_bytes = 0;
        let (data, answers): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        match self.core.propose(data) {
            Ok(ids) => {
                for (id, answer) in ids.into_iter().zip(answers) {
                    self.proposals.add(id, answer);
                }
            }
            Err(refused) => {
                let error = self.explain(refused);
                for answer in answers {
                    let _gone = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// One at a time; the others wait for it to be applied.
    pub(super) fn propose_changes(&mut self) {
        while let Some((wanted, answer)) = self.changes.pop_front() {
            if self.core.role() != Role::Leader {
                let error = self.explain(Refused::NotLeader);
                let _gone = answer.send(Err(error));
                continue;
            }
            let Some(change) = self.change_for(&wanted) else {
                let response: Response = Box::new(());
                let index = self.core.applied();
                let _gone = answer.send(Ok(Applied { index, response }));
                continue;
            };
            match self.core.propose_change(&change) {
                Ok(id) => self.proposals.add(id, answer),
                Err(Refused::ChangePending) => {
                    self.changes.push_front((wanted, answer));
                    return;
                }
                Err(refused) => {
                    let error = self.explain(refused);
                    let _gone = answer.send(Err(error));
                }
            }
        }
    }

    /// The change that is wanted; none if it is so already.
    pub(super) fn change_for(&self, wanted: &Wanted) -> Option<Change> {
        let members = self.core.members();
        let change = match wanted.clone() {
            Wanted::Remove(id) => Change::Remove(id),
            Wanted::UpdateAddress { raft_id, address } => {
                let same = members.get(raft_id).is_some_and(|m| m.address == address);
                return (!same).then_some(Change::UpdateAddress { raft_id, address });
            }
            Wanted::Add { node_id, address } => match members.by_node(&node_id) {
                Some(m) if m.role == MemberRole::Learner && m.address == address => return None,
                Some(m) if m.role == MemberRole::Learner => {
                    Change::UpdateAddress { raft_id: m.raft_id, address }
                }
                _ => Change::Add(Member {
                    raft_id: members.next_id(),
                    node_id,
                    address,
                    role: MemberRole::Learner,
                }),
            },
        };
        Some(change)
    }

    pub(super) fn explain(&mut self, refused: Refused) -> ProposeError {
        match refused {
            Refused::NotLeader => match self.leader() {
                None if !self.now().quorum().is_there() => ProposeError::QuorumLost(self.now().quorum()),
                leader => ProposeError::NotLeader { leader },
            },
            Refused::RemovesLeader => {
                let to = self.core.best_successor();
                if let Some(to) = to {
                    self.core.transfer_leader(to);
                }
                ProposeError::NotLeader { leader: to.and_then(|id| self.member(id)) }
            }
            Refused::TooLarge(size) => ProposeError::TooLarge { size, limit: MAX_PROPOSAL },
            Refused::Empty => ProposeError::Empty,
            Refused::Busy | Refused::ChangePending => ProposeError::Busy,
            Refused::Change(change) => ProposeError::Change(change),
        }
    }
}
