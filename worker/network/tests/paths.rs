//! Packets: what a plan says is where they go, while it changes, after others have changed it, and while
//! nobody is there to look after it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::*;
use swarm_worker_core::network::firewall::{
    Chain, ChainKind, Compare::*, Family, Field, Hook, HookPoint, Map, MapElements, Statement::*, Value,
};
use swarm_worker_core::network::kernel::{Link, LinkKind, Mac, Namespace, Place, Plan, Route, Rule};
use swarm_worker_network::{Kernel, Settings};

/// Says its name to everybody who connects, then says back what it hears.
async fn serve(kernel: &Kernel, place: Place, name: &'static str) {
    let bind = || TcpListener::bind("0.0.0.0:9000");
    let listener = kernel.enter(place, bind).await.unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 64];
                let mut said = stream.write_all(name.as_bytes());
                while let (Ok(()), Ok(length @ 1..)) = (said, stream.read(&mut buffer)) {
                    said = stream.write_all(&buffer[..length]);
                }
            });
        }
    });
}

fn connect(to: &str) -> std::io::Result<(TcpStream, String)> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer)?;
    Ok((stream, String::from_utf8_lossy(&buffer[..length]).into_owned()))
}

fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
}

/// Who answers on a virtual address, asked so many times from the last task.
async fn answers(kernel: &Kernel, from: Place, times: usize) -> BTreeSet<String> {
    let ask = move || {
        (0..times).map(|_| connect("10.0.1.100:9000").map_or_else(|e| e.to_string(), |(_, n)| n)).collect()
    };
    kernel.enter(from, ask).await.unwrap()
}

fn both() -> BTreeSet<String> {
    BTreeSet::from(["t0".to_owned(), "t1".to_owned()])
}

/// A routed sandbox, three tasks, two of which serve.
async fn world() -> (World, Kernel, Plan) {
    let world = World::new();
    let kernel = world.kernel();
    let plan = routed(3);
    assert_eq!(kernel.apply(plan.clone()).await.unwrap().problems, []);
    assert_eq!(kernel.check(None).await.unwrap(), []);
    serve(&kernel, task("t0"), "t0").await;
    serve(&kernel, task("t1"), "t1").await;
    (world, kernel, plan)
}

#[tokio::test]
async fn connections_to_a_virtual_address_reach_all_backends() {
    let (_world, kernel, _) = world().await;
    assert_eq!(answers(&kernel, task("t2"), 40).await, both());
    // an address that nobody has fails at once
    let start = Instant::now();
    let nobody = kernel.enter(task("t2"), || connect("10.0.1.99:9000").is_err()).await.unwrap();
    assert!(nobody && start.elapsed() < Duration::from_millis(500));
}

/// Foreign changes, each with the command that makes it.
const DAMAGE: &[(&str, &str)] = &[
    ("rules flushed", "nft flush ruleset"),
    ("a rule added", "nft add rule ip sw_net c_pre drop"),
    ("a rule replaced", "nft flush chain ip sw_net s_0; nft add rule ip sw_net s_0 dnat to 10.0.1.13"),
    ("an element removed", "nft delete element ip sw_net svc { 10.0.1.100 }"),
    ("a table added", "nft add table ip mine"),
    ("a route removed", "ip route del 10.0.1.11"),
    ("a route replaced", "ip route replace 10.0.1.11 dev v12"),
    ("a route added", "ip route add 10.0.1.50 dev v12"),
    ("a link removed", "ip link del v11"),
    ("a link down", "ip link set v11 down"),
    ("another MTU", "ip link set v11 mtu 1000"),
    ("another MAC", "ip link set v11 address 02:00:00:00:00:09"),
    ("renamed", "ip link set v11 down; ip link set v11 name v99; ip link set v99 up"),
    ("an address removed", "ip addr del 10.0.1.1/32 dev lo"),
    ("an address added", "ip addr add 10.0.1.2/32 dev v11"),
    ("a neighbour removed", "ip neigh del 10.0.1.11 dev v11"),
    ("a neighbour changed", "ip neigh replace 10.0.1.11 lladdr 02:00:00:00:00:09 dev v11 nud permanent"),
    ("a setting changed", "sysctl -qw net.ipv4.ip_forward=0"),
    ("a rule of routing added", "ip rule add fwmark 7 lookup 77"),
];

#[tokio::test]
async fn what_others_change_is_repaired_within_two_seconds() {
    let (world, kernel, _) = world().await;
    let repairs = kernel.repairs();
    for (what, command) in DAMAGE {
        let before = *repairs.borrow();
        world.at(sandbox(), command);
        let took = wait_within(Duration::from_secs(2), what, || *repairs.borrow() > before);
        println!("{what}: repaired after {took:?}");
        // putting it right is news itself, but no reason to do it again
        let (start, mut last) = (Instant::now(), *repairs.borrow());
        while start.elapsed() < Duration::from_millis(400) {
            last = last.max(*repairs.borrow());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(last <= before + 2, "{what}: repaired {} times", last - before);
        assert_eq!(kernel.check(None).await.unwrap(), [], "{what}");
        assert_eq!(answers(&kernel, task("t2"), 20).await, both(), "{what}");
    }
    // the other end of a pair
    let before = *repairs.borrow();
    world.at(task("t0"), "ip link del eth0");
    wait_within(Duration::from_secs(2), "the task's link", || *repairs.borrow() > before);
    wait_for("the way to it", || world.at(sandbox(), "ip neigh show dev v11").contains("10.0.1.11"));
    assert_eq!(answers(&kernel, task("t2"), 20).await, both());
}

#[tokio::test]
async fn a_namespace_that_was_removed_comes_back() {
    let world = World::new();
    let kernel = Kernel::open(Settings { audit: Duration::from_millis(300), ..world.settings() }).unwrap();
    assert_eq!(kernel.apply(routed(3)).await.unwrap().problems, []);
    let path = world.path(task("t1"));
    run("umount", &["-l", &path.to_string_lossy()]);
    wait_for("the namespace", || world.try_at(task("t1"), "ping -c1 -W1 10.0.1.11").1);
    serve(&kernel, task("t0"), "t0").await;
    serve(&kernel, task("t1"), "t1").await;
    assert_eq!(answers(&kernel, task("t2"), 40).await, both());
    assert_eq!(kernel.check(None).await.unwrap(), []);
}

#[tokio::test]
async fn check_names_every_difference() {
    let world = World::new();
    // one that does not hurry to repair
    let kernel = Kernel::open(Settings { settle: Duration::from_secs(60), ..world.settings() }).unwrap();
    kernel.apply(routed(3)).await.unwrap();
    world.at(sandbox(), "nft add rule ip sw_net c_pre drop; nft delete element ip sw_net svc { 10.0.1.100 }");
    world.at(
        sandbox(),
        "ip route del 10.0.1.11; ip route add 10.0.1.50 dev v12; sysctl -qw net.ipv4.ip_forward=0",
    );
    world.at(task("t1"), "ip addr del 10.0.1.12/24 dev eth0; ip link set eth0 mtu 1400");
    let found = kernel.check(None).await.unwrap();
    let said: Vec<String> = found.iter().map(|d| format!("{}: {}", d.what, d.how)).collect();
    for expected in [
        "addr 10.0.1.12/24 dev eth0: missing",
        "route 10.0.1.11/32 dev v11: missing",
        "route 10.0.1.50/32 dev v12: unexpected",
        "sysctl net/ipv4/ip_forward: is 0 instead of 1",
        "table ip sw_net chain c_pre: drop: unexpected",
        "table ip sw_net map svc element 10.0.1.100: missing",
    ] {
        assert!(said.iter().any(|line| line == expected), "{expected} is not in {said:#?}");
    }
    assert!(said.iter().any(|line| line.contains("has MTU 1400 instead of 1450")), "{said:#?}");
}

#[tokio::test]
async fn updates_and_restarts_break_no_connection() {
    let (world, mut kernel, plan) = world().await;
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut long = kernel.enter(task("t2"), || connect("10.0.1.100:9000").unwrap().0).await.unwrap();
    let (stopped, count) = (stop.clone(), made.clone());
    let load = move || {
        std::thread::spawn(move || {
            nix::sched::setns(
                std::fs::File::open("/proc/thread-self/ns/net").unwrap(),
                nix::sched::CloneFlags::CLONE_NEWNET,
            )
            .unwrap();
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                failed.extend(connect("10.0.1.100:9000").err().map(|err| format!("{number}: {err}")));
                count.fetch_add(1, Ordering::Relaxed);
            }
            failed
        })
    };
    let load = kernel.enter(task("t2"), load).await.unwrap();
    let sets: [&[&str]; 4] =
        [&["10.0.1.11"], &["10.0.1.12"], &["10.0.1.11", "10.0.1.12"], &["10.0.1.12", "10.0.1.11"]];
    for round in 0..200 {
        let mut next = plan.clone();
        let sb = Arc::make_mut(next.namespaces.get_mut(&sandbox()).unwrap());
        sb.tables = vec![services(&[("10.0.1.100", sets[round % 4])])];
        assert_eq!(kernel.apply(next).await.unwrap().problems, []);
    }
    kernel.apply(plan.clone()).await.unwrap();
    for _ in 0..20 {
        drop(kernel);
        kernel = world.kernel();
        assert_eq!(kernel.apply(plan.clone()).await.unwrap().problems, []);
        assert!(echo(&mut long));
    }
    stop.store(true, Ordering::Relaxed);
    let failed = load.join().unwrap();
    println!(
        "{} new connections during 200 updates and 20 restarts, failed: {failed:?}",
        made.load(Ordering::Relaxed)
    );
    assert_eq!(failed, Vec::<String>::new());
    assert!(made.load(Ordering::Relaxed) > 100);
}

#[tokio::test]
async fn connections_of_a_dead_task_are_counted_and_reset() {
    let (_world, kernel, plan) = world().await;
    let mut only = plan.clone();
    Arc::make_mut(only.namespaces.get_mut(&sandbox()).unwrap()).tables =
        vec![services(&[("10.0.1.100", &["10.0.1.11"])])];
    kernel.apply(only).await.unwrap();
    let mut long = kernel.enter(task("t2"), || connect("10.0.1.100:9000").unwrap().0).await.unwrap();
    let count = kernel.connections(sandbox(), ip("10.0.1.11")).await.unwrap();
    assert_eq!((count.established, count.all), (1, 1));
    assert_eq!(kernel.connections(sandbox(), ip("10.0.1.12")).await.unwrap().all, 0);
    assert!(echo(&mut long));
    let mut other = plan;
    Arc::make_mut(other.namespaces.get_mut(&sandbox()).unwrap()).tables =
        vec![services(&[("10.0.1.100", &["10.0.1.12"])])];
    kernel.apply(other).await.unwrap();
    assert!(echo(&mut long), "it stays where it is");
    assert_eq!(kernel.reset_connections(sandbox(), ip("10.0.1.11")).await.unwrap(), 1);
    let start = Instant::now();
    assert!(!echo(&mut long), "it is reset");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(kernel.connections(sandbox(), ip("10.0.1.11")).await.unwrap().all, 0);
}

/// One host's end of a network over two hosts.
fn overlay(own: u8, other: u8) -> Plan {
    let (mac, peer) = (|n: u8| Mac([2, 0x53, 3, 0, 1, n]), format!("10.200.0.{other}"));
    let mut sb = Namespace::default();
    sb.sysctls.insert("ipv4/ip_forward".into(), "1".into());
    sb.sysctls.insert("ipv4/conf/all/rp_filter".into(), "0".into());
    sb.sysctls.insert("ipv4/conf/default/rp_filter".into(), "0".into());
    let kind = LinkKind::Vxlan { vni: 4097, local: ip(&format!("10.200.0.{own}")), port: 4789 };
    sb.links.insert("vx0".into(), Link { kind, mac: Some(mac(own)), mtu: 1450 });
    sb.addrs = addrs(&[("lo", "10.0.1.1/32"), ("lo", "fd00:1::1/128")]);
    let (v4, v6) = (format!("10.0.1.{own}{own}"), format!("fd00:1::{own}{own}"));
    let (r4, r6) = (format!("10.0.1.{other}{other}/32"), format!("fd00:1::{other}{other}/128"));
    let label = format!("fe80::{other}");
    sb.routes = Arc::new(BTreeSet::from([
        unreachable("10.0.1.0/24"),
        unreachable("fd00:1::/64"),
        via(&r4, &peer, "vx0"),
        via(&r6, &label, "vx0"),
        direct(&format!("{v4}/32"), "v1"),
        direct(&format!("{v6}/128"), "v1"),
    ]));
    sb.sysctls.insert("ipv6/conf/all/forwarding".into(), "1".into());
    let task_mac = Mac([2, 0x53, 2, 0, 1, own]);
    sb.neighbours = BTreeMap::from([
        (("vx0".into(), ip(&peer)), mac(other)),
        (("vx0".into(), ip(&label)), mac(other)),
        (("v1".into(), ip(&v4)), task_mac),
        (("v1".into(), ip(&v6)), task_mac),
    ]);
    sb.forwarding = BTreeMap::from([(("vx0".into(), mac(other)), ip(&peer))]);
    sb.links.insert("v1".into(), veth(task("t"), "eth0", 1));
    sb.rules.insert(Rule {
        priority: 100,
        v6: false,
        from: None,
        mark: Some((0x10000, 0x10000)),
        table: 100,
    });
    sb.rules.insert(Rule {
        priority: 101,
        v6: true,
        from: Some(net("fd00:2::/64")),
        mark: None,
        table: 1000,
    });
    Arc::make_mut(&mut sb.routes).insert(Route { table: 1000, metric: 7, ..via("::/0", &label, "vx0") });
    Arc::make_mut(&mut sb.routes).insert(Route { table: 100, ..via("0.0.0.0/0", &peer, "vx0") });
    let mut own = Namespace {
        addrs: addrs(&[("eth0", &format!("{v4}/24")), ("eth0", &format!("{v6}/64"))]),
        ..Namespace::default()
    };
    own.links.insert("eth0".into(), Link { mac: Some(task_mac), ..veth(sandbox(), "v1", 0) });
    own.routes = Arc::new(BTreeSet::from([
        direct("10.0.1.1/32", "eth0"),
        via("10.0.1.0/24", "10.0.1.1", "eth0"),
        via("fd00:1::/64", "fe80::1", "eth0"),
    ]));
    let gateway = Mac([2, 0x53, 0, 0, 0, 1]);
    own.neighbours = BTreeMap::from([
        (("eth0".into(), ip("10.0.1.1")), gateway),
        (("eth0".into(), ip("fe80::1")), gateway),
    ]);
    plan(vec![(sandbox(), sb), (task("t"), own)])
}

#[tokio::test]
async fn a_network_reaches_over_hosts() {
    let (one, two) = (World::new(), World::new());
    let (a, b) = (one.path(Place::Host), two.path(Place::Host));
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
    run(
        "ip",
        &[
            "link",
            "add",
            "eth0",
            "netns",
            &name(&a),
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &name(&b),
        ],
    );
    one.at(Place::Host, "ip addr add 10.200.0.1/24 dev eth0; ip link set eth0 up");
    two.at(Place::Host, "ip addr add 10.200.0.2/24 dev eth0; ip link set eth0 up");
    let (first, second) = (one.kernel(), two.kernel());
    assert_eq!(first.apply(overlay(1, 2)).await.unwrap().problems, []);
    assert_eq!(second.apply(overlay(2, 1)).await.unwrap().problems, []);
    for kernel in [&first, &second] {
        assert_eq!(kernel.check(None).await.unwrap(), []);
    }
    one.at(task("t"), "ping -c1 -W2 10.0.1.22");
    one.at(task("t"), "ping -c1 -W2 fd00:1::22");
    one.at(task("t"), "ping -c1 -W1 -M do -s 1422 10.0.1.22");
    // nothing of the inside is in the host's namespace, but the tunnel's socket is
    assert!(!one.at(Place::Host, "ip -o link").contains("vx0"));
    let repairs = *first.repairs().borrow();
    for damage in [
        "bridge fdb del 02:53:03:00:01:02 dev vx0 dst 10.200.0.2",
        "ip link del vx0",
        "ip -6 route del fd00:1::22",
        "ip rule del pref 100",
    ] {
        one.at(sandbox(), damage);
        wait_for(damage, || one.try_at(task("t"), "ping -c1 -W1 10.0.1.22 && ping -c1 -W1 fd00:1::22").1);
        wait_for("the rule", || one.at(sandbox(), "ip rule").contains("fwmark 0x10000/0x10000"));
    }
    wait_for("repairs", || *first.repairs().borrow() >= repairs + 3);
    assert_eq!(first.check(None).await.unwrap(), []);
    // a peer moves: its entries change in place
    let mut moved = overlay(1, 2);
    let sb = Arc::make_mut(moved.namespaces.get_mut(&sandbox()).unwrap());
    sb.forwarding.values_mut().for_each(|behind| *behind = ip("10.200.0.9"));
    Arc::make_mut(&mut sb.routes).retain(|route| route.to != net("fd00:1::22/128"));
    Arc::make_mut(&mut sb.routes).insert(unreachable("fd00:1::22/128"));
    assert_eq!(first.apply(moved).await.unwrap().problems, []);
    assert_eq!(first.check(None).await.unwrap(), []);
    assert!(!one.try_at(task("t"), "ping -c1 -W1 10.0.1.22").1);
    assert_eq!(first.apply(overlay(1, 2)).await.unwrap().problems, []);
    assert_eq!(first.check(None).await.unwrap(), []);
    one.at(task("t"), "ping -c1 -W2 10.0.1.22 && ping -c1 -W2 fd00:1::22");
    // and all of it goes
    assert_eq!(first.apply(Plan::default()).await.unwrap().problems, []);
    assert_eq!(one.files(), Vec::<String>::new());
}

#[tokio::test]
async fn the_destination_of_a_frame_is_set_from_the_mark() {
    let world = World::new();
    let kernel = world.kernel();
    let mut wanted = routed(2);
    let sb = Arc::make_mut(wanted.namespaces.get_mut(&sandbox()).unwrap());
    let target = Mac([2, 0x53, 3, 0, 0, 9]);
    let mut out = table(Family::Netdev, "sw_out");
    let elements = MapElements::Macs(BTreeMap::from([(vec![Value::Number(0x10002)], target)]));
    out.maps.insert("macs".into(), Map { key: vec![Field::Mark], elements }.into());
    let hook = Hook {
        kind: ChainKind::Filter,
        point: HookPoint::Egress,
        priority: 0,
        device: Some("v11".into()),
        drop_by_default: false,
    };
    let rules =
        vec![rule(vec![SetEtherDestination(vec![Field::Mark], "macs".into())]), rule(vec![SetMark(0)])];
    out.chains.insert("c_out".into(), Chain { hook: Some(hook), rules }.into());
    sb.tables.push(out);
    let mut marks = table(Family::Ip, "sw_marks");
    let udp = vec![
        Match(Field::L4Proto, Is, Value::Protocol(17)),
        Match(Field::DestinationPort, Is, Value::Port(7)),
        SetMark(0x10002),
    ];
    marks
        .chains
        .insert("c_mark".into(), base(ChainKind::Route, HookPoint::Output, -150, vec![rule(udp)]).into());
    sb.tables.push(marks);
    assert_eq!(kernel.apply(wanted).await.unwrap().problems, []);
    assert_eq!(kernel.check(None).await.unwrap(), []);
    world.at(task("t0"), "nft 'add table netdev seen; add chain netdev seen c_in { type filter hook ingress device eth0 priority 0; }; add rule netdev seen c_in ether daddr 02:53:03:00:00:09 counter; add rule netdev seen c_in ether daddr 02:53:02:00:01:0b counter'");
    let send = |port: u16| {
        move || UdpSocket::bind("10.0.1.1:0").unwrap().send_to(b"x", ("10.0.1.11", port)).unwrap()
    };
    kernel.enter(sandbox(), send(7)).await.unwrap();
    kernel.enter(sandbox(), send(8)).await.unwrap();
    wait_for("both frames", || {
        world.at(task("t0"), "nft list table netdev seen").matches("packets 1 ").count() == 2
    });
    // the chain is on the device again after it has gone
    world.at(sandbox(), "ip link del v11");
    wait_for("the device", || world.try_at(task("t0"), "ip addr show dev eth0").0.contains("10.0.1.11"));
    wait_for("the chain", || world.at(sandbox(), "nft list ruleset").contains("hook egress device \"v11\""));
    assert_eq!(kernel.check(None).await.unwrap(), []);
}

#[tokio::test]
async fn macvlan_and_dummy_devices() {
    let world = World::new();
    world.at(Place::Host, "ip link add phys0 type veth peer name far0; ip link set phys0 up");
    let has_dummy = world.try_at(Place::Host, "ip link add test0 type dummy").1;
    let kernel = world.kernel();
    let link = |kind| Link { kind, mac: None, mtu: 0 };
    let mut own = Namespace::default();
    own.links.insert("eth0".into(), link(LinkKind::Macvlan { parent: "phys0".into() }));
    if has_dummy {
        own.links.insert("d0".into(), link(LinkKind::Dummy));
    } else {
        println!("this kernel has no dummy devices: not tried");
    }
    let wanted = plan(vec![(task("t0"), own.clone())]);
    assert_eq!(kernel.apply(wanted.clone()).await.unwrap().problems, []);
    assert_eq!(kernel.check(None).await.unwrap(), []);
    assert!(world.at(task("t0"), "ip -d link show eth0").contains("macvlan"));
    drop(kernel);
    let kernel = world.kernel();
    kernel.apply(wanted).await.unwrap();
    assert_eq!(kernel.check(None).await.unwrap(), []);
    // a parent that is not there is said, and the rest is done
    own.links.insert("eth1".into(), link(LinkKind::Macvlan { parent: "nope0".into() }));
    own.links.insert("eth2".into(), link(LinkKind::Macvlan { parent: "far0".into() }));
    let problems = kernel.apply(plan(vec![(task("t0"), own)])).await.unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].text.contains("this node has no device nope0"), "{problems:?}");
    world.at(task("t0"), "ip link show eth2");
    // it is tried again by and by
    world.at(Place::Host, "ip link add nope0 type veth peer name nope1");
    let watched = kernel.problems();
    wait_within(Duration::from_secs(8), "the problem to go", || watched.borrow().is_empty());
    world.at(task("t0"), "ip link show eth1");
}

#[tokio::test]
async fn a_firewall_in_the_way_is_named() {
    let world = World::new();
    world.at(Place::Host, "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    let kernel = Kernel::open(Settings { audit: Duration::from_millis(200), ..world.settings() }).unwrap();
    let problems = kernel.apply(Plan::default()).await.unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].subject == "firewall" && problems[0].text.contains("chain FORWARD of table ip filter")
    );
    world.at(Place::Host, "nft insert rule ip filter FORWARD iifname 'sw-*' accept");
    let watched = kernel.problems();
    wait_for("the problem to go", || watched.borrow().is_empty());
}

#[tokio::test]
async fn in_the_hosts_namespace_only_what_is_ours_is_touched() {
    let world = World::new();
    world.at(Place::Host, "ip link add eth9 type veth peer name far9; ip link set far9 up; ip link set eth9 up; ip addr add 192.0.2.1/24 dev eth9; ip route add 198.51.100.0/24 via 192.0.2.2; ip rule add from 192.0.2.9 lookup 9; nft add table ip docker; ip link add sw-old type veth peer name sw-older");
    let before = world.at(Place::Host, "ip -o addr show dev eth9; ip route; ip rule; nft list tables");
    let kernel = world.kernel();
    let mut host = Namespace::default();
    host.links.insert("sw-ing".into(), veth(sandbox(), "up0", 1));
    host.addrs = addrs(&[("sw-ing", "10.255.1.1/32")]);
    Arc::make_mut(&mut host.routes).insert(via("10.255.0.0/16", "169.254.77.2", "sw-ing"));
    host.tables.push(table(Family::Ip, "sw_host"));
    let mut sb = Namespace::default();
    sb.links.insert("up0".into(), veth(Place::Host, "sw-ing", 2));
    assert_eq!(kernel.apply(plan(vec![(Place::Host, host), (sandbox(), sb)])).await.unwrap().problems, []);
    assert_eq!(kernel.check(None).await.unwrap(), []);
    assert!(!world.at(Place::Host, "ip -o link").contains("sw-old"));
    // others' tables come and go, which costs us nothing
    let repairs = kernel.repairs();
    world.at(Place::Host, "nft add table ip other; nft delete table ip other");
    assert_eq!(kernel.check(None).await.unwrap(), []);
    assert_eq!(*repairs.borrow(), 0);
    kernel.apply(Plan::default()).await.unwrap();
    assert_eq!(world.at(Place::Host, "ip -o addr show dev eth9; ip route; ip rule; nft list tables"), before);
}
