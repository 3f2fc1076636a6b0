use super::*;
use crate::control::DeniedKind;
use crate::store::{Store, View};
use swarm_types::cluster::Cluster;
use swarm_types::node::{Availability, ManagerMembership};
use swarm_types::testing;
use swarm_types::time::Timestamp;

/// Managers m1 (leads), m2, … and the worker w.
fn world(managers: u64) -> View {
    let mut draft = Draft::new(View::default(), Timestamp(1000));
    draft.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
    draft.put_node(testing::node("w"));
    for n in 1..=managers {
        let mut node = testing::manager(&format!("m{n}"));
        node.manager = Some(ManagerMembership { raft_id: n, addr: String::new() });
        draft.put_node(node);
    }
    let mut store = Store::default();
    store.apply(1, &draft.into_transaction()).unwrap();
    store.view()
}

fn members(answers: &[bool]) -> Vec<Member> {
    let member = |(raft_id, &answers): (u64, &bool)| {
        let node = NodeId::new(format!("m{raft_id}"));
        Member { raft_id, node, votes: true, answers, leads: raft_id == 1 }
    };
    (1..).zip(answers).map(member).collect()
}

fn set(
    draft: &mut Draft,
    id: &str,
    change: impl Fn(&mut NodeSpec),
    members: &[Member],
) -> Result<(), Denied> {
    let node = draft.node(&id.into()).unwrap().clone();
    let mut spec = node.spec.clone();
    change(&mut spec);
    update(draft, &id.into(), node.meta.version, spec, members)
}

fn demote(spec: &mut NodeSpec) {
    spec.role = Role::Worker;
}

#[test]
fn drain_label_promote() {
    let mut draft = Draft::new(world(1), Timestamp(2000));
    let change = |spec: &mut NodeSpec| {
        spec.availability = Availability::Drain;
        spec.role = Role::Manager;
        spec.annotations.labels.insert("rack".into(), "7".into());
    };
    set(&mut draft, "w", change, &members(&[true])).unwrap();
    let node = draft.node(&"w".into()).unwrap();
    assert_eq!((node.spec.availability, node.spec.role), (Availability::Drain, Role::Manager));
    assert_eq!(node.role, Role::Worker, "what it is follows later");
}

#[test]
fn stale_and_unknown() {
    let mut draft = Draft::new(world(1), Timestamp(2000));
    let denied = update(&mut draft, &"w".into(), 0, NodeSpec::default(), &[]).unwrap_err();
    assert_eq!(denied, Denied::OutOfSequence);
    let denied = update(&mut draft, &"x".into(), 0, NodeSpec::default(), &[]).unwrap_err();
    assert_eq!(denied.to_string(), "node x not found");
}

#[test]
fn the_last_manager_stays() {
    let mut draft = Draft::new(world(1), Timestamp(2000));
    let denied = set(&mut draft, "m1", demote, &members(&[true])).unwrap_err();
    assert_eq!(denied.to_string(), "attempting to demote the last manager of the swarm");
    assert_eq!(denied.kind(), DeniedKind::FailedPrecondition);
    assert!(draft.is_empty());
}

#[test]
fn a_demotion_keeps_the_quorum() {
    let mut draft = Draft::new(world(3), Timestamp(2000));
    let denied = set(&mut draft, "m2", demote, &members(&[true, true, false])).unwrap_err();
    assert!(denied.to_string().contains("loss of quorum"), "{denied}");
    set(&mut draft, "m3", demote, &members(&[true, true, false])).unwrap();
    // m3 is on its way out: with m2 alone m1 could still not agree without it.
    set(&mut draft, "m2", demote, &members(&[true, true, false])).unwrap();
    assert!(set(&mut draft, "m1", demote, &members(&[true, true, false])).is_err());
}

#[test]
fn two_demotions_at_once_cannot_both_pass() {
    let view = world(2);
    let mut store = Store::restore(1, Timestamp(1), crate::store::records(&view).map(|r| r.object));
    let transaction = |id| {
        let mut draft = Draft::new(view.clone(), Timestamp(2000));
        set(&mut draft, id, demote, &members(&[true, true])).unwrap();
        draft.into_transaction()
    };
    let (first, second) = (transaction("m1"), transaction("m2"));
    store.apply(2, &first).unwrap();
    assert!(store.apply(3, &second).is_err());
}

#[test]
fn only_workers_that_are_down_are_removed() {
    let mut draft = Draft::new(world(2), Timestamp(2000));
    let denied = remove(&mut draft, &"w".into(), false).unwrap_err();
    assert_eq!(denied.to_string(), "node w is not down and can't be removed");
    let denied = remove(&mut draft, &"m2".into(), true).unwrap_err();
    assert!(denied.to_string().contains("must be demoted to worker before removal"), "{denied}");
    remove(&mut draft, &"w".into(), true).unwrap();
    assert_eq!(draft.node(&"w".into()), None);
    let until = draft.cluster().unwrap().removed_nodes[&"w".into()];
    assert_eq!(until, Timestamp(2000).plus(defaults::CERT_EXPIRY).plus(defaults::REMOVED_NODE_SLACK));
}

#[test]
fn there_is_no_eighth_manager() {
    let mut draft = Draft::new(world(7), Timestamp(9));
    assert!(one_more_manager(&draft).unwrap_err().to_string().contains("7 managers"));
    let mut worker = testing::node("w");
    worker.meta.version = 1;
    draft.put_node(worker);
    let node = draft.node(&"w".into()).expect("just put").clone();
    let spec = NodeSpec { role: Role::Manager, ..node.spec.clone() };
    let refused = update(&mut draft, &node.id, node.meta.version, spec, &members(&[true; 7])).unwrap_err();
    assert_eq!(refused.kind(), DeniedKind::FailedPrecondition);
    assert!(one_more_manager(&Draft::new(world(6), Timestamp(9))).is_ok());
}
