//! Roles of nodes and members of the group: performs what `core::role` says is next.

use swarm_manager_core::role::{self, Member, RoleStep};
use swarm_manager_core::store::View;
use swarm_types::id::NodeId;
use swarm_types::node::{ManagerMembership, Role};

use crate::manager::Shared;

/// Something to do about roles.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// What core says.
    Role(RoleStep),
    /// The group has a member that is not written down at its node, or otherwise.
    Note(NodeId, ManagerMembership),
}

/// The group as core wants to see it.
pub(crate) fn members(shared: &Shared) -> Vec<Member> {
    let status = shared.raft.status();
    let leader = status.leader.as_ref().map(|l| l.raft_id);
    let all = status.members.iter();
    all.map(|m| Member {
        raft_id: m.member.raft_id,
        node: m.member.node_id,
        votes: m.member.role == swarm_manager_raft::MemberRole::Voter,
        answers: m.reachable,
        leads: leader == Some(m.member.raft_id),
    })
    .collect()
}

/// What is next, if anything is; `all_here` as in [`role::next_step`].
pub(crate) fn next(shared: &Shared, view: &View, all_here: bool) -> Option<Step> {
    let status = shared.raft.status();
    for member in status.members.iter().map(|m| &m.member) {
        let noted = ManagerMembership { raft_id: member.raft_id, addr: member.address.clone() };
        if view
            .node(&member.node_id)
            .is_some_and(|n| n.role == Role::Manager && n.manager.as_ref() != Some(&noted))
        {
            return Some(Step::Note(member.node_id, noted));
        }
    }
    role::next_step(view, &members(shared), all_here).map(Step::Role)
}

/// Does it. What fails is found to be still next.
pub(crate) async fn perform(shared: &Shared, step: Step) {
    if let Err(e) = try_perform(shared, &step).await {
        tracing::warn!(step = ?step, error = %e.message(), "a change of roles did not work yet");
        // Whoever it was is busy or away: not at once again.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

async fn try_perform(shared: &Shared, step: &Step) -> Result<(), tonic::Status> {
    match step {
        Step::Note(node, membership) => {
            shared.write(|draft, _| Ok(role::set_membership(draft, node, membership.clone()))).await?;
            Ok(())
        }
        Step::Role(RoleStep::SetRole(node, role)) => {
            shared.write(|draft, _| Ok(role::set_role(draft, node, *role))).await?;
            tracing::info!(node.id = %node, node.role = role.as_str(), "node has a new role");
            Ok(())
        }
        Step::Role(RoleStep::RemoveMember { node, raft_id }) => {
            shared.remove_member(*raft_id).await?;
            tracing::info!(node.id = %node, raft.id = raft_id, "manager left the group");
            Ok(())
        }
        Step::Role(RoleStep::TransferLeadership { to }) => {
            tracing::info!(raft.to = to, "handing over: this manager is to be a worker");
            match shared.raft.transfer_leadership(Some(*to)).await {
                true => Ok(()),
                false => Err(tonic::Status::unavailable("the other manager did not take over")),
            }
        }
    }
}
