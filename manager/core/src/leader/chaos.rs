//! A leader on a log that loses proposals, with nodes that die and come back and leaders that change:
//! whatever happened, once it is quiet the cluster is as wanted, and stays so.

use proptest::prelude::*;
use swarm_types::id::NodeId;
use swarm_types::node::{Availability, Node};
use swarm_types::service::Service;
use swarm_types::task_state::TaskState;
use swarm_types::testing;

use super::tests::Cluster;
use crate::control;
use crate::dispatcher::is_assigned;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[derive(Debug, Clone)]
enum Op {
    Service { name: u8, replicas: u64, image: u8 },
    Remove(u8),
    Availability(usize, bool),
    Kill(usize),
    Revive(usize),
    Fail(usize),
    NewLeader,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..2u8, 0..6u64, 0..3u8).prop_map(|(name, replicas, image)| Op::Service { name, replicas, image }),
        1 => (0..2u8).prop_map(Op::Remove),
        1 => (0..3usize, any::<bool>()).prop_map(|(n, on)| Op::Availability(n, on)),
        2 => (0..3usize).prop_map(Op::Kill),
        2 => (0..3usize).prop_map(Op::Revive),
        2 => any::<usize>().prop_map(Op::Fail),
        1 => Just(Op::NewLeader),
        4 => (1..12u64).prop_map(Op::Wait),
    ]
}

/// The living nodes.
fn alive(cluster: &Cluster) -> Vec<&'static str> {
    NODES.into_iter().filter(|n| !cluster.dead.contains(&NodeId::new(n))).collect()
}

fn set_service(cluster: &mut Cluster, name: u8, replicas: u64, image: u8) {
    let spec = testing::service(&format!("s{name}")).replicas(replicas).image(&format!("i:{image}")).build();
    let existing = cluster.store.view().service_by_name(&spec.annotations.name).cloned();
    match existing {
        None => {
            cluster.create(spec);
        }
        Some(service) => {
            let (id, version) = (service.id, service.meta.version);
            cluster.command(|draft, _| control::service::update(draft, &id, version, spec));
        }
    }
}

fn set_availability(cluster: &mut Cluster, node: &str, active: bool) {
    cluster.command(|draft, _| {
        let mut node = Node::clone(draft.node(&node.into()).expect("nobody removes it"));
        node.spec.availability = if active { Availability::Active } else { Availability::Drain };
        draft.put_node(node);
        Ok(())
    });
}

fn fail(cluster: &mut Cluster, nth: usize) {
    let view = cluster.store.view();
    let running: Vec<_> = view.tasks().filter(|t| t.status.state == TaskState::Running).collect();
    if let Some(task) = running.get(nth.checked_rem(running.len()).unwrap_or(0))
        && !cluster.dead.contains(&task.node)
    {
        cluster.report(task.node.as_str(), task.id, TaskState::Failed);
    }
}

fn run(cluster: &mut Cluster, op: Op) {
    match op {
        Op::Service { name, replicas, image } => set_service(cluster, name, replicas, image),
        Op::Remove(name) => {
            let service = cluster.store.view().service_by_name(&format!("s{name}")).cloned();
            if let Some(service) = service {
                cluster.command(|draft, _| control::service::remove(draft, &service.id));
            }
        }
        Op::Availability(n, active) => set_availability(cluster, NODES[n], active),
        Op::Kill(n) => {
            cluster.dead.insert(NODES[n].into());
        }
        Op::Revive(n) => {
            cluster.dead.remove(&NODES[n].into());
            cluster.register(NODES[n]);
        }
        Op::Fail(nth) => fail(cluster, nth),
        Op::NewLeader => cluster.elect(),
        Op::Wait(seconds) => {
            let alive = alive(cluster);
            cluster.pass_time(seconds, &alive);
        }
    }
}

fn is_as_wanted(cluster: &Cluster, service: &Service) -> bool {
    let swarm_types::service::Mode::Replicated { replicas } = service.spec.mode else { return true };
    cluster.running(service.id).len() as u64 == replicas
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn when_it_is_quiet_all_is_as_wanted(
        ops in proptest::collection::vec(op(), 0..30),
        lost_percent in prop_oneof![Just(0u64), Just(30)],
    ) {
        let mut cluster = Cluster::new(&NODES);
        cluster.lost_percent = lost_percent;
        for op in ops {
            run(&mut cluster, op);
            while cluster.deposed {
                cluster.elect();
            }
        }
        cluster.lost_percent = 0;
        for node in NODES {
            cluster.dead.remove(&node.into());
            cluster.register(node);
            set_availability(&mut cluster, node, true);
        }
        cluster.pass_time(120, &NODES);
        let view = cluster.store.view();
        for service in view.services() {
            prop_assert!(is_as_wanted(&cluster, service), "{}: {:?} {:?}", service.spec.annotations.name,
                service, view.tasks_of_service(&service.id).collect::<Vec<_>>());
        }
        for node in NODES {
            let told: Vec<_> = cluster.agents[&NodeId::new(node)].tasks.keys().copied().collect();
            let meant: Vec<_> =
                view.tasks_on_node(&node.into()).filter(|t| is_assigned(t)).map(|t| t.id).collect();
            prop_assert_eq!(told, meant, "what {} was told", node);
        }
        prop_assert!(cluster.leader.parked().is_empty());
        let proposals = cluster.proposals.len();
        cluster.pass_time(60, &NODES);
        prop_assert_eq!(cluster.proposals.len(), proposals, "at rest");
    }
}
