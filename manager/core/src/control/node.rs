//! Nodes: updated, promoted, demoted, removed.
//!
//! Reads:   nodes, the cluster's certificate life.
//! Writes:  Node.spec; removal of nodes; Cluster.removed_nodes; Network.released of what they had.
//! Never:   changes what a node *is*: `role` and membership follow (see [`crate::role`]).
//! Start:   [`update`], [`remove`].

use swarm_types::defaults;
use swarm_types::id::NodeId;
use swarm_types::node::{Node, NodeSpec, NodeState, Role};
use swarm_types::valid;

use super::{Denied, in_sequence};
use crate::allocator::address::Releases;
use crate::role::{Member, keeps_quorum};
use crate::store::{Draft, Key};

/// Gives a node another spec: labels, availability, role. `version` is that of the node that the
/// spec was made from; `members` is the Raft group as its leader sees it.
///
/// # Errors
/// No such node; it was changed since `version`; the spec is invalid; it demotes the last manager, or
/// one without which the others could not agree; it promotes one manager too many.
pub fn update(
    draft: &mut Draft,
    id: &NodeId,
    version: u64,
    spec: NodeSpec,
    members: &[Member],
) -> Result<(), Denied> {
    let mut node = get(draft, id)?;
    in_sequence(node.meta.version, version)?;
    valid::node(&spec)?;
    if node.spec.role == Role::Manager && spec.role == Role::Worker {
        may_demote(draft, &node, members)?;
    }
    if node.spec.role == Role::Worker && spec.role == Role::Manager {
        one_more_manager(draft)?;
    }
    node.spec = spec;
    draft.put_node(node);
    Ok(())
}

/// There is room for one more manager. (Two that ask at the same moment may both be told so; then the
/// Raft group refuses the second.)
pub(super) fn one_more_manager(draft: &Draft) -> Result<(), Denied> {
    let managers = draft.nodes().filter(|n| n.spec.role == Role::Manager).count();
    if managers < defaults::MAX_MANAGERS {
        return Ok(());
    }
    Err(Denied::Precondition(format!("the swarm has {managers} managers, and that is the most there may be")))
}

fn may_demote(draft: &mut Draft, node: &Node, members: &[Member]) -> Result<(), Denied> {
    let managers: Vec<NodeId> =
        draft.nodes().filter(|n| n.spec.role == Role::Manager).map(|n| n.id).collect();
    if managers.len() == 1 {
        let text = "attempting to demote the last manager of the swarm";
        return Err(Denied::Precondition(text.into()));
    }
    // Those that are on their way out are not counted on.
    let stay = |member: &&Member| managers.contains(&member.node);
    let group: Vec<Member> = members.iter().filter(stay).copied().collect();
    if let Some(own) = group.iter().find(|member| member.node == node.id)
        && !keeps_quorum(&group, own.raft_id)
    {
        let text = "can't remove member from the raft: this would result in a loss of quorum";
        return Err(Denied::Precondition(text.into()));
    }
    // Two demotions at once must not each count on the other's node.
    for id in managers {
        draft.require_unchanged(Key::Node(id));
    }
    Ok(())
}

/// Removes a node. Its certificate is refused until it would have expired; its tasks are given up
/// and replaced elsewhere.
///
/// # Errors
/// No such node; it is a manager; it is not Down and `force` is not set.
pub fn remove(draft: &mut Draft, id: &NodeId, force: bool) -> Result<(), Denied> {
    let node = get(draft, id)?;
    if node.spec.role == Role::Manager || node.role == Role::Manager || node.manager.is_some() {
        return Err(Denied::Precondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. \
             It must be demoted to worker before removal"
        )));
    }
    let alive = matches!(node.status.state, NodeState::Ready | NodeState::Disconnected);
    if alive && !force {
        return Err(Denied::Precondition(format!("node {id} is not down and can't be removed")));
    }
    let now = draft.now();
    if let Some(cluster) = draft.cluster() {
        let mut cluster = swarm_types::cluster::Cluster::clone(cluster);
        cluster.removed_nodes.retain(|_, until| *until > now);
        let until = now.plus(cluster.spec.cert_expiry).plus(defaults::REMOVED_NODE_SLACK);
        cluster.removed_nodes.insert(*id, until);
        draft.put_cluster(cluster);
    }
    if let Some(ingress) = draft.ingress_network().map(|n| n.id) {
        let mut releases = Releases::default();
        releases.add(ingress, &node.entry, now);
        for network in releases.networks(draft, now) {
            draft.put_network(network);
        }
    }
    draft.delete_node(id);
    Ok(())
}

fn get(draft: &Draft, id: &NodeId) -> Result<Node, Denied> {
    draft.node(id).map(|node| Node::clone(node)).ok_or_else(|| Denied::not_found("node", id))
}

#[cfg(test)]
mod tests;
