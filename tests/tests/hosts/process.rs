//! What a container is from inside, how it ends, and what follows from it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use swarm_tests::hosts::{Hosts, TaskRow, poll, until};

#[test]
fn inside_and_around_a_container() {
    let hosts = Hosts::patient(1, 0);
    c31_c33_inside(&hosts);
    c32_env_file(&hosts);
    c34_mounts(&hosts);
    limits_are_seen_in_the_control_groups(&hosts);
    f12_containers_by_label(&hosts);
    hosts.end();
}

#[test]
fn how_containers_end() {
    let hosts = Hosts::patient(1, 0);
    an_exit_code_is_reported(&hosts);
    an_oom_kill_is_reported(&hosts);
    restart_conditions(&hosts);
    stop_signal_and_grace(&hosts);
    c22_container_killed(&hosts);
    c23_container_removed_behind_our_back(&hosts);
    f13_no_auto_start_of_stray_containers(&hosts);
    hosts.end();
}

fn c31_c33_inside(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --name in --stop-grace-period 200ms --hostname {{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}} \
         --user nobody --workdir /tmp --read-only --env SLOT={{.Task.Slot}} demo:1 sh -c \
         'echo host=$(hostname) user=$(id -u):$(id -g) dir=$(pwd) slot=$SLOT; touch /x; ls /proc/1/exe; \
         echo init=$(cat /proc/1/comm); ps | wc -l; ip addr | grep -c inet; kill -0 1 && echo end; sleep 1000'",
    );
    let task = h.until_running("m1", "in", 1).remove(0);
    let out = h.until_log("m1", "in", "end");
    assert!(out.contains("host=in-1-m1 user=65534:65534 dir=/tmp slot=1"), "{out}");
    assert!(h.ctl("m1", "service logs --raw in").err.contains("Read-only file system"));
    let pid = h.pid_of("m1", &task.id);
    let namespace = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["pid", "mnt", "net", "ipc", "uts"] {
        assert_ne!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind} namespace of its own");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    h.ok("m1", "service rm in");
}

fn c32_env_file(h: &Hosts) {
    let file = h.scratch().join("env");
    std::fs::write(&file, "# a comment\nA=file\nB=file\n").unwrap();
    let line = format!(
        "service create -d --name env --stop-grace-period 200ms --env-file {} --env A=flag",
        file.display()
    );
    h.ok("m1", &format!("{line} demo:1 sh -c 'echo $A $B; sleep 1000'"));
    assert_eq!(h.until_log("m1", "env", "\n"), "flag file\n");
    h.ok("m1", "service rm env");
}

fn c34_mounts(h: &Hosts) {
    let shared = h.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "from outside").unwrap();
    let shared = shared.display();
    h.ok(
        "m1",
        &format!(
            "service create -d --name m --stop-grace-period 200ms --mount type=bind,source={shared},target=/rw \
             --mount type=bind,source={shared},target=/ro,readonly \
             --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1700 demo:1 \
             sh -c 'cat /ro/file; echo; echo new > /rw/new; touch /ro/x || echo refused; \
             df -k /t | grep -w 1024; ls -ld /t; sleep 1000'"
        ),
    );
    let out = h.until_log("m1", "m", "drwx");
    assert!(
        out.contains("from outside\nrefused\n") && out.contains("1024") && out.contains("drwx-----T"),
        "{out}"
    );
    assert_eq!(std::fs::read_to_string(h.scratch().join("shared/new")).unwrap(), "new\n");
    h.ok("m1", "service create -d --name mm --mount type=bind,source=/does/not/exist,target=/x demo:1");
    h.until_task("m1", "mm", "Rejected", "bind source path does not exist: /does/not/exist");
    h.ok("m1", "service rm m mm");
    h.until_no_containers();
}

/// A file of a container's control group: of the controller in v1, else of v2.
fn group_file(h: &Hosts, task: &TaskRow, controller: &str, v1: &str, v2: &str) -> String {
    let group = format!("swarm-dev/{}/{}/work/containers/{}", h.cluster.name(), task.node, task.id);
    let old = Path::new("/sys/fs/cgroup").join(controller).join(&group).join(v1);
    let new = Path::new("/sys/fs/cgroup").join(&group).join(v2);
    let path: PathBuf = if old.exists() { old } else { new };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    text.trim().to_owned()
}

fn limits_are_seen_in_the_control_groups(h: &Hosts) {
    h.ok("m1", "service create -d --name lim --limit-memory 32m --limit-cpu 0.5 --limit-pids 20 demo:1");
    let task = h.until_running("m1", "lim", 1).remove(0);
    assert_eq!(group_file(h, &task, "memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(group_file(h, &task, "pids", "pids.max", "pids.max"), "20");
    let quota = group_file(h, &task, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let processes = group_file(h, &task, "memory", "cgroup.procs", "cgroup.procs");
    assert!(processes.lines().any(|pid| pid == h.pid_of("m1", &task.id).to_string()), "{processes}");
    h.ok("m1", "service rm lim");
    h.until_no_containers();
}

fn config(h: &Hosts, task: &TaskRow) -> Value {
    let file = h.bundle(&task.node, &task.id).join("config.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn f12_containers_by_label(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --name f12 --container-label mine=1 \
         --container-label com.docker.swarm.task.id=forged demo:1",
    );
    let task = h.until_running("m1", "f12", 1).remove(0);
    let labels = config(h, &task)["labels"].clone();
    let service = h.inspect("m1", "service inspect f12")["ID"].clone();
    let node = h.info("m1")["NodeID"].clone();
    assert_eq!(labels["mine"], "1");
    assert_eq!(labels["com.docker.swarm.task.id"], task.id.as_str());
    assert_eq!(labels["com.docker.swarm.service.id"], service);
    assert_eq!(labels["com.docker.swarm.service.name"], "f12");
    assert_eq!(labels["com.docker.swarm.node.id"], node);
    assert_eq!(labels["com.docker.swarm.task.name"], format!("f12.1.{}", task.id));
    h.ok("m1", "service rm f12");
}

fn status(h: &Hosts, task: &TaskRow) -> Value {
    h.inspect("m1", &format!("task inspect {}", task.id))["Status"]["ContainerStatus"].clone()
}

fn an_exit_code_is_reported(h: &Hosts) {
    h.ok("m1", "service create -d --name seven --restart-condition none demo:1 sh -c 'exit 7'");
    let task = h.until_task("m1", "seven", "Failed", "non-zero exit (7)");
    assert_eq!(status(h, &task)["ExitCode"], 7);
    h.ok("m1", "service create -d --name zero --restart-condition none demo:1 true");
    let task = h.until_task("m1", "zero", "Complete", "");
    assert_eq!((&status(h, &task)["ExitCode"], task.error.as_str()), (&0.into(), ""));
    h.ok("m1", "service create -d --name nope --restart-condition none demo:1 /no/such/program");
    let task = h.until_task("m1", "nope", "Failed", "/no/such/program");
    assert!(task.error.contains("no such file") || task.error.contains("No such file"), "{}", task.error);
    h.ok("m1", "service rm seven zero nope");
}

fn an_oom_kill_is_reported(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --name oom --limit-memory 16m --restart-condition none demo:1 \
         dd if=/dev/zero of=/dev/null bs=64M count=1",
    );
    let task = h.until_task("m1", "oom", "Failed", "OOM");
    let status = status(h, &task);
    assert_eq!((&status["ExitCode"], &status["OOMKilled"]), (&137.into(), &true.into()));
    h.ok("m1", "service rm oom");
}

fn restart_conditions(h: &Hosts) {
    let create = |name: &str, flags: &str, code: u8| {
        h.ok(
            "m1",
            &format!(
                "service create -d --name {name} --restart-delay 10ms {flags} demo:1 sh -c 'exit {code}'"
            ),
        );
    };
    create("max", "--restart-max-attempts 2", 1);
    create("fail", "--restart-condition on-failure", 0);
    until("three attempts", || h.tasks("m1", "max").iter().filter(|t| t.state == "Failed").count() == 3);
    until("one run", || h.tasks("m1", "fail").iter().filter(|t| t.state == "Complete").count() == 1);
    // a fourth or a second would have come long before a task that is created now runs
    h.ok("m1", "service create -d --name later demo:1");
    h.until_running("m1", "later", 1);
    assert_eq!((h.tasks("m1", "max").len(), h.tasks("m1", "fail").len()), (3, 1));
    h.ok("m1", "service rm max fail later");
    h.until_no_containers();
}

fn stop_signal_and_grace(h: &Hosts) {
    let dir = h.scratch().join("stop");
    std::fs::create_dir(&dir).unwrap();
    let mount = format!("--mount type=bind,source={},target=/out", dir.display());
    h.ok(
        "m1",
        &format!(
            "service create -d --name usr --stop-signal SIGUSR1 {mount} demo:1 \
             sh -c 'trap \"echo got > /out/usr; exit 3\" USR1; echo ready; while true; do sleep 0.05; done'"
        ),
    );
    h.until_log("m1", "usr", "ready");
    h.ok(
        "m1",
        "service create -d --name deaf --stop-grace-period 1s demo:1 \
         sh -c 'trap \"\" TERM; echo ready; while true; do sleep 0.05; done'",
    );
    h.until_log("m1", "deaf", "ready");
    let pid = h.pid_of("m1", &h.running("m1", "deaf")[0].id);
    let alive = || Path::new(&format!("/proc/{pid}")).exists();
    let began = Instant::now();
    h.ok("m1", "service rm usr deaf");
    assert!(poll(Duration::from_secs(10), || !alive()), "SIGKILL after its grace period");
    assert!(began.elapsed() >= Duration::from_millis(900), "but not before: {:?}", began.elapsed());
    until("its signal came", || dir.join("usr").exists());
    h.until_no_containers();
}

fn kill9(pid: i64) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill {pid}");
}

fn c22_container_killed(h: &Hosts) {
    h.ok("m1", "service create -d --name c22 --replicas 2 --restart-delay 1s demo:1");
    let before = h.until_running("m1", "c22", 2);
    let victim = before.iter().find(|task| task.name == "c22.1").unwrap();
    let began = Instant::now();
    kill9(h.pid_of("m1", &victim.id).into());
    let failed = h.until_task("m1", "c22", "Failed", "137");
    assert_eq!((&failed.id, &failed.name), (&victim.id, &victim.name));
    until("replaced", || h.running("m1", "c22").len() == 2);
    assert!(began.elapsed() >= Duration::from_millis(900), "after the delay: {:?}", began.elapsed());
    let after = h.until_running("m1", "c22", 2);
    assert!(
        after.contains(before.iter().find(|task| task.name == "c22.2").unwrap()),
        "the other one is not touched"
    );
    assert!(after.iter().any(|task| task.name == "c22.1" && task.id != victim.id), "{after:?}");
    h.ok("m1", "service rm c22");
    h.until_no_containers();
}

fn c23_container_removed_behind_our_back(h: &Hosts) {
    h.ok("m1", "service create -d --name c23 --restart-delay 0s demo:1");
    let mut last = h.until_running("m1", "c23", 1).remove(0);
    for with_bundle in [false, true] {
        let bundle = h.bundle("m1", &last.id);
        let started: Value =
            serde_json::from_slice(&std::fs::read(bundle.join("started.json")).unwrap()).unwrap();
        kill9(started["supervisor"]["pid"].as_i64().unwrap());
        if with_bundle {
            h.sh("m1", &format!("rm -rf {}", bundle.display()));
        }
        until("another task runs", || {
            let now = h.running("m1", "c23");
            now.len() == 1 && now[0].id != last.id
        });
        let pid = started["init"]["pid"].as_i64().unwrap();
        until("the old container is gone", || !Path::new(&format!("/proc/{pid}")).exists());
        last = h.until_running("m1", "c23", 1).remove(0);
    }
    h.ok("m1", "service rm c23");
    h.until_no_containers();
}

fn f13_no_auto_start_of_stray_containers(h: &Hosts) {
    h.ok("m1", "service create -d --name f13 --restart-condition none demo:1 sh -c 'exit 5'");
    let task = h.until_task("m1", "f13", "Failed", "(5)");
    let record = h.bundle("m1", &task.id).join("started.json");
    let before = std::fs::read_to_string(&record).ok();
    h.cluster.kill_daemon("m1").unwrap();
    h.cluster.start("m1").unwrap();
    h.until_node("m1", "m1", "Status", "Ready");
    h.ok("m1", "service create -d --name later demo:1");
    h.until_running("m1", "later", 1);
    assert_eq!(std::fs::read_to_string(&record).ok(), before, "it was not started again");
    let tasks = h.tasks("m1", "f13");
    assert_eq!((tasks.len(), tasks[0].state.as_str()), (1, "Failed"));
    h.ok("m1", "service rm f13 later");
    h.until_no_containers();
}
