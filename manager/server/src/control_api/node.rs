//! Nodes.

use std::sync::Arc;

use swarm_manager_core::control;
use swarm_manager_core::store::View;
use swarm_manager_raft::MemberRole;
use swarm_proto::v1;
use swarm_types::id::NodeId;
use swarm_types::node::{Node, NodeSpec, Role};
use tonic::Status;

use crate::manager::Shared;
use crate::roles;
use crate::status::{denied, malformed};

fn entry(shared: &Shared, node: &Node) -> v1::NodeEntry {
    let status = shared.raft.status();
    let leader = status.leader.as_ref().map(|l| l.node_id);
    let member = status.members.iter().find(|m| m.member.node_id == node.id);
    let manager = (node.role == Role::Manager || member.is_some()).then(|| v1::ManagerStatus {
        leader: leader == Some(node.id),
        // One that does not have the log yet cannot stand in for another.
        reachable: member.is_some_and(|m| m.reachable && m.member.role == MemberRole::Voter),
        addr: member.map(|m| m.member.address.clone()).unwrap_or_default(),
    });
    let network_problems = shared.network_problems.of(&node.id).iter().map(Into::into).collect();
    v1::NodeEntry { node: Some(node.into()), manager, network_problems }
}

fn resolve<'a>(view: &'a View, reference: &'a str) -> Result<&'a Arc<Node>, Status> {
    control::resolve::node(view, reference).map_err(|e| denied(&e))
}

pub(super) fn list(shared: &Shared, view: &View) -> v1::ListNodesResponse {
    v1::ListNodesResponse { nodes: view.nodes().map(|n| entry(shared, n)).collect() }
}

pub(super) fn get(
    shared: &Shared,
    view: &View,
    request: &v1::GetNodeRequest,
) -> Result<v1::GetNodeResponse, Status> {
    let node = resolve(view, &request.reference)?;
    let mut entry = entry(shared, node);
    let hidden = control::site::problems(view.networks().map(AsRef::as_ref), node);
    entry.network_problems.extend(hidden.iter().map(Into::into));
    Ok(v1::GetNodeResponse { entry: Some(entry) })
}

pub(super) async fn update(
    shared: &Shared,
    request: v1::UpdateNodeRequest,
) -> Result<v1::UpdateNodeResponse, Status> {
    let id: NodeId = request.node_id.parse().map_err(|_| Status::invalid_argument("node_id: malformed"))?;
    let spec = request.spec.ok_or_else(|| Status::invalid_argument("spec: missing"))?;
    let spec: NodeSpec = spec.try_into().map_err(malformed)?;
    let (version, members) = (request.version, roles::members(shared));
    shared.write(|draft, _| control::node::update(draft, &id, version, spec.clone(), &members)).await?;
    tracing::info!(
        node.id = %id,
        node.availability = spec.availability.as_str(),
        node.role = spec.role.as_str(),
        "node updated"
    );
    let view = shared.state.view();
    Ok(v1::UpdateNodeResponse { entry: view.node(&id).map(|n| entry(shared, n)) })
}

pub(super) async fn remove(
    shared: &Shared,
    request: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Status> {
    shared.barrier().await?;
    let id = resolve(&shared.state.view(), &request.reference)?.id;
    if shared.raft.status().members.iter().any(|m| m.member.node_id == id) {
        return Err(Status::failed_precondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. \
             It must be demoted to worker before removal"
        )));
    }
    shared.write(|draft, _| control::node::remove(draft, &id, request.force)).await?;
    tracing::info!(node.id = %id, node.forced = request.force, "node removed");
    Ok(v1::RemoveNodeResponse { node_id: id.to_string() })
}
