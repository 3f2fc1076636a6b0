//! Scenes: what users see of the loops together, scenario by scenario (scenarios.md C).

use std::time::Duration;

use expect_test::expect;
use swarm_types::id::ServiceId;
use swarm_types::node::{Availability, NodeState};
use swarm_types::policy::{FailureAction, RestartCondition, RestartPolicy, UpdateOrder};
use swarm_types::task_state::TaskState;
use swarm_types::testing::{self, service};

use crate::scheduler::explain;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn image(world: &mut World, replicas: u64, image: &str) -> ServiceId {
    let id = world.service(service("web").replicas(replicas).image(image).build());
    world.passes();
    id
}

fn kill(world: &mut World, service: &ServiceId, slot: u64, state: TaskState) {
    let view = world.view();
    let task = view.tasks_of_service(service).find(|t| t.slot == slot && t.is_wanted()).unwrap();
    world.set_task(task, state);
}

#[test]
fn from_spec_to_assigned_in_one_plan() {
    let mut world = World::new(&["w1", "w2"]);
    let id = world.service(service("web").replicas(3).build());
    assert!(world.pass());
    expect![[r#"
        1 w1 image:1 running/assigned
        2 w2 image:1 running/assigned
        3 w1 image:1 running/assigned
    "#]]
    .assert_eq(&world.tasks(&id));
    assert!(!world.pass(), "{}", world.last_plan);
}

#[test]
fn c1_c5_c6_spread_scale_up_scale_down_remove() {
    let mut world = World::new(&["w1", "w2", "w3"]);
    let id = image(&mut world, 5, "image:1");
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:2 w2:2 w3:1");
    image(&mut world, 6, "image:1");
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:2 w2:2 w3:2");
    let before = world.tasks(&id);
    image(&mut world, 2, "image:1");
    world.settle(SECOND);
    assert!(world.tasks(&id).lines().all(|line| before.contains(line)));
    assert_eq!(world.running(&id, "image:1"), 2);
    assert_eq!(world.view().task_count(), 2, "nothing is left of slots that were scaled away");
    world.change(|d| {
        d.delete_service(&id);
    });
    world.settle(SECOND);
    assert_eq!(world.view().task_count(), 0);
}

#[test]
fn c8_global_follows_the_nodes() {
    let mut world = World::new(&["w1", "w2"]);
    let id = world.service(service("agent").global().build());
    world.settle(SECOND);
    world.node(testing::node("w3"));
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:1 w2:1 w3:1");
    world.edit_node("w2", |n| n.spec.availability = Availability::Drain);
    world.edit_node("w3", |n| n.spec.availability = Availability::Pause);
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:1 w2:0 w3:1");
    world.edit_node("w2", |n| n.spec.availability = Availability::Active);
    world.settle(SECOND);
    world.change(|d| {
        d.delete_node(&"w1".into());
    });
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w2:1 w3:1");
    assert_eq!(world.view().tasks_on_node(&"w1".into()).count(), 0);
}

#[test]
fn c17_constraints_hold_and_explain() {
    let mut world = World::new(&["w1", "w2"]);
    world.edit_node("w2", |n| n.spec.availability = Availability::Drain);
    let id =
        world.service(service("db").replicas(1).constraint("node.labels.disk==ssd").reserve(1, 1).build());
    world.settle(SECOND);
    expect![[r#"
        1 - image:1 running/pending (no suitable node (1 drained; scheduling constraints not satisfied on 1 node))
    "#]]
    .assert_eq(&world.tasks(&id));
    let view = world.view();
    let task = view.tasks_of_service(&id).next().unwrap();
    let reasons: Vec<_> = explain(&view, task).iter().map(|(n, r)| format!("{n}: {r}")).collect();
    assert_eq!(reasons, ["w1: constraint not satisfied: node.labels.disk==ssd", "w2: drained"]);
    let label = |n: &mut swarm_types::node::Node, v: &str| {
        n.spec.annotations.labels.insert("disk".into(), v.into());
    };
    world.edit_node("w1", |n| label(n, "SSD"));
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:1 w2:0");
    world.edit_node("w1", |n| label(n, "hdd"));
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:0 w2:0");
    let left = |t: &&std::sync::Arc<swarm_types::task::Task>| t.desired_state == TaskState::Shutdown;
    let view = world.view();
    let old = view.tasks_of_service(&id).find(left).unwrap();
    assert_eq!(old.status.err, "assigned node no longer meets constraints");
}

#[test]
fn c19_max_replicas_and_memory_wait_for_room() {
    let mut world = World::new(&["w1", "w2"]);
    let spec = service("web").replicas(3).with(|_, t| t.placement.max_replicas_per_node = 1).build();
    let id = world.service(spec);
    world.settle(SECOND);
    expect![[r#"
        1 w1 image:1 running/running
        2 w2 image:1 running/running
        3 - image:1 running/pending (no suitable node (max replicas per node reached on 2 nodes))
    "#]]
    .assert_eq(&world.tasks(&id));
    let fat = world.service(service("fat").replicas(3).reserve(1, 6000).build());
    world.settle(SECOND);
    assert!(world.tasks(&fat).contains("no suitable node (2 insufficient memory)"));
    world.service(service("fat").replicas(2).reserve(1, 6000).build());
    world.node(testing::node("w3"));
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:1 w2:1 w3:1");
    assert_eq!(world.running(&fat, "image:1"), 2);
}

#[test]
fn c20_c21_a_node_goes_and_comes_back() {
    let mut world = World::new(&["w1", "w2"]);
    let id = image(&mut world, 4, "image:1");
    world.settle(SECOND);
    world.set_state("w2", NodeState::Unknown);
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:2 w2:2", "silence alone moves nothing");
    world.set_state("w2", NodeState::Down);
    assert!(world.pass());
    // Task ids are drawn: only what is done and why is kept.
    let words = |line: &str| line.split_whitespace().filter(|w| w.len() < 20).collect::<Vec<_>>().join(" ");
    let plan: Vec<_> = world.last_plan.lines().map(words).collect();
    expect![[r#"
        update task node down
        create task node down
        update task node down
        create task node down
        update task allocated
        update task allocated
        update task placed
        update task placed"#]]
    .assert_eq(&plan.join("\n"));
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:4 w2:0");
    world.set_state("w2", NodeState::Ready);
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:4 w2:0", "nothing is rebalanced unasked");
    assert_eq!(world.view().tasks().filter(|t| t.is_live()).count(), 4, "its leftovers are stopped");
}

#[test]
fn a_removed_nodes_tasks_are_orphaned_and_replaced() {
    let mut world = World::new(&["w1", "w2"]);
    let id = image(&mut world, 2, "image:1");
    world.settle(SECOND);
    world.change(|d| {
        d.delete_node(&"w2".into());
    });
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:2");
    let view = world.view();
    let lost = view.tasks_on_node(&"w2".into()).next().unwrap();
    assert_eq!(
        (lost.status.state, lost.status.err.as_str()),
        (TaskState::Orphaned, "node was removed from the cluster")
    );
}

#[test]
fn tasks_of_a_node_that_stays_down_are_given_up() {
    let mut world = World::new(&["w1", "w2"]);
    let id = image(&mut world, 2, "image:1");
    world.settle(SECOND);
    world.set_state("w2", NodeState::Down);
    world.settle(Duration::from_secs(23 * 3600));
    let live = |w: &World| w.view().tasks_of_service(&id).filter(|t| t.is_live()).count();
    assert_eq!(live(&world), 3);
    world.settle(Duration::from_secs(2 * 3600));
    assert_eq!(live(&world), 2);
}

#[test]
fn c22_restart_after_the_delay_in_the_same_slot() {
    let mut world = World::new(&["w1"]);
    let id = image(&mut world, 2, "image:1");
    world.settle(SECOND);
    kill(&mut world, &id, 2, TaskState::Failed);
    world.settle_now();
    expect![[r#"
        1 w1 image:1 running/running
        2 w1 image:1 ready/ready
    "#]]
    .assert_eq(&world.tasks(&id));
    world.settle(Duration::from_secs(4));
    assert_eq!(world.running(&id, "image:1"), 1);
    world.settle(SECOND);
    assert_eq!(world.running(&id, "image:1"), 2);
}

#[test]
fn without_delay_the_replacement_is_assigned_in_the_pass_that_sees_the_end() {
    let mut world = World::new(&["w1"]);
    let restart = RestartPolicy { delay: Duration::ZERO, ..RestartPolicy::default() };
    let id = world.service(service("web").restart(restart).build());
    world.settle(SECOND);
    kill(&mut world, &id, 1, TaskState::Complete);
    world.pass();
    assert_eq!(world.tasks(&id), "1 w1 image:1 running/assigned\n");
}

#[test]
fn attempts_run_out_and_the_window_may_be_shorter_than_the_delay() {
    for window in [0, 1, 100] {
        let mut world = World::new(&["w1"]);
        let restart = RestartPolicy { max_attempts: 2, window: window * SECOND, ..RestartPolicy::default() };
        let id = world.service(service("web").image("bad").restart(restart).build());
        world.broken.push("bad".into());
        world.settle(Duration::from_secs(100));
        assert_eq!(world.view().tasks_of_service(&id).count(), 3, "window {window}");
        assert_eq!(world.tasks(&id), "", "window {window}");
    }
}

#[test]
fn conditions_decide_what_is_restarted() {
    use RestartCondition::{Any, None as Never, OnFailure};
    for (condition, state, runs) in [
        (Never, TaskState::Failed, 0),
        (Never, TaskState::Complete, 0),
        (OnFailure, TaskState::Complete, 0),
        (OnFailure, TaskState::Failed, 1),
        (Any, TaskState::Complete, 1),
    ] {
        let mut world = World::new(&["w1", "w2"]);
        let restart = RestartPolicy { condition, ..RestartPolicy::default() };
        let id = world.service(service("job").restart(restart).build());
        world.settle(SECOND);
        kill(&mut world, &id, 1, state);
        world.settle(Duration::from_secs(600));
        assert_eq!(world.running(&id, "image:1"), runs, "{condition:?} {state}");
    }
}

#[test]
fn c24_pause_and_drain() {
    let mut world = World::new(&["w1", "w2"]);
    let id = image(&mut world, 2, "image:1");
    world.settle(SECOND);
    world.edit_node("w2", |n| n.spec.availability = Availability::Pause);
    image(&mut world, 4, "image:1");
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:3 w2:1");
    world.edit_node("w2", |n| n.spec.availability = Availability::Drain);
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:4 w2:0");
    world.edit_node("w2", |n| n.spec.availability = Availability::Active);
    image(&mut world, 6, "image:1");
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:4 w2:2");
}

fn rolling(replicas: u64, image: &str) -> testing::SpecBuilder {
    service("web").replicas(replicas).image(image).with(|s, _| {
        s.update.parallelism = 2;
        s.update.delay = 4 * SECOND;
        s.update.max_failure_permille = 250;
    })
}

#[test]
fn c9_a_rolling_update_goes_in_batches_and_back() {
    let mut world = World::new(&["w1", "w2", "w3"]);
    let id = world.service(rolling(5, "a").build());
    world.settle(SECOND);
    assert_eq!(world.update_of(&id), "none");
    world.service(rolling(5, "b").build());
    let counts = |w: &World| (w.running(&id, "a"), w.running(&id, "b"));
    let mut seen = Vec::new();
    for _ in 0..5 {
        world.settle_now();
        seen.push(counts(&world));
        world.settle(4 * SECOND);
    }
    assert_eq!(seen, [(3, 2), (1, 4), (0, 5), (0, 5), (0, 5)]);
    assert_eq!(world.update_of(&id), "completed: update completed");
    world.service(rolling(5, "a").build());
    world.settle(Duration::from_secs(60));
    assert_eq!(counts(&world), (5, 0));
    assert!(!world.pass());
}

#[test]
fn c10_start_first_never_has_fewer() {
    let mut world = World::new(&["w1", "w2"]);
    let spec = |image: &str| rolling(5, image).with(|s, _| s.update.order = UpdateOrder::StartFirst).build();
    let id = world.service(spec("a"));
    world.settle(SECOND);
    world.service(spec("b"));
    for _ in 0..100 {
        world.pass();
        assert!(world.running(&id, "a") + world.running(&id, "b") >= 5);
        world.agents();
        assert!(world.running(&id, "a") + world.running(&id, "b") >= 5);
        world.now = world.now.plus(SECOND);
    }
    assert_eq!(world.running(&id, "b"), 5);
    assert_eq!(world.update_of(&id), "completed: update completed");
}

#[test]
fn c11_a_failed_update_pauses_and_spares_the_others() {
    let mut world = World::new(&["w1", "w2"]);
    let id = world.service(rolling(5, "a").build());
    world.settle(SECOND);
    world.broken.push("bad".into());
    world.service(rolling(5, "bad").build());
    world.settle(Duration::from_secs(300));
    assert_eq!(world.running(&id, "a"), 3);
    assert!(
        world.update_of(&id).starts_with("paused: update paused due to failure or early termination of task")
    );
    world.service(rolling(5, "a").build());
    world.settle(Duration::from_secs(300));
    assert_eq!(world.running(&id, "a"), 5);
    assert_eq!(world.update_of(&id), "completed: update completed");
}

#[test]
fn c12_a_failed_update_rolls_back() {
    let mut world = World::new(&["w1", "w2"]);
    let spec = |image: &str| {
        rolling(5, image).with(|s, _| s.update.failure_action = FailureAction::Rollback).build()
    };
    let id = world.service(spec("a"));
    world.settle(SECOND);
    world.broken.push("bad".into());
    world.service(spec("bad"));
    world.settle(Duration::from_secs(300));
    assert_eq!(world.running(&id, "a"), 5);
    assert_eq!(world.update_of(&id), "rollback_completed: rollback completed");
    assert!(!world.pass());
}

#[test]
fn c14_labels_replace_nothing() {
    let mut world = World::new(&["w1"]);
    let id = image(&mut world, 2, "a");
    world.settle(SECOND);
    let before = world.view().tasks().map(|t| t.id).collect::<Vec<_>>();
    let labelled = service("web").replicas(2).image("a").with(|s, _| {
        s.annotations.labels.insert("x".into(), "y".into());
    });
    world.service(labelled.build());
    world.settle(SECOND);
    assert_eq!(world.view().tasks().map(|t| t.id).collect::<Vec<_>>(), before);
    assert_eq!(world.update_of(&id), "none");
}

#[test]
fn c42_a_newer_spec_takes_over() {
    let mut world = World::new(&["w1", "w2"]);
    let id = world.service(rolling(5, "a").build());
    world.settle(SECOND);
    world.service(rolling(5, "b").build());
    world.settle_now();
    world.service(rolling(5, "c").build());
    world.settle(Duration::from_secs(60));
    assert_eq!(world.running(&id, "c"), 5);
    assert_eq!(world.update_of(&id), "completed: update completed");
}

#[test]
fn c43_an_impossible_update_keeps_the_old_tasks_and_says_why() {
    let mut world = World::new(&["w1", "w2"]);
    let id = world.service(rolling(2, "a").build());
    world.settle(SECOND);
    let before = world.tasks(&id);
    world.service(rolling(2, "a").constraint("node.labels.x==y").build());
    world.settle(Duration::from_secs(60));
    assert_eq!(world.tasks(&id), before);
    assert_eq!(
        world.update_of(&id),
        "paused: update paused due to no suitable node (scheduling constraints not satisfied on 2 nodes)"
    );
}

#[test]
fn an_update_may_reuse_what_the_old_task_holds() {
    let mut world = World::new(&["w1"]);
    let id = world.service(service("web").image("a").reserve(4, 8000).build());
    world.settle(SECOND);
    world.service(service("web").image("b").reserve(4, 8000).build());
    world.settle(Duration::from_secs(30));
    assert_eq!(world.running(&id, "b"), 1);
}

#[test]
fn tasks_that_never_ran_are_replaced_at_once() {
    let mut world = World::new(&["w1"]);
    let id = world.service(rolling(9, "a").constraint("node.labels.x==y").build());
    world.settle(SECOND);
    world.service(rolling(9, "a").build());
    world.settle_now();
    assert_eq!(world.running(&id, "a"), 9);
    assert_eq!(world.view().task_count(), 9, "what never had a node leaves no history");
}

#[test]
fn history_is_kept_up_to_the_limit() {
    let mut world = World::new(&["w1"]);
    let id = image(&mut world, 1, "image:1");
    for _ in 0..12 {
        world.settle(Duration::from_secs(10));
        kill(&mut world, &id, 1, TaskState::Complete);
    }
    world.settle(Duration::from_secs(10));
    assert_eq!(world.view().task_count(), 5);
}

#[test]
fn a_node_where_a_template_keeps_failing_is_avoided() {
    let mut world = World::new(&["w1", "w2"]);
    // The scheduler would always prefer w1: w2 is busier.
    let busy = world.service(service("busy").replicas(2).constraint("node.id==w2").build());
    world.settle(SECOND);
    let id = image(&mut world, 1, "image:1");
    for _ in 0..5 {
        world.settle(Duration::from_secs(6));
        assert_eq!(world.spread(&id), "w1:1 w2:0");
        kill(&mut world, &id, 1, TaskState::Failed);
    }
    world.settle(Duration::from_secs(6));
    assert_eq!(world.spread(&id), "w1:0 w2:1");
    assert_eq!(world.spread(&busy), "w1:0 w2:2");
}

#[test]
fn a_small_plan_gets_there_too() {
    let mut world = World::new(&["w1", "w2", "w3"]);
    world.room = 7;
    let id = image(&mut world, 50, "image:1");
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:17 w2:17 w3:16");
    image(&mut world, 3, "image:1");
    world.settle(SECOND);
    assert_eq!(world.spread(&id), "w1:1 w2:1 w3:1");
    world.change(|d| {
        d.delete_service(&id);
    });
    world.settle(SECOND);
    assert_eq!(world.view().task_count(), 0);
}
