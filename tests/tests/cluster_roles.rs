//! Certificates and roles over time: renewal without a break, promotion and demotion, membership.

use std::time::Duration;

use swarm_identity::role::Role;
use swarm_proto::v1;
use swarm_tests::harness::{Cluster, capture, eventually, is_ready, patient};
use swarm_types::cluster::ClusterSpec;
use tonic::Code;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn certificates_are_renewed_in_time_and_no_session_breaks() {
    let spec = ClusterSpec { cert_expiry: HOUR * 2, ..patient() };
    let cluster = Cluster::with(1, 1, spec).await;
    let before: Vec<_> = cluster.hosts.iter().map(|h| h.credentials().identity().unwrap()).collect();
    let worker = before[1].node;
    let sessions = || {
        let connected = capture().lines_with("connected to a manager");
        connected.into_iter().filter(|l| l.contains(worker.as_str())).count()
    };
    eventually("the worker has a session", || async {
        if sessions() == 1 { Ok(()) } else { Err(format!("{} sessions", sessions())) }
    })
    .await;
    let w1 = cluster.host("w1");
    let serial = || w1.credentials().identity().unwrap().serial;
    // Before half of the life nothing is due. (Only its own clock moves: a leader whose clock leaps takes
    // all nodes for silent.)
    w1.clock.advance(Duration::from_secs(58 * 60));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(serial(), before[1].serial, "too early");
    // At four fifths it is.
    w1.clock.advance(Duration::from_secs(39 * 60));
    eventually("the worker has a new certificate", || async {
        if serial() != before[1].serial { Ok(()) } else { Err("the old one".into()) }
    })
    .await;
    cluster.all_ready(2).await;
    assert_eq!(sessions(), 1, "the session of the worker was broken by the renewal");
}

#[tokio::test]
async fn a_cluster_outlives_its_first_certificates() {
    let spec = ClusterSpec { cert_expiry: HOUR * 2, ..ClusterSpec::default() };
    let cluster = Cluster::with(2, 1, spec).await;
    let before: Vec<_> = cluster.hosts.iter().map(|h| h.credentials().identity().unwrap()).collect();
    cluster.clock.advance(Duration::from_secs(97 * 60));
    for (host, before) in cluster.hosts.iter().zip(&before) {
        eventually(&format!("{} has a new certificate", host.name), || async {
            let now = host.credentials().identity().map_err(|e| e.to_string())?;
            if now.expires > before.expires { Ok(()) } else { Err("the old one".into()) }
        })
        .await;
    }
    cluster.clock.advance(Duration::from_secs(50 * 60));
    cluster.all_ready(3).await;
}

async fn set_role(cluster: &Cluster, name: &str, role: v1::Role) -> Result<(), tonic::Status> {
    let mut control = cluster.any().control();
    let entry = control.get_node(v1::GetNodeRequest { reference: name.into() }).await?;
    let node = entry.into_inner().entry.unwrap().node.unwrap();
    let spec = v1::NodeSpec { role: role.into(), ..node.spec.unwrap() };
    let version = node.meta.unwrap().version;
    control.update_node(v1::UpdateNodeRequest { node_id: node.id, version, spec: Some(spec) }).await?;
    Ok(())
}

async fn becomes(cluster: &Cluster, name: &str, role: Role) {
    eventually(&format!("{name} is a {role}"), || async {
        let host = cluster.host(name);
        let cert = host.credentials().identity().map_err(|e| e.to_string())?.role;
        let serves = host.info().await.is_manager;
        if cert == role && serves == (role == Role::Manager) {
            Ok(())
        } else {
            Err(format!("{cert}, manager: {serves}"))
        }
    })
    .await;
}

#[tokio::test]
async fn promotion_and_demotion_change_the_certificate() {
    let cluster = Cluster::start(1, 2).await;
    for name in ["w1", "w2"] {
        set_role(&cluster, name, v1::Role::Manager).await.unwrap();
        becomes(&cluster, name, Role::Manager).await;
    }
    eventually("three managers are reachable", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        let managers = nodes.iter().filter(|n| n.manager.is_some() && is_ready(n)).count();
        if managers == 3 { Ok(()) } else { Err(format!("{managers}")) }
    })
    .await;
    // It answers like any other.
    let nodes = cluster.host("w1").control().list_nodes(v1::ListNodesRequest {}).await.unwrap();
    assert_eq!(nodes.into_inner().nodes.len(), 3);
    let old = cluster.host("w1").credentials();
    set_role(&cluster, "w1", v1::Role::Worker).await.unwrap();
    becomes(&cluster, "w1", Role::Worker).await;
    let refused = cluster.host("w1").control().list_nodes(v1::ListNodesRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("not a swarm manager"), "{refused:?}");
    assert!(!cluster.host("w1").state_dir().join("manager").exists(), "the log of a former manager is gone");
    // The certificate that it had as a manager is not over yet, but opens nothing any more.
    let clock: std::sync::Arc<dyn swarm_types::time::Clock> = cluster.clock.clone();
    let addr = cluster.hosts[0].addr();
    let channel = swarm_tests::harness::wire::with_certificate(&addr, old, clock).await.unwrap();
    for path in ["/swarm.v1.Control/GetJoinTokens", "/swarm.v1.Raft/Step", "/swarm.v1.Raft/JoinGroup"] {
        let status = swarm_tests::harness::wire::call(&channel, path).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status:?}");
        assert!(status.message().contains("no manager any more"), "{path}: {status:?}");
    }
    cluster.all_ready(3).await;
}

/// How many members the consensus group has, and how many of them the leader hears.
async fn group(cluster: &Cluster) -> (u64, u64) {
    let info = cluster.any().info().await;
    let nodes = cluster.nodes().await.expect("the nodes");
    let managers = nodes.iter().filter(|n| n.manager.as_ref().is_some_and(|m| m.reachable)).count();
    (u64::from(info.manager_count), managers as u64)
}

#[tokio::test]
async fn a_demotion_in_the_middle_of_a_promotion_leaves_no_stray_in_the_group() {
    let cluster = Cluster::start(1, 1).await;
    cluster.expect_log(&["this manager does not vote yet"]);
    for wait_ms in [0, 5, 20, 40, 80, 160] {
        set_role(&cluster, "w1", v1::Role::Manager).await.unwrap();
        // The race itself: each round another moment of the promotion is hit.
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        eventually("the demotion is taken", || async {
            set_role(&cluster, "w1", v1::Role::Worker).await.map_err(|e| e.message().to_owned())
        })
        .await;
        becomes(&cluster, "w1", Role::Worker).await;
        eventually("one manager is left, and it can write", || async {
            let (members, reachable) = group(&cluster).await;
            if (members, reachable) == (1, 1) { Ok(()) } else { Err(format!("{members}, {reachable} heard")) }
        })
        .await;
    }
    cluster.all_ready(2).await;
}

#[tokio::test]
async fn a_leader_that_is_demoted_hands_over() {
    let cluster = Cluster::start(3, 0).await;
    let leader = cluster.leader().await;
    set_role(&cluster, &leader, v1::Role::Worker).await.unwrap();
    becomes(&cluster, &leader, Role::Worker).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let nodes =
        cluster.host(&next).control().list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.iter().filter(|n| n.manager.is_some()).count(), 2);
}

/// A worker dials; it listens on nothing. One that comes back and knows only a former manager must be told
/// there who the managers are.
#[tokio::test]
async fn a_worker_that_was_away_asks_a_former_manager_its_way() {
    let mut cluster = Cluster::with(1, 2, ClusterSpec::default()).await;
    cluster.host_mut("w1").kill().await;
    eventually("its absence is seen", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        let ready = nodes.iter().filter(|n| is_ready(n)).count();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} are ready")) }
    })
    .await;
    set_role(&cluster, "w2", v1::Role::Manager).await.unwrap();
    becomes(&cluster, "w2", Role::Manager).await;
    eventually("m1 may be demoted", || async {
        set_role(&cluster, "m1", v1::Role::Worker).await.map_err(|e| e.message().to_owned())
    })
    .await;
    becomes(&cluster, "m1", Role::Worker).await;
    // It remembers that it was one.
    cluster.host_mut("m1").stop().await;
    cluster.host_mut("m1").start().await;
    cluster.host_mut("w1").start().await;
    eventually("all are ready", || async {
        let answer = cluster.host("w2").control().list_nodes(v1::ListNodesRequest {}).await;
        let nodes = answer.map_err(|e| e.to_string())?.into_inner().nodes;
        let ready = nodes.iter().filter(|n| is_ready(n)).count();
        if ready == 3 { Ok(()) } else { Err(format!("{ready} of 3")) }
    })
    .await;
    // It may become one again, on the port where it told the way.
    let nodes = cluster.host("w2").control().list_nodes(v1::ListNodesRequest {}).await.unwrap();
    let m1 = nodes.into_inner().nodes.into_iter().filter_map(|n| n.node);
    let m1 = m1.into_iter().find(|n| n.description.as_ref().is_some_and(|d| d.hostname == "m1")).unwrap();
    let spec = v1::NodeSpec { role: v1::Role::Manager.into(), ..m1.spec.unwrap() };
    let update =
        v1::UpdateNodeRequest { node_id: m1.id, version: m1.meta.unwrap().version, spec: Some(spec) };
    cluster.host("w2").control().update_node(update).await.unwrap();
    becomes(&cluster, "m1", Role::Manager).await;
    cluster.all_ready(3).await;
}

#[tokio::test]
async fn quorum_is_not_given_away() {
    let mut cluster = Cluster::start(3, 0).await;
    let away = cluster.follower().await;
    cluster.host_mut(&away).kill().await;
    let present = cluster.follower().await;
    eventually("its absence is seen", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        let gone = nodes.iter().filter(|n| n.manager.as_ref().is_some_and(|m| !m.reachable)).count();
        if gone == 1 { Ok(()) } else { Err(format!("{gone}")) }
    })
    .await;
    let refused = set_role(&cluster, &present, v1::Role::Worker).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("quorum"), "{refused:?}");
    // The one that is away may go.
    set_role(&cluster, &away, v1::Role::Worker).await.unwrap();
    let only_leader = |n: &v1::NodeEntry| n.manager.is_some();
    eventually("two managers are left", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        let managers = nodes.iter().filter(|n| only_leader(n)).count();
        if managers == 2 { Ok(()) } else { Err(format!("{managers}")) }
    })
    .await;
    // It comes back and finds that it is a worker.
    cluster.host_mut(&away).start().await;
    becomes(&cluster, &away, Role::Worker).await;
}

/// It still has the log of the group that it was taken out of, and a number that is never used again.
#[tokio::test]
async fn a_manager_that_was_demoted_and_promoted_while_it_was_away_joins_anew() {
    let mut cluster = Cluster::start(3, 0).await;
    let away = cluster.follower().await;
    cluster.host_mut(&away).kill().await;
    let members = async |cluster: &Cluster, expected| {
        eventually("the group has its members", || async {
            let info = cluster.host(&cluster.leader().await).info().await;
            if info.manager_count == expected { Ok(()) } else { Err(format!("{}", info.manager_count)) }
        })
        .await;
    };
    eventually("it may be demoted", || async {
        set_role(&cluster, &away, v1::Role::Worker).await.map_err(|e| e.message().to_owned())
    })
    .await;
    members(&cluster, 2).await;
    eventually("it may be promoted", || async {
        set_role(&cluster, &away, v1::Role::Manager).await.map_err(|e| e.message().to_owned())
    })
    .await;
    cluster.host_mut(&away).start().await;
    members(&cluster, 3).await;
    cluster.all_ready(3).await;
}

#[tokio::test]
async fn leaving_ends_everything_of_a_node() {
    let mut cluster = Cluster::start(1, 1).await;
    let spec = swarm_tests::harness::service("web", "nginx", 2);
    cluster.any().control().create_service(v1::CreateServiceRequest { spec: Some(spec) }).await.unwrap();
    eventually("one runs there", || async {
        let n = cluster.host("w1").running_tasks().len();
        if n == 1 { Ok(()) } else { Err(format!("{n}")) }
    })
    .await;
    cluster.host("w1").local().leave(v1::LeaveRequest { force: false }).await.unwrap();
    assert_eq!(cluster.host("w1").info().await.state, "inactive");
    assert!(cluster.host("w1").running_tasks().is_empty());
    eventually("the other node has both", || async {
        let n = cluster.hosts[0].running_tasks().len();
        if n == 2 { Ok(()) } else { Err(format!("{n}")) }
    })
    .await;
    // The last manager goes only by force.
    let refused = cluster.hosts[0].local().leave(v1::LeaveRequest { force: false }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("last manager"), "{refused:?}");
    // Who has left may come again, as somebody new.
    let token = cluster.tokens().await.worker;
    let addr = cluster.hosts[0].addr();
    let w1 = cluster.host_mut("w1");
    assert!(w1.join(&token, &[addr]).await.unwrap().joined);
    eventually("it is there twice: once down, once ready", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        let ready = nodes.iter().filter(|n| is_ready(n)).count();
        if (nodes.len(), ready) == (3, 2) {
            Ok(())
        } else {
            Err(format!("{} nodes, {ready} ready", nodes.len()))
        }
    })
    .await;
}
