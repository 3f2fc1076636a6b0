//! Leaders die, quorums are lost, clusters are switched off and on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, until, until_in};

const MANAGERS: [&str; 3] = ["m1", "m2", "m3"];

fn others(leader: &str) -> Vec<&'static str> {
    MANAGERS.into_iter().filter(|host| *host != leader).collect()
}

#[test]
fn three_managers_die_and_come_back() {
    let mut hosts = Hosts::up(3, 1);
    hosts.expect_log(TROUBLE);
    a21_leader_dies(&hosts);
    i1_no_accepted_write_is_lost(&hosts);
    a23_quorum_lost(&hosts);
    a25_whole_cluster_restarts(&hosts);
    a25_power_loss_of_all(&hosts);
    hosts.end();
}

/// What managers complain of while others are away.
const TROUBLE: &[&str] = &["upkeep of this node did not work yet", "node is down"];

fn a21_leader_dies(h: &Hosts) {
    let leader = h.until_leader("m1", "");
    let via = others(&leader)[0];
    h.cluster.kill_daemon(&leader).unwrap();
    until_in(Duration::from_secs(5), "a write after the leader's death", || {
        h.ctl(via, "service create -d --name a21 --replicas 3 demo:1").code == 0
    });
    let next = h.until_leader(via, &leader);
    h.until_node(via, &leader, "ManagerStatus", "Unreachable");
    h.cluster.start(&leader).unwrap();
    h.until_node(via, &leader, "ManagerStatus", "Reachable");
    h.until_node(via, &leader, "Status", "Ready");
    assert_eq!(h.leader(via).as_deref(), Some(next.as_str()), "who comes back does not take over");
    h.until_running(via, "a21", 3);
    h.ok(&leader, "service rm a21");
    h.until_no_containers();
}

/// Writers on both followers write without a pause while the leader dies.
fn i1_no_accepted_write_is_lost(h: &Hosts) {
    let leader = h.until_leader("m1", "");
    let (stop, killed) = (AtomicBool::new(false), AtomicBool::new(false));
    let (accepted, longest) = std::thread::scope(|scope| {
        let writers: Vec<_> = others(&leader)
            .into_iter()
            .map(|host| scope.spawn(|| write_until(h, host, &stop, &killed)))
            .collect();
        until("some writes", || h.rows(&leader, "service ls").len() >= 5);
        h.cluster.kill_daemon(&leader).unwrap();
        killed.store(true, Ordering::Relaxed);
        let before = h.rows_of_any(&others(&leader)).len();
        until("writes go on", || h.rows_of_any(&others(&leader)).len() >= before + 5);
        stop.store(true, Ordering::Relaxed);
        let ends = writers.into_iter().map(|writer| writer.join().unwrap());
        ends.fold((Vec::new(), Duration::ZERO), |(mut all, longest), (names, pause)| {
            all.extend(names);
            (all, longest.max(pause))
        })
    });
    assert!(longest < Duration::from_secs(5), "no write was accepted for {longest:?}");
    h.cluster.start(&leader).unwrap();
    h.until_node(&leader, &leader, "ManagerStatus", "Reachable");
    for host in MANAGERS {
        let rows = h.rows(host, "service ls");
        let lost: Vec<_> =
            accepted.iter().filter(|name| !rows.iter().any(|row| row["Name"] == **name)).collect();
        assert!(lost.is_empty(), "{host} does not know accepted services: {lost:?}");
    }
    h.ok("m1", &format!("service rm {}", accepted.join(" ")));
    for row in h.rows("m1", "service ls") {
        // a write whose answer was lost
        h.ok("m1", &format!("service rm {}", row["Name"].as_str().unwrap()));
    }
}

/// Names of the services that were accepted, and the longest time between two of them.
fn write_until(h: &Hosts, host: &str, stop: &AtomicBool, killed: &AtomicBool) -> (Vec<String>, Duration) {
    let (mut names, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{host}-{count}");
        if h.ctl(host, &format!("service create -d -q --replicas 0 --name {name} demo:1")).code == 0 {
            names.push(name);
            if killed.load(Ordering::Relaxed) {
                longest = longest.max(last.elapsed());
            }
            last = Instant::now();
        }
    }
    (names, longest)
}

fn a23_quorum_lost(h: &Hosts) {
    h.ok("m1", "service create -d --name a23 --replicas 4 demo:1");
    let tasks = h.until_running("m1", "a23", 4);
    let pids: Vec<_> = tasks.iter().map(|task| h.pid_of("m1", &task.id)).collect();
    for host in ["m2", "m3"] {
        h.cluster.kill_daemon(host).unwrap();
    }
    until("the quorum is missed", || {
        let said = h.ctl("m1", "service scale -d a23=5");
        said.code == 1 && said.err.contains("1 of 3 managers reachable, 2 needed")
    });
    assert!(h.ok("m1", "info").contains("Is Manager: true"), "info works without a quorum");
    assert!(pids.iter().all(|pid| is_alive(*pid)), "running tasks go on");
    h.cluster.start("m2").unwrap();
    until("writes work again", || h.ctl("m1", "service scale -d a23=5").code == 0);
    h.until_leader("m2", "");
    h.cluster.start("m3").unwrap();
    let after = h.until_running("m1", "a23", 5);
    assert!(tasks.iter().all(|task| after.contains(task)), "the old tasks are the same: {tasks:?} {after:?}");
    assert!(pids.iter().all(|pid| is_alive(*pid)), "and so are their containers");
}

fn is_alive(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Every daemon ends at once and starts again; nothing of it is seen from outside.
fn a25_whole_cluster_restarts(h: &Hosts) {
    let (tasks, nodes) = (h.until_running("m1", "a23", 5), node_ids(h));
    for host in ["m1", "m2", "m3", "w1"] {
        h.cluster.kill_daemon(host).unwrap();
    }
    for host in ["m1", "m2", "m3", "w1"] {
        h.cluster.start(host).unwrap();
    }
    h.until_leader("m1", "");
    for host in ["m1", "m2", "m3", "w1"] {
        h.until_node("m1", host, "Status", "Ready");
    }
    assert_eq!(node_ids(h), nodes);
    assert_eq!(h.until_running("m1", "a23", 5), tasks, "tasks whose containers ran on are kept");
}

/// The hosts themselves lose their power: containers are gone, the state is not.
fn a25_power_loss_of_all(h: &Hosts) {
    let nodes = node_ids(h);
    for host in ["m1", "m2", "m3", "w1"] {
        h.cluster.kill(host).unwrap();
    }
    for host in ["m1", "m2", "m3", "w1"] {
        h.cluster.start(host).unwrap();
    }
    h.until_leader("m1", "");
    h.until_running("m1", "a23", 5);
    assert_eq!(node_ids(h), nodes);
    let leaders = h.rows("m1", "node ls").iter().filter(|row| row["ManagerStatus"] == "Leader").count();
    assert_eq!(leaders, 1);
    h.ok("m1", "service rm a23");
    h.until_no_containers();
}

fn node_ids(h: &Hosts) -> Vec<String> {
    h.rows("m1", "node ls").iter().map(|row| row["ID"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a26_single_manager_restarts() {
    let hosts = Hosts::up(1, 0);
    hosts.ok("m1", "service create -d --name a26 --replicas 3 demo:1");
    let before = hosts.until_running("m1", "a26", 3);
    let spec = hosts.inspect("m1", "service inspect a26");
    for _ in 0..3 {
        hosts.cluster.kill_daemon("m1").unwrap();
        hosts.cluster.start("m1").unwrap();
        // the daemon answers before it has read its disk
        hosts.refused("m1", "init", "already part of a swarm");
        hosts.until_node("m1", "m1", "Status", "Ready");
        assert_eq!(hosts.until_running("m1", "a26", 3), before);
        assert_eq!(hosts.inspect("m1", "service inspect a26"), spec);
        assert_eq!(hosts.tasks("m1", "a26").len(), 3, "no task twice");
    }
    hosts.cluster.kill("m1").unwrap();
    hosts.cluster.start("m1").unwrap();
    until("other tasks take the places of those whose containers are gone", || {
        let now = hosts.running("m1", "a26");
        now.len() == 3 && now.iter().all(|task| !before.contains(task))
    });
    hosts.end();
}
