//! What containers print, read from any manager; and `info`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use swarm_tests::hosts::{Hosts, until};

#[test]
fn logs_of_three_nodes() {
    let mut hosts = Hosts::up(1, 2);
    f1_logs_complete(&hosts);
    f2_tail_since_follow(&hosts);
    f3_task_logs(&hosts);
    f5_deleted_container(&hosts);
    f10_info(&hosts);
    f4_several_nodes(&mut hosts);
    hosts.end();
}

fn f1_logs_complete(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --name f1 demo:1 \
         sh -c 'i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; echo problem >&2; trap \"exit 0\" TERM; sleep 1000 & wait'",
    );
    let task = h.until_running("m1", "f1", 1).remove(0);
    h.until_log("m1", "f1", "line 99");
    let said = h.ctl("m1", "service logs f1");
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines.len(), 100, "{said}");
    let prefix = format!("f1.1.{}@{}    | ", &task.id[..12], task.node);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("{prefix}line {number}"));
    }
    assert_eq!(said.err, format!("{prefix}problem\n"), "stderr stays stderr");
}

fn f2_tail_since_follow(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --name f2 --replicas 2 demo:1 sh -c 'echo a; echo b; echo c; exec sleep 1000'",
    );
    h.until_running("m1", "f2", 2);
    until("all lines", || h.ok("m1", "service logs --raw f2").lines().count() == 6);
    let mut lines: Vec<_> = h.ok("m1", "service logs --raw --tail 2 f2").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["b", "b", "c", "c"], "the last two of each task");
    assert_eq!(h.ok("m1", "service logs --since 1h f2").lines().count(), 6);
    assert_eq!(h.ok("m1", "service logs --since 2100-01-01T00:00:00Z f2"), "");
    h.refused("m1", "service logs nope", "no such task or service: nope");
    follow(h);
    h.ok("m1", "service rm f2");
}

/// New lines come while they are written, and Ctrl-C ends it.
fn follow(h: &Hosts) {
    let file = h.scratch().join("go");
    std::fs::create_dir(&file).unwrap();
    let mount = format!("--mount type=bind,source={},target=/go", file.display());
    h.ok(
        "m1",
        &format!(
            "service create -d --name follow {mount} demo:1 \
             sh -c 'echo first; while [ ! -e /go/now ]; do sleep 0.05; done; echo second; sleep 1000'"
        ),
    );
    h.until_log("m1", "follow", "first");
    let mut command = h.ctl_command("m1", "service logs -f --raw follow");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    std::fs::write(file.join("now"), "").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    h.ok("m1", "service rm follow");
}

fn f3_task_logs(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --name f3 --replicas 2 demo:1 sh -c 'echo I am $(hostname); exec sleep 1000'",
    );
    let tasks = h.until_running("m1", "f3", 2);
    for task in &tasks {
        let out = h.until_log("m1", &task.id, "I am");
        assert_eq!(out.lines().count(), 1, "only that task: {out}");
    }
    h.ok("m1", "service rm f3");
}

fn f5_deleted_container(h: &Hosts) {
    h.ok("m1", "update --task-history-limit 5");
    h.ok("m1", "service create -q --name f5 --update-monitor 100ms demo:1 sh -c 'echo old; trap \"exit 0\" TERM; sleep 1000 & wait'");
    let old = h.until_running("m1", "f5", 1).remove(0);
    h.ok("m1", "service update -q --force f5");
    h.sh(&old.node, &format!("rm -rf {}", h.bundle(&old.node, &old.id).display()));
    for subject in ["f5", &old.id] {
        let said = h.ctl("m1", &format!("service logs {subject}"));
        assert_ne!(said.code, 124, "it hangs: {said}");
    }
    h.ok("m1", "service rm f5");
}

fn f10_info(h: &Hosts) {
    let manager = h.info("m1");
    assert_eq!((&manager["Nodes"], &manager["Managers"]), (&3.into(), &1.into()));
    assert_eq!((&manager["ControlAvailable"], &manager["Leader"]), (&true.into(), &true.into()));
    assert!(!manager["ClusterID"].as_str().unwrap().is_empty());
    let worker = h.info("w1");
    assert_eq!((&worker["LocalNodeState"], &worker["ControlAvailable"]), (&"active".into(), &false.into()));
    let text = h.ok("m1", "info");
    for part in
        ["Swarm: active", "Is Manager: true", "Managers: 1", "Nodes: 3", "Task History Retention Limit"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = h.ok("w1", "info");
    assert!(text.contains("Is Manager: false") && !text.contains("Managers: "), "{text}");
    assert_eq!(h.ok("m1", "info --format {{.Swarm.LocalNodeState}}"), "active\n");
    h.ok("w2", "leave");
    assert!(h.ok("w2", "info").contains("Swarm: inactive"));
    h.ok("w2", &format!("join --token {} {}", h.token("m1", "worker"), h.address("m1")));
    h.until_node("m1", "w2", "Status", "Ready");
    h.remove_down_nodes("m1");
}

fn f4_several_nodes(h: &mut Hosts) {
    h.ok("m1", "service rm f1");
    h.ok("m1", "service create -d --name f4 --mode global demo:1 sh -c 'echo here; exec sleep 1000'");
    let tasks = h.until_running("m1", "f4", 3);
    until("a line of each", || {
        let out = h.ok("m1", "service logs f4");
        tasks.iter().all(|task| out.contains(&format!("@{} ", task.node)))
    });
    h.expect_log(&["node is down"]);
    h.cluster.kill("w2").unwrap();
    h.until_node("m1", "w2", "Status", "Down");
    let said = h.ctl("m1", "service logs f4");
    assert_eq!(said.out.lines().count(), 2, "the others' lines: {said}");
    assert!(said.err.contains("incomplete") && said.err.contains("w2"), "{said}");
    assert_ne!(said.code, 124);
}
