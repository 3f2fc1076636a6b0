use super::*;
use crate::control::DeniedKind;
use crate::store::View;
use swarm_types::time::Timestamp;

fn founded() -> Draft {
    let mut draft = Draft::new(View::default(), Timestamp(1000));
    let founding = Founding {
        cluster: "c".into(),
        node: "m1".into(),
        join_tokens: JoinTokens { worker: "w".into(), manager: "m".into() },
        availability: Availability::Drain,
        membership: ManagerMembership { raft_id: 1, addr: "h:2377".into() },
        ..Founding::default()
    };
    found(&mut draft, founding).unwrap();
    draft
}

#[test]
fn a_cluster_is_founded_once() {
    let mut draft = founded();
    let node = draft.node(&"m1".into()).unwrap();
    assert_eq!((node.role, node.spec.role), (Role::Manager, Role::Manager));
    assert_eq!(node.spec.availability, Availability::Drain);
    assert_eq!(node.manager.as_ref().unwrap().raft_id, 1);
    let again = found(&mut draft, Founding::default()).unwrap_err();
    assert_eq!(again.to_string(), "cluster default already exists");
}

#[test]
fn a_join_may_be_repeated_but_not_in_another_role() {
    let mut draft = founded();
    let joining = Joining { node: "n".into(), role: Role::Worker, ..Joining::default() };
    join(&mut draft, &joining).unwrap();
    let writes = draft.len();
    join(&mut draft, &joining).unwrap();
    assert_eq!(draft.len(), writes);
    let other = Joining { role: Role::Manager, ..joining };
    assert_eq!(join(&mut draft, &other).unwrap_err().kind(), DeniedKind::AlreadyExists);
}

#[test]
fn a_removed_node_does_not_come_back() {
    let mut draft = founded();
    let joining = Joining { node: "n".into(), ..Joining::default() };
    join(&mut draft, &joining).unwrap();
    crate::control::node::remove(&mut draft, &"n".into(), false).unwrap();
    assert_eq!(join(&mut draft, &joining).unwrap_err().to_string(), "node n was removed from the cluster");
}

#[test]
fn settings_change_and_tokens_stay() {
    let mut draft = founded();
    let cluster = draft.cluster().unwrap().clone();
    let spec = ClusterSpec { task_history_limit: 1, ..cluster.spec.clone() };
    update(&mut draft, cluster.meta.version, spec).unwrap();
    let now = draft.cluster().unwrap().clone();
    assert_eq!((now.spec.task_history_limit, &now.join_tokens), (1, &cluster.join_tokens));
    assert_eq!(update(&mut draft, 99, now.spec.clone()), Err(Denied::OutOfSequence));
    let short = ClusterSpec { cert_expiry: std::time::Duration::from_secs(60), ..now.spec.clone() };
    assert_eq!(update(&mut draft, now.meta.version, short).unwrap_err().kind(), DeniedKind::InvalidArgument);
}

#[test]
fn one_token_is_rotated() {
    let mut draft = founded();
    rotate_tokens(&mut draft, Some("w2".into()), None).unwrap();
    let tokens = draft.cluster().unwrap().join_tokens.clone();
    assert_eq!((tokens.worker.as_str(), tokens.manager.as_str()), ("w2", "m"));
}
