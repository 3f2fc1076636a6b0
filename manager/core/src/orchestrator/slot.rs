//! Slot: the place that a task fills, and what the tasks in it say about the place.
//!
//! Reads:   the tasks of one slot.
//! Writes:  nothing.
//! Never:   decides what to do about a slot.
//! Start:   [`Slot::read`].

use std::sync::Arc;

use swarm_types::id::{NodeId, ServiceId};
use swarm_types::policy::RestartCondition;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::restart;
use crate::store::{SlotKey, View};

/// The tasks of one slot, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// All that are stored, whatever their state.
    pub tasks: Vec<Arc<Task>>,
}

/// The slot that a task fills: its number, or its node in a global service.
pub fn key_of(task: &Task) -> SlotKey {
    SlotKey::of(task)
}

/// The key of slot `number` of a replicated service.
pub fn numbered(number: u64) -> SlotKey {
    SlotKey { slot: number, node: NodeId::default() }
}

/// The key of a global service's place on `node`.
pub fn on_node(node: NodeId) -> SlotKey {
    SlotKey { slot: 0, node }
}

impl Slot {
    /// What the view holds for one slot.
    pub fn read(view: &View, service: &ServiceId, key: SlotKey) -> Slot {
        Slot::of(view.tasks_of_slot(service, key).cloned().collect())
    }

    /// Puts tasks of one slot in order of age. Tasks of one age (made in one plan) are told apart
    /// by what can only grow from a task to its replacement, then by id.
    pub fn of(mut tasks: Vec<Arc<Task>>) -> Slot {
        tasks.sort_by_key(|t| (t.meta.created_at, t.spec_version, t.attempt.count, t.start_after, t.id));
        Slot { tasks }
    }

    /// Tasks that are meant to run, now or later.
    pub fn wanted(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(|t| t.is_wanted())
    }

    /// The youngest task.
    pub fn newest(&self) -> Option<&Arc<Task>> {
        self.tasks.last()
    }

    /// The youngest task if it ended and its policy says that it is not to be replaced: the slot is
    /// filled by a memory, and stays so until the template changes.
    pub fn spent(&self) -> Option<&Arc<Task>> {
        self.newest().filter(|t| is_spent(t))
    }

    /// Something fills it: nothing is to be created here.
    pub fn is_active(&self) -> bool {
        self.wanted().next().is_some() || self.spent().is_some()
    }
}

fn is_spent(task: &Task) -> bool {
    if task.desired_state != TaskState::Shutdown {
        return false;
    }
    // A task that was asked to stop did not end by itself. In a numbered slot, `none` means "never
    // a second time" even so (as Swarm); on a node that comes back to a global service it does not.
    let by_itself =
        matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
    let once_only = task.slot != 0 && task.spec.restart.condition == RestartCondition::None;
    if by_itself { restart::decide(task) == restart::Decision::Never } else { once_only }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::policy::RestartPolicy;
    use swarm_types::task::TaskSpec;
    use swarm_types::time::Timestamp;

    fn task(
        id: &str,
        made: u64,
        desired: TaskState,
        state: TaskState,
        condition: RestartCondition,
    ) -> Arc<Task> {
        let mut task = Task { id: id.into(), slot: 1, desired_state: desired, ..Task::default() };
        task.meta.created_at = Timestamp(made);
        task.status.state = state;
        task.spec = Arc::new(TaskSpec {
            restart: RestartPolicy { condition, ..RestartPolicy::default() },
            ..TaskSpec::default()
        });
        Arc::new(task)
    }

    #[test]
    fn a_slot_is_active_while_something_is_wanted_or_spent() {
        use RestartCondition::{Any, None as Never, OnFailure};
        use TaskState::{Complete, Failed, Remove, Running, Shutdown};
        for (desired, state, condition, active) in [
            (Running, Running, Any, true),
            (Running, Failed, Any, true), // restart answers it
            (Shutdown, Failed, Any, false),
            (Shutdown, Failed, Never, true),
            (Shutdown, Complete, OnFailure, true),
            (Shutdown, Shutdown, OnFailure, false),
            (Shutdown, Shutdown, Never, true),
            (Remove, Failed, Never, false),
        ] {
            let slot = Slot::of(vec![task("a", 1, desired, state, condition)]);
            assert_eq!(slot.is_active(), active, "{desired} {state} {condition:?}");
        }
    }

    #[test]
    fn the_newest_speaks_for_the_slot() {
        let old = task("z", 1, TaskState::Shutdown, TaskState::Complete, RestartCondition::None);
        let new = task("a", 2, TaskState::Remove, TaskState::Failed, RestartCondition::None);
        let slot = Slot::of(vec![new.clone(), old]);
        assert_eq!(slot.newest().unwrap().id, new.id);
        assert!(!slot.is_active());
    }
}
