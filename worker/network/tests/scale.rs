//! Many of everything: how long changes take, and that nothing is left.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use std::sync::Arc;

use support::*;
use swarm_worker_core::network::firewall::{MapElements, Table, Verdict};
use swarm_worker_core::network::kernel::{Link, LinkKind, Mac, Namespace, Place, Plan};
use swarm_worker_network::Kernel;

const SERVICES: u32 = 1000;

fn at(base: u32, number: u32) -> String {
    Ipv4Addr::from(base + number).to_string()
}

/// A thousand services of ten backends each.
fn many() -> Table {
    let backends: Vec<Vec<String>> = (0..SERVICES)
        .map(|service| (0..10).map(|backend| at(0x0a41_0000, service * 16 + backend)).collect())
        .collect();
    let vips: Vec<String> = (0..SERVICES).map(|service| at(0x0a40_0000, service)).collect();
    let backends: Vec<Vec<&str>> =
        backends.iter().map(|b| b.iter().map(|addr| &addr[..]).collect()).collect();
    let all: Vec<(&str, &[&str])> = vips.iter().zip(&backends).map(|(vip, b)| (&vip[..], &b[..])).collect();
    services(&all)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

#[tokio::test]
async fn one_service_of_a_thousand_changes_in_no_time() {
    let world = World::new();
    let kernel = world.kernel();
    let mut wanted = plan(vec![(sandbox(), Namespace { tables: vec![many()], ..Namespace::default() })]);
    let start = Instant::now();
    let applied = kernel.apply(wanted.clone()).await.unwrap();
    assert_eq!(applied.problems, []);
    println!("1,000 services of 10: {:?}, {:?} of it in the kernel", start.elapsed(), applied.in_kernel);
    let (mut whole, mut inside) = (Vec::new(), Vec::new());
    for round in 0..200u32 {
        let table = &mut Arc::make_mut(wanted.namespaces.get_mut(&sandbox()).unwrap()).tables[0];
        let backends: Vec<String> = (0..10).map(|b| at(0x0a42_0000, round * 10 + b)).collect();
        let backends: Vec<&str> = backends.iter().map(|addr| &addr[..]).collect();
        table.chains.insert(format!("s_{}", round * 7 % SERVICES), service(&backends).into());
        let next = wanted.clone();
        let start = Instant::now();
        let applied = kernel.apply(next).await.unwrap();
        whole.push(start.elapsed());
        inside.push(applied.in_kernel);
        assert_eq!(applied.problems, []);
    }
    // What else the machine does only adds: the least is what the change itself costs.
    let least = inside.iter().min().copied().unwrap_or_default();
    let (whole, inside) = (median(whole), median(inside));
    println!(
        "one of them changed: {whole:?}, {inside:?} of it in the kernel (median of 200), {least:?} at least"
    );
    assert!(least < Duration::from_millis(2));
    let start = Instant::now();
    assert_eq!(kernel.check(None).await.unwrap(), []);
    println!("compared with the kernel: {:?}", start.elapsed());
    // another driver takes it over as it is
    let listed = world.at(sandbox(), "nft -a list ruleset | md5sum");
    drop(kernel);
    let kernel = world.kernel();
    let start = Instant::now();
    kernel.apply(wanted).await.unwrap();
    println!("taken over: {:?}", start.elapsed());
    assert_eq!(world.at(sandbox(), "nft -a list ruleset | md5sum"), listed);
    let start = Instant::now();
    world.at(sandbox(), "nft flush ruleset");
    let repairs = kernel.repairs();
    wait_within(Duration::from_secs(2), "the repair", || *repairs.borrow() > 0);
    println!("all of it flushed and repaired: {:?}", start.elapsed());
}

/// A sandbox that knows ten thousand tasks on other nodes.
fn crowded(count: u32) -> Namespace {
    let mut sb = Namespace::default();
    let kind = LinkKind::Vxlan { vni: 77, local: ip("127.0.0.1"), port: 4799 };
    sb.links.insert("vx0".into(), Link { kind, mac: None, mtu: 1450 });
    for number in 0..count {
        let addr = IpAddr::from(Ipv4Addr::from(0x0a64_0000 + number));
        let [_, b, c, d] = number.to_be_bytes();
        let mac = Mac([2, 0x53, 9, b, c, d]);
        let node = format!("10.200.{}.3", number % 50);
        sb.neighbours.insert(("vx0".into(), addr), mac);
        sb.forwarding.insert(("vx0".into(), mac), ip(&node));
        Arc::make_mut(&mut sb.routes).insert(via(&format!("{addr}/32"), &node, "vx0"));
    }
    sb
}

#[tokio::test]
async fn ten_thousand_entries_come_and_go() {
    let world = World::new();
    let kernel = world.kernel();
    let empty = plan(vec![(sandbox(), crowded(0))]);
    kernel.apply(empty.clone()).await.unwrap();
    for _ in 0..3 {
        let next = plan(vec![(sandbox(), crowded(10_000))]);
        let start = Instant::now();
        let applied = kernel.apply(next).await.unwrap();
        assert_eq!(applied.problems, []);
        let took = start.elapsed();
        println!(
            "10,000 neighbours, 10,000 FDB entries, 10,000 routes: {took:?}, {:?} in the kernel",
            applied.in_kernel
        );
        let start = Instant::now();
        assert_eq!(kernel.check(None).await.unwrap(), []);
        println!("compared with the kernel: {:?}", start.elapsed());
        let start = Instant::now();
        let applied = kernel.apply(empty.clone()).await.unwrap();
        assert_eq!(applied.problems, []);
        println!("and gone: {:?}, {:?} in the kernel", start.elapsed(), applied.in_kernel);
        assert_eq!(kernel.check(None).await.unwrap(), []);
    }
}

async fn churn(world: &World, kernel: &Kernel, rounds: usize) -> usize {
    let fixed = routed(2);
    let mut made = 0;
    for round in 0..rounds {
        // two of the tasks are always the same; ten others come and go, each with a namespace and a pair
        let mut next = fixed.clone();
        for number in 0..10 {
            let (place, name) = (task(&format!("x{round}-{number}")), format!("x{number}"));
            let sb = Arc::make_mut(next.namespaces.get_mut(&sandbox()).unwrap());
            sb.links.insert(name.clone(), veth(place, "eth0", 1));
            Arc::make_mut(&mut sb.routes).insert(direct(&format!("10.0.1.{}/32", 200 + number), &name));
            let mut own = Namespace::default();
            own.links.insert("eth0".into(), veth(sandbox(), &name, 2));
            next.namespaces.insert(place, own.into());
            made += 1;
        }
        assert_eq!(kernel.apply(next).await.unwrap().problems, []);
    }
    assert_eq!(kernel.apply(fixed).await.unwrap().problems, []);
    assert_eq!(kernel.check(None).await.unwrap(), []);
    assert_eq!(world.files().len(), 3);
    made
}

#[tokio::test]
async fn tasks_come_and_go_and_leave_nothing() {
    let world = World::new();
    let kernel = world.kernel();
    let start = Instant::now();
    let made = churn(&world, &kernel, 100).await;
    println!("{made} task namespaces with links made and removed: {:?}", start.elapsed());
    assert_eq!(kernel.apply(Plan::default()).await.unwrap().problems, []);
    assert_eq!(world.files(), Vec::<String>::new());
    let links = world.at(Place::Host, "ip -o link");
    let names: BTreeSet<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert!(!names.iter().any(|name| name.starts_with('v') || name.starts_with('x')), "{links}");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    println!("{open} descriptors are open");
}

/// Services, tables, routes and addresses: ten thousand of them, some at a time.
#[tokio::test]
async fn ten_thousand_services_come_and_go_and_leave_nothing() {
    let world = World::new();
    let kernel = world.kernel();
    let mut wanted = routed(2);
    kernel.apply(wanted.clone()).await.unwrap();
    let fresh = world.at(sandbox(), "nft list ruleset; ip route; ip addr show dev lo");
    let start = Instant::now();
    for round in 0..100u32 {
        let sb = Arc::make_mut(wanted.namespaces.get_mut(&sandbox()).unwrap());
        let vips: Vec<String> = (0..100).map(|n| at(0x0a50_0000, round * 100 + n)).collect();
        let all: Vec<(&str, &[&str])> =
            vips.iter().map(|vip| (&vip[..], &["10.0.1.11", "10.0.1.12"][..])).collect();
        let mut net = services(&all);
        // each round has chains of its own
        let own = |name: &str| format!("{name}_{round}");
        let names: Vec<String> = net.chains.keys().filter(|name| name.starts_with("s_")).cloned().collect();
        for name in names {
            let chain = net.chains.remove(&name).unwrap();
            net.chains.insert(own(&name), chain);
        }
        let svc = Arc::make_mut(net.maps.get_mut("svc").unwrap());
        let MapElements::Verdicts(elements) = &mut svc.elements else { unreachable!() };
        for to in elements.values_mut() {
            let Verdict::Goto(name) = to else { unreachable!() };
            *name = own(name);
        }
        sb.tables = vec![net];
        assert_eq!(kernel.apply(wanted.clone()).await.unwrap().problems, []);
    }
    println!("10,000 services made and removed, 100 at a time: {:?}", start.elapsed());
    assert_eq!(kernel.apply(routed(2)).await.unwrap().problems, []);
    assert_eq!(world.at(sandbox(), "nft list ruleset; ip route; ip addr show dev lo"), fresh);
    assert_eq!(kernel.check(None).await.unwrap(), []);
}
