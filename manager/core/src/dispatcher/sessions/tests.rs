use super::*;
use crate::store::Draft;
use swarm_types::id::{IdSource, Seed};
use swarm_types::node::Availability;
use swarm_types::testing;

const START: Timestamp = Timestamp(1_000_000);

fn at(ms: u64) -> Timestamp {
    Timestamp(START.0 + ms)
}

fn view(nodes: &[(&str, NodeState)]) -> View {
    let mut draft = Draft::new(View::default(), START);
    for (name, state) in nodes {
        let mut node = testing::node(name);
        node.status.state = *state;
        node.status.since = START;
        draft.put_node(node);
    }
    View::clone(&draft)
}

fn registration(view: &View, node: &str, session: &str) -> Registration {
    let description = view.node(&node.into()).unwrap().description.clone();
    Registration { session: session.into(), description, addr: "10.0.0.1".into() }
}

/// Plans, and takes the plan as committed.
fn commit(sessions: &mut Sessions, view: &mut View, now: Timestamp) -> Vec<String> {
    let mut plan = Plan::new(view.clone(), now);
    sessions.plan(&mut plan, &mut Context { now, ids: &mut IdSource::new(Seed(1)) });
    for event in plan.fresh() {
        sessions.observe(event);
    }
    *view = View::clone(&plan);
    plan.to_string().lines().map(String::from).collect()
}

/// A node `n` with session `a`, registered at `START`.
fn registered() -> (Sessions, View) {
    let mut view = view(&[("n", NodeState::Unknown)]);
    let mut sessions = Sessions::new(&view, START);
    assert!(sessions.register(&view, "n".into(), registration(&view, "n", "a"), START));
    assert_eq!(commit(&mut sessions, &mut view, START), ["update node n: node registered"]);
    assert_eq!(view.node(&"n".into()).unwrap().status.state, NodeState::Ready);
    (sessions, view)
}

#[test]
fn a_silent_node_is_down_after_the_grace() {
    let (mut sessions, mut view) = registered();
    for second in 1..=10 {
        assert!(sessions.seen("n".into(), "a".into(), at(second * 1000)));
        assert!(!sessions.expire(at(second * 1000)));
    }
    assert!(!sessions.expire(at(13_999)));
    assert!(sessions.expire(at(14_000)), "four periods of one second");
    let close = Close { node: "n".into(), session: "a".into(), reason: CloseReason::Silent };
    assert_eq!(sessions.take_closes(), [close]);
    assert_eq!(commit(&mut sessions, &mut view, at(14_000)), ["update node n: heartbeat failure"]);
    let status = &view.node(&"n".into()).unwrap().status;
    assert_eq!((status.state, status.since), (NodeState::Down, at(14_000)));
    assert!(commit(&mut sessions, &mut view, at(14_001)).is_empty());
}

#[test]
fn a_goodbye_is_down_at_once_and_a_lost_connection_is_not() {
    let (mut sessions, mut view) = registered();
    assert!(sessions.ended("n".into(), "a".into(), false));
    assert!(commit(&mut sessions, &mut view, at(1)).is_empty());
    assert!(sessions.register(&view, "n".into(), registration(&view, "n", "b"), at(10)));
    assert!(commit(&mut sessions, &mut view, at(10)).is_empty(), "nothing changed: nothing written");
    assert!(!sessions.ended("n".into(), "a".into(), true), "an old session's good-bye");
    assert!(sessions.ended("n".into(), "b".into(), true));
    assert_eq!(commit(&mut sessions, &mut view, at(20)), ["update node n: node left"]);
}

#[test]
fn the_second_registration_replaces_the_first() {
    let (mut sessions, view) = registered();
    sessions.register(&view, "n".into(), registration(&view, "n", "b"), at(1));
    let close = Close { node: "n".into(), session: "a".into(), reason: CloseReason::Replaced };
    assert_eq!(sessions.take_closes(), [close]);
    assert!(!sessions.seen("n".into(), "a".into(), at(2)));
    assert_eq!(sessions.take_closes()[0].reason, CloseReason::UnknownSession);
}

#[test]
fn a_new_leader_writes_nothing_and_waits() {
    let mut view = view(&[("a", NodeState::Ready), ("b", NodeState::Ready), ("c", NodeState::Down)]);
    let mut sessions = Sessions::new(&view, START);
    assert!(commit(&mut sessions, &mut view, START).is_empty());
    sessions.register(&view, "a".into(), registration(&view, "a", "s"), at(3000));
    commit(&mut sessions, &mut view, at(3000));
    sessions.seen("a".into(), "s".into(), at(4500));
    assert!(!sessions.expire(at(4999)));
    assert_eq!(sessions.next_deadline(), Some(at(5000)));
    assert!(sessions.expire(at(5000)));
    let planned = commit(&mut sessions, &mut view, at(5000));
    assert_eq!(planned, ["update node b: node did not come back in time"]);
}

#[test]
fn a_leader_that_slept_gives_everybody_time_once() {
    let (mut sessions, mut view) = registered();
    assert!(!sessions.expire(at(60_000)), "a minute's leap says nothing of the node");
    assert_eq!(sessions.next_deadline(), Some(at(64_000)));
    assert!(sessions.expire(at(64_000)));
    assert_eq!(commit(&mut sessions, &mut view, at(64_000)).len(), 1);
}

#[test]
fn after_a_leap_who_speaks_stays() {
    let (mut sessions, _) = registered();
    assert!(!sessions.expire(at(60_000)));
    assert!(sessions.seen("n".into(), "a".into(), at(61_000)));
    assert!(!sessions.expire(at(64_000)));
    assert_eq!(sessions.next_deadline(), Some(at(65_000)));
}

#[test]
fn a_lost_plan_is_made_again() {
    let (mut sessions, mut view) = registered();
    sessions.ended("n".into(), "a".into(), true);
    let before = view.clone();
    assert_eq!(commit(&mut sessions, &mut view, at(1)).len(), 1);
    let mut view = before;
    let mut sessions = {
        let mut fresh = Sessions::new(&view, at(1));
        fresh.register(&view, "n".into(), registration(&view, "n", "b"), at(1));
        fresh.ended("n".into(), "b".into(), true);
        let mut lost = Plan::new(view.clone(), at(1));
        fresh.plan(&mut lost, &mut Context { now: at(1), ids: &mut IdSource::new(Seed(1)) });
        assert!(!lost.is_empty());
        fresh
    };
    assert!(commit(&mut sessions, &mut view, at(2)).is_empty());
    sessions.replan();
    assert_eq!(commit(&mut sessions, &mut view, at(3)), ["update node n: node left"]);
}

#[test]
fn strangers_and_removed_nodes_are_turned_away() {
    let (mut sessions, view) = registered();
    let with = registration(&view, "n", "x");
    assert!(!sessions.register(&view, "stranger".into(), with, at(1)));
    sessions.observe(&Event::Deleted(Object::Node(view.node(&"n".into()).unwrap().clone())));
    let reasons: Vec<_> = sessions.take_closes().iter().map(|c| c.reason).collect();
    assert_eq!(reasons, [CloseReason::NodeRemoved, CloseReason::NodeRemoved]);
}

#[test]
fn a_node_that_joins_has_a_minute_for_its_first_session() {
    let mut draft = Draft::new(View::default(), START);
    let mut node = testing::node("n");
    node.status.state = NodeState::Unknown;
    node.spec.availability = Availability::Pause;
    let mut sessions = Sessions::new(&draft, START);
    draft.put_node(node);
    sessions.observe(&Event::Created(Object::Node(draft.node(&"n".into()).unwrap().clone())));
    assert_eq!(sessions.next_deadline(), Some(at(60_000)));
}
