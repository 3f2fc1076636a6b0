//! Updates that overtake one another, turn back in time, or lose two tasks of a slot at once.

use std::time::Duration;

use swarm_types::policy::RestartCondition;
use swarm_types::service::ServiceSpec;
use swarm_types::testing::service;

use super::*;
use crate::orchestrator::slot::{Slot, numbered};
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

fn spec(image: &str, change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let start_first = |s: &mut ServiceSpec| {
        s.update.order = UpdateOrder::StartFirst;
        s.update.monitor = Duration::from_secs(1);
        change(s);
    };
    service("web").replicas(2).image(image).with(|s, _| start_first(s)).build()
}

/// Wanted tasks of each slot, by image: `1: a b`.
fn slots(world: &World, id: &ServiceId) -> Vec<String> {
    let images = |n: u64| {
        let slot = Slot::read(&world.view(), id, numbered(n));
        slot.wanted().map(|t| t.spec.container.image.clone()).collect::<Vec<_>>().join(" ")
    };
    (1..=2).map(|n| format!("{n}: {}", images(n))).collect()
}

/// Each update found the one before with a new task on its way, and left it behind.
#[test]
fn start_first_updates_that_overtake_one_another_leave_nothing_behind() {
    let mut world = World::new(&["w1", "w2"]);
    let id = world.service(spec("a", |s| s.update.parallelism = 0));
    world.settle(MINUTE);
    for image in ["b", "c", "d"] {
        world.service(spec(image, |s| s.update.parallelism = 0));
        world.passes();
        // What runs goes on until the newest does.
        assert_eq!(slots(&world, &id), [format!("1: a {image}"), format!("2: a {image}")]);
    }
    world.settle(MINUTE);
    assert_eq!(slots(&world, &id), ["1: d", "2: d"]);
    assert_eq!(world.update_of(&id), "completed: update completed");
}

/// The task that the update had made, stopped, was taken for the last word of a slot that is not to be filled
/// again, although the task from before fills it.
#[test]
fn an_update_that_is_taken_back_in_time_ends_even_if_nothing_is_restarted() {
    let mut world = World::new(&["w1", "w2"]);
    let never = |image: &str| {
        let mut spec = spec(image, |_| ());
        Arc::make_mut(&mut spec.task).restart.condition = RestartCondition::None;
        spec
    };
    let id = world.service(never("a"));
    world.settle(MINUTE);
    let before: Vec<_> = world.view().tasks_of_service(&id).map(|t| t.id).collect();
    world.service(never("b"));
    world.passes();
    assert_eq!(slots(&world, &id), ["1: a b", "2: a"]);
    world.service(never("a"));
    world.settle(MINUTE);
    assert_eq!(slots(&world, &id), ["1: a", "2: a"]);
    assert_eq!(world.update_of(&id), "completed: update completed");
    let view = world.view();
    assert!(before.iter().all(|id| view.task(id).is_some_and(|t| t.is_wanted())), "they were never stopped");
}

/// Both were answered, and two tasks filled the slot for ever.
#[test]
fn an_old_and_a_new_task_that_end_at_once_get_one_successor() {
    let mut world = World::new(&["w1", "w2"]);
    let goes_on = |s: &mut ServiceSpec| s.update.failure_action = FailureAction::Continue;
    let id = world.service(spec("a", goes_on));
    world.settle(MINUTE);
    world.service(spec("b", goes_on));
    world.passes();
    assert_eq!(slots(&world, &id), ["1: a b", "2: a"]);
    let both: Vec<_> = Slot::read(&world.view(), &id, numbered(1)).wanted().cloned().collect();
    world.change(|draft| {
        for task in &both {
            let mut task = Task::clone(task);
            task.status.state = TaskState::Failed;
            draft.put_task(task);
        }
    });
    world.settle(MINUTE);
    assert_eq!(slots(&world, &id), ["1: b", "2: b"]);
}
