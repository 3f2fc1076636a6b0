//! Networks: created, removed.
//!
//! Reads:   networks, services and tasks on them, the cluster's pools.
//! Writes:  Network: birth, removal.
//! Never:   gives addresses to anybody: the allocator follows.
//! Start:   [`create`].

use std::sync::Arc;

use swarm_types::endpoint::PublishMode;
use swarm_types::id::NetworkId;
use swarm_types::network::{Network, NetworkSpec};
use swarm_types::node::NodeState;
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
/// another network's, or holds a node's own address; the pools are exhausted.
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
    super::site::refuse(draft, &network)?;
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
    let tasks: Vec<&Arc<Task>> = tasks_on(draft, id).collect();
    if !tasks.is_empty() {
        return Err(Denied::Precondition(format!(
            "network {name} is in use by {}",
            still_there(draft, &tasks)
        )));
    }
    draft.delete_network(id);
    Ok(())
}

fn needs_ingress(service: &Arc<Service>) -> bool {
    service.spec.endpoint.ports.iter().any(|p| p.mode == PublishMode::Ingress)
}

/// The tasks that keep a network, in words: how many, some of them by name, where they hang, what to do.
fn still_there(view: &View, tasks: &[&Arc<Task>]) -> String {
    const SHOWN: usize = 5;
    let name = |task: &&Arc<Task>| match view.node(&task.node) {
        Some(node) if node.status.state == NodeState::Down => {
            format!("{} (its node {} is down)", task.name(), node.display_name())
        }
        Some(_) | None => task.name(),
    };
    let mut names = tasks.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    if tasks.len() > SHOWN {
        names += &format!(" and {} more", tasks.len() - SHOWN);
    }
    let hang = tasks.iter().any(|t| view.node(&t.node).is_some_and(|n| n.status.state == NodeState::Down));
    let then = match hang {
        true => "they end when their node is back, or is removed (`node rm`)",
        false => "try again in a moment",
    };
    match (tasks.iter().any(|task| task.is_wanted()), tasks.len()) {
        (true, 1) => format!("task {names}"),
        (true, _) => format!("tasks {names}"),
        (false, 1) => format!("1 task that is still stopping: {names}; {then}"),
        (false, n) => format!("{n} tasks that are still stopping: {names}; {then}"),
    }
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
    let mut warnings = super::site::warnings(view, network);
    if super::reach::encrypts(&network.spec) {
        warnings.extend(super::reach::cannot_encrypt(view));
    }
    warnings
}

#[cfg(test)]
mod tests;
