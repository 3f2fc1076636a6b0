//! Role: the next step that brings a node to the role that users want it to have.
//!
//! Reads:   nodes; who is a member of the Raft group, and who of them answers.
//! Writes:  nothing itself: the driver changes the membership, or proposes [`set_role`].
//! Never:   takes a member away if the others could not agree without it.
//! Start:   [`next_step`].
//!
//! *Promotion*: the role first, so that the node gets a manager's certificate; with it the node
//! itself asks to join the group, for it knows its address. *Demotion*: out of the group first, then
//! the role, so that nobody counts on a member that may not speak.
//!
//! Who is a member is asked of the group, never of what is written down at the node: a node may be
//! taken into the group at the moment in which it is demoted, or removed from the cluster. Such a
//! *stray* leaves the group as soon as it is seen.

use swarm_types::id::NodeId;
use swarm_types::node::{ManagerMembership, Node, Role};

use crate::store::{Draft, View};

/// A member of the Raft group, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its number in the group.
    pub raft_id: u64,
    /// Its node.
    pub node: NodeId,
    /// It is a voter; a learner, which is not yet one, becomes one by itself.
    pub votes: bool,
    /// It answered lately.
    pub answers: bool,
    /// It is the leader itself.
    pub leads: bool,
}

/// One step; when it is done, [`next_step`] is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleStep {
    /// Propose [`set_role`].
    SetRole(NodeId, Role),
    /// Take the member out of the group.
    RemoveMember {
        /// Whose.
        node: NodeId,
        /// Its number.
        raft_id: u64,
    },
    /// The leader is to be demoted: another one, which answers, shall lead first.
    TransferLeadership {
        /// The member that shall lead.
        to: u64,
    },
}

/// The next step, of the first node (by id) that can make one; none if all have their role, or if
/// who has not must wait for other managers to answer.
///
/// `all_here` says that no node is missed (see [`crate::leader::Leader::misses_a_node`]). While one is,
/// no manager is let go: that node may know no other, and would have to ask its way.
pub fn next_step(view: &View, members: &[Member], all_here: bool) -> Option<RoleStep> {
    let of_nodes = view.nodes().filter_map(|node| step(node, members));
    let of_strays = members.iter().filter(|m| view.node(&m.node).is_none()).filter_map(|m| leave(m, members));
    of_nodes.chain(of_strays).find(|step| all_here || !lets_go(step))
}

fn lets_go(step: &RoleStep) -> bool {
    match step {
        RoleStep::RemoveMember { .. } | RoleStep::TransferLeadership { .. } => true,
        RoleStep::SetRole(..) => false,
    }
}

fn step(node: &Node, members: &[Member]) -> Option<RoleStep> {
    if node.spec.role == Role::Manager {
        return (node.role == Role::Worker).then_some(RoleStep::SetRole(node.id, Role::Manager));
    }
    match members.iter().find(|member| member.node == node.id) {
        Some(member) => leave(member, members),
        // A worker that is still written down as a member is written anew.
        None if node.role == Role::Manager || node.manager.is_some() => {
            Some(RoleStep::SetRole(node.id, Role::Worker))
        }
        None => None,
    }
}

/// How a member leaves the group, if the others can do without it.
fn leave(member: &Member, members: &[Member]) -> Option<RoleStep> {
    if !keeps_quorum(members, member.raft_id) {
        return None;
    }
    if !member.leads {
        return Some(RoleStep::RemoveMember { node: member.node, raft_id: member.raft_id });
    }
    let mut others = members.iter().filter(|other| other.votes && other.answers && !other.leads);
    others.next().map(|other| RoleStep::TransferLeadership { to: other.raft_id })
}

/// True if the members other than `without` could agree among themselves. Learners do not count.
pub fn keeps_quorum(members: &[Member], without: u64) -> bool {
    let left = members.iter().filter(|member| member.votes && member.raft_id != without);
    let (all, answering) = left.fold((0, 0), |(all, answering), member| {
        (all + 1, answering + usize::from(member.answers || member.leads))
    });
    all > 0 && answering > all / 2
}

/// Writes down that a node has a role: from now on it may have that role's certificate.
pub fn set_role(draft: &mut Draft, id: &NodeId, role: Role) -> bool {
    let Some(node) = draft.node(id) else { return false };
    let mut node = Node::clone(node);
    node.role = role;
    if role == Role::Worker {
        node.manager = None;
    }
    draft.put_node(node)
}

/// Writes down that a node is a member of the group under this number and address.
pub fn set_membership(draft: &mut Draft, id: &NodeId, membership: ManagerMembership) -> bool {
    let Some(node) = draft.node(id) else { return false };
    let mut node = Node::clone(node);
    node.manager = Some(membership);
    draft.put_node(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::testing;
    use swarm_types::time::Timestamp;

    fn members(answers: &[bool]) -> Vec<Member> {
        let member = |(raft_id, &answers): (u64, &bool)| {
            let node = NodeId::new(format!("m{raft_id}"));
            Member { raft_id, node, votes: true, answers, leads: raft_id == 1 }
        };
        (1..).zip(answers).map(member).collect()
    }

    /// Managers m1 (leads), m2, … and worker w.
    fn draft(managers: u64, change: impl Fn(&mut Node)) -> Draft {
        let mut draft = Draft::new(View::default(), Timestamp(1));
        let manager = |n: u64| {
            let mut node = testing::manager(&format!("m{n}"));
            node.manager = Some(ManagerMembership { raft_id: n, addr: String::new() });
            node
        };
        for mut node in (1..=managers).map(manager).chain([testing::node("w")]) {
            change(&mut node);
            draft.put_node(node);
        }
        draft
    }

    fn demoted(name: &'static str) -> impl Fn(&mut Node) {
        move |node| {
            if node.id == name.into() {
                node.spec.role = Role::Worker;
            }
        }
    }

    #[test]
    fn all_have_their_role() {
        assert_eq!(next_step(&draft(3, |_| ()), &members(&[true; 3]), true), None);
    }

    #[test]
    fn a_promoted_node_gets_its_role_first() {
        let mut draft = draft(1, |node| node.spec.role = Role::Manager);
        let step = RoleStep::SetRole("w".into(), Role::Manager);
        assert_eq!(next_step(&draft, &members(&[true]), true), Some(step));
        assert!(set_role(&mut draft, &"w".into(), Role::Manager));
        assert_eq!(next_step(&draft, &members(&[true]), true), None);
    }

    #[test]
    fn a_demoted_node_leaves_the_group_first() {
        let mut draft = draft(3, demoted("m2"));
        let remove = RoleStep::RemoveMember { node: "m2".into(), raft_id: 2 };
        assert_eq!(next_step(&draft, &members(&[true; 3]), true), Some(remove));
        let mut left = members(&[true; 3]);
        left.remove(1);
        let step = RoleStep::SetRole("m2".into(), Role::Worker);
        assert_eq!(next_step(&draft, &left, true), Some(step));
        assert!(set_role(&mut draft, &"m2".into(), Role::Worker));
        assert_eq!(draft.node(&"m2".into()).unwrap().manager, None);
        assert_eq!(next_step(&draft, &left, true), None);
    }

    /// Left in the group, it would become a voter that nobody runs, and take the quorum with it.
    #[test]
    fn a_learner_that_is_demoted_leaves_the_group_first() {
        let draft = draft(2, demoted("m2"));
        let mut group = members(&[true, true]);
        group[1].votes = false;
        let remove = RoleStep::RemoveMember { node: "m2".into(), raft_id: 2 };
        assert_eq!(next_step(&draft, &group, true), Some(remove));
        group[1].answers = false;
        assert_eq!(next_step(&draft, &group, true), Some(remove), "nobody needs its voice");
    }

    /// `JoinGroup` asks for the role before the change of members commits: a demotion, or `node rm`, may
    /// come in between.
    #[test]
    fn a_member_that_is_no_manager_leaves_the_group() {
        let learner =
            |name: &str| Member { raft_id: 3, node: name.into(), votes: false, answers: false, leads: false };
        for name in ["w", "gone"] {
            let mut group = members(&[true; 2]);
            group.push(learner(name));
            let remove = RoleStep::RemoveMember { node: name.into(), raft_id: 3 };
            assert_eq!(next_step(&draft(2, |_| ()), &group, true), Some(remove), "a learner");
            group[2].votes = true;
            assert_eq!(next_step(&draft(2, |_| ()), &group, true), Some(remove), "a voter");
        }
    }

    /// Its membership was not written down yet when it was demoted.
    #[test]
    fn a_demoted_node_is_looked_for_in_the_group_itself() {
        let unnoted = |node: &mut Node| {
            if node.id == "m2".into() {
                node.manager = None;
                node.spec.role = Role::Worker;
            }
        };
        let remove = RoleStep::RemoveMember { node: "m2".into(), raft_id: 2 };
        assert_eq!(next_step(&draft(3, unnoted), &members(&[true; 3]), true), Some(remove));
    }

    #[test]
    fn leadership_is_not_handed_to_a_learner() {
        let mut group = members(&[true; 4]);
        group[1].votes = false;
        let step = next_step(&draft(4, demoted("m1")), &group, true);
        assert_eq!(step, Some(RoleStep::TransferLeadership { to: 3 }));
    }

    #[test]
    fn the_leader_steps_down_before_it_leaves() {
        let step = next_step(&draft(3, demoted("m1")), &members(&[true, false, true]), true);
        assert_eq!(step, None, "2 and 3 could not agree: 2 does not answer");
        let step = next_step(&draft(3, demoted("m1")), &members(&[true; 3]), true);
        assert_eq!(step, Some(RoleStep::TransferLeadership { to: 2 }));
    }

    #[test]
    fn quorum_is_never_given_away() {
        assert_eq!(next_step(&draft(1, demoted("m1")), &members(&[true]), true), None);
        assert_eq!(next_step(&draft(3, demoted("m2")), &members(&[true, true, false]), true), None);
        assert!(keeps_quorum(&members(&[true, true, false]), 3), "the silent one may go");
    }

    #[test]
    fn nobody_is_let_go_while_a_node_is_missed() {
        let demoted = draft(3, demoted("m2"));
        assert!(next_step(&demoted, &members(&[true; 3]), true).is_some());
        assert_eq!(next_step(&demoted, &members(&[true; 3]), false), None);
    }
}
