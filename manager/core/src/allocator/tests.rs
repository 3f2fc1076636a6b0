//! What nobody may ever see of addresses and ports, and the scenes that people ask for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use swarm_types::cluster::ClusterSpec;
use swarm_types::container::ContainerNetwork;
use swarm_types::defaults;
use swarm_types::endpoint::{EndpointMode, Port, Protocol, PublishMode};
use swarm_types::id::{NetworkId, ServiceId};
use swarm_types::network::{AttachmentSpec, NetworkSpec, SubnetSpec};
use swarm_types::node::NodeState;
use swarm_types::service::ServiceSpec;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::testing;
use swarm_types::time::Timestamp;

use crate::control;
use crate::control::cluster::Founding;
use crate::store::View;
use crate::world::World;

/// Who had which address, and until when it was in use: finds an address that two have, or that one
/// has too soon after another.
#[derive(Debug, Default)]
pub(crate) struct History {
    holders: BTreeMap<(NetworkId, IpAddr), (String, Timestamp)>,
}

/// Everybody who holds addresses, with them.
fn holders(view: &View) -> Vec<(NetworkId, IpAddr, String)> {
    let mut all = Vec::new();
    for task in view.tasks().filter(|t| t.is_live()) {
        for attachment in &task.attachments {
            let mine = |addr: &IpAddr| (attachment.network, *addr, format!("task {}", task.id));
            all.extend(attachment.addrs.iter().map(mine));
        }
    }
    for service in view.services() {
        for (network, addrs) in &service.endpoint.vips {
            all.extend(addrs.iter().map(|addr| (*network, *addr, format!("service {}", service.id))));
        }
    }
    if let Some(ingress) = view.ingress_network() {
        for node in view.nodes() {
            all.extend(node.entry.iter().map(|addr| (ingress.id, *addr, format!("node {}", node.id))));
        }
    }
    all
}

impl History {
    /// Panics if an address is not where it may be.
    pub(crate) fn check(&mut self, view: &View, now: Timestamp) {
        let mut seen = BTreeMap::new();
        for (network, addr, who) in holders(view) {
            if let Some(other) = seen.insert((network, addr), who.clone()) {
                panic!("{who} and {other} have {addr} on {network}");
            }
            let net = view.network(&network).expect("a network that is in use is there");
            let inside = |s: &swarm_types::network::Subnet| {
                s.range.contains(&addr)
                    && s.gateway != addr
                    && !s.reserved.contains(&addr)
                    && addr != s.net.network()
                    && (addr.is_ipv6() || addr != s.net.broadcast())
            };
            assert!(net.subnets.iter().any(inside), "{who} has {addr}");
            let before = self.holders.insert((network, addr), (who.clone(), now));
            if let Some((other, until)) = before.filter(|(other, _)| *other != who) {
                assert!(
                    now.since(until) >= defaults::ADDRESS_QUARANTINE,
                    "{who} has {addr} {:?} after {other}",
                    now.since(until)
                );
            }
        }
        let mut indexes: Vec<u16> = view.nodes().map(|n| n.index).filter(|i| *i != 0).collect();
        indexes.sort_unstable();
        assert!(indexes.windows(2).all(|w| w[0] != w[1]), "two nodes have one number");
        ports_are_unique(view);
    }
}

fn ports_are_unique(view: &View) {
    let mut all: Vec<(Port, ServiceId)> = Vec::new();
    for service in view.services() {
        for port in service.endpoint.ports.iter().filter(|p| p.mode == PublishMode::Ingress) {
            let clash = all.iter().find(|(other, _)| super::port::collide(other, port));
            assert!(clash.is_none(), "{port:?} of {} and {clash:?}", service.id);
            assert_ne!(port.published, 0);
            all.push((*port, service.id));
        }
    }
}

/// A cluster with an ingress network and `nodes`.
fn cluster(spec: ClusterSpec, nodes: &[&str]) -> World {
    let mut world = World::new(&[]);
    world.change(|d| {
        let founding = Founding { cluster: "c".into(), node: "m".into(), spec, ..Founding::default() };
        control::cluster::found(d, founding).unwrap();
        d.delete_node(&"m".into());
    });
    nodes.iter().for_each(|n| world.node(testing::node(n)));
    world
}

fn network(world: &mut World, name: &str, change: impl FnOnce(&mut NetworkSpec)) -> NetworkId {
    let mut spec = NetworkSpec::default();
    spec.annotations.name = name.into();
    change(&mut spec);
    let mut ids = world.ids.clone();
    let mut id = NetworkId::default();
    let now = world.now;
    world.change(|d| {
        let mut ctx = crate::context::Context { now, ids: &mut ids };
        id = control::network::create(d, spec, &mut ctx).unwrap();
    });
    world.ids = ids;
    id
}

fn subnet(net: &str) -> SubnetSpec {
    SubnetSpec { subnet: net.parse().unwrap(), gateway: None, range: None, reserved: BTreeMap::new() }
}

fn on(name: &str, replicas: u64, networks: &[NetworkId]) -> ServiceSpec {
    let attach =
        |id: &NetworkId| AttachmentSpec { network: *id, aliases: vec!["al".into()], ..Default::default() };
    let networks = networks.iter().map(attach).collect();
    testing::service(name).replicas(replicas).with(|_, task| task.networks = networks).build()
}

fn publishing(name: &str, ports: &[Port]) -> ServiceSpec {
    testing::service(name).replicas(2).with(|spec, _| spec.endpoint.ports = ports.to_vec()).build()
}

fn port(published: u16, mode: PublishMode) -> Port {
    Port { published, target: 80, mode, ..Port::default() }
}

fn live(world: &World, service: &ServiceId) -> Vec<Task> {
    world
        .view()
        .tasks_of_service(service)
        .filter(|t| t.is_live() && t.is_wanted())
        .map(|t| Task::clone(t))
        .collect()
}

fn addrs(task: &Task) -> Vec<String> {
    task.attachments.iter().flat_map(|a| &a.addrs).map(ToString::to_string).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_task_has_its_networks_and_the_ingress_network_last() {
    let mut world = cluster(ClusterSpec::default(), &["n1"]);
    let a = network(&mut world, "a", |s| (s.subnets, s.ipv6) = (vec![subnet("10.1.0.0/24")], true));
    let b = network(&mut world, "b", |s| s.internal = true);
    let id = world.service(on("web", 1, &[b, a]));
    let inside = world.service(on("inside", 1, &[b]));
    world.settle(SECOND);
    let view = world.view();
    let ingress = view.ingress_network().unwrap().id;
    let task = &live(&world, &id)[0];
    let order: Vec<_> = task.attachments.iter().map(|x| x.network).collect();
    assert_eq!(order, [b, a, ingress]);
    assert_eq!(task.attachments[1].aliases, ["al"]);
    assert!(task.attachments[2].aliases.is_empty());
    let got = &task.attachments[1].addrs;
    assert!(got.len() == 2 && got[0].is_ipv4() && got[1].is_ipv6(), "both families: {got:?}");
    let service = view.service(&id).unwrap();
    assert_eq!(
        service.endpoint.vips.keys().copied().collect::<Vec<_>>().len(),
        2,
        "none on the ingress network"
    );
    assert_eq!(service.endpoint.vips[&a][0].to_string(), "10.1.0.2", "the first after the gateway");
    let task = &live(&world, &inside)[0];
    assert_eq!(task.attachments.len(), 1, "an internal network has no way out");
    let node = view.node(&"n1".into()).unwrap();
    assert_eq!((node.index, node.entry.len()), (1, 2), "an entry of both families");
}

#[test]
fn containers_without_networks_get_nothing_and_bridge_a_way_out() {
    let mut world = cluster(ClusterSpec::default(), &["n1"]);
    let with =
        |name: &str, network| testing::service(name).with(|_, t| t.container.network = network).build();
    let host = world.service(with("host", ContainerNetwork::Host));
    let none = world.service(with("none", ContainerNetwork::Loopback));
    let bridge = world.service(with("bridge", ContainerNetwork::Bridge));
    world.settle(SECOND);
    let ingress = world.view().ingress_network().unwrap().id;
    let on = |id| live(&world, id)[0].attachments.iter().map(|a| a.network).collect::<Vec<_>>();
    assert_eq!((on(&host), on(&none), on(&bridge)), (vec![], vec![], vec![ingress]), "D20");
}

#[test]
fn a_virtual_address_and_ports_stay_across_updates() {
    let mut world = cluster(ClusterSpec::default(), &["n1", "n2"]);
    let a = network(&mut world, "a", |_| ());
    let mut spec = on("web", 2, &[a]);
    spec.endpoint.ports = vec![port(8080, PublishMode::Ingress), port(0, PublishMode::Ingress)];
    let id = world.service(spec.clone());
    world.settle(SECOND);
    let before = world.view().service(&id).unwrap().endpoint.clone();
    let tasks: Vec<_> = live(&world, &id).iter().map(|t| t.id).collect();
    // D2: one port more replaces no task.
    spec.endpoint.ports.push(port(9090, PublishMode::Ingress));
    world.service(spec.clone());
    world.settle(SECOND);
    let after = world.view().service(&id).unwrap().endpoint.clone();
    assert_eq!(after.ports[..2], before.ports[..]);
    assert_eq!(after.ports[2].published, 9090);
    assert_eq!(live(&world, &id).iter().map(|t| t.id).collect::<Vec<_>>(), tasks);
    // C13: other tasks, the same virtual address.
    std::sync::Arc::make_mut(&mut spec.task).force_update = 1;
    world.service(spec.clone());
    world.settle(60 * SECOND);
    assert_eq!(world.view().service(&id).unwrap().endpoint.vips, before.vips);
    assert_ne!(live(&world, &id).iter().map(|t| t.id).collect::<Vec<_>>(), tasks);
    // Host ports are part of the template.
    spec.endpoint.ports.push(port(81, PublishMode::Host));
    let tasks: Vec<_> = live(&world, &id).iter().map(|t| t.id).collect();
    world.service(spec.clone());
    world.settle(60 * SECOND);
    assert!(live(&world, &id).iter().all(|t| !tasks.contains(&t.id) && t.spec.host_ports.len() == 1));
    // Round robin has no virtual address; the one that there was is in quarantine.
    spec.endpoint.mode = EndpointMode::Dnsrr;
    spec.endpoint.ports.clear();
    world.service(spec);
    world.settle(SECOND);
    assert!(world.view().service(&id).unwrap().endpoint.vips.is_empty());
    assert!(world.view().network(&a).unwrap().released.contains_key(&before.vips[&a][0]));
}

#[test]
fn dynamic_ports_are_chosen_once() {
    let mut world = cluster(ClusterSpec::default(), &["n1"]);
    let d4 = [
        port(5005, PublishMode::Ingress),
        port(5006, PublishMode::Ingress),
        port(0, PublishMode::Ingress),
        port(0, PublishMode::Ingress),
    ];
    let id = world.service(publishing("web", &d4));
    let other = world.service(publishing("other", &[Port { protocol: Protocol::Udp, ..d4[3] }, d4[3]]));
    world.settle(SECOND);
    let published =
        |id| world.view().service(id).unwrap().endpoint.ports.iter().map(|p| p.published).collect::<Vec<_>>();
    let (mut first, mut second) = (published(&id), published(&other));
    assert_eq!((first.remove(0), first.remove(0)), (5005, 5006));
    assert_eq!(second.remove(0), 30_000, "udp has its own");
    first.append(&mut second);
    first.sort_unstable();
    assert_eq!(first, [30_000, 30_001, 30_002], "D4");
}

/// D3, when two ask at the same moment: both are taken in, one gets the port.
#[test]
fn a_port_that_two_want_is_given_to_one_and_then_to_the_other() {
    let mut world = cluster(ClusterSpec::default(), &["n1"]);
    let ports = [port(8080, PublishMode::Ingress)];
    let (a, b) = (world.service(publishing("a", &ports)), world.service(publishing("b", &ports)));
    world.settle(SECOND);
    let (first, second) =
        if live(&world, &a).iter().all(|t| !t.attachments.is_empty()) { (a, b) } else { (b, a) };
    let waits = live(&world, &second);
    assert!(waits.iter().all(|t| t.status.state == TaskState::New));
    let err = &waits[0].status.err;
    assert!(
        err.starts_with("port '8080' is already in use by service '") && err.ends_with("as an ingress port"),
        "{err}"
    );
    world.change(|d| control::service::remove(d, &first).unwrap());
    world.settle(SECOND);
    assert!(
        live(&world, &second).iter().all(|t| t.status.state == TaskState::Running && t.status.err.is_empty())
    );
}

/// D24, but for the quarantine: ours waits for it.
#[test]
fn a_full_network_makes_tasks_wait_until_an_address_is_free_again() {
    let mut world = cluster(ClusterSpec::default(), &["n1", "n2"]);
    let a = network(&mut world, "a", |s| s.subnets = vec![subnet("10.1.0.0/29")]);
    let mut history = History::default();
    // Six addresses, less the gateway and the virtual address.
    let id = world.service(on("web", 6, &[a]));
    world.settle(SECOND);
    history.check(&world.view(), world.now);
    let states = |world: &World, state| live(world, &id).iter().filter(|t| t.status.state == state).count();
    assert_eq!((states(&world, TaskState::Running), states(&world, TaskState::New)), (4, 2));
    let waits = live(&world, &id).into_iter().find(|t| t.status.state == TaskState::New).unwrap();
    assert_eq!(waits.status.err, "no available IPv4 addresses on network a (10.1.0.0/29)");
    // Two more are not wanted: the waiting ones go, nobody else is disturbed.
    world.service(on("web", 3, &[a]));
    world.settle(SECOND);
    world.service(on("web", 5, &[a]));
    world.settle_now();
    assert_eq!((states(&world, TaskState::Running), states(&world, TaskState::New)), (3, 2), "in quarantine");
    world.settle(30 * SECOND);
    history.check(&world.view(), world.now);
    assert_eq!((states(&world, TaskState::Running), states(&world, TaskState::New)), (4, 1));
    assert!(world.view().network(&a).unwrap().released.is_empty(), "forgotten when it is free");
}

#[test]
fn ten_thousand_services_come_and_go_without_a_leak() {
    let mut world = cluster(ClusterSpec::default(), &["n1"]);
    let a = network(&mut world, "a", |s| (s.subnets, s.ipv6) = (vec![subnet("10.1.0.0/27")], true));
    let ingress = world.view().ingress_network().unwrap().id;
    let held = world.loops.allocator.addresses.owners();
    for n in 0..10_000u32 {
        let mut spec = on(&format!("s{n}"), 1, &[a]);
        spec.endpoint.ports = vec![port(0, PublishMode::Ingress)];
        let id = world.service(spec);
        world.settle_now();
        if n % 500 == 0 {
            assert_eq!(live(&world, &id)[0].status.state, TaskState::Running, "{n}");
        }
        world.change(|d| control::service::remove(d, &id).unwrap());
        world.settle_now();
        world.now = world.now.plus(SECOND);
    }
    world.settle(30 * SECOND);
    let view = world.view();
    assert_eq!(view.task_count(), 0);
    for id in [a, ingress] {
        assert!(view.network(&id).unwrap().released.is_empty());
    }
    assert_eq!(world.loops.allocator.addresses.owners(), held + 1, "the node's entry");
    let id = world.service(on("last", 1, &[a]));
    world.settle(SECOND);
    assert_eq!(addrs(&live(&world, &id)[0])[0], "10.1.0.3");
}

/// D17: without an ingress network what publishes waits; entries follow the network.
#[test]
fn another_ingress_network() {
    let mut world = cluster(ClusterSpec::default(), &["n1", "n2"]);
    world.passes();
    let old = world.view().ingress_network().unwrap().id;
    world.change(|d| control::network::remove(d, &old).unwrap());
    world.passes();
    assert!(world.view().nodes().all(|n| n.entry.is_empty()));
    // Asked for at the moment when the network went: taken in, and has to wait.
    let id = world.service(publishing("web", &[port(8080, PublishMode::Ingress)]));
    world.settle(SECOND);
    assert_eq!(live(&world, &id)[0].status.err, "published ports need an ingress network, and there is none");
    network(&mut world, "mesh", |s| (s.ingress, s.subnets) = (true, vec![subnet("10.9.0.0/24")]));
    world.settle(SECOND);
    let mut entries: Vec<String> =
        world.view().nodes().flat_map(|n| n.entry.clone()).map(|a| a.to_string()).collect();
    entries.sort();
    assert_eq!(entries, ["10.9.0.2", "10.9.0.3"]);
    assert!(live(&world, &id).iter().all(|t| t.status.state == TaskState::Running));
}

#[test]
fn an_older_cluster_gets_its_ingress_network_once() {
    let mut world = World::new(&["n1"]);
    world.change(|d| {
        d.put_cluster(swarm_types::cluster::Cluster { id: "c".into(), ..Default::default() });
    });
    world.passes();
    let view = world.view();
    let ingress = view.ingress_network().unwrap();
    assert_eq!((ingress.vni, ingress.spec.annotations.name.as_str()), (4096, "ingress"));
    assert_eq!(view.cluster().unwrap().key_epoch, 1);
    assert_eq!(view.node(&"n1".into()).unwrap().index, 1);
    let id = ingress.id;
    world.change(|d| control::network::remove(d, &id).unwrap());
    world.settle(3 * defaults::KEY_ROTATION);
    assert!(world.view().ingress_network().is_none(), "a user removed it");
    assert_eq!(world.view().cluster().unwrap().key_epoch, 4, "keys are counted on");
}

#[test]
fn the_number_of_a_node_that_left_is_not_soon_anothers() {
    let mut world = cluster(ClusterSpec::default(), &["n1", "n2", "n3"]);
    world.passes();
    world.set_state("n2", NodeState::Down);
    let entry = world.view().node(&"n2".into()).unwrap().entry.clone();
    world.change(|d| control::node::remove(d, &"n2".into(), false).unwrap());
    world.node(testing::node("n4"));
    world.passes();
    let view = world.view();
    let n4 = view.node(&"n4".into()).unwrap();
    assert_eq!(n4.index, 4);
    assert!(n4.entry.iter().all(|addr| !entry.contains(addr)), "in quarantine");
}

/// D6.
#[test]
fn a_host_port_is_open_once_on_a_node() {
    let mut world = cluster(ClusterSpec::default(), &["n1", "n2"]);
    let ports = [port(8081, PublishMode::Host)];
    let mut spec = publishing("web", &ports);
    let id = world.service(spec.clone());
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "n1:1 n2:1");
    spec.mode = swarm_types::service::Mode::Replicated { replicas: 3 };
    world.service(spec.clone());
    world.settle(SECOND);
    let waits = live(&world, &id).into_iter().find(|t| t.status.state == TaskState::Pending).unwrap();
    assert_eq!(waits.status.err, "no suitable node (host-mode port already in use on 2 nodes)");
    spec.mode = swarm_types::service::Mode::Replicated { replicas: 2 };
    world.service(spec.clone());
    // An update puts one after the other on each node, whatever its order.
    spec.update.order = swarm_types::policy::UpdateOrder::StartFirst;
    std::sync::Arc::make_mut(&mut spec.task).container.image = "image:2".into();
    world.service(spec);
    world.settle(60 * SECOND);
    assert_eq!(world.running(&id, "image:2"), 2);
}

#[test]
fn what_cannot_encrypt_gets_nothing_that_must_be() {
    let mut world = cluster(ClusterSpec::default(), &["n1", "n2"]);
    world.edit_node("n1", |n| n.description.network.encryption.clear());
    let (a, b) = (
        network(&mut world, "a", |s| s.internal = true),
        network(&mut world, "b", |s| {
            (s.encrypted, s.internal) = (false, true);
        }),
    );
    let (secret, open) = (world.service(on("secret", 2, &[a])), world.service(on("open", 2, &[b])));
    world.settle(SECOND);
    assert_eq!((world.spread(&secret), world.spread(&open)), ("n1:0 n2:2".into(), "n1:1 n2:1".into()));
    world.edit_node("n2", |n| n.description.network.encryption.clear());
    world.service(on("secret", 3, &[a]));
    world.settle(SECOND);
    let waits = live(&world, &secret).into_iter().find(|t| t.status.state == TaskState::Pending).unwrap();
    assert_eq!(waits.status.err, "no suitable node (encryption not available on 2 nodes)");
}
