//! Services are made, found, scaled, changed and removed.

use std::collections::BTreeMap;

use swarm_tests::hosts::{Hosts, TaskRow, until};

#[test]
fn services_on_three_nodes() {
    let hosts = Hosts::patient(1, 2);
    c2_list_of_none(&hosts);
    c1_create_list_remove(&hosts);
    c3_same_name(&hosts);
    c5_spread(&hosts);
    c6_scale_up_then_down(&hosts);
    c7_scale_errors(&hosts);
    c14_service_label(&hosts);
    c39_prefix_and_filters(&hosts);
    c4_create_and_remove_many_times(&hosts);
    c42_update_while_an_update_runs(&hosts);
    hosts.end();
}

fn c2_list_of_none(h: &Hosts) {
    assert!(h.ok("m1", "service ls").starts_with("ID"), "the header alone");
    assert!(h.rows("m1", "service ls").is_empty());
}

fn c1_create_list_remove(h: &Hosts) {
    let said = h.ok("m1", "service create --name c1 --replicas 3 demo:1");
    assert!(said.contains("verify: Service converged"), "{said}");
    let rows = h.rows("m1", "service ls");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["Name"], &rows[0]["Replicas"]), (&"c1".into(), &"3/3".into()));
    assert_eq!((&rows[0]["Mode"], &rows[0]["Image"]), (&"replicated".into(), &"demo:1".into()));
    h.ok("m1", "service rm c1");
    h.refused("m1", "service ps c1", "c1");
    h.until_no_containers();
}

fn c3_same_name(h: &Hosts) {
    h.ok("m1", "service create -d --name c3 demo:1");
    h.refused("m1", "service create -d --name c3 demo:1", "service c3 already exists");
    assert_eq!(h.rows("m1", "service ls").len(), 1);
    h.ok("m1", "service rm c3");
}

fn counts(h: &Hosts, service: &str) -> Vec<usize> {
    let mut counts: Vec<_> = h.spread("m1", service).into_values().collect();
    counts.sort_unstable();
    counts
}

fn c5_spread(h: &Hosts) {
    h.ok("m1", "service create -d --name c5 --replicas 5 demo:1");
    h.until_running("m1", "c5", 5);
    assert_eq!(counts(h, "c5"), [1, 2, 2]);
    h.ok("m1", "service scale c5=6");
    assert_eq!(counts(h, "c5"), [2, 2, 2]);
    h.ok("m1", "service rm c5");
}

fn c6_scale_up_then_down(h: &Hosts) {
    h.ok("m1", "service create --name c6 demo:1");
    let one = h.until_running("m1", "c6", 1);
    let said = h.ok("m1", "service scale c6=5");
    assert!(said.contains("c6 scaled to 5") && said.contains("verify: Service converged"), "{said}");
    let five = h.until_running("m1", "c6", 5);
    assert!(five.contains(&one[0]), "the task that ran is kept");
    h.ok("m1", "service scale c6=2");
    let two = h.until_running("m1", "c6", 2);
    assert!(two.iter().all(|task| five.contains(task)), "{two:?}");
    assert_ne!(two[0].node, two[1].node, "the busiest nodes gave their tasks up");
    h.ok("m1", "service scale c6=0");
    h.until_running("m1", "c6", 0);
    assert_eq!(h.rows("m1", "service ls")[0]["Replicas"], "0/0");
    h.ok("m1", "service rm c6");
}

fn c7_scale_errors(h: &Hosts) {
    h.ok("m1", "service create -d --name c7 --mode global demo:1");
    h.ok("m1", "service create -d --name c7r demo:1");
    h.refused("m1", "service scale c7=2", "scale can only be used with replicated mode");
    h.refused("m1", "service scale nope=2", "nope not found");
    h.refused("m1", "service scale c7r=foobar", "invalid replicas value");
    h.refused("m1", "service scale c7r=-1", "invalid replicas value");
    h.until_running("m1", "c7", 3);
    h.until_running("m1", "c7r", 1);
    h.ok("m1", "service rm c7 c7r");
}

fn c14_service_label(h: &Hosts) {
    h.ok("m1", "service create -d --name c14 --replicas 2 --label a=1 demo:1");
    let before = h.until_running("m1", "c14", 2);
    h.ok("m1", "service update -q --label-add b=2 --label-rm a c14");
    assert_eq!(h.inspect("m1", "service inspect c14")["Spec"]["Labels"], serde_json::json!({"b": "2"}));
    assert_eq!(h.tasks("m1", "c14"), before, "no task is replaced");
    h.ok("m1", "service rm c14");
}

fn names(tasks: &[serde_json::Value]) -> Vec<&str> {
    tasks.iter().map(|row| row["Name"].as_str().unwrap()).collect()
}

fn c39_prefix_and_filters(h: &Hosts) {
    h.ok("m1", "service create -d --name c39a --label tier=front --replicas 3 demo:1");
    h.ok("m1", "service create -d --name c39b --mode global demo:1");
    h.until_running("m1", "c39a", 3);
    h.until_running("m1", "c39b", 3);
    let list = |filter: &str| h.rows("m1", &format!("service ls --filter {filter}"));
    assert_eq!(names(&list("name=c39b")), ["c39b"]);
    assert_eq!(names(&list("name=c39")), ["c39a", "c39b"]);
    assert_eq!(names(&list("mode=global")), ["c39b"]);
    assert_eq!(names(&list("label=tier=front")), ["c39a"]);
    let id = h.inspect("m1", "service inspect c39a")["ID"].as_str().unwrap().to_owned();
    assert_eq!(names(&list(&format!("id={}", &id[..10]))), ["c39a"]);
    h.refused("m1", "service ls --filter nonsense=1", "nonsense");
    let by_prefix = h.inspect("m1", &format!("service inspect {}", &id[..10]));
    assert_eq!(by_prefix["Spec"]["Name"], "c39a");
    let ps = |filter: &str| h.rows("m1", &format!("service ps --filter {filter} c39a"));
    assert_eq!(ps("node=w1").len(), 1);
    assert_eq!(names(&ps("name=c39a.2")), ["c39a.2"]);
    assert_eq!((ps("desired-state=running").len(), ps("desired-state=shutdown").len()), (3, 0));
    let nodes = |filter: &str| h.rows("m1", &format!("node ls --filter {filter}")).len();
    assert_eq!((nodes("role=worker"), nodes("role=manager"), nodes("name=w")), (2, 1, 2));
    assert_eq!(h.ok("m1", "node ls -q").lines().count(), 3);
    c39_an_ambiguous_prefix(h, &id);
    h.ok("m1", "service rm c39a c39b");
    h.until_no_containers();
}

/// Services are made until two ids begin alike.
fn c39_an_ambiguous_prefix(h: &Hosts, first: &str) {
    let mut ids = vec![first.to_owned()];
    let twin = loop {
        let id = h.ok("m1", &format!("service create -d -q --replicas 0 --name twin{} demo:1", ids.len()));
        let id = id.trim().to_owned();
        let twin = ids.iter().any(|other| other[..1] == id[..1]);
        ids.push(id);
        if twin {
            break ids.last().unwrap()[..1].to_owned();
        }
    };
    h.refused("m1", &format!("service inspect {twin}"), "ambiguous");
    h.ok("m1", &format!("service rm {}", ids[1..].join(" ")));
}

fn c4_create_and_remove_many_times(h: &Hosts) {
    for _ in 0..10 {
        h.ok("m1", "service create -d -q --name c4 --replicas 4 demo:1");
        h.ok("m1", "service rm c4");
    }
    h.ok("m1", "service create -q --name c4 --replicas 4 demo:1");
    h.ok("m1", "service rm c4");
    h.until_no_containers();
}

fn c42_update_while_an_update_runs(h: &Hosts) {
    h.ok("m1", "service create -q --name c42 --replicas 3 --env A=1 --update-monitor 100ms demo:1");
    h.ok("m1", "service update -d -q --env-add A=2 c42");
    h.ok("m1", "service update -d -q --env-add A=3 c42");
    let env = |task: &TaskRow| {
        let spec = h.inspect("m1", &format!("task inspect {}", task.id));
        spec["Spec"]["ContainerSpec"]["Env"][0].as_str().unwrap_or_default().to_owned()
    };
    until("the second change is everywhere", || {
        let running = h.running("m1", "c42");
        running.len() == 3 && running.iter().all(|task| env(task) == "A=3")
    });
    let mut slots = BTreeMap::new();
    for task in h.running("m1", "c42") {
        *slots.entry(task.name).or_insert(0) += 1;
    }
    assert!(slots.len() == 3 && slots.values().all(|count| *count == 1), "{slots:?}");
    h.ok("m1", "service rm c42");
    h.until_no_containers();
}
