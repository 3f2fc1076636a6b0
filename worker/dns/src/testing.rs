//! Sets of networks, made up for tests and measurements.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::{Balance, EndpointMode, Port};
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::{
    NetworkChange, NetworkEntry, NetworkPart, NetworkSet, ServiceEndpoint, TaskEndpoint,
};

/// Adds a network with the subnets `10.<number>.0.0/16` and `fd00:<number>::/64`, gateways first.
pub fn network(set: &mut NetworkSet, name: &str, number: u8) -> NetworkId {
    let id = NetworkId::new(format!("net{number:022}"));
    let v4 = IpAddr::from([10, number, 0, 1]);
    let v6 = IpAddr::from([0xfd00, number.into(), 0, 0, 0, 0, 0, 1]);
    let part = NetworkPart {
        id,
        name: name.into(),
        driver: NetworkDriver::Overlay,
        vni: 4096 + u32::from(number),
        subnets: [(v4, 16), (v6, 64)].map(|(gw, len)| (ipnet::IpNet::new_assert(gw, len), gw)).to_vec(),
        internal: false,
        ingress: false,
        encrypted: false,
        mtu: 0,
        options: BTreeMap::new(),
    };
    change(set, NetworkChange::PutNetwork(Arc::new(part)));
    id
}

/// Changes a network.
pub fn change_network(set: &mut NetworkSet, id: NetworkId, how: impl FnOnce(&mut NetworkPart)) {
    let mut part = NetworkPart::clone(&set.networks[&id].network);
    how(&mut part);
    change(set, NetworkChange::PutNetwork(Arc::new(part)));
}

/// Adds a service; dnsrr if it has no virtual addresses. Its id is its name.
pub fn service(set: &mut NetworkSet, network: NetworkId, name: &str, aliases: &[&str], vips: &[&str]) {
    let endpoint = ServiceEndpoint {
        service: ServiceId::new(name),
        name: name.into(),
        aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
        mode: if vips.is_empty() { EndpointMode::Dnsrr } else { EndpointMode::Vip },
        balance: Balance::Random,
        vips: addrs(vips),
        ports: Vec::new(),
    };
    change(set, NetworkChange::PutService(network, Arc::new(endpoint)));
}

/// Publishes ports of a service that is on the ingress network.
pub fn publish(set: &mut NetworkSet, ingress: NetworkId, name: &str, ports: &[Port]) {
    let mut endpoint = ServiceEndpoint::clone(&set.networks[&ingress].services[&ServiceId::new(name)]);
    endpoint.ports = ports.to_vec();
    change(set, NetworkChange::PutService(ingress, Arc::new(endpoint)));
}

/// Adds or changes a serving task of a service. Its id is `<slot as four digits><service>xxx…`.
pub fn task(
    set: &mut NetworkSet,
    network: NetworkId,
    service: &str,
    slot: u32,
    addresses: &[&str],
) -> TaskId {
    let task = TaskId::new(format!("{slot:04}{:x<21}", service.to_ascii_lowercase()));
    let endpoint = TaskEndpoint {
        task,
        node: NodeId::new("node"),
        service: ServiceId::new(service),
        name: format!("{service}.{slot}"),
        addrs: addrs(addresses),
        serving: true,
        weight: 1,
    };
    change(set, NetworkChange::PutEndpoint(network, Arc::new(endpoint)));
    task
}

/// A task stops serving, or begins to.
pub fn serving(set: &mut NetworkSet, network: NetworkId, task: TaskId, serving: bool) {
    let mut endpoint = TaskEndpoint::clone(&set.networks[&network].endpoints[&task]);
    endpoint.serving = serving;
    change(set, NetworkChange::PutEndpoint(network, Arc::new(endpoint)));
}

/// One network of a set.
pub fn entry(set: &NetworkSet, network: NetworkId) -> &NetworkEntry {
    &set.networks[&network]
}

/// Makes one change.
pub fn change(set: &mut NetworkSet, change: NetworkChange) {
    let kind = swarm_types::assignment::AssignmentsKind::Incremental { applies_to: set.version };
    let results_in = set.version + 1;
    set.take(&swarm_types::network_set::NetworksMessage { kind, results_in, changes: vec![change] });
}

fn addrs(words: &[&str]) -> Vec<IpAddr> {
    words.iter().map(|word| word.parse().expect("an address of a test")).collect()
}
