//! Plans as text, whole worlds in `../golden`.

use expect_test::{ExpectFile, expect_file};
use swarm_types::endpoint::{Balance, EndpointMode, Protocol, PublishMode};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::NetworkSet;

use super::*;
use crate::network::testing::{World, addr, facts, port};

const INGRESS: &str = "10.255.0.0/16";

fn world(entry: &[&str]) -> World {
    let mut world = World::new(&["192.168.7.1", "192.168.7.2"], entry);
    world.network("ingress", 4096, entry, |network| network.ingress = true);
    world
}

/// The text of some places of node 1's plan, or of all; and what is wrong.
fn check(world: &World, facts: &Facts, places: &[&str], expected: &ExpectFile) {
    let planned = Planner::new().plan(&world.set(1), &world.local(1), facts).unwrap();
    let mut text = String::new();
    for (place, ns) in &planned.plan.namespaces {
        if places.is_empty() || places.contains(&place.to_string().as_str()) {
            text += &format!("# {place}\n{ns}\n");
        }
    }
    for (task, resolver) in &planned.resolvers {
        text += &format!("# names for {task}: {resolver}\n");
    }
    for problem in &planned.problems {
        text += &format!("# problem: {}: {}\n", problem.subject, problem.text);
    }
    expected.assert_eq(&text);
}

#[test]
fn two_nodes_and_two_services() {
    let mut world = world(&[INGRESS]);
    world.network("app", 4097, &["10.0.1.0/24"], |_| {});
    world.service("web", "app", &["10.0.1.100"], |_| {});
    world.service("web", "ingress", &[], |service| {
        let port = |protocol, n, target| port(protocol, n, target, PublishMode::Ingress);
        service.ports = vec![port(Protocol::Tcp, 80, 8080), port(Protocol::Udp, 53, 5353)];
    });
    world.service("db", "app", &["10.0.1.101"], |_| {});
    world.task("web1", "web", 1, &[("app", "10.0.1.11"), ("ingress", "10.255.0.11")]);
    world.task("web2", "web", 2, &[("app", "10.0.1.12"), ("ingress", "10.255.0.12")]);
    world.task("db1", "db", 2, &[("app", "10.0.1.13"), ("ingress", "10.255.0.13")]);
    check(&world, &facts(), &[], &expect_file!["../golden/two_services.txt"]);
    let change = |part: &mut swarm_types::network_set::NetworkPart| part.encrypted = true;
    for id in ["app", "ingress"] {
        let entry = world.networks.get_mut(&NetworkId::new(id)).unwrap();
        change(Arc::make_mut(&mut entry.network));
    }
    let shown = ["host", "network app", "task web1"];
    check(&world, &facts(), &shown, &expect_file!["../golden/encrypted.txt"]);
    let without = Facts { tunnel_mtu: None, ..facts() };
    check(&world, &without, &[], &expect_file!["../golden/no_tunnel.txt"]);
}

/// Its links are there until the agent has put them away; the address may be somebody else's by then.
#[test]
fn a_task_that_has_ended_does_not_hide_who_has_its_address() {
    let mut world = world(&[INGRESS]);
    world.network("app", 4097, &["10.0.1.0/24"], |_| {});
    world.service("web", "app", &["10.0.1.100"], |_| {});
    world.task("old", "web", 1, &[("app", "10.0.1.11")]);
    let local = world.local(1);
    let mut planner = Planner::new();
    let route = |planned: Planned| {
        let sandbox = &planned.plan.namespaces[&Place::Sandbox("app".into())];
        let to = address::host_net(addr("10.0.1.11"));
        sandbox.routes.iter().filter(|route| route.to == to).map(ToString::to_string).collect::<Vec<_>>()
    };
    let before = planner.plan(&world.set(1), &local, &facts()).unwrap();
    assert_eq!(route(before), ["10.0.1.11/32 dev t-old"]);
    world.networks.get_mut(&"app".into()).unwrap().endpoints.clear();
    world.task("new", "web", 2, &[("app", "10.0.1.11")]);
    let after = ["10.0.1.11/32 via 100.127.0.2 dev vx0 onlink"];
    assert_eq!(route(planner.plan(&world.set(1), &local, &facts()).unwrap()), after);
    assert_eq!(route(Planner::new().plan(&world.set(1), &local, &facts()).unwrap()), after);
}

#[test]
fn ways_to_choose() {
    let mut world = world(&[INGRESS, "fd53:255::/64"]);
    world.network("app", 4097, &["10.0.1.0/24", "fd53:1::/64"], |_| {});
    world.service("sticky", "app", &["10.0.1.100", "fd53:1::100"], |s| s.balance = Balance::Sticky);
    world.service("weighted", "app", &["10.0.1.101"], |_| {});
    world.service("none", "app", &["10.0.1.102"], |_| {});
    world.service("dnsrr", "app", &[], |s| s.mode = EndpointMode::Dnsrr);
    let port = |n| port(Protocol::Tcp, n, 80, PublishMode::Ingress);
    world.service("sticky", "ingress", &[], |s| (s.balance, s.ports) = (Balance::Sticky, vec![port(8001)]));
    world.service("weighted", "ingress", &[], |s| s.ports = vec![port(8002)]);
    world.service("none", "ingress", &[], |s| s.ports = vec![port(8003)]);
    for (n, service) in ["sticky", "weighted", "dnsrr"].iter().enumerate() {
        for node in [1, 2] {
            let last = 10 * (n + 1) + usize::from(node);
            let app = format!("10.0.1.{last},fd53:1::{last}");
            let ingress = format!("10.255.0.{last},fd53:255::{last}");
            let name = format!("{service}{node}");
            world.task(&name, service, node, &[("app", &app), ("ingress", &ingress)]);
        }
    }
    world.task("none1", "none", 2, &[("app", "10.0.1.9"), ("ingress", "10.255.0.9")]);
    for network in ["app", "ingress"] {
        world.endpoint("none1", network, |task| task.serving = false);
        world.endpoint("weighted1", network, |task| task.weight = 30);
        world.endpoint("weighted2", network, |task| task.weight = 10);
    }
    let shown = ["host", "network app"];
    check(&world, &facts(), &shown, &expect_file!["../golden/choices.txt"]);
}

#[test]
fn ports_of_one_node() {
    let mut world = world(&[INGRESS]);
    let host = |n, target| port(Protocol::Tcp, n, target, PublishMode::Host);
    let bound =
        |ip: &str, n| Port { host_ip: Some(addr(ip)), ..port(Protocol::Tcp, n, 80, PublishMode::Ingress) };
    world.service("web", "ingress", &[], |s| {
        s.ports =
            vec![host(8081, 80), bound("192.168.7.1", 80), bound("0.0.0.0", 81), bound("127.0.0.1", 82)];
    });
    world.service("late", "ingress", &[], |s| s.ports = vec![bound("192.168.7.1", 80)]);
    for (n, name) in [(1, "web1"), (2, "web2")] {
        world.task(name, "web", n, &[("ingress", &format!("10.255.0.1{n}"))]);
        world.tasks.get_mut(&TaskId::new(name)).unwrap().1.ports = vec![host(8081, 80), host(30_001, 443)];
    }
    world.task("late1", "late", 2, &[("ingress", "10.255.0.9")]);
    check(&world, &facts(), &["host"], &expect_file!["../golden/host_mode.txt"]);
    let held = port::published(&world.set(1), &world.local(1));
    let held: Vec<_> =
        held.iter().map(|(key, holder)| format!("{key} {} {:?}", holder.name, holder.mode)).collect();
    let expected = [
        "192.168.7.1:80/tcp late Ingress",
        "0.0.0.0:81/tcp web Ingress",
        "127.0.0.1:82/tcp web Ingress",
        "8081/tcp web Host",
        "30001/tcp web Host",
    ];
    assert_eq!(held, expected);
}

#[test]
fn other_kinds_of_networks() {
    let mut world = world(&[INGRESS]);
    world.network("inside", 4097, &["10.0.1.0/24"], |network| network.internal = true);
    world.network("local", 0, &["10.0.2.0/24"], |network| network.driver = NetworkDriver::Bridge);
    world.network("lan", 0, &["192.168.7.0/24"], |network| {
        network.driver = NetworkDriver::Macvlan;
        network.options.insert("parent".into(), "eth0".into());
    });
    world.network("dhcp", 0, &[], |network| network.driver = NetworkDriver::Macvlan);
    world.service("in", "inside", &["10.0.1.100"], |_| {});
    world.service("loc", "local", &["10.0.2.100"], |_| {});
    world.task("in1", "in", 1, &[("inside", "10.0.1.11")]);
    world.task("in2", "in", 1, &[("inside", "10.0.1.12"), ("ingress", "10.255.0.12")]);
    world.task("loc1", "loc", 1, &[("local", "10.0.2.11"), ("ingress", "10.255.0.13")]);
    world.task("loc2", "loc", 2, &[("local", "10.0.2.12"), ("ingress", "10.255.0.14")]);
    world.task("lan1", "lan", 1, &[("lan", "192.168.7.50"), ("dhcp", "")]);
    check(&world, &facts(), &[], &expect_file!["../golden/kinds.txt"]);
}

#[test]
fn ipv6_only() {
    let mut world = World::new(&["fd53:200::1", "fd53:200::2"], &["fd53:255::/64"]);
    world.network("ingress", 4096, &["fd53:255::/64"], |network| network.ingress = true);
    world.network("app", 4097, &["fd53:1::/64"], |_| {});
    world.service("web", "app", &["fd53:1::100"], |_| {});
    world.service("web", "ingress", &[], |s| {
        s.ports = vec![port(Protocol::Sctp, 80, 8080, PublishMode::Ingress)];
    });
    world.task("web1", "web", 1, &[("app", "fd53:1::11"), ("ingress", "fd53:255::11")]);
    world.task("web2", "web", 2, &[("app", "fd53:1::12"), ("ingress", "fd53:255::12")]);
    let mut facts = facts();
    facts.router_devices.insert("eth0".into());
    check(&world, &facts, &[], &expect_file!["../golden/ipv6_only.txt"]);
    let off = Facts { ipv6: false, ..facts };
    check(&world, &off, &[], &expect_file!["../golden/ipv6_off.txt"]);
}

#[test]
fn nothing_is_planned_before_a_manager_has_said_who_this_is() {
    assert_eq!(Planner::new().plan(&NetworkSet::default(), &BTreeMap::new(), &facts()), None);
}
