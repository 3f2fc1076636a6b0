//! Reach: may a service be on its networks and have its ports; what of that its template must say.
//!
//! Reads:   networks, services, nodes.
//! Writes:  [`TaskSpec::host_ports`](swarm_types::task::TaskSpec::host_ports) and
//!          [`TaskSpec::gateway`](swarm_types::task::TaskSpec::gateway) of the spec that it is handed.
//! Never:   chooses a port or an address: the allocator does.
//! Start:   [`complete`].

use std::sync::Arc;

use swarm_types::container::ContainerNetwork;
use swarm_types::endpoint::{Port, PublishMode};
use swarm_types::id::{NetworkId, ServiceId};
use swarm_types::network::{Network, NetworkDriver, NetworkSpec};
use swarm_types::node::NodeState;
use swarm_types::service::{Mode, ServiceSpec};

use super::{Denied, resolve};
use crate::allocator::{endpoint, port};
use crate::store::{Draft, Key, View};

/// Checks what a service says of networks and ports, turns names of networks into ids, and writes into
/// its template what follows from them.
///
/// Two services that want one port at the same moment may both pass: then the allocator gives it to one,
/// and the other's tasks wait and say why.
///
/// # Errors
/// A network is not there, or is the ingress network; a port is in use; there is no ingress network for
/// the ports.
pub(crate) fn complete(draft: &mut Draft, id: &ServiceId, spec: &mut ServiceSpec) -> Result<(), Denied> {
    let networks = networks(draft, spec)?;
    let host_ports: Vec<Port> =
        spec.endpoint.ports.iter().filter(|p| p.mode == PublishMode::Host).copied().collect();
    let gateway = gateway(spec, &networks);
    let same_ids = spec.task.networks.iter().zip(&networks).all(|(a, n)| a.network == n.id);
    if !same_ids || spec.task.host_ports != host_ports || spec.task.gateway != gateway {
        let task = Arc::make_mut(&mut spec.task);
        (task.host_ports, task.gateway) = (host_ports, gateway);
        task.networks.iter_mut().zip(&networks).for_each(|(a, n)| a.network = n.id);
    }
    for network in networks {
        // Its removal must not overtake us.
        draft.require_unchanged(Key::Network(network.id));
    }
    ports(draft, id, &spec.endpoint.ports)
}

fn networks(view: &View, spec: &ServiceSpec) -> Result<Vec<Arc<Network>>, Denied> {
    let find = |a: &swarm_types::network::AttachmentSpec| {
        let network = resolve::network(view, a.network.as_str())?.clone();
        if network.spec.ingress {
            let name = &network.spec.annotations.name;
            return Err(Denied::Precondition(format!(
                "service cannot be explicitly attached to the ingress network {name}"
            )));
        }
        Ok(network)
    };
    let networks: Vec<Arc<Network>> = spec.task.networks.iter().map(find).collect::<Result<_, Denied>>()?;
    let mut seen = std::collections::BTreeSet::<NetworkId>::new();
    match networks.iter().find(|n| !seen.insert(n.id)) {
        Some(twice) => {
            let name = &twice.spec.annotations.name;
            Err(Denied::Precondition(format!("service is attached to network {name} twice")))
        }
        None => Ok(networks),
    }
}

fn ports(view: &View, id: &ServiceId, ports: &[Port]) -> Result<(), Denied> {
    if ports.iter().any(|p| p.mode == PublishMode::Ingress) && view.ingress_network().is_none() {
        return Err(Denied::Precondition(
            "service needs ingress network, but no ingress network is present".into(),
        ));
    }
    if ports.iter().all(|p| p.published == 0) {
        return Ok(());
    }
    for other in view.services().filter(|other| other.id != *id) {
        // What it wants, and what was chosen for it.
        let theirs = || other.spec.endpoint.ports.iter().chain(&other.endpoint.ports);
        for port in ports {
            let ingress = |p: &&Port| p.mode == PublishMode::Ingress || port.mode == PublishMode::Ingress;
            if let Some(theirs) = theirs().filter(ingress).find(|p| port::collide(p, port)) {
                return Err(Denied::Precondition(endpoint::taken(port, Some(other), theirs.mode)));
            }
        }
    }
    Ok(())
}

/// A task needs a place on the ingress network: for its ports, or for its way out. One on macvlan has
/// its way out there.
fn gateway(spec: &ServiceSpec, networks: &[Arc<Network>]) -> bool {
    let way_out = |n: &Arc<Network>| !n.spec.internal && n.spec.driver != NetworkDriver::Macvlan;
    match spec.task.container.network {
        ContainerNetwork::Host => false,
        ContainerNetwork::Bridge => true,
        ContainerNetwork::Loopback => !spec.endpoint.ports.is_empty() || networks.iter().any(way_out),
    }
}

/// What leaves a node on it is encrypted.
pub(crate) fn encrypts(spec: &NetworkSpec) -> bool {
    spec.encrypted && spec.driver == NetworkDriver::Overlay
}

/// A warning if some nodes cannot be on encrypted networks.
pub(super) fn cannot_encrypt(view: &View) -> Option<String> {
    let cannot = |n: &swarm_types::node::Node| {
        n.status.state == NodeState::Ready && n.description.network.encryption.is_empty()
    };
    let names: Vec<&str> = view.nodes().filter(|n| cannot(n)).map(|n| n.display_name()).collect();
    if names.is_empty() {
        return None;
    }
    let (shown, more) = (names.iter().take(5).copied().collect::<Vec<_>>().join(", "), names.len() > 5);
    let dots = if more { ", …" } else { "" };
    Some(format!(
        "{} nodes cannot encrypt and get no tasks of encrypted networks: {shown}{dots}",
        names.len()
    ))
}

/// What a user should know of a service's networks and ports, though it is not refused.
pub fn warnings(view: &View, spec: &ServiceSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let fixed = spec.endpoint.ports.iter().find(|p| p.mode == PublishMode::Host && p.published != 0);
    let nodes = u64::try_from(view.nodes().count()).unwrap_or(u64::MAX);
    if let (Some(port), Mode::Replicated { replicas }) = (fixed, spec.mode)
        && replicas > nodes
    {
        warnings.push(format!(
            "host-mode port {} can be open once on each node: {} of {replicas} tasks must wait",
            port.published,
            replicas - nodes
        ));
    }
    let named =
        |a: &swarm_types::network::AttachmentSpec| resolve::network(view, a.network.as_str()).ok().cloned();
    if spec.task.networks.iter().filter_map(named).any(|n| encrypts(&n.spec)) {
        warnings.extend(cannot_encrypt(view));
    }
    warnings
}
