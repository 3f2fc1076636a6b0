//! Managers come and go: roles, followers, removal.

use swarm_tests::hosts::{Hosts, PATIENCE, until, until_in};

#[test]
fn roles_and_removal() {
    let mut hosts = Hosts::up(3, 2);
    a7_role_decided_by_the_token(&hosts);
    a17_rm_a_manager(&hosts);
    a22_follower_proxies(&hosts);
    a18_promote_and_demote(&hosts);
    a20_demote_the_leader(&hosts);
    a16_rm_a_live_node(&mut hosts);
    hosts.end();
}

fn a7_role_decided_by_the_token(h: &Hosts) {
    let rows = h.rows("m1", "node ls");
    let managers: Vec<_> = rows.iter().filter(|row| row["ManagerStatus"] != "").collect();
    assert_eq!((rows.len(), managers.len()), (5, 3));
    for host in ["m2", "m3"] {
        h.until_node("m1", host, "ManagerStatus", "Reachable");
        assert_eq!(h.info(host)["ControlAvailable"], true);
    }
}

fn a17_rm_a_manager(h: &Hosts) {
    for force in ["", "--force "] {
        h.refused("m1", &format!("node rm {force}m2"), "must be demoted");
    }
    assert_eq!(h.rows("m1", "node ls").len(), 5);
}

fn a22_follower_proxies(h: &Hosts) {
    let leader = h.until_leader("m1", "");
    let follower = ["m1", "m2", "m3"].into_iter().find(|host| *host != leader).unwrap();
    h.ok(follower, "service create -d -q --name a22 --replicas 2 demo:1");
    h.until_running(follower, "a22", 2);
    h.ok(follower, "service scale -d a22=3");
    h.until_running(&leader, "a22", 3);
    h.ok(follower, "service update -d -q --label-add x=y a22");
    assert_eq!(h.inspect(follower, "service inspect a22")["Spec"]["Labels"]["x"], "y");
    assert_eq!(h.rows(follower, "service ls"), h.rows(&leader, "service ls"));
    h.ok(follower, "node update --label-add zone=a w1");
    assert_eq!(h.inspect(&leader, "node inspect w1")["Spec"]["Labels"]["zone"], "a");
    assert_eq!(h.token(follower, "worker"), h.token(&leader, "worker"));
    h.refused(follower, "service rm nope", "not found");
    h.ok(follower, "service rm a22");
    until("no service", || h.rows(&leader, "service ls").is_empty());
}

/// What the certificate of a host says it is.
fn certified_role(h: &Hosts, host: &str) -> String {
    let file = h.cluster.state_dir(host).join("certs/node.pem");
    let said =
        h.sh(host, &format!("openssl x509 -noout -subject -nameopt sep_multiline -in {}", file.display()));
    let line = said.out.lines().find_map(|line| line.trim().strip_prefix("OU=").map(str::to_owned));
    line.unwrap_or_else(|| panic!("{said}"))
}

fn a18_promote_and_demote(h: &Hosts) {
    assert_eq!(certified_role(h, "w1"), "swarm-worker");
    h.ok("m1", "node promote w1");
    h.until_node("m1", "w1", "ManagerStatus", "Reachable");
    until("w1 answers as a manager", || h.ctl("w1", "node ls").code == 0);
    assert_eq!(certified_role(h, "w1"), "swarm-manager");
    assert!(h.ok("m1", "node promote w1").contains("already a manager"));
    h.ok("m1", "node demote m2");
    until("m2 is a worker", || h.info("m2")["ControlAvailable"] == false);
    h.refused("m2", "node ls", "This node is not a swarm manager");
    assert_eq!(certified_role(h, "m2"), "swarm-worker");
    h.until_node("m1", "m2", "ManagerStatus", "");
    h.until_node("m1", "m2", "Status", "Ready");
}

fn a20_demote_the_leader(h: &Hosts) {
    let leader = h.until_leader("w1", "");
    let others: Vec<_> = ["m1", "m3", "w1"].into_iter().filter(|host| *host != leader).collect();
    h.ok(others[0], &format!("node demote {leader}"));
    let next = h.until_leader(others[0], &leader);
    assert!(others.contains(&next.as_str()), "{next} leads");
    until("it is a worker", || h.info(&leader)["ControlAvailable"] == false);
    h.ok(others[1], "service create -d --name a20 --replicas 5 demo:1");
    h.until_running(others[0], "a20", 5);
    let managers = h.rows(others[1], "node ls").iter().filter(|row| row["ManagerStatus"] != "").count();
    assert_eq!(managers, 2);
}

fn a16_rm_a_live_node(h: &mut Hosts) {
    let managers: Vec<_> =
        ["m1", "m3", "w1"].into_iter().filter(|host| h.info(host)["ControlAvailable"] == true).collect();
    let via = managers[0];
    assert_eq!(h.spread(via, "a20")["w2"], 1);
    h.refused(via, "node rm w2", "is not down and can't be removed");
    h.ok(via, "node rm --force w2");
    until_in(PATIENCE, "its tasks move", || {
        let spread = h.spread(via, "a20");
        spread.values().sum::<usize>() == 5 && !spread.contains_key("w2")
    });
    assert!(h.node(via, "w2").is_none());
    // it asks again with its certificate, and is refused
    h.expect_log(&["was removed", "not allowed", "no longer"]);
    until("w2 knows that it was removed", || {
        let log = std::fs::read_to_string(h.cluster.log("w2")).unwrap();
        log.contains("removed")
    });
    assert!(h.node(via, "w2").is_none(), "its certificate let it in again");
    h.ok("w2", "leave --force");
    h.ok("w2", &format!("join --token {} {}", h.token(via, "worker"), h.address(via)));
    h.until_node(via, "w2", "Status", "Ready");
    assert!(h.containers("w2").is_empty(), "what it ran was removed with its leave");
}
