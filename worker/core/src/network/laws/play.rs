//! Play: a small world, and what may happen to it.
//!
//! Reads:   events.
//! Writes:  what managers would tell node 1.
//! Never:   leaves the tests.
//! Start:   [`Play::happens`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_types::endpoint::{Balance, EndpointMode, Port, Protocol, PublishMode};
use swarm_types::id::{NetworkId, ServiceId, TaskId};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::NetworkSet;

use crate::network::ground::Facts;
use crate::network::planner::LocalTask;
use crate::network::testing::{World, facts, port};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Task {
        id: u8,
        service: u8,
        node: u16,
        inside: bool,
    },
    Serving(u8, bool),
    Weight(u8, u32),
    Gone(u8),
    /// The node has no namespace for it any more, or again.
    Local(u8, bool),
    Peer(u16, bool),
    Readdress(u16),
    Entry(bool),
    Encrypted(u8, bool),
    Internal(bool),
    Network(u8, bool),
    Service {
        service: u8,
        sticky: bool,
        dnsrr: bool,
        ports: u8,
    },
    NoService(u8),
    Tunnel(bool),
    Ipv6(bool),
}

const NETWORKS: [&str; 5] = ["ingress", "app", "inside", "bridge", "v6"];
const SERVICES: [&str; 3] = ["web", "db", "cache"];

pub(super) fn event() -> impl Strategy<Value = Event> {
    let (id, service, yes) = (0..8_u8, 0..3_u8, any::<bool>());
    prop_oneof![
        8 => (id.clone(), service.clone(), 1..4_u16, yes)
            .prop_map(|(id, service, node, inside)| Event::Task { id, service, node, inside }),
        6 => (id.clone(), yes).prop_map(|(id, on)| Event::Serving(id, on)),
        2 => (id.clone(), 1..100_u32).prop_map(|(id, weight)| Event::Weight(id, weight)),
        3 => id.clone().prop_map(Event::Gone),
        2 => (id, yes).prop_map(|(id, on)| Event::Local(id, on)),
        3 => (2..4_u16, yes).prop_map(|(node, on)| Event::Peer(node, on)),
        1 => (2..4_u16).prop_map(Event::Readdress),
        1 => yes.prop_map(Event::Entry),
        2 => (0..5_u8, yes).prop_map(|(network, on)| Event::Encrypted(network, on)),
        1 => yes.prop_map(Event::Internal),
        2 => (0..5_u8, yes).prop_map(|(network, on)| Event::Network(network, on)),
        4 => (service.clone(), yes, prop::bool::weighted(0.2), 0..4_u8)
            .prop_map(|(service, sticky, dnsrr, ports)| Event::Service { service, sticky, dnsrr, ports }),
        1 => service.prop_map(Event::NoService),
        1 => yes.prop_map(Event::Tunnel),
        1 => yes.prop_map(Event::Ipv6),
    ]
}

pub(super) struct Play {
    pub(super) world: World,
    pub(super) facts: Facts,
    away: BTreeSet<NetworkId>,
    pub(super) peers_away: BTreeSet<u16>,
    local_away: BTreeSet<TaskId>,
}

impl Play {
    pub(super) fn new() -> Self {
        let (v4, v6) = ("10.255.0.0/16", "fd53:255::/64");
        let mut world = World::new(&["192.168.7.1", "192.168.7.2", "192.168.7.3"], &[v4, v6]);
        world.network("ingress", 4096, &[v4, v6], |network| network.ingress = true);
        world.network("app", 4097, &["10.0.1.0/24", "fd53:1::/64"], |_| {});
        world.network("inside", 4098, &["10.0.1.0/24"], |network| network.internal = true);
        world.network("bridge", 0, &["10.0.3.0/24"], |network| network.driver = NetworkDriver::Bridge);
        world.network("v6", 4099, &["fd53:4::/64"], |_| {});
        let (away, peers_away, local_away) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { world, facts: facts(), away, peers_away, local_away }
    }

    pub(super) fn set(&self) -> NetworkSet {
        let mut set = self.world.set(1);
        set.networks.retain(|id, _| !self.away.contains(id));
        set.peers.retain(|_, peer| !self.peers_away.contains(&peer.index));
        set
    }

    pub(super) fn local(&self) -> BTreeMap<TaskId, Arc<LocalTask>> {
        let mut local = self.world.local(1);
        local.retain(|id, _| !self.local_away.contains(id));
        local
    }

    fn part(&mut self, network: &str, change: impl FnOnce(&mut swarm_types::network_set::NetworkPart)) {
        let entry = self.world.networks.get_mut(&NetworkId::new(network)).unwrap();
        change(Arc::make_mut(&mut entry.network));
    }

    fn endpoint(&mut self, id: u8, change: impl Fn(&mut swarm_types::network_set::TaskEndpoint)) {
        for entry in self.world.networks.values_mut() {
            entry.endpoints.get_mut(&task(id)).into_iter().for_each(|e| change(Arc::make_mut(e)));
        }
    }

    fn gone(&mut self, id: u8) {
        self.world.networks.values_mut().for_each(|entry| drop(entry.endpoints.remove(&task(id))));
        self.world.tasks.remove(&task(id));
    }

    pub(super) fn happens(&mut self, event: &Event) {
        fn keep<T: Ord>(away: &mut BTreeSet<T>, key: T, on: bool) {
            if on {
                away.remove(&key)
            } else {
                away.insert(key)
            };
        }
        match *event {
            Event::Task { id, service, node, inside } => {
                self.gone(id);
                let n = id + 10;
                let app = format!("10.0.1.{n},fd53:1::{n}");
                let ingress = format!("10.255.0.{n},fd53:255::{n}");
                let (bridge, v6) = (format!("10.0.3.{n}"), format!("fd53:4::{n}"));
                let own = format!("10.0.1.{n}");
                let on: &[(&str, &str)] = if inside {
                    &[("inside", &own), ("ingress", &ingress)]
                } else {
                    &[("app", &app), ("bridge", &bridge), ("v6", &v6), ("ingress", &ingress)]
                };
                self.world.task(task(id).as_str(), SERVICES[usize::from(service)], node, on);
                let local = &mut self.world.tasks.get_mut(&task(id)).unwrap().1;
                local.ports = vec![port(Protocol::Tcp, 9000 + u16::from(service), 80, PublishMode::Host)];
            }
            Event::Serving(id, on) => self.endpoint(id, |endpoint| endpoint.serving = on),
            Event::Weight(id, weight) => self.endpoint(id, |endpoint| endpoint.weight = weight),
            Event::Gone(id) => self.gone(id),
            Event::Local(id, on) => keep(&mut self.local_away, task(id), on),
            Event::Peer(index, on) => keep(&mut self.peers_away, index, on),
            Event::Readdress(index) => {
                let node = self.world.nodes.get_mut(&index).unwrap();
                let IpAddr::V4(addr) = node.addr else { unreachable!("nodes have IPv4 addresses") };
                node.addr = IpAddr::V4((u32::from(addr) ^ 0x100).into());
            }
            Event::Entry(v6) => {
                let own = self.world.nodes.get_mut(&1).unwrap();
                own.entry = vec!["10.255.9.1".parse().unwrap()];
                own.entry.extend(v6.then(|| "fd53:255::9:1".parse::<IpAddr>().unwrap()));
            }
            Event::Encrypted(network, on) => self.part(NETWORKS[usize::from(network)], |n| n.encrypted = on),
            Event::Internal(on) => self.part("app", |network| network.internal = on),
            Event::Network(network, on) => {
                keep(&mut self.away, NetworkId::new(NETWORKS[usize::from(network)]), on);
            }
            Event::Service { service, sticky, dnsrr, ports } => self.service(service, sticky, dnsrr, ports),
            Event::NoService(service) => {
                let id = ServiceId::new(SERVICES[usize::from(service)]);
                self.world.networks.values_mut().for_each(|entry| drop(entry.services.remove(&id)));
            }
            Event::Tunnel(on) => self.facts.tunnel_mtu = on.then_some(1420),
            Event::Ipv6(on) => self.facts.ipv6 = on,
        }
    }

    fn service(&mut self, service: u8, sticky: bool, dnsrr: bool, ports: u8) {
        let n = 100 + service;
        let vips: [(&str, Vec<String>); 4] = [
            ("app", vec![format!("10.0.1.{n}"), format!("fd53:1::{n}")]),
            ("inside", vec![format!("10.0.1.{n}")]),
            ("bridge", vec![format!("10.0.3.{n}")]),
            ("v6", vec![format!("fd53:4::{n}")]),
        ];
        let change = |s: &mut swarm_types::network_set::ServiceEndpoint| {
            s.balance = if sticky { Balance::Sticky } else { Balance::Random };
            s.mode = if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip };
        };
        let name = SERVICES[usize::from(service)];
        for (network, vips) in vips {
            let vips: Vec<_> = vips.iter().map(String::as_str).collect();
            self.world.service(name, network, &vips, change);
        }
        self.world.service(name, "ingress", &[], |s| {
            change(s);
            let ports = (0..ports).map(|n| 80 + u16::from(n) + u16::from(service / 2));
            s.ports = ports.map(|n| port(Protocol::Tcp, n, 8080, PublishMode::Ingress)).collect();
            let host_ip = Some("192.168.7.1".parse().unwrap());
            s.ports.push(Port { host_ip, ..port(Protocol::Udp, 53, 53, PublishMode::Ingress) });
        });
    }
}

pub(super) fn task(id: u8) -> TaskId {
    TaskId::new(format!("task{id}"))
}
