//! Nodes lose their power, freeze, are cut off; their tasks run elsewhere.

use std::path::Path;
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, TaskRow, poll, until, until_in};

/// A node that says nothing is Down after this, by default settings.
const DOWN: Duration = Duration::from_secs(5);
/// What a poll, a command and a loaded machine may add to what is measured.
const SLACK: Duration = Duration::from_millis(1500);

#[test]
fn nodes_are_lost_and_come_back() {
    let mut hosts = Hosts::up(1, 3);
    hosts.expect_log(&["node is down"]);
    hosts.ok("m1", "service create -d --name web --replicas 8 demo:1");
    hosts.until_running("m1", "web", 8);
    i2_fast_node_down(&hosts);
    c21_node_comes_back(&hosts);
    i2_a_slow_node_is_not_down(&hosts);
    i3_frozen_node(&hosts);
    i4_isolated_node(&hosts);
    c20_daemon_of_a_node_dies(&hosts);
    hosts.end();
}

/// Kills nothing itself: measures from `began` until the node is Down and its tasks run elsewhere.
fn assert_replaced(h: &Hosts, host: &str, began: Instant, before: &[TaskRow]) {
    until_in(DOWN + SLACK, &format!("{host} is Down"), || {
        h.node("m1", host).is_some_and(|row| row["Status"] == "Down")
    });
    let down = began.elapsed();
    let mut now = Vec::new();
    let replaced = poll(Duration::from_secs(1) + SLACK, || {
        now = h.running("m1", "web").into_iter().filter(|task| task.node != host).collect();
        now.len() == before.len()
    });
    assert!(replaced, "not replaced {:?} after it was Down ({down:?}): {now:?}", began.elapsed() - down);
    assert!(down <= DOWN + SLACK, "Down only after {down:?}");
    let kept = before.iter().filter(|task| task.node != host);
    for task in kept {
        assert!(now.contains(task), "{task:?} was on another node and was touched");
    }
    let old = h.tasks("m1", "web").into_iter().filter(|task| task.node == host);
    let lost: Vec<_> = before.iter().filter(|task| task.node == host).map(|task| &task.id).collect();
    let old: Vec<_> = old.filter(|task| lost.contains(&&task.id)).collect();
    assert!(old.iter().all(|task| task.desired == "Shutdown"), "what was on {host} is shut down: {old:?}");
}

fn i2_fast_node_down(h: &Hosts) {
    let before = h.running("m1", "web");
    let began = Instant::now();
    h.cluster.kill("w1").unwrap();
    assert_replaced(h, "w1", began, &before);
}

fn c21_node_comes_back(h: &Hosts) {
    let before = h.until_running("m1", "web", 8);
    h.cluster.start("w1").unwrap();
    h.until_node("m1", "w1", "Status", "Ready");
    until("its leftovers are gone", || h.live_containers("w1").is_empty());
    assert_eq!(h.until_running("m1", "web", 8), before, "nothing moves back by itself");
    // so that the next loss has something to lose
    h.ok("m1", "service scale -d web=10");
    h.until_running("m1", "web", 10);
    assert_eq!(h.spread("m1", "web").get("w1"), Some(&2));
}

fn i2_a_slow_node_is_not_down(h: &Hosts) {
    let before = h.until_running("m1", "web", 10);
    h.cluster.pause("w1").unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    let mut always = true;
    while Instant::now() < end {
        always &= h.node("m1", "w1").is_some_and(|row| row["Status"] == "Ready");
    }
    h.cluster.resume("w1").unwrap();
    assert!(always, "a pause of 3 s is no death");
    assert_eq!(h.until_running("m1", "web", 10), before);
}

fn i3_frozen_node(h: &Hosts) {
    let before = h.until_running("m1", "web", 10);
    let began = Instant::now();
    h.cluster.pause("w1").unwrap();
    assert_replaced(h, "w1", began, &before);
    h.cluster.resume("w1").unwrap();
    h.until_node("m1", "w1", "Status", "Ready");
    until("its own copies are gone", || h.live_containers("w1").is_empty());
    h.until_running("m1", "web", 10);
}

fn i4_isolated_node(h: &Hosts) {
    h.ok("m1", "service scale -d web=12");
    let before = h.until_running("m1", "web", 12);
    let own: Vec<_> = before.iter().filter(|task| task.node == "w1").collect();
    assert!(!own.is_empty());
    let pids: Vec<_> = own.iter().map(|task| h.pid_of("m1", &task.id)).collect();
    let alive = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
    let began = Instant::now();
    h.cluster.cut("w1").unwrap();
    assert_replaced(h, "w1", began, &before);
    assert!(pids.iter().all(alive), "a node without managers goes on");
    h.cluster.heal("w1").unwrap();
    h.until_node("m1", "w1", "Status", "Ready");
    until("its own copies stop", || !pids.iter().any(alive));
    until("its own copies are gone", || h.live_containers("w1").is_empty());
    h.until_running("m1", "web", 12);
}

fn c20_daemon_of_a_node_dies(h: &Hosts) {
    let before = h.until_running("m1", "web", 12);
    let began = Instant::now();
    h.cluster.kill_daemon("w2").unwrap();
    assert_replaced(h, "w2", began, &before);
    h.cluster.start("w2").unwrap();
    h.until_node("m1", "w2", "Status", "Ready");
    until("its own copies are gone", || h.live_containers("w2").is_empty());
    h.until_running("m1", "web", 12);
    h.ok("m1", "service rm web");
    h.until_no_containers();
}
