//! Where tasks go, and when they must leave.

use swarm_tests::hosts::{Hosts, until};

#[test]
fn constraints_pauses_and_drains() {
    let hosts = Hosts::patient(1, 2);
    c17_constraints(&hosts);
    c19_max_replicas_per_node(&hosts);
    c8_global(&hosts);
    c24_drain_and_pause(&hosts);
    reservations_are_respected(&hosts);
    hosts.end();
}

fn spread(h: &Hosts, service: &str) -> Vec<(String, usize)> {
    h.spread("m1", service).into_iter().collect()
}

fn on(pairs: &[(&str, usize)]) -> Vec<(String, usize)> {
    pairs.iter().map(|(host, count)| ((*host).to_owned(), *count)).collect()
}

fn c17_constraints(h: &Hosts) {
    h.ok("m1", "service create -d --name c17w --replicas 4 --constraint node.role==worker demo:1");
    h.until_running("m1", "c17w", 4);
    assert_eq!(spread(h, "c17w"), on(&[("w1", 2), ("w2", 2)]));
    h.ok("m1", "service create -d --name c17h --replicas 2 --constraint node.hostname!=w1 --constraint node.role!=manager demo:1");
    h.until_running("m1", "c17h", 2);
    assert_eq!(spread(h, "c17h"), on(&[("w2", 2)]));
    h.ok("m1", "service create -d --name c17 --constraint node.labels.disk==ssd demo:1");
    h.until_task("m1", "c17", "Pending", "scheduling constraints not satisfied on 3 nodes");
    h.ok("m1", "node update --label-add disk=ssd w1");
    h.until_running("m1", "c17", 1);
    assert_eq!(spread(h, "c17"), on(&[("w1", 1)]));
    h.ok("m1", "node update --label-rm disk w1");
    h.until_task("m1", "c17", "Pending", "scheduling constraints not satisfied on 3 nodes");
    until("stopped with its label", || h.running("m1", "c17").is_empty());
    h.ok("m1", "service rm c17 c17w c17h");
    h.until_no_containers();
}

fn c19_max_replicas_per_node(h: &Hosts) {
    h.ok("m1", "service create -d --name c19 --replicas 4 --replicas-max-per-node 1 demo:1");
    until("three run", || h.running("m1", "c19").len() == 3);
    let task = h.until_task("m1", "c19", "Pending", "max replicas per node");
    assert_eq!(task.node, "");
    h.ok("m1", "service rm c19");
}

fn c8_global(h: &Hosts) {
    h.ok("m1", "service create -d --name c8 --mode global demo:1");
    h.until_running("m1", "c8", 3);
    assert_eq!(spread(h, "c8"), on(&[("m1", 1), ("w1", 1), ("w2", 1)]));
    h.ok("w2", "leave");
    until("two", || spread(h, "c8") == on(&[("m1", 1), ("w1", 1)]));
    h.ok("w2", &format!("join --token {} {}", h.token("m1", "worker"), h.address("m1")));
    until("three again", || h.spread("m1", "c8").len() == 3 && h.running("m1", "c8").len() == 3);
    h.ok("m1", "service rm c8");
    h.until_node("m1", "w2", "Status", "Ready");
    h.remove_down_nodes("m1");
    h.until_no_containers();
}

fn c24_drain_and_pause(h: &Hosts) {
    h.ok("m1", "service create -d --name c24 --replicas 3 demo:1");
    let before = h.until_running("m1", "c24", 3);
    h.ok("m1", "node update --availability pause w1");
    h.ok("m1", "service scale -d c24=6");
    let now = h.until_running("m1", "c24", 6);
    assert!(before.iter().all(|task| now.contains(task)), "a paused node keeps its tasks");
    assert_eq!(h.spread("m1", "c24")["w1"], 1, "and gets no other");
    h.ok("m1", "node update --availability drain w1");
    until("all moved", || spread(h, "c24") == on(&[("m1", 3), ("w2", 3)]));
    until("nothing of it is left on w1", || h.live_containers("w1").is_empty());
    let stayed = h.until_running("m1", "c24", 6);
    h.ok("m1", "node update --availability active w1");
    h.ok("m1", "service scale -d c24=7");
    let now = h.until_running("m1", "c24", 7);
    assert!(stayed.iter().all(|task| now.contains(task)), "nothing moves back by itself");
    assert_eq!(h.spread("m1", "c24")["w1"], 1, "the new one goes there");
    h.ok("m1", "service rm c24");
    h.until_no_containers();
}

fn reservations_are_respected(h: &Hosts) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    h.ok("m1", &format!("service create -d --name cpu --replicas 4 --reserve-cpu {cpus} demo:1"));
    until("one on each", || h.running("m1", "cpu").len() == 3);
    h.until_task("m1", "cpu", "Pending", "3 insufficient CPU");
    h.ok("m1", "service rm cpu");
    h.until_no_containers();
}
