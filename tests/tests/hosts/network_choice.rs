//! Which task gets a connection: by who calls, by weight, and the caller itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use swarm_tests::hosts::{Hosts, Inside, Load, Traffic, until, until_in};

use crate::network_update::{SERVER, address, patient, vip};

#[test]
fn sticky_weighted_and_own() {
    let hosts = patient(1, 1);
    hosts.ok("m1", "network create app");
    hosts.ok("m1", "node update --label-add speed=1 m1");
    hosts.ok("m1", "node update --label-add speed=3 w1");
    sticky_means_one_task_for_one_client(&hosts);
    weights_are_shares(&hosts);
    a_task_calls_its_own_virtual_address(&hosts);
    hosts.end();
}

/// So many connections, and who answered; none may fail.
fn ask(from: Inside, to: SocketAddr, count: u64) -> BTreeMap<String, u64> {
    let load = Load { targets: vec![to], fresh_per_second: 0, kept: 0, long: (8, 0) };
    let traffic = Traffic::start(from, load);
    until_in(Duration::from_secs(60), "all are answered", || traffic.answered() >= count);
    let report = traffic.stop();
    let failed = [report.failures, report.refused].concat();
    assert!(failed.is_empty(), "{to}: {} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    report.by_server
}

/// Waits until connections to an address are answered.
fn until_answered(from: impl Fn() -> Inside, to: SocketAddr) {
    until("it is answered", || from().run(|| std::net::TcpStream::connect(to).is_ok()));
}

fn create(h: &Hosts, name: &str, flags: &str) {
    let flags = format!("--name {name} --network app --stop-grace-period 200ms {flags}");
    h.ok("m1", &format!("service create -d {}", h.server(SERVER, &flags, 0)));
}

fn sticky_means_one_task_for_one_client(h: &Hosts) {
    create(h, "sticky", "--replicas 4 --endpoint-balance sticky -p 8081:80");
    let tasks = h.until_running("m1", "sticky", 4);
    let entries = ["m1", "w1"].map(|host| SocketAddr::new(address(h, host), 8081));
    let inside = SocketAddr::new(vip(h, "sticky"), 80);
    for round in ["as created", "with one more", "with one less"] {
        for entry in entries {
            until_answered(|| h.inside("client"), entry);
        }
        every_node_agrees(h);
        // a client has one task, whichever node it comes to
        let mut one = ask(h.inside("client"), entries[0], 200);
        assert_eq!(one.len(), 1, "{round}: {one:?}");
        one.extend(ask(h.inside("client"), entries[1], 200));
        assert_eq!(one.len(), 1, "{round}, from another node: {one:?}");
        // those who call are spread: 4 callers of one task each time would be a fixed choice
        let callers = tasks.iter().filter(|task| h.running("m1", "sticky").contains(task));
        let mut all = BTreeMap::new();
        for task in callers {
            let one = ask(h.inside_task("m1", task), inside, 100);
            assert_eq!(one.len(), 1, "{round}: a task at the virtual address: {one:?}");
            all.extend(one);
        }
        match round {
            "as created" => h.ok("m1", "service scale -d sticky=5"),
            _ => h.ok("m1", "service scale -d sticky=4"),
        };
        h.until_running("m1", "sticky", if round == "as created" { 5 } else { 4 });
    }
    h.ok("m1", "service rm sticky");
    h.until_no_containers();
}

fn every_node_agrees(h: &Hosts) {
    until("all nodes have what they are to have", || h.ctl("m1", "network check").code == 0);
}

fn weights_are_shares(h: &Hosts) {
    create(h, "heavy", "--mode global --endpoint-weight node.labels.speed -p 8082:80");
    let tasks = h.until_running("m1", "heavy", 2);
    let light = tasks.iter().find(|task| task.node == "m1").unwrap();
    let entry = SocketAddr::new(address(h, "m1"), 8082);
    until_answered(|| h.inside("client"), entry);
    every_node_agrees(h);
    let inside = SocketAddr::new(vip(h, "heavy"), 80);
    for (from, to) in [(h.inside("client"), entry), (h.inside_task("m1", light), inside)] {
        let shares = ask(from, to, 2000);
        let all = shares.values().sum::<u64>();
        let got = shares.get(&light.id[..12]).copied().unwrap_or(0);
        // a quarter, within five standard deviations: sqrt(n * 1/4 * 3/4)
        let (got, want) = (got as f64, all as f64 / 4.0);
        let bound = 5.0 * (all as f64 * 0.1875).sqrt();
        assert!((got - want).abs() < bound, "{to}: {got} of {all} instead of {want} within {bound}");
    }
    h.ok("m1", "service rm heavy");
    h.until_no_containers();
}

fn a_task_calls_its_own_virtual_address(h: &Hosts) {
    create(h, "own", "--replicas 1");
    let task = h.until_running("m1", "own", 1).remove(0);
    let to = SocketAddr::new(vip(h, "own"), 80);
    until_answered(|| h.inside_task("m1", &task), to);
    let who = ask(h.inside_task("m1", &task), to, 200);
    assert_eq!(who.keys().collect::<Vec<_>>(), [&task.id[..12]]);
    h.ok("m1", "service rm own");
    h.until_no_containers();
}
