//! What nodes are told of networks, and tasks that are withdrawn before they are told to stop.

use std::sync::Arc;

use swarm_types::id::{NetworkId, ServiceId};
use swarm_types::network::{Attachment, Network};
use swarm_types::network_set::NetworkSet;
use swarm_types::task_state::TaskState;
use swarm_types::testing;
use swarm_types::time::Timestamp;

use super::tests::Cluster;
use crate::control;
use crate::dispatcher::Networks;

const NET: &str = "back";

/// A service of two tasks on `back`, one on each node; all run, all nodes know it.
fn served() -> (Cluster, ServiceId) {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    let spec = testing::service("web").replicas(2).build();
    let web = cluster.create(spec);
    let id = NetworkId::new(NET);
    cluster.command(|draft, _| {
        draft.put_network(Network { id, ..Network::default() });
        let tasks: Vec<_> = draft.tasks_of_service(&web).cloned().collect();
        for (n, task) in tasks.into_iter().enumerate() {
            let mut task = Arc::unwrap_or_clone(task);
            let addrs = vec![std::net::Ipv4Addr::new(10, 0, 0, u8::try_from(n).unwrap() + 2).into()];
            task.attachments = vec![Attachment { network: id, addrs, aliases: Vec::new() }];
            draft.put_task(task);
        }
        Ok(())
    });
    (cluster, web)
}

/// Addresses that a node sends new connections to.
fn sends_to(cluster: &Cluster, node: &str) -> Vec<String> {
    let set = &cluster.agents[&node.into()].networks;
    let endpoints = set.networks.values().flat_map(|entry| entry.endpoints.values());
    endpoints.filter(|e| e.serving).map(|e| e.addrs[0].to_string()).collect()
}

/// Tasks that agents know to be asked to stop.
fn told_to_stop(cluster: &Cluster) -> usize {
    let tasks = cluster.agents.values().flat_map(|agent| agent.tasks.values());
    tasks.filter(|task| !task.is_wanted()).count()
}

fn scale_down(cluster: &mut Cluster, service: ServiceId) {
    cluster.command(|draft, _| {
        let stored = draft.service(&service).unwrap().clone();
        let mut spec = stored.spec.clone();
        spec.mode = swarm_types::service::Mode::Replicated { replicas: 1 };
        control::service::update(draft, &service, stored.meta.version, spec)
    });
}

fn agree(cluster: &mut Cluster, node: &str) {
    let input = cluster.agrees(node.into());
    cluster.input(input);
}

#[test]
fn nodes_of_a_network_know_its_tasks_and_each_other() {
    let (cluster, _) = served();
    for (node, other) in [("n1", "n2"), ("n2", "n1")] {
        assert_eq!(sends_to(&cluster, node).len(), 2);
        let set = &cluster.agents[&node.into()].networks;
        assert_eq!(set.own.as_ref().unwrap().node, node.into());
        // Peers have numbers, which the allocator gives.
        assert!(set.peers.keys().all(|peer| *peer == other.into()));
    }
    let manager = &cluster.agents[&"m".into()].networks;
    assert!(manager.networks.is_empty(), "it takes part in none");
}

#[test]
fn differences_make_the_same_set_as_a_complete_one() {
    let (mut cluster, web) = served();
    scale_down(&mut cluster, web);
    cluster.pass_time(3, &["n1", "n2"]);
    for node in ["n1", "n2", "m"] {
        let view = cluster.store.view();
        let session = cluster.agents[&node.into()].session;
        let mut truth = NetworkSet::default();
        truth.take(&Networks::new(&view, Timestamp(0)).register(&view, node.into(), session).message);
        let told = &cluster.agents[&node.into()].networks;
        truth.version = told.version;
        assert_eq!(truth, *told, "{node}");
    }
}

#[test]
fn a_task_is_told_to_stop_when_every_node_has_taken_it_out() {
    let (mut cluster, web) = served();
    (cluster.kernels, cluster.obedient) = (false, false);
    scale_down(&mut cluster, web);
    assert_eq!(sends_to(&cluster, "n1").len(), 1, "told at once");
    assert_eq!(sends_to(&cluster, "n2").len(), 1, "told at once");
    assert_eq!(told_to_stop(&cluster), 0);
    agree(&mut cluster, "n1");
    assert_eq!(told_to_stop(&cluster), 0, "n2 may still send to it");
    agree(&mut cluster, "n2");
    assert_eq!(told_to_stop(&cluster), 0, "what was sent to it before is under way");
    cluster.pass_time(1, &["n1", "n2"]);
    assert_eq!(told_to_stop(&cluster), 1);
}

#[test]
fn a_node_that_says_nothing_is_waited_for_two_seconds() {
    let (mut cluster, web) = served();
    (cluster.kernels, cluster.obedient) = (false, false);
    scale_down(&mut cluster, web);
    cluster.pass_time(2, &["n1", "n2"]);
    assert_eq!(told_to_stop(&cluster), 0);
    cluster.pass_time(1, &["n1", "n2"]);
    assert_eq!(told_to_stop(&cluster), 1);
}

#[test]
fn a_node_without_a_session_is_not_waited_for() {
    let (mut cluster, web) = served();
    (cluster.kernels, cluster.obedient) = (false, false);
    let view = cluster.store.view();
    let slot = |n| view.tasks_of_service(&web).find(|t| t.slot == n).unwrap().node;
    scale_down(&mut cluster, web);
    // Slot 2 goes; the other node's session breaks.
    let (stays, goes) = (slot(1), slot(2));
    agree(&mut cluster, goes.as_str());
    assert_eq!(told_to_stop(&cluster), 0);
    let session = cluster.agents[&stays].session;
    let ended = super::SessionInput::Ended { session, goodbye: false };
    cluster.input(super::Input::Session(stays, ended));
    cluster.pass_time(1, &[goes.as_str()]);
    assert_eq!(told_to_stop(&cluster), 1);
}

#[test]
fn another_leader_waits_anew() {
    let (mut cluster, web) = served();
    (cluster.kernels, cluster.obedient) = (false, false);
    scale_down(&mut cluster, web);
    cluster.elect();
    assert_eq!(told_to_stop(&cluster), 0, "complete sets keep it back too");
    for node in ["n1", "n2", "m"] {
        agree(&mut cluster, node);
    }
    cluster.pass_time(1, &["n1", "n2", "m"]);
    assert_eq!(told_to_stop(&cluster), 1);
}

#[test]
fn a_task_that_ends_by_itself_is_not_waited_for() {
    let (mut cluster, web) = served();
    (cluster.kernels, cluster.obedient) = (false, false);
    scale_down(&mut cluster, web);
    let view = cluster.store.view();
    let task = view.tasks_of_service(&web).find(|task| !task.is_wanted()).unwrap();
    cluster.report(task.node.as_str(), task.id, TaskState::Failed);
    let known = cluster.agents[&task.node].tasks.get(&task.id);
    assert!(known.is_none_or(|task| !task.is_wanted()), "told at once, or told to forget it");
}

#[test]
fn tasks_without_networks_are_told_at_once() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    (cluster.kernels, cluster.obedient) = (false, false);
    let web = cluster.create(testing::service("web").replicas(2).build());
    scale_down(&mut cluster, web);
    assert_eq!(told_to_stop(&cluster), 1);
}

#[test]
fn the_dead_are_not_served() {
    let (mut cluster, _) = served();
    cluster.pass_time(5, &["n1"]);
    let sent = sends_to(&cluster, "n1");
    let view = cluster.store.view();
    let on_n1 = view.tasks_on_node(&"n1".into()).filter_map(|t| t.attachments.first());
    let alive: Vec<String> = on_n1.map(|a| a.addrs[0].to_string()).collect();
    assert_eq!(sent, alive);
}
