//! The planner's rulesets, proved by packets: plans are made real in namespaces by `ip` and `nft`, and
//! packets are sent. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "plan/lab.rs"]
mod lab;

use lab::{CLIENT, Lab, vxlan};
use swarm_types::endpoint::{Balance, Port, Protocol, PublishMode};
use swarm_types::network::NetworkDriver;
use swarm_worker_core::network::address::vtep_mac;
use swarm_worker_core::network::testing::{World, facts, port};

const NODES: [&str; 3] = ["10.200.0.1", "10.200.0.2", "10.200.0.3"];
const INGRESS: [&str; 2] = ["10.255.0.0/16", "fd53:255::/64"];
const APP: [&str; 2] = ["10.0.1.0/24", "fd53:1::/64"];

/// Three nodes, an ingress network, a network `app`, a client task `cl` on node 1.
fn world() -> World {
    let mut world = World::new(&NODES, &INGRESS);
    world.network("ingress", 4096, &INGRESS, |network| network.ingress = true);
    world.network("app", 4097, &APP, |_| {});
    world.service("client", "app", &[], |_| {});
    world.task(
        "cl",
        "client",
        1,
        &[("app", "10.0.1.20,fd53:1::20"), ("ingress", "10.255.0.20,fd53:255::20")],
    );
    world
}

/// A service with ports 80, tcp and udp, whose tasks `t<node>` are on nodes.
fn web(world: &mut World, nodes: &[u16]) {
    world.service("web", "app", &["10.0.1.100", "fd53:1::100"], |_| {});
    world.service("web", "ingress", &[], |service| {
        let port = |protocol| port(protocol, 80, 9000, PublishMode::Ingress);
        service.ports = vec![port(Protocol::Tcp), port(Protocol::Udp)];
    });
    for i in nodes {
        let (app, ingress) = (format!("10.0.1.1{i},fd53:1::1{i}"), format!("10.255.0.1{i},fd53:255::1{i}"));
        world.task(&format!("t{i}"), "web", *i, &[("app", &app), ("ingress", &ingress)]);
    }
}

fn all_hosts(lab: &Lab, from: &str, host: &str, port: u16, want: [&str; 2]) {
    let addrs = [format!("10.200.0.{host}"), format!("fd53:200::{host}")];
    for (addr, want) in addrs.iter().zip(want) {
        for protocol in ["tcp", "udp"] {
            let got = lab.ask(from, protocol, addr, port);
            assert_eq!(got, want, "{from} calls {addr} {port}/{protocol}");
        }
    }
}

#[test]
fn a_published_port_answers_everywhere_and_the_task_sees_who_calls() {
    let mut world = world();
    web(&mut world, &[3]);
    let lab = Lab::new("i", 3);
    lab.build(&world, &facts());
    lab.serve("t3", 9000);
    let entry = |i: u16| [format!("t3 10.255.3.{}", 232 + i), format!("t3 fd53:255::{:x}", 1000 + i)];
    for host in ["1", "2", "3"] {
        let [v4, v6] = CLIENT.map(|addr| format!("t3 {addr}"));
        all_hosts(&lab, "c", host, 80, [&v4, &v6]);
    }
    // The node itself, at its own address: seen as that; at another node's: the same.
    for (from, to) in [("h1", "1"), ("h3", "3"), ("h1", "2"), ("h1", "3"), ("h3", "1")] {
        let own = [format!("t3 10.200.0.{}", &from[1..]), format!("t3 fd53:200::{}", &from[1..])];
        all_hosts(&lab, from, to, 80, [&own[0], &own[1]]);
    }
    for (i, host) in [(1, "h1"), (3, "h3")] {
        for protocol in ["tcp", "udp"] {
            assert_eq!(lab.ask(host, protocol, "127.0.0.1", 80), entry(i)[0], "{host} {protocol}");
        }
    }
    // A task calls a port: of its own node, of another one; also one that leads back to itself.
    all_hosts(&lab, "cl", "1", 80, [&entry(1)[0], &entry(1)[1]]);
    all_hosts(&lab, "cl", "2", 80, ["t3 10.200.0.1", "t3 fd53:200::1"]);
    all_hosts(&lab, "t3", "3", 80, [&entry(3)[0], &entry(3)[1]]);
    all_hosts(&lab, "t3", "1", 80, ["t3 10.200.0.3", "t3 fd53:200::3"]);
}

#[test]
fn a_task_reaches_the_world_and_nobody_reaches_it_but_by_its_ports() {
    let mut world = world();
    web(&mut world, &[1, 3]);
    world.network("inside", 4099, &["10.0.3.0/24"], |network| network.internal = true);
    world.service("inner", "inside", &[], |_| {});
    world.service("inner", "ingress", &[], |service| {
        service.ports = vec![port(Protocol::Tcp, 82, 9000, PublishMode::Ingress)];
    });
    world.task("in1", "inner", 1, &[("inside", "10.0.3.5"), ("ingress", "10.255.0.31")]);
    let lab = Lab::new("w", 3);
    lab.build(&world, &facts());
    ["t1", "t3", "in1", "c", "h1"].into_iter().for_each(|ns| lab.serve(ns, 9000));
    // Out, in the node's name.
    assert_eq!(lab.ask("cl", "tcp", CLIENT[0], 9000), "c 10.200.0.1");
    assert_eq!(lab.ask("cl", "udp", CLIENT[1], 9000), "c fd53:200::1");
    // Internal: in by its port, and no way out.
    assert_eq!(lab.ask("c", "tcp", "10.200.0.2", 82), format!("in1 {}", CLIENT[0]));
    assert_ne!(lab.ask("in1", "tcp", CLIENT[0], 9000), "c 10.200.0.1");
    assert!(!lab.ask("in1", "udp", CLIENT[0], 9000).starts_with('c'));
    // Tasks are nobody's neighbours on the ingress network.
    for to in ["10.255.0.11", "10.255.0.13", "fd53:255::11", "fd53:255::13"] {
        let got = lab.ask("cl", "udp", to, 9000);
        assert!(!got.starts_with('t'), "{to}: {got}");
    }
    // Who has a node as a router reaches tasks no better.
    lab.sh(&format!("ip -n {} route add 10.255.0.0/16 via 10.200.0.1", lab.ns("u")));
    for to in ["10.255.0.11", "10.255.0.13"] {
        let got = lab.ask("c", "udp", to, 9000);
        assert!(!got.starts_with('t'), "{to}: {got}");
    }
    // As with Docker's bridge a task reaches what its node has on all addresses.
    assert_eq!(lab.ask("cl", "tcp", "10.200.0.1", 9000), "h1 10.255.0.20");
}

#[test]
fn a_virtual_address_leads_to_serving_tasks() {
    let mut world = world();
    web(&mut world, &[1, 2, 3]);
    world.endpoint("t2", "app", |task| task.serving = false);
    world.service("own", "app", &["10.0.1.101", "fd53:1::101"], |_| {});
    world.task("o1", "own", 1, &[("app", "10.0.1.31,fd53:1::31")]);
    world.service("sticky", "app", &["10.0.1.102", "fd53:1::102"], |s| s.balance = Balance::Sticky);
    for i in [1, 2, 3] {
        world.task(&format!("s{i}"), "sticky", i, &[("app", &format!("10.0.1.4{i},fd53:1::4{i}"))]);
    }
    world.service("empty", "app", &["10.0.1.103", "fd53:1::103"], |_| {});
    let lab = Lab::new("v", 3);
    lab.build(&world, &facts());
    ["t1", "t2", "t3", "o1", "s1", "s2", "s3"].into_iter().for_each(|ns| lab.serve(ns, 9000));
    for (vip, caller) in [("10.0.1.100", "10.0.1.20"), ("fd53:1::100", "fd53:1::20")] {
        for protocol in ["tcp", "udp"] {
            let mut got: Vec<_> = (0..24).map(|_| lab.ask("cl", protocol, vip, 9000)).collect();
            got.sort();
            got.dedup();
            assert_eq!(got, [format!("t1 {caller}"), format!("t3 {caller}")], "{vip} {protocol}");
        }
    }
    // It calls itself.
    assert_eq!(lab.ask("o1", "tcp", "10.0.1.101", 9000), "o1 10.0.1.1");
    assert_eq!(lab.ask("o1", "udp", "fd53:1::101", 9000), "o1 fd53:1::1");
    for vip in ["10.0.1.102", "fd53:1::102"] {
        let mut got: Vec<_> = (0..12).map(|_| lab.ask("cl", "tcp", vip, 9000)).collect();
        got.dedup();
        assert_eq!(got.len(), 1, "{got:?}");
    }
    // Nobody there: told at once.
    for vip in ["10.0.1.103", "fd53:1::103", "10.0.1.99", "fd53:1::99"] {
        let got = lab.ask("cl", "tcp", vip, 9000);
        assert_eq!(got, "ConnectionRefused", "{vip}");
    }
}

#[test]
fn forged_and_spoofed_packets_are_dropped() {
    let mut world = world();
    web(&mut world, &[1, 3]);
    let lab = Lab::new("f", 3);
    lab.build(&world, &facts());
    let mac = vtep_mac(4097, 1).0;
    let heard = lab.hear("t1", "10.0.1.11", 7, "from a node");
    let forged = |data: &[u8]| vxlan(4097, mac, [10, 0, 1, 13], [10, 0, 1, 11], 7, data);
    lab.send("c", CLIENT[0], "10.200.0.1", 4789, forged(b"from outside"));
    lab.send("c", CLIENT[1], "fd53:200::1", 4789, forged(b"from outside"));
    // The same bytes from a node's address do arrive: the address is all that was wrong with them.
    lab.send("h2", "10.200.0.2", "10.200.0.1", 4789, forged(b"from a node"));
    assert_eq!(heard.all(), ["from a node"]);
    // Another address of the same network, of one's own node and of another one.
    for (task, to) in [("t1", "10.0.1.11"), ("t3", "10.0.1.13")] {
        lab.sh(&format!("ip -n {} addr replace 10.0.1.77/32 dev lo", lab.ns("cl")));
        let heard = lab.hear(task, to, 8, "mine");
        lab.send("cl", "10.0.1.77", to, 8, b"spoofed".to_vec());
        lab.send("cl", "10.0.1.20", to, 8, b"mine".to_vec());
        assert_eq!(heard.all(), ["mine"]);
    }
    lab.sh(&format!("ip -n {} addr replace fd53:1::77/128 dev lo", lab.ns("cl")));
    let heard = lab.hear("t3", "fd53:1::13", 8, "mine");
    lab.send("cl", "fd53:1::77", "fd53:1::13", 8, b"spoofed".to_vec());
    lab.send("cl", "fd53:1::20", "fd53:1::13", 8, b"mine".to_vec());
    assert_eq!(heard.all(), ["mine"]);
    // And out of the ingress network: the way out is for its own address only.
    let heard = lab.hear("c", CLIENT[0], 8, "mine");
    lab.send("cl", "10.0.1.20", CLIENT[0], 8, b"spoofed".to_vec());
    lab.send("cl", "10.255.0.20", CLIENT[0], 8, b"mine".to_vec());
    assert_eq!(heard.all(), ["mine"]);
}

#[test]
fn networks_with_the_same_subnet_never_meet() {
    let mut world = world();
    world.network("other", 4098, &APP, |_| {});
    for (network, service) in [("app", "a"), ("other", "b")] {
        world.service(service, network, &["10.0.1.100", "fd53:1::100"], |_| {});
        let addrs = |n: u16| format!("10.0.1.{n},fd53:1::{n}");
        for node in [1, 3] {
            world.task(&format!("{service}{node}"), service, node, &[(network, &addrs(40 + node))]);
        }
        world.task(&format!("c{service}"), &format!("c{service}"), 1, &[(network, &addrs(60))]);
    }
    let lab = Lab::new("o", 3);
    lab.build(&world, &facts());
    ["a1", "a3", "b1", "b3"].into_iter().for_each(|ns| lab.serve(ns, 9000));
    for service in ["a", "b"] {
        let caller = format!("c{service}");
        for node in [1, 3] {
            let got = lab.ask(&caller, "tcp", &format!("10.0.1.{}", 40 + node), 9000);
            assert_eq!(got, format!("{service}{node} 10.0.1.60"));
            let got = lab.ask(&caller, "udp", &format!("fd53:1::{}", 40 + node), 9000);
            assert_eq!(got, format!("{service}{node} fd53:1::60"));
        }
        for _ in 0..8 {
            let got = lab.ask(&caller, "tcp", "10.0.1.100", 9000);
            assert!(got.starts_with(service), "{got}");
        }
    }
}

#[test]
fn an_encrypted_network_uses_the_tunnel_or_nothing() {
    let mut world = world();
    world.network("secret", 4100, &["10.0.4.0/24", "fd53:4::/64"], |network| network.encrypted = true);
    for node in [1, 2, 3] {
        let addrs = format!("10.0.4.1{node},fd53:4::1{node}");
        world.task(&format!("x{node}"), "x", node, &[("secret", &addrs)]);
    }
    let lab = Lab::new("e", 3);
    lab.build(&world, &facts());
    lab.serve("x3", 9000);
    // Counts what passes between the hosts in the clear.
    lab.sh(&format!(
        "ip netns exec {} nft -f - <<'END'\ntable bridge seen {{\n chain c {{\n \
         type filter hook prerouting priority 0\n iifname \"h*\" ip protocol udp udp dport 4789 counter\n }}\n}}\nEND\n",
        lab.ns("u")
    ));
    let seen = || {
        let text = lab.sh(&format!("ip netns exec {} nft list table bridge seen", lab.ns("u")));
        text.split("packets ").nth(1).and_then(|t| t.split(' ').next()).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(lab.ask("x1", "tcp", "10.0.4.13", 9000), "x3 10.0.4.11");
    assert_eq!(lab.ask("x1", "udp", "fd53:4::13", 9000), "x3 fd53:4::11");
    assert_eq!(seen(), 0);
    // A node sends a packet of the network around the tunnel: it is not taken, nor even sent.
    let mac = vtep_mac(4100, 1).0;
    let forged = |data: &[u8]| vxlan(4100, mac, [10, 0, 4, 13], [10, 0, 4, 11], 7, data);
    let heard = lab.hear("x1", "10.0.4.11", 7, "through");
    lab.send("c", CLIENT[0], "10.200.0.1", 4789, forged(b"around"));
    lab.send("h2", "100.127.0.2", "100.127.0.1", 4789, forged(b"through"));
    assert_eq!(heard.all(), ["through"]);
    let before = seen();
    let sent = lab.ask("h2", "udp", "10.200.0.1", 4789);
    assert!(!sent.starts_with('x'));
    let clear = seen();
    assert!(clear > before, "packets of other networks pass");
    lab.sh(&format!("ip netns exec {} nft add rule ip sw_host c_last counter", lab.ns("h2")));
    let socket = lab.ns("h2");
    lab.sh(&format!("ip -n {socket} link set sw-wg0 down"));
    // Without the tunnel the packets would take the default route: not one does.
    let got = lab.ask("x2", "udp", "10.0.4.13", 9000);
    assert!(!got.starts_with('x'), "{got}");
    assert_eq!(seen(), clear);
}

#[test]
fn ports_of_one_node_and_of_one_address() {
    let mut world = world();
    let of = |published, target, mode| port(Protocol::Tcp, published, target, mode);
    world.service("web", "ingress", &[], |service| {
        let on = |ip: &str, published| Port {
            host_ip: Some(ip.parse().unwrap()),
            ..of(published, 9000, PublishMode::Ingress)
        };
        service.ports = vec![on("10.200.0.1", 81), on("127.0.0.1", 82), on("fd53:200::1", 83)];
    });
    for i in [1, 3] {
        let ingress = format!("10.255.0.1{i},fd53:255::1{i}");
        world.task(&format!("t{i}"), "web", i, &[("ingress", &ingress)]);
        let task = world.tasks.get_mut(&format!("t{i}").into()).unwrap();
        task.1.ports = vec![of(8081, 9000, PublishMode::Host)];
    }
    // On node 1 only the task of node 3 serves the ports of addresses.
    world.endpoint("t1", "ingress", |task| task.serving = false);
    let lab = Lab::new("h", 3);
    lab.build(&world, &facts());
    ["t1", "t3"].into_iter().for_each(|ns| lab.serve(ns, 9000));
    let client = |task: &str, n: usize| format!("{task} {}", CLIENT[n]);
    let refused = "ConnectionRefused";
    for (at, port, want) in [
        ("10.200.0.3", 8081, client("t3", 0)),
        ("fd53:200::3", 8081, client("t3", 1)),
        // No task there, or none that serves.
        ("10.200.0.2", 8081, refused.into()),
        ("10.200.0.1", 8081, refused.into()),
        ("10.200.0.1", 81, client("t3", 0)),
        ("fd53:200::1", 81, refused.into()),
        ("10.200.0.3", 81, refused.into()),
        ("10.200.0.1", 82, refused.into()),
        ("fd53:200::1", 83, client("t3", 1)),
        ("10.200.0.1", 83, refused.into()),
    ] {
        assert_eq!(lab.ask("c", "tcp", at, port), want, "{at} {port}");
    }
    assert_eq!(lab.ask("h1", "tcp", "127.0.0.1", 82), "t3 10.255.3.233");
    assert_eq!(lab.ask("h3", "tcp", "127.0.0.1", 8081), "t3 10.255.3.235");
    assert_eq!(lab.ask("h1", "tcp", "127.0.0.1", 81), refused);
}

#[test]
fn a_task_does_not_reach_what_listens_on_127_0_0_1_of_its_node() {
    let world = world();
    let lab = Lab::new("g", 3);
    lab.build(&world, &facts());
    // The task's namespace is made to send to 127.0.0.1 by the wire, as an attacker would.
    lab.sh(&format!(
        "ip netns exec {ns} sh -c 'for d in all gw0; do echo 1 >/proc/sys/net/ipv4/conf/$d/route_localnet; done'\n\
         ip -n {ns} rule add pref 50 to 127.0.0.9 lookup 50\n\
         ip -n {ns} rule add pref 51 lookup local; ip -n {ns} rule del pref 0\n\
         ip -n {ns} route add 127.0.0.9 via 10.255.0.1 dev gw0 onlink src 10.255.0.20 table 50\n",
        ns = lab.ns("cl")
    ));
    // The sandbox would route it nowhere: it is made to, too.
    lab.sh(&format!(
        "ip netns exec {ns} sh -c 'for d in all; do echo 1 >/proc/sys/net/ipv4/conf/$d/route_localnet; done'\n\
         ip -n {ns} rule add pref 50 to 127.0.0.9 lookup 50\n\
         ip -n {ns} rule add pref 51 lookup local; ip -n {ns} rule del pref 0\n\
         ip -n {ns} route add 127.0.0.9 via 10.255.3.233 dev up0 onlink table 50\n",
        ns = lab.ns("h1-ingress")
    ));
    // Counts what comes before our table, and what is left after it.
    lab.sh(&format!(
        "ip netns exec {} nft -f - <<'END'\ntable ip seen {{\n counter came {{\n }}\n counter left {{\n }}\n \
         chain a {{\n type filter hook prerouting priority -400\n ip daddr 127.0.0.9 counter name came\n }}\n \
         chain b {{\n type filter hook prerouting priority -340\n ip daddr 127.0.0.9 counter name left\n }}\n}}\nEND\n",
        lab.ns("h1")
    ));
    lab.send("cl", "10.255.0.20", "127.0.0.9", 7, b"x".to_vec());
    let packets = |counter: &str| {
        let text = lab.sh(&format!("ip netns exec {} nft list counter ip seen {counter}", lab.ns("h1")));
        text.split("packets ").nth(1).and_then(|t| t.split(' ').next()).unwrap().parse::<u32>().unwrap()
    };
    let start = std::time::Instant::now();
    while packets("came") == 0 && start.elapsed() < std::time::Duration::from_secs(5) {}
    assert_eq!((packets("came"), packets("left")), (1, 0));
}

#[test]
fn names_are_asked_at_127_0_0_11() {
    let world = world();
    let lab = Lab::new("n", 3);
    lab.build(&world, &facts());
    lab.serve("h1-app", 53);
    for protocol in ["udp", "tcp"] {
        // The gateway answers, and knows the task by its address.
        assert_eq!(lab.ask("cl", protocol, "127.0.0.11", 53), "h1-app 10.0.1.20");
        assert_eq!(lab.ask("cl", protocol, "10.0.1.1", 53), "h1-app 10.0.1.20");
        assert_eq!(lab.ask("cl", protocol, "fd53:1::1", 53), "h1-app fd53:1::20");
    }
}

#[test]
fn bridge_and_macvlan() {
    let mut world = world();
    world.network("local", 0, &["10.0.5.0/24"], |network| network.driver = NetworkDriver::Bridge);
    world.network("lan", 0, &["10.200.0.0/24"], |network| {
        network.driver = NetworkDriver::Macvlan;
        network.options.insert("parent".into(), "eth0".into());
    });
    world.service("loc", "local", &["10.0.5.100"], |_| {});
    for (name, node) in [("b1", 1), ("b2", 1), ("b3", 3)] {
        world.task(name, "loc", node, &[("local", &format!("10.0.5.1{}", &name[1..]))]);
    }
    world.task("m1", "mac", 1, &[("lan", "10.200.0.50")]);
    let lab = Lab::new("b", 3);
    lab.build(&world, &facts());
    ["b1", "b2", "b3", "c", "m1"].into_iter().for_each(|ns| lab.serve(ns, 9000));
    assert_eq!(lab.ask("b1", "tcp", "10.0.5.12", 9000), "b2 10.0.5.11");
    let mut got: Vec<_> = (0..16).map(|_| lab.ask("b1", "tcp", "10.0.5.100", 9000)).collect();
    got.sort();
    got.dedup();
    assert_eq!(got, ["b1 10.0.5.1", "b2 10.0.5.11"]);
    assert_eq!(lab.ask("b1", "tcp", "10.0.5.13", 9000), "ConnectionRefused", "it is on another node");
    // A host of the site among others.
    assert_eq!(lab.ask("h3", "tcp", "10.200.0.50", 9000), "m1 10.200.0.3");
}
