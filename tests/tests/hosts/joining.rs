//! Into a cluster and out of it: init, join, tokens, settings, leave.

use std::time::Duration;

use swarm_tests::hosts::{Hosts, poll, until};

#[test]
fn one_manager_and_its_joiners() {
    let hosts = Hosts::bare(1, 2);
    a1_init(&hosts);
    a2_init_twice(&hosts);
    a4_join_needs_a_token(&hosts);
    a5_token_for_another_ca(&hosts);
    a6_rotate_token(&hosts);
    a27_manager_address_in_info_of_a_worker(&hosts);
    a30_worker_asks_for_manager_data(&hosts);
    a8_spec_update_keeps_tokens(&hosts);
    a9_cluster_settings(&hosts);
    a15_leave_then_rm(&hosts);
    a19_last_manager(&hosts);
    a3_init_then_leave(&hosts);
    hosts.end();
}

fn a1_init(h: &Hosts) {
    assert_eq!(h.state("m1"), "inactive");
    let said = h.init("m1", "");
    assert!(said.contains("swarmctl join --token SWMTKN-1-"), "{said}");
    let info = h.info("m1");
    assert_eq!((&info["LocalNodeState"], &info["ControlAvailable"]), (&"active".into(), &true.into()));
    let nodes = h.rows("m1", "node ls");
    assert_eq!(nodes.len(), 1);
    h.until_node("m1", "m1", "Status", "Ready");
    let node = h.node("m1", "m1").unwrap();
    assert_eq!(node["Availability"], "Active");
    assert_eq!((&node["ManagerStatus"], &node["Self"]), (&"Leader".into(), &true.into()));
}

fn a2_init_twice(h: &Hosts) {
    let before = h.info("m1")["ClusterID"].clone();
    h.refused("m1", "init", "already part of a swarm");
    assert_eq!(h.info("m1")["ClusterID"], before);
    h.refused(
        "m1",
        &format!("join --token {} {}", h.token("m1", "worker"), h.address("m1")),
        "already part of",
    );
}

fn a4_join_needs_a_token(h: &Hosts) {
    let address = h.address("m1");
    h.refused("w1", &format!("join {address}"), "join token is necessary");
    h.refused("w1", &format!("join --token foobaz {address}"), "invalid join token");
    assert_eq!(h.state("w1"), "inactive", "after a failed join");
    let said = h.ok("w1", &format!("join --token {} {address}", h.token("m1", "worker")));
    assert!(said.contains("joined a swarm as a worker"), "{said}");
    let info = h.info("w1");
    assert_eq!((&info["LocalNodeState"], &info["ControlAvailable"]), (&"active".into(), &false.into()));
    h.until_node("m1", "w1", "Status", "Ready");
}

fn a5_token_for_another_ca(h: &Hosts) {
    let token = h.token("m1", "worker");
    let mut parts: Vec<String> = token.split('-').map(str::to_owned).collect();
    // another digest that is still well formed
    let last = if parts[2].ends_with('1') { "2" } else { "1" };
    let cut = parts[2].len() - 1;
    parts[2].replace_range(cut.., last);
    h.refused(
        "w2",
        &format!("join --token {} {}", parts.join("-"), h.address("m1")),
        "does not match fingerprint",
    );
    assert_eq!(h.state("w2"), "inactive");
}

fn a6_rotate_token(h: &Hosts) {
    let old = h.token("m1", "worker");
    let new = h.ok("m1", "join-token -q --rotate worker").trim().to_owned();
    assert_ne!(old, new);
    let said = h.ctl("w2", &format!("join --token {old} {}", h.address("m1")));
    assert!(said.code != 0 && said.err.contains("token"), "{said}");
    assert_eq!(h.state("w2"), "inactive");
    h.ok("w2", &format!("join --token {new} {}", h.address("m1")));
    h.until_node("m1", "w2", "Status", "Ready");
    assert_eq!(h.node("m1", "w1").unwrap()["Status"], "Ready", "who is in stays in");
}

fn a8_spec_update_keeps_tokens(h: &Hosts) {
    let before = (h.token("m1", "worker"), h.token("m1", "manager"));
    h.ok("m1", "update --task-history-limit 3");
    assert_eq!((h.token("m1", "worker"), h.token("m1", "manager")), before);
    assert_eq!(h.info("m1")["Cluster"]["TaskHistoryRetentionLimit"], 3);
}

fn a9_cluster_settings(h: &Hosts) {
    h.ok(
        "m1",
        "swarm update --cert-expiry 720h --dispatcher-heartbeat 2s --task-history-limit 7 --max-snapshots 2 \
         --snapshot-interval 5000",
    );
    let cluster = h.info("m1")["Cluster"].clone();
    assert_eq!(cluster["NodeCertExpiry"], 720 * 3_600_000_000_000_u64);
    assert_eq!(cluster["HeartbeatPeriod"], 2_000_000_000_u64);
    assert_eq!(cluster["TaskHistoryRetentionLimit"], 7);
    assert_eq!((&cluster["KeepOldSnapshots"], &cluster["SnapshotInterval"]), (&2.into(), &5000.into()));
    h.refused("m1", "update --cert-expiry 1m", "cert-expiry");
    assert_eq!(h.info("m1")["Cluster"], cluster, "a refused change changes nothing");
    h.ok("m1", "update --dispatcher-heartbeat 1s");
}

fn a15_leave_then_rm(h: &Hosts) {
    let before = h.info("w2")["NodeID"].clone();
    h.ok("w2", "leave");
    assert_eq!(h.state("w2"), "inactive");
    h.until_node("m1", "w2", "Status", "Down");
    h.ok("m1", "node rm w2");
    assert!(h.node("m1", "w2").is_none());
    h.ok("w2", &format!("join --token {} {}", h.token("m1", "worker"), h.address("m1")));
    h.until_node("m1", "w2", "Status", "Ready");
    assert_ne!(h.info("w2")["NodeID"], before, "a node that comes back is a new one");
}

fn a19_last_manager(h: &Hosts) {
    h.refused("m1", "node demote m1", "attempting to demote the last manager of the swarm");
    h.refused("m1", "node rm --force m1", "manager");
    assert_eq!(h.info("m1")["ControlAvailable"], true);
}

fn a3_init_then_leave(h: &Hosts) {
    let before = h.info("m1")["ClusterID"].clone();
    h.refused("m1", "leave", "last manager");
    for worker in ["w1", "w2"] {
        h.ok(worker, "leave");
    }
    h.ok("m1", "leave --force");
    assert_eq!(h.state("m1"), "inactive");
    h.init("m1", "");
    assert_ne!(h.info("m1")["ClusterID"], before);
    assert_eq!(h.rows("m1", "node ls").len(), 1, "nothing of the old cluster is left");
}

fn a27_manager_address_in_info_of_a_worker(h: &Hosts) {
    let managers = h.info("w1")["RemoteManagers"].clone();
    assert!(managers.as_array().unwrap().contains(&h.address("m1").into()), "{managers}");
}

fn a30_worker_asks_for_manager_data(h: &Hosts) {
    for line in ["node ls", "service ls", "join-token worker", "service create demo:1", "image ls"] {
        h.refused("w1", line, "This node is not a swarm manager");
    }
}

#[test]
fn a29_certificate_validity() {
    let hosts = Hosts::bare(1, 1);
    hosts.init("m1", "--cert-expiry 1h");
    hosts.ok("w1", &format!("join --token {} {}", hosts.token("m1", "worker"), hosts.address("m1")));
    for host in ["m1", "w1"] {
        let file = hosts.cluster.state_dir(host).join("certs/node.pem");
        let about = |seconds: u32| {
            let line = format!("openssl x509 -noout -checkend {seconds} -in {}", file.display());
            hosts.sh(host, &line).code == 0
        };
        assert!(about(50 * 60) && !about(62 * 60), "{host}: the certificate is good for an hour");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{host}: the key is nobody else's");
    }
    hosts.end();
}

#[test]
fn availability_and_addresses() {
    let hosts = Hosts::bare(1, 1);
    a13_unspecified_address(&hosts);
    a12_init_and_join_with_drain(&hosts);
    hosts.end();
}

fn a13_unspecified_address(h: &Hosts) {
    h.refused("m1", "init --advertise-addr 0.0.0.0", "--advertise-addr must be a routable address");
    let said = h.sh("m1", "ip addr add 10.77.0.1/24 dev eth0");
    assert_eq!(said.code, 0, "{said}");
    let said = h.ctl("m1", "init");
    let named = ["--advertise-addr", "10.77.0.1", "172.28."];
    assert!(said.code != 0 && named.iter().all(|part| said.err.contains(part)), "{said}");
    assert_eq!(h.state("m1"), "inactive");
    assert_eq!(h.sh("m1", "ip addr del 10.77.0.1/24 dev eth0").code, 0);
}

fn a12_init_and_join_with_drain(h: &Hosts) {
    h.init("m1", "--availability drain");
    assert_eq!(h.node("m1", "m1").unwrap()["Availability"], "Drain");
    let token = h.token("m1", "worker");
    h.ok("w1", &format!("join --availability drain --token {token} {}", h.address("m1")));
    h.until_node("m1", "w1", "Status", "Ready");
    assert_eq!(h.node("m1", "w1").unwrap()["Availability"], "Drain");
    h.load();
    h.ok("m1", "service create -d --name a12 --replicas 2 demo:1");
    h.until_task("m1", "a12", "Pending", "no suitable node");
    h.ok("m1", "node update --availability active w1");
    h.until_running("m1", "a12", 2);
    assert_eq!(h.spread("m1", "a12").keys().collect::<Vec<_>>(), ["w1"]);
}

#[test]
fn a10_join_an_address_that_does_not_answer() {
    let mut hosts = Hosts::bare(1, 1);
    let token = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-7p73s1dx5in4tatdymyhg9hu2";
    // the route makes the address silent instead of unreachable
    assert_eq!(hosts.sh("w1", "ip route add 192.0.2.0/24 via 172.28.255.254 dev eth0 onlink").code, 0);
    let command = hosts.ctl_command("w1", &format!("join --token {token} 192.0.2.1:2377"));
    let (ended, pending) = std::thread::scope(|scope| {
        let join = scope.spawn(|| {
            let mut command = command;
            command.output().unwrap()
        });
        let pending = poll(Duration::from_secs(10), || hosts.state("w1") == "pending");
        (join.join().unwrap(), pending)
    });
    assert!(pending, "the node says that it is on its way");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && err.contains("will continue in the background"), "{err}");
    assert_eq!(hosts.state("w1"), "pending");
    hosts.refused("w1", "init", "on its way into a swarm");
    a11_daemon_restart_during_a_pending_join(&mut hosts);
    hosts.end();
}

fn a11_daemon_restart_during_a_pending_join(h: &mut Hosts) {
    h.cluster.kill_daemon("w1").unwrap();
    h.cluster.start("w1").unwrap();
    assert!(["pending", "inactive"].contains(&h.state("w1").as_str()));
    if h.state("w1") == "pending" {
        h.ok("w1", "leave --force");
    }
    until("inactive", || h.state("w1") == "inactive");
    h.init("m1", "");
    h.ok("w1", &format!("join --token {} {}", h.token("m1", "worker"), h.address("m1")));
    h.until_node("m1", "w1", "Status", "Ready");
}
