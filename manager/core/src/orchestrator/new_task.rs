//! New task: how a task is born, and how one takes the place of another.
//!
//! Reads:   the service (or, if an update is paused, the task that is replaced).
//! Writes:  new tasks; the desired state of those that they replace.
//! Never:   decides whether a task is due; chooses a node.
//! Start:   [`create`], [`replace`].

use std::sync::Arc;

use swarm_types::id::{NodeId, TaskId};
use swarm_types::service::{Service, UpdateState};
use swarm_types::task::{Attempt, Task, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::context::Context;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{SlotKey, View};

/// So many ids are drawn until one is after another.
const LATER_IDS: usize = 1000;

/// When a new task may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As soon as it has a node.
    Now,
    /// Not before this, and not before the task that it replaces has stopped. Until then it gets
    /// its node and its image (desired READY).
    After(Timestamp),
}

/// A task for a slot, made from the service's current template.
pub fn create(
    plan: &mut Plan,
    ctx: &mut Context<'_>,
    service: &Service,
    key: SlotKey,
    start: Start,
    why: Reason,
) -> TaskId {
    let born = birth(plan, service, key, start, ctx);
    let id = born.id;
    plan.put_task(born, why);
    id
}

/// Tells `old` to stop and puts another task into its slot.
pub fn replace(
    plan: &mut Plan,
    ctx: &mut Context<'_>,
    service: &Service,
    old: &Task,
    start: Start,
    attempt: Attempt,
    why: Reason,
) {
    let mut born = birth(plan, service, super::slot::key_of(old), start, ctx);
    born.attempt = attempt;
    if keeps_old_spec(service) {
        born.spec = old.spec.clone();
        born.spec_version = old.spec_version;
        born.service_annotations = old.service_annotations.clone();
    }
    tell(plan, old, TaskState::Shutdown, why);
    plan.put_task(born, why);
}

/// Raises the desired state of a task; a state that it has passed already stays.
pub fn tell(plan: &mut Plan, task: &Task, desired: TaskState, why: Reason) {
    if task.desired_state >= desired {
        return;
    }
    let mut task = task.clone();
    task.desired_state = desired;
    plan.put_task(task, why);
}

/// While an update is paused, a task that ends is replaced by its like: a broken new template must
/// not creep into the slots that the pause protects. (Swarm uses the new template.)
pub(crate) fn keeps_old_spec(service: &Service) -> bool {
    let state = service.update_status.as_ref().map(|s| s.state);
    matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused))
}

fn birth(view: &View, service: &Service, key: SlotKey, start: Start, ctx: &mut Context<'_>) -> Task {
    let (desired_state, start_after) = match start {
        Start::Now => (TaskState::Running, Timestamp::ZERO),
        Start::After(at) => (TaskState::Ready, at),
    };
    // Shared by all tasks of the service: a million of them must fit.
    let annotations = view.service_annotations(&service.id).cloned();
    Task {
        id: later_id(view, service, key, ctx),
        service: service.id,
        service_annotations: annotations.unwrap_or_else(|| Arc::new(service.spec.annotations.clone())),
        slot: key.slot,
        node: if key.slot == 0 { key.node } else { NodeId::default() },
        spec: service.spec.task.clone(),
        spec_version: service.spec_version,
        desired_state,
        start_after,
        status: TaskStatus {
            state: TaskState::New,
            at: ctx.now,
            applied_at: ctx.now,
            message: "created".into(),
            ..TaskStatus::default()
        },
        ..Task::default()
    }
}

/// An id that says that this task is the newest of its slot: of tasks that were made in one millisecond, a task and
/// what replaced it in the next plan, ids are all that tells which came first ([`super::slot::Slot::of`]). Few
/// slots have any such.
fn later_id(view: &View, service: &Service, key: SlotKey, ctx: &mut Context<'_>) -> TaskId {
    let as_old = view.tasks_of_slot(&service.id, key).filter(|task| task.meta.created_at >= ctx.now);
    let last = as_old.map(|task| task.id).max();
    let mut draw = || TaskId::new(ctx.ids.next_id());
    let first = draw();
    let Some(last) = last.filter(|last| first < *last) else { return first };
    (0..LATER_IDS).map(|_| draw()).find(|id| *id > last).unwrap_or(first)
}
