//! Bad luck: daemons die at the worst moment, disks are full, clusters are mixed up.

use std::path::Path;
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, poll, until};

/// The daemon of a worker is killed again and again while containers start and stop on it.
#[test]
fn a_daemon_is_killed_a_hundred_times() {
    let mut hosts = Hosts::up(1, 1);
    hosts.expect_log(&["node is down", "end of the task journal is torn"]);
    hosts.ok("m1", "node update --availability drain m1");
    hosts.ok("m1", "service create -d --name storm --replicas 4 --restart-delay 10ms demo:1");
    // ends by itself all the time
    hosts.ok("m1", "service create -d --name brief --stop-grace-period 200ms --replicas 2 --restart-delay 10ms demo:1 sh -c 'exec sleep 0.2'");
    for round in 0..100_u32 {
        hosts.ok("m1", &format!("service scale -d storm={}", if round % 2 == 0 { 1 } else { 8 }));
        // a different moment of the work in each round
        let moment = Instant::now() + Duration::from_millis(u64::from(round * 37 % 400));
        poll(moment.saturating_duration_since(Instant::now()), || false);
        hosts.cluster.kill_daemon("w1").unwrap();
        hosts.cluster.start("w1").unwrap_or_else(|e| panic!("start w1 in round {round}: {e:#}"));
    }
    hosts.ok("m1", "service scale -d storm=5");
    let tasks = hosts.until_running("m1", "storm", 5);
    hosts.ok("m1", "service rm brief");
    until("no container but those of the tasks", || {
        let ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
        hosts.live_containers("w1").iter().all(|id| ids.contains(id))
    });
    hosts.ok("m1", "service rm storm");
    hosts.until_no_containers();
    let line = format!("/{}/w1/", hosts.cluster.name());
    let stray = processes(|command| command.contains(&line) && command.contains("swarmd-shim"));
    assert!(stray.is_empty(), "supervisors without a container: {stray:?}");
    hosts.end();
}

fn processes(fits: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| fits(line)).collect()
}

/// A manager's daemon is killed as well while it commits what its own worker does.
#[test]
fn a_single_manager_is_killed_ten_times() {
    let mut hosts = Hosts::up(1, 0);
    hosts.expect_log(&["end of the task journal is torn", "unfinished last write"]);
    hosts.ok("m1", "service create -d --name storm --replicas 2 demo:1");
    for round in 0..10_u64 {
        hosts.ok("m1", &format!("service scale -d storm={}", 1 + round % 5));
        let moment = Duration::from_millis(round * 23 % 150);
        poll(moment, || false);
        hosts.cluster.kill_daemon("m1").unwrap();
        hosts.cluster.start("m1").unwrap();
        until("it answers", || hosts.ctl("m1", "service ls").code == 0);
        let replicas =
            hosts.inspect("m1", "service inspect storm")["Spec"]["Mode"]["Replicated"]["Replicas"].clone();
        assert_eq!(replicas, 1 + round % 5, "an accepted change is kept");
    }
    hosts.until_running("m1", "storm", 5);
    hosts.ok("m1", "service rm storm");
    hosts.until_no_containers();
    hosts.end();
}

#[test]
fn all_managers_die_and_tasks_go_on() {
    let mut hosts = Hosts::up(3, 1);
    hosts.expect_log(&["upkeep of this node did not work yet", "node is down", "unfinished last write"]);
    hosts.ok(
        "m1",
        "service create -d --name on --replicas 2 --restart-delay 0s --constraint node.role==worker demo:1",
    );
    let before = hosts.until_running("m1", "on", 2);
    let pids: Vec<_> = before.iter().map(|task| hosts.pid_of("m1", &task.id)).collect();
    for host in ["m1", "m2", "m3"] {
        hosts.cluster.kill_daemon(host).unwrap();
    }
    let alive = |pid: i32| Path::new(&format!("/proc/{pid}")).exists();
    // one dies while nobody is there to replace it
    assert!(
        std::process::Command::new("kill").args(["-9", &pids[0].to_string()]).status().unwrap().success()
    );
    until("one ended", || !alive(pids[0]));
    assert!(alive(pids[1]), "the other goes on");
    assert_eq!(hosts.state("w1"), "active");
    for host in ["m1", "m2", "m3"] {
        hosts.cluster.start(host).unwrap();
    }
    hosts.until_leader("m1", "");
    hosts.until_task("m1", "on", "Failed", "137");
    let after = hosts.until_running("m1", "on", 2);
    assert!(after.contains(&before[1]) && alive(pids[1]), "{after:?}");
    hosts.end();
}

/// A machine that wants to become a manager dies at different moments of its join.
#[test]
fn a_manager_is_killed_during_join() {
    let mut hosts = Hosts::bare(2, 0);
    hosts.expect_log(&[
        "node is down",
        "upkeep of this node",
        "cannot take up its role",
        "snapshot",
        "unfinished last write",
    ]);
    hosts.init("m1", "");
    for round in 0..6_u64 {
        let token = hosts.token("m1", "manager");
        let command = hosts.ctl_command("m2", &format!("join --token {token} {}", hosts.address("m1")));
        let mut join = { command }
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        poll(Duration::from_millis(10 + round * 25), || false);
        hosts.cluster.kill_daemon("m2").unwrap();
        join.wait().unwrap();
        hosts.cluster.start("m2").unwrap();
        // either it is in, or it can begin anew
        let mut state = String::new();
        until("it is in or out", || {
            state = hosts.state("m2");
            state == "active" || state == "inactive"
        });
        until("the cluster accepts writes", || {
            hosts.ctl("m1", &format!("service create -d -q --replicas 0 --name r{round} demo:1")).code == 0
        });
        if state == "active" {
            until("it takes part", || hosts.ctl("m2", "service ls").code == 0);
            hosts.until_node("m1", "m2", "ManagerStatus", "Reachable");
            let own = hosts.info("m2")["NodeID"].as_str().unwrap().to_owned();
            hosts.ok("m1", &format!("node demote {own}"));
            until("it is a worker", || hosts.info("m2")["ControlAvailable"] == false);
            hosts.ok("m2", "leave");
        }
        assert_eq!(hosts.state("m2"), "inactive");
    }
    assert_eq!(hosts.rows("m1", "service ls").len(), 6);
    // those that never came further than their certificate are no members of the group
    assert_eq!(hosts.info("m1")["Managers"], 1, "{:?}", hosts.rows("m1", "node ls"));
    hosts.end();
}

/// Two clusters on one network: nobody gets into the wrong one.
#[test]
fn two_clusters_do_not_mix() {
    let hosts = Hosts::bare(2, 1);
    hosts.init("m1", "");
    hosts.init("m2", "");
    let (one, two) = (hosts.token("m1", "worker"), hosts.token("m2", "worker"));
    hosts.refused("w1", &format!("join --token {one} {}", hosts.address("m2")), "does not match fingerprint");
    hosts.refused("w1", &format!("join --token {two} {}", hosts.address("m1")), "does not match fingerprint");
    assert_eq!(hosts.state("w1"), "inactive");
    hosts.ok("w1", &format!("join --token {one} {}", hosts.address("m1")));
    hosts.until_node("m1", "w1", "Status", "Ready");
    hosts.refused("w1", &format!("join --token {two} {}", hosts.address("m2")), "already part of a swarm");
    // an administrator of one is nobody in the other
    let file = hosts.scratch().join("one.pem");
    hosts.ok("m1", &format!("admin-cert alice -o {}", file.display()));
    let text = std::fs::read_to_string(&file).unwrap();
    let theirs = text.replace(&hosts.address("m1"), &hosts.address("m2"));
    assert_ne!(text, theirs);
    std::fs::write(&file, theirs).unwrap();
    let import = format!("{} context import one {}", ctl(), file.display());
    assert_eq!(hosts.sh("w1", &import).code, 0);
    let said = hosts.sh("w1", &format!("{} --context one node ls", ctl()));
    assert!(said.code != 0 && said.out.is_empty(), "{said}");
    assert_eq!(hosts.rows("m2", "node ls").len(), 1);
    hosts.end();
}

fn ctl() -> String {
    let dir = std::path::PathBuf::from(std::env::var_os("SWARM_BIN_DIR").unwrap());
    dir.join("swarmctl").display().to_string()
}

/// The disk of one of three managers fills up and is emptied again.
#[test]
fn the_disk_of_a_manager_is_full() {
    let mut hosts = Hosts::bare(3, 0);
    hosts.expect_log(&[" WARN ", " ERROR "]);
    hosts.init("m1", "");
    let dir = hosts.cluster.state_dir("m2").display().to_string();
    hosts.cluster.kill_daemon("m2").unwrap();
    let said = hosts.sh("m2", &format!("mount -t tmpfs -o size=24m small {dir}"));
    assert_eq!(said.code, 0, "{said}");
    hosts.cluster.start("m2").unwrap();
    for host in ["m2", "m3"] {
        hosts.ok(host, &format!("join --token {} {}", hosts.token("m1", "manager"), hosts.address("m1")));
        hosts.until_node("m1", host, "ManagerStatus", "Reachable");
    }
    hosts.sh("m2", &format!("dd if=/dev/zero of={dir}/filler bs=64k; cp /dev/zero {dir}/filler2"));
    // enough to need a block more than the log has left
    let label = "x".repeat(100_000);
    for count in 0..40 {
        hosts.ok(
            "m1",
            &format!("service create -d -q --replicas 0 --label l={label} --name full{count} demo:1"),
        );
    }
    assert_eq!(hosts.rows("m3", "service ls").len(), 40, "the others have a quorum");
    assert_eq!(hosts.sh("m2", &format!("rm {dir}/filler {dir}/filler2")).code, 0);
    if hosts.cluster.daemon_pid("m2").is_none() {
        hosts.cluster.start("m2").unwrap();
    }
    hosts.until_node("m1", "m2", "ManagerStatus", "Reachable");
    // it has all that was written: it is needed for a quorum now
    hosts.cluster.kill_daemon("m3").unwrap();
    until("m2 and m1 accept writes", || {
        hosts.ctl("m2", "service create -d -q --replicas 0 --name after demo:1").code == 0
    });
    assert_eq!(hosts.rows("m2", "service ls").len(), 41);
    hosts.end();
}

/// A full disk of the only manager: refused and said, and fine again after.
#[test]
fn the_disk_of_the_only_manager_is_full() {
    let mut hosts = Hosts::bare(1, 0);
    hosts.expect_log(&[" WARN ", " ERROR "]);
    let dir = hosts.cluster.state_dir("m1").display().to_string();
    hosts.cluster.kill_daemon("m1").unwrap();
    assert_eq!(hosts.sh("m1", &format!("mount -t tmpfs -o size=24m small {dir}")).code, 0);
    hosts.cluster.start("m1").unwrap();
    hosts.init("m1", "");
    hosts.sh("m1", &format!("cp /dev/zero {dir}/filler"));
    let label = "x".repeat(100_000);
    let mut accepted = Vec::new();
    let mut refusal = None;
    for count in 0..200 {
        let said = hosts.ctl(
            "m1",
            &format!("service create -d -q --replicas 0 --label l={label} --name f{count} demo:1"),
        );
        if said.code != 0 {
            refusal = Some(said);
            break;
        }
        accepted.push(format!("f{count}"));
    }
    let refusal = refusal.expect("a full disk cannot take all of it");
    assert!(refusal.code == 1 && !refusal.err.is_empty(), "{refusal}");
    assert_eq!(hosts.sh("m1", &format!("rm {dir}/filler")).code, 0);
    if hosts.cluster.daemon_pid("m1").is_none() {
        hosts.cluster.start("m1").unwrap();
    }
    until("writes are accepted again", || {
        hosts.ctl("m1", "service create -d -q --replicas 0 --name after demo:1").code == 0
    });
    let rows = hosts.rows("m1", "service ls");
    for name in accepted {
        assert!(rows.iter().any(|row| row["Name"] == name.as_str()), "{name} was accepted and is lost");
    }
    hosts.end();
}
