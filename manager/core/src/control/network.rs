//! Networks: created, removed.
//!
//! Reads:   networks, services and tasks on them, the cluster's pools.
//! Writes:  Network: birth, removal.
//! Never:   gives addresses to anybody: the allocator follows.
//! Start:   [`create`].

use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::PublishMode;
use swarm_types::id::NetworkId;
use swarm_types::network::{Network, NetworkSpec};
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::valid;

use super::Denied;
use crate::allocator::subnet;
use crate::context::Context;
use crate::store::{Draft, View};

/// Creates a network, with subnets from the cluster's pools where the spec names none.
///
/// # Errors
/// The spec is invalid; the name is taken; there is an ingress network already; a subnet overlaps with
/// another network's; the pools are exhausted.
pub fn create(draft: &mut Draft, spec: NetworkSpec, ctx: &mut Context<'_>) -> Result<NetworkId, Denied> {
    valid::network(&spec)?;
    if let Some(other) = draft.network_by_name(&spec.annotations.name) {
        let name = other.spec.annotations.name.clone();
        return Err(Denied::AlreadyExists { kind: "network", name });
    }
    if let (true, Some(other)) = (spec.ingress, draft.ingress_network()) {
        let name = &other.spec.annotations.name;
        return Err(Denied::Precondition(format!("ingress network ({name}) is already present")));
    }
    let id = NetworkId::new(ctx.ids.next_id());
    let network = subnet::network(draft, id, spec).map_err(|e| Denied::Precondition(e.to_string()))?;
    draft.put_network(network);
    Ok(id)
}

/// Removes a network. The ingress network may be removed too, while nothing needs it.
///
/// # Errors
/// No such network; a service or a task is on it; it is the ingress network and a service publishes
/// ports.
pub fn remove(draft: &mut Draft, id: &NetworkId) -> Result<(), Denied> {
    let network = draft.network(id).cloned().ok_or_else(|| Denied::not_found("network", id))?;
    let name = &network.spec.annotations.name;
    if let (true, Some(service)) = (network.spec.ingress, draft.services().find(|s| needs_ingress(s))) {
        let service = &service.spec.annotations.name;
        return Err(Denied::Precondition(format!(
            "ingress network cannot be removed because service {service} depends on it"
        )));
    }
    if let Some(service) = services_on(draft, id).next() {
        let service = &service.spec.annotations.name;
        return Err(Denied::Precondition(format!("network {name} is in use by service {service}")));
    }
    if let Some(task) = tasks_on(draft, id).next() {
        let task = task.name();
        return Err(Denied::Precondition(format!("network {name} is in use by task {task}")));
    }
    draft.delete_network(id);
    Ok(())
}

fn needs_ingress(service: &Arc<Service>) -> bool {
    service.spec.endpoint.ports.iter().any(|p| p.mode == PublishMode::Ingress)
}

/// The services that want to be on a network, by id. Of the ingress network: those that publish.
pub fn services_on<'a>(view: &'a View, id: &NetworkId) -> impl Iterator<Item = &'a Arc<Service>> {
    let (id, ingress) = (*id, view.network(id).is_some_and(|n| n.spec.ingress));
    let on = move |s: &Service| s.spec.task.networks.iter().any(|a| a.network == id);
    view.services().filter(move |s| on(s) || (ingress && needs_ingress(s)))
}

/// The tasks that have addresses on a network, or had them a moment ago and have not ended.
pub fn tasks_on<'a>(view: &'a View, id: &NetworkId) -> impl Iterator<Item = &'a Arc<Task>> {
    let id = *id;
    view.tasks().filter(move |t| t.is_live() && t.attachments.iter().any(|a| a.network == id))
}

/// What a user should know of a new network, though it is not refused.
pub fn warnings(view: &View, network: &Network) -> Vec<String> {
    let mut warnings = Vec::new();
    let addr = |n: &swarm_types::node::Node| {
        let seen = n.status.addr.parse::<IpAddr>().ok();
        seen.into_iter().chain(n.description.network.data_addr).collect::<Vec<_>>()
    };
    for subnet in &network.subnets {
        if let Some(node) = view.nodes().find(|n| addr(n).iter().any(|a| subnet.net.contains(a))) {
            let (net, name) = (subnet.net, node.display_name());
            warnings.push(format!("subnet {net} holds the address of node {name}: tasks cannot reach it"));
        }
    }
    if super::reach::encrypts(&network.spec) {
        warnings.extend(super::reach::cannot_encrypt(view));
    }
    warnings
}

#[cfg(test)]
mod tests;
