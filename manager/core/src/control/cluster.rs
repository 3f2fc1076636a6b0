//! The cluster: founded, joined, updated, given other tokens.
//!
//! Reads:   the cluster, nodes.
//! Writes:  Cluster; births of nodes, and of the first ingress network.
//! Never:   makes secrets: keys and tokens are made outside and handed in.
//! Start:   [`found`], [`join`].

use swarm_types::cluster::{Cluster, ClusterSpec, JoinTokens, RootCa};
use swarm_types::id::{ClusterId, NodeId};
use swarm_types::node::{Availability, ManagerMembership, Node, NodeDescription, NodeSpec, NodeStatus, Role};
use swarm_types::valid;

use super::{Denied, in_sequence};
use crate::allocator::subnet;
use crate::store::Draft;

/// What a cluster begins with.
#[derive(Debug, Clone, Default)]
pub struct Founding {
    /// Its id.
    pub cluster: ClusterId,
    /// Its settings.
    pub spec: ClusterSpec,
    /// Its certificate authority.
    pub root_ca: RootCa,
    /// Its join tokens.
    pub join_tokens: JoinTokens,
    /// The first node, a manager.
    pub node: NodeId,
    /// What is known of the first node's machine.
    pub description: NodeDescription,
    /// Whether the first node takes tasks.
    pub availability: Availability,
    /// The first node's membership of the Raft group.
    pub membership: ManagerMembership,
}

/// Writes the first objects: the cluster, its first node, and the ingress network.
///
/// # Errors
/// There is a cluster already; the settings are invalid; the pools have no room for a subnet.
pub fn found(draft: &mut Draft, founding: Founding) -> Result<(), Denied> {
    if let Some(cluster) = draft.cluster() {
        return Err(Denied::AlreadyExists { kind: "cluster", name: cluster.spec.annotations.name.clone() });
    }
    valid::cluster(&founding.spec)?;
    draft.put_cluster(Cluster {
        id: founding.cluster,
        spec: founding.spec,
        root_ca: founding.root_ca,
        join_tokens: founding.join_tokens,
        key_epoch: 1,
        key_epoch_at: draft.now(),
        ..Cluster::default()
    });
    draft.put_node(Node {
        description: founding.description,
        manager: Some(founding.membership),
        ..new_node(founding.node, Role::Manager, founding.availability, String::new())
    });
    // After the node: it stays clear of what the node's host uses.
    let ingress = subnet::ingress(draft, founding.cluster);
    draft.put_network(ingress.map_err(|e| Denied::Precondition(e.to_string()))?);
    Ok(())
}

/// What is known of a node that joins.
#[derive(Debug, Clone, Default)]
pub struct Joining {
    /// Its id: drawn by who issues its first certificate.
    pub node: NodeId,
    /// By the token that it showed.
    pub role: Role,
    /// Whether it takes tasks, at first.
    pub availability: Availability,
    /// The address that it is seen under, without a port.
    pub addr: String,
}

/// Lets a node into the cluster. It is `unknown` until its agent registers; a manager still has to
/// join the Raft group. A second call with the same node changes nothing (its first answer may have
/// been lost).
///
/// # Errors
/// There is no cluster; the node was removed from it; it is known in another role; there
/// are as many managers as there may be.
pub fn join(draft: &mut Draft, joining: &Joining) -> Result<(), Denied> {
    let id = joining.node;
    let Some(cluster) = draft.cluster() else {
        return Err(Denied::not_found("cluster", "default"));
    };
    if cluster.removed_nodes.contains_key(&id) {
        return Err(Denied::Precondition(format!("node {id} was removed from the cluster")));
    }
    match draft.node(&id) {
        Some(node) if node.spec.role == joining.role => Ok(()),
        Some(_) => Err(Denied::AlreadyExists { kind: "node", name: id.to_string() }),
        None => {
            if joining.role == Role::Manager {
                super::node::one_more_manager(draft)?;
            }
            draft.put_node(new_node(id, joining.role, joining.availability, joining.addr.clone()));
            Ok(())
        }
    }
}

fn new_node(id: NodeId, role: Role, availability: Availability, addr: String) -> Node {
    Node {
        id,
        spec: NodeSpec { role, availability, ..NodeSpec::default() },
        status: NodeStatus { addr, ..NodeStatus::default() },
        role,
        ..Node::default()
    }
}

/// Gives the cluster other settings. `version` is that of the cluster that they were made from.
///
/// # Errors
/// There is no cluster; it was changed since `version`; the settings are invalid.
pub fn update(draft: &mut Draft, version: u64, spec: ClusterSpec) -> Result<(), Denied> {
    let mut cluster = get(draft)?;
    in_sequence(cluster.meta.version, version)?;
    valid::cluster(&spec)?;
    if spec.annotations.name != cluster.spec.annotations.name {
        return Err(Denied::Unsupported("renaming the cluster is not supported"));
    }
    cluster.spec = spec;
    draft.put_cluster(cluster);
    Ok(())
}

/// Replaces the join tokens that are given; the old ones let nobody in any more. Nodes that joined
/// with them stay.
///
/// # Errors
/// There is no cluster.
pub fn rotate_tokens(
    draft: &mut Draft,
    worker: Option<String>,
    manager: Option<String>,
) -> Result<(), Denied> {
    let mut cluster = get(draft)?;
    if let Some(token) = worker {
        cluster.join_tokens.worker = token;
    }
    if let Some(token) = manager {
        cluster.join_tokens.manager = token;
    }
    draft.put_cluster(cluster);
    Ok(())
}

fn get(draft: &Draft) -> Result<Cluster, Denied> {
    draft
        .cluster()
        .map(|cluster| Cluster::clone(cluster))
        .ok_or_else(|| Denied::not_found("cluster", "default"))
}

#[cfg(test)]
mod tests;
