//! A world for tests of the networks: nodes, networks, services, tasks; and what each node is told.
//!
//! Reads:   what the test says.
//! Writes:  sets and local tasks.
//! Never:   leaves the tests.
//! Start:   [`World`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::{Balance, EndpointMode, Port, Protocol, PublishMode};
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::network::{Attachment, NetworkDriver};
use swarm_types::network_set::{
    NetworkEntry, NetworkPart, NetworkSet, Peer, SelfPart, ServiceEndpoint, TaskEndpoint,
};

use super::ground::Facts;
use super::planner::LocalTask;

/// All that managers know.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// By number, from 1.
    pub nodes: BTreeMap<u16, Peer>,
    /// Networks with what is on them.
    pub networks: BTreeMap<NetworkId, NetworkEntry>,
    /// Tasks with a namespace, and their nodes.
    pub tasks: BTreeMap<TaskId, (u16, LocalTask)>,
    /// UDP port of VXLAN.
    pub data_port: u16,
}

/// An address from text.
pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A published port.
pub fn port(protocol: Protocol, published: u16, target: u16, mode: PublishMode) -> Port {
    Port { protocol, target, published, mode, host_ip: None }
}

/// The id of a node in a world.
pub fn node(index: u16) -> NodeId {
    NodeId::new(format!("node{index}"))
}

impl World {
    /// Nodes with these addresses; `entry`: the subnets of the ingress network that their own addresses
    /// are from (the n-th node has the 1000 + n-th address).
    pub fn new(addrs: &[&str], entry: &[&str]) -> Self {
        let node = |(i, text): (usize, &&str)| {
            let index = u16::try_from(i + 1).expect("few nodes");
            let entry = entry.iter().map(|net| nth(net, 1000 + u128::from(index))).collect();
            let (keys, tunnel_port) = (Vec::new(), swarm_types::defaults::TUNNEL_PORT);
            (index, Peer { node: node(index), index, addr: addr(text), entry, keys, tunnel_port })
        };
        let nodes = addrs.iter().enumerate().map(node).collect();
        Self { nodes, data_port: swarm_types::defaults::DATA_PATH_PORT, ..Self::default() }
    }

    /// A clear overlay network, its gateways the first addresses; `change` makes it another one.
    pub fn network(&mut self, name: &str, vni: u32, subnets: &[&str], change: impl FnOnce(&mut NetworkPart)) {
        let mut part = NetworkPart {
            id: NetworkId::new(name),
            name: name.into(),
            driver: NetworkDriver::Overlay,
            vni,
            subnets: subnets.iter().map(|net| (net.parse().expect("a subnet"), nth(net, 1))).collect(),
            internal: false,
            ingress: false,
            encrypted: false,
            mtu: 0,
            options: BTreeMap::new(),
        };
        change(&mut part);
        let (endpoints, services) = (BTreeMap::new(), BTreeMap::new());
        self.networks.insert(part.id, NetworkEntry { network: Arc::new(part), endpoints, services });
    }

    /// A service on a network, with virtual addresses (`change` may give it ports, other ways …).
    pub fn service(
        &mut self,
        name: &str,
        network: &str,
        vips: &[&str],
        change: impl FnOnce(&mut ServiceEndpoint),
    ) {
        let mut service = ServiceEndpoint {
            service: ServiceId::new(name),
            name: name.into(),
            aliases: Vec::new(),
            mode: EndpointMode::Vip,
            balance: Balance::Random,
            vips: vips.iter().map(|vip| addr(vip)).collect(),
            ports: Vec::new(),
        };
        change(&mut service);
        let entry = self.networks.get_mut(&NetworkId::new(network)).expect("the network is there");
        entry.services.insert(service.service, Arc::new(service));
    }

    /// A serving task of a service on networks, with its addresses there (`10.0.1.2,fd00::2`).
    pub fn task(&mut self, name: &str, service: &str, index: u16, on: &[(&str, &str)]) {
        let (task, service) = (TaskId::new(name), ServiceId::new(service));
        let mut attachments = Vec::new();
        for (network, addrs) in on {
            let network = NetworkId::new(network);
            let addrs: Vec<_> = addrs.split(',').filter(|text| !text.is_empty()).map(addr).collect();
            let entry = self.networks.get_mut(&network).expect("the network is there");
            let (name, node) = (name.to_owned(), node(index));
            let endpoint =
                TaskEndpoint { task, node, service, name, addrs: addrs.clone(), serving: true, weight: 1 };
            entry.endpoints.insert(task, Arc::new(endpoint));
            attachments.push(Attachment { network, addrs, aliases: Vec::new() });
        }
        self.tasks.insert(task, (index, LocalTask { id: task, attachments, ports: Vec::new() }));
    }

    /// Changes a task's endpoint on a network.
    pub fn endpoint(&mut self, task: &str, network: &str, change: impl FnOnce(&mut TaskEndpoint)) {
        let entry = self.networks.get_mut(&NetworkId::new(network)).expect("the network is there");
        let endpoint = entry.endpoints.get_mut(&TaskId::new(task)).expect("the task is there");
        change(Arc::make_mut(endpoint));
    }

    /// What a node is told.
    pub fn set(&self, index: u16) -> NetworkSet {
        let own = &self.nodes[&index];
        let own = SelfPart {
            node: own.node,
            index,
            addr: Some(own.addr),
            entry: own.entry.clone(),
            data_port: self.data_port,
            key_epoch: 0,
            keys: Vec::new(),
        };
        let peers = self.nodes.values().filter(|peer| peer.index != index);
        NetworkSet {
            version: 1,
            own: Some(Arc::new(own)),
            peers: peers.map(|peer| (peer.node, Arc::new(peer.clone()))).collect(),
            networks: self.networks.clone(),
        }
    }

    /// A node's tasks.
    pub fn local(&self, index: u16) -> BTreeMap<TaskId, Arc<LocalTask>> {
        let here = self.tasks.values().filter(|(node, _)| *node == index);
        here.map(|(_, task)| (task.id, Arc::new(task.clone()))).collect()
    }
}

/// A host with IPv6, 1500 bytes and a tunnel.
pub fn facts() -> Facts {
    Facts { underlay_mtu: 1500, tunnel_mtu: Some(1420), ipv6: true, ..Facts::default() }
}

fn nth(net: &str, n: u128) -> IpAddr {
    match net.parse::<ipnet::IpNet>().expect("a subnet").network() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::try_from(n).expect("few")).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + n).into()),
    }
}
