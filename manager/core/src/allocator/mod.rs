//! Allocator: gives tasks what they need of the cluster before a node is chosen.
//!
//! Reads:   tasks.
//! Writes:  Task.status NEW -> PENDING.
//! Never:   looks at nodes.
//! Start:   [`Allocator::plan`](crate::control_loop::ControlLoop::plan).
//!
//! There are no networks of the cluster yet, so a new task has all it needs.

use std::collections::BTreeSet;

use swarm_types::id::TaskId;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object, View};

/// Remembers tasks that may be new.
#[derive(Debug, Clone, Default)]
pub struct Allocator {
    dirty: BTreeSet<TaskId>,
}

fn is_new(task: &Task) -> bool {
    task.status.state == TaskState::New && task.is_wanted()
}

impl ControlLoop for Allocator {
    fn restore(view: &View) -> Allocator {
        // A new task is without a node, except in a global service, where it is born with one.
        Allocator { dirty: view.tasks().filter(|task| is_new(task)).map(|task| task.id).collect() }
    }

    fn observe(&mut self, event: &Event) {
        if let Some(Object::Task(task)) = event.now()
            && is_new(task)
        {
            self.dirty.insert(task.id);
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        while let Some(id) = self.dirty.first().copied() {
            if plan.is_full() {
                return Wake::Now;
            }
            self.dirty.pop_first();
            let Some(task) = plan.task(&id).filter(|task| is_new(task)) else { continue };
            let mut task = Task::clone(task);
            task.status.state = TaskState::Pending;
            task.status.at = ctx.now;
            task.status.applied_at = ctx.now;
            task.status.message = "pending task scheduling".into();
            plan.put_task(task, Reason::Allocated);
        }
        Wake::Never
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::id::{IdSource, Seed};
    use swarm_types::time::Timestamp;

    #[test]
    fn new_tasks_become_pending_and_others_stay() {
        let mut plan = Plan::new(View::default(), Timestamp(5));
        let gone = Task { id: "b".into(), desired_state: TaskState::Remove, ..Task::default() };
        for task in [Task { id: "a".into(), desired_state: TaskState::Running, ..Task::default() }, gone] {
            plan.put_task(task, Reason::ScaledUp);
        }
        let mut allocator = Allocator::restore(&plan);
        let mut ids = IdSource::new(Seed(1));
        let wake = allocator.plan(&mut plan, &mut Context { now: Timestamp(5), ids: &mut ids });
        assert_eq!(wake, Wake::Never);
        assert_eq!(plan.task(&"a".into()).unwrap().status.state, TaskState::Pending);
        assert_eq!(plan.task(&"b".into()).unwrap().status.state, TaskState::New);
    }
}
