//! Laws of plans, held while anything may happen to a small world in any order.
//!
//! Reads:   plans, as values.
//! Writes:  a world.
//! Never:   leaves the tests.
//! Start:   `laws_hold_whatever_happens`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_types::defaults;
use swarm_types::endpoint::{Balance, EndpointMode, Port, Protocol, PublishMode};
use swarm_types::id::{NetworkId, ServiceId, TaskId};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::NetworkSet;

use super::address::{self, Version};
use super::bridge;
use super::firewall::{Chain, Choice, MapElements, Statement, Table, Value, Verdict};
use super::ground::Facts;
use super::kernel::{LinkKind, Namespace, Place, Plan};
use super::planner::{LocalTask, Planned, Planner};
use super::testing::{World, facts, port};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
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

fn event() -> impl Strategy<Value = Event> {
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

struct Play {
    world: World,
    facts: Facts,
    away: BTreeSet<NetworkId>,
    peers_away: BTreeSet<u16>,
    local_away: BTreeSet<TaskId>,
}

impl Play {
    fn new() -> Self {
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

    fn set(&self) -> NetworkSet {
        let mut set = self.world.set(1);
        set.networks.retain(|id, _| !self.away.contains(id));
        set.peers.retain(|_, peer| !self.peers_away.contains(&peer.index));
        set
    }

    fn local(&self) -> BTreeMap<TaskId, Arc<LocalTask>> {
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

    fn happens(&mut self, event: &Event) {
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

fn task(id: u8) -> TaskId {
    TaskId::new(format!("task{id}"))
}

fn tables(plan: &Plan) -> impl Iterator<Item = (&Place, &Table)> {
    plan.namespaces.iter().flat_map(|(place, ns)| ns.tables.iter().map(move |table| (place, table)))
}

/// Every name is short enough, and everything that is named is there.
fn names_are_right(plan: &Plan) {
    for (place, table) in tables(plan) {
        let names = table.sets.keys().chain(table.maps.keys()).chain(table.chains.keys());
        names.for_each(|name| assert!(name.len() <= 31, "{place}: {name}"));
        let chain = |verdict: &Verdict| match verdict {
            Verdict::Goto(name) | Verdict::Jump(name) => assert!(table.chains.contains_key(name), "{name}"),
            Verdict::Accept | Verdict::Drop | Verdict::Return => {}
        };
        let map = |name: &str| assert!(table.maps.contains_key(name), "{place}: map {name}");
        for map in table.maps.values() {
            if let MapElements::Verdicts(all) = &map.elements {
                all.values().for_each(chain);
            }
        }
        for statement in
            table.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements)
        {
            match statement {
                Statement::InSet(_, _, name) => assert!(table.sets.contains_key(name), "{place}: set {name}"),
                Statement::VerdictMap(_, name)
                | Statement::SetConnectionMark(_, name)
                | Statement::SetOriginalZone(_, name)
                | Statement::SetEtherDestination(_, name) => map(name),
                Statement::Verdict(verdict) => chain(verdict),
                _ => {}
            }
        }
        let used: BTreeSet<_> = table
            .maps
            .values()
            .flat_map(|map| match &map.elements {
                MapElements::Verdicts(all) => all.values().cloned().collect(),
                _ => Vec::new(),
            })
            .collect();
        let idle = table.chains.iter().filter(|(_, chain)| chain.hook.is_none());
        idle.for_each(|(name, _)| {
            assert!(used.contains(&Verdict::Goto(name.clone())), "nothing leads to {name}")
        });
    }
}

/// Pairs have two ends, devices that are named are there, and nothing has two routes.
fn devices_are_right(plan: &Plan) {
    for (place, ns) in &plan.namespaces {
        for (name, link) in &ns.links {
            assert!(name.len() <= 15, "{name}");
            let LinkKind::Veth { peer, peer_name } = &link.kind else { continue };
            // The sandbox of a network that is not known (any more) has no ends.
            let Some(other) = plan.namespaces.get(peer) else { panic!("{place} {name}: no {peer}") };
            let Some(back) = other.links.get(peer_name) else { panic!("{place} {name}: no {peer_name}") };
            assert_eq!(back.kind, LinkKind::Veth { peer: *place, peer_name: name.clone() });
            assert_eq!(back.mtu, link.mtu);
        }
        let there = |name: &String| assert!(name == "lo" || ns.links.contains_key(name), "{place}: {name}");
        ns.addrs.iter().for_each(|(name, _)| there(name));
        ns.neighbours.keys().for_each(|(name, _)| there(name));
        ns.forwarding.keys().for_each(|(name, _)| there(name));
        let mut seen = BTreeSet::new();
        for route in ns.routes.iter() {
            assert!(seen.insert((route.table, route.to, route.metric)), "{place}: two routes: {route}");
            if let super::kernel::Way::Device { name, .. } = &route.way {
                there(name);
            }
        }
    }
}

/// Encrypted networks know tunnel addresses only, and the host lets nothing else of them through.
fn encrypted_is_encrypted(set: &NetworkSet, plan: &Plan) {
    let tunnel = |addr: IpAddr| matches!(addr, IpAddr::V4(addr) if defaults::tunnel_net().contains(&addr));
    let host = &plan.namespaces[&Place::Host];
    for (id, entry) in set.networks.iter().filter(|(_, entry)| entry.network.encrypted) {
        if entry.network.vni != 0 {
            let number = vec![Value::Number(entry.network.vni)];
            host.tables.iter().for_each(|table| assert!(table.sets["encrypted"].elements.contains(&number)));
        }
        let Some(ns) = plan.namespaces.get(&Place::Sandbox(*id)) else { continue };
        for link in ns.links.values() {
            if let LinkKind::Vxlan { local, .. } = link.kind {
                assert!(tunnel(local), "{local}");
            }
        }
        ns.forwarding.values().for_each(|addr| assert!(tunnel(*addr), "{addr}"));
    }
}

/// Nodes that are gone have left nothing.
fn no_trace(play: &Play, plan: &Plan) {
    let text = plan.to_string();
    let words: BTreeSet<_> = text.split([' ', ',', '\n']).collect();
    for index in &play.peers_away {
        let peer = &play.world.nodes[index];
        let mut traces =
            vec![peer.addr.to_string(), format!("{:#x}", address::REPLY_MARK | u32::from(*index))];
        traces.extend(Version::BOTH.map(|version| address::label(version, *index).to_string()));
        traces.extend([0, 4096, 4097, 4098, 4099].map(|vni| address::vtep_mac(vni, *index).to_string()));
        traces.extend(peer.entry.iter().map(ToString::to_string));
        traces.iter().for_each(|trace| assert!(!words.contains(trace.as_str()), "{trace} of node {index}"));
    }
}

fn choice<'a>(table: Option<&'a Table>, map: &str, key: &[Value]) -> Option<&'a Choice> {
    let table = table?;
    let MapElements::Verdicts(all) = &table.maps.get(map)?.elements else { panic!("{map}") };
    let Verdict::Goto(chain) = all.get(key)? else { panic!("{key:?}") };
    let Chain { rules, .. } = &*table.chains[chain];
    let statement = rules.iter().flat_map(|rule| &rule.statements).find(|s| matches!(s, Statement::Dnat(_)));
    let Some(Statement::Dnat(choice)) = statement else { panic!("{chain}") };
    Some(choice)
}

fn table<'a>(ns: &'a Namespace, version: Version, name: &str) -> Option<&'a Table> {
    ns.tables.iter().find(|table| table.family == version.family() && table.name == name)
}

/// A virtual address leads to all serving tasks that can be reached, and to no other.
fn targets_are_right(set: &NetworkSet, plan: &Plan, facts: &Facts) {
    let own = set.own.as_ref().unwrap().node;
    for (id, entry) in set.networks.iter().filter(|(_, entry)| !entry.network.ingress) {
        for service in entry.services.values() {
            for vip in &service.vips {
                let version = Version::of(*vip);
                let serving = entry.serving(service.service);
                let serving = serving.filter(|task| bridge::reaches(entry.network.driver, own, task));
                let usable = version == Version::V4 || facts.ipv6;
                let usable = usable && service.mode == EndpointMode::Vip;
                let want: BTreeSet<_> =
                    serving.filter(|_| usable).filter_map(|task| version.first(&task.addrs)).collect();
                let ns = &plan.namespaces[&Place::Sandbox(*id)];
                let choice = choice(table(ns, version, "sw_net"), "svc", &[Value::Addr(*vip)]);
                let got: BTreeSet<_> =
                    choice.iter().flat_map(|choice| &choice.targets).map(|(addr, ..)| *addr).collect();
                assert_eq!(got, want, "{} on {id}", service.name);
            }
        }
    }
}

/// A published port leads to serving tasks of one service that wants it.
fn ports_are_right(play: &Play, set: &NetworkSet, plan: &Plan) {
    let host = &plan.namespaces[&Place::Host];
    let held = super::port::published(set, &play.local());
    for version in Version::BOTH {
        let table = table(host, version, "sw_host");
        let entry = set.own.as_ref().and_then(|own| version.first(&own.entry));
        for (key, holder) in &held {
            let mut words =
                vec![Value::Protocol(address::protocol_number(key.protocol)), Value::Port(key.port)];
            if let Some(addr) = key.host_ip {
                words.insert(0, Value::Addr(addr));
            }
            let map = if key.host_ip.is_some() { "pub_ip" } else { "pub" };
            let got = choice(table, map, &words).map(|choice| choice.targets.clone()).unwrap_or_default();
            let ingress = set.ingress().unwrap();
            let here = |task: TaskId| holder.mode == PublishMode::Ingress || play.local().contains_key(&task);
            let usable = entry.is_some() && (version == Version::V4 || play.facts.ipv6);
            let usable = usable && key.host_ip.is_none_or(|addr| Version::of(addr) == version);
            let want: BTreeSet<_> = ingress
                .serving(holder.service)
                .filter(|task| usable && here(task.task))
                .filter_map(|task| version.first(&task.addrs))
                .collect();
            assert_eq!(
                got.iter().map(|(addr, ..)| *addr).collect::<BTreeSet<_>>(),
                want,
                "{key} {version:?}"
            );
        }
    }
}

fn plan(planner: &mut Planner, play: &Play) -> Planned {
    planner.plan(&play.set(), &play.local(), &play.facts).expect("the node knows which it is")
}

proptest! {
    #[test]
    fn laws_hold_whatever_happens(events in prop::collection::vec(event(), 1..40)) {
        let (mut play, mut planner) = (Play::new(), Planner::new());
        for event in &events {
            play.happens(event);
            let planned = plan(&mut planner, &play);
            let set = play.set();
            names_are_right(&planned.plan);
            devices_are_right(&planned.plan);
            encrypted_is_encrypted(&set, &planned.plan);
            no_trace(&play, &planned.plan);
            targets_are_right(&set, &planned.plan, &play.facts);
            ports_are_right(&play, &set, &planned.plan);
            // One that saw everything plans as one that sees it for the first time.
            prop_assert_eq!(&planned, &plan(&mut Planner::new(), &play), "{:?}", event);
            // Nothing happened: the same values.
            let again = plan(&mut planner, &play);
            for (place, ns) in &again.plan.namespaces {
                prop_assert!(Arc::ptr_eq(ns, &planned.plan.namespaces[place]), "{}", place);
            }
        }
    }
}
