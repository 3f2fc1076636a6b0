//! Update: the next step of rolling a change of the template out, or back.
//!
//! Reads:   a service, its tasks, nodes.
//! Writes:  replacements of tasks made from another template; Service.update_status; on rollback
//!          Service.spec.
//! Never:   remembers how far it came: that is derived from the tasks' templates, states and times.
//! Start:   [`Update::plan`], [`Progress::read`].
//!
//! An update belongs to one spec: whoever writes another spec clears `update_status`, and the
//! next pass begins anew. The update waits for a place before it takes a running task down: if no
//! node could ever hold the new template it stops and says why, and the old tasks stay.

mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::endpoint::Port;
use swarm_types::id::ServiceId;
use swarm_types::node::Node;
use swarm_types::policy::{FailureAction, UpdateOrder};
use swarm_types::service::{Service, UpdateState, UpdateStatus};
use swarm_types::task::{Attempt, Task};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use progress::Outdated;
pub use progress::Progress;

use crate::allocator::port::collide;
use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::orchestrator::dirty::is_dirty;
use crate::orchestrator::new_task::{Start, create, replace, tell};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::scheduler::filter;
use crate::scheduler::room::no_room_for;
use crate::store::View;
use crate::store::{Event, Object};

/// The loop. Remembers which services are being updated, so that the others' events cost nothing.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Specs to compare with all tasks: any may have become outdated.
    changed: BTreeSet<ServiceId>,
    /// Services in the middle of an update, and whether something happened to them.
    rolling: BTreeMap<ServiceId, bool>,
    timers: BTreeSet<(Timestamp, ServiceId)>,
}

impl ControlLoop for Update {
    fn restore(view: &View) -> Self {
        Self { changed: view.services().map(|s| s.id).collect(), ..Self::default() }
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Created(Object::Service(s)) | Event::Updated { new: Object::Service(s), .. } => {
                self.changed.insert(s.id);
            }
            Event::Deleted(Object::Service(s)) => {
                self.rolling.remove(&s.id);
            }
            Event::Created(Object::Task(t))
            | Event::Updated { new: Object::Task(t), .. }
            | Event::Deleted(Object::Task(t)) => {
                if let Some(touched) = self.rolling.get_mut(&t.service) {
                    *touched = true;
                }
            }
            // Global tasks on a node that was paused may be taken up now.
            Event::Created(Object::Node(_))
            | Event::Updated { new: Object::Node(_), .. }
            | Event::Deleted(Object::Node(_)) => {
                self.rolling.values_mut().for_each(|touched| *touched = true);
            }
            _ => {}
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        let mut due = std::mem::take(&mut self.changed);
        due.extend(self.rolling.iter().filter(|(_, touched)| **touched).map(|(id, _)| *id));
        while let Some((at, service)) = self.timers.first().copied().filter(|(at, _)| *at <= ctx.now) {
            self.timers.remove(&(at, service));
            due.insert(service);
        }
        while let Some(id) = due.pop_first() {
            if plan.is_full() {
                due.insert(id);
                self.changed = due;
                return Wake::Now;
            }
            self.rolling.remove(&id);
            match step(plan, ctx, &id) {
                Next::Nothing => {}
                Next::Event => {
                    self.rolling.insert(id, false);
                }
                Next::Wake(at) => {
                    self.rolling.insert(id, false);
                    self.timers.insert((at, id));
                }
                Next::More => {
                    due.insert(id);
                    self.changed = due;
                    return Wake::Now;
                }
            }
        }
        self.timers.first().map_or(Wake::Never, |(at, _)| Wake::At(*at))
    }
}

/// What an update waits for.
enum Next {
    /// There is none, or it is over.
    Nothing,
    /// Something to happen to its tasks.
    Event,
    /// That, or this time.
    Wake(Timestamp),
    /// Room in the plan.
    More,
}

/// There is nothing to do, unless a node comes back.
fn rest(progress: &Progress) -> Next {
    if progress.held > 0 { Next::Event } else { Next::Nothing }
}

fn step(plan: &mut Plan, ctx: &mut Context<'_>, id: &ServiceId) -> Next {
    let Some(service) = plan.service(id).cloned() else { return Next::Nothing };
    let status = service.update_status.clone();
    match status.as_ref().map(|s| s.state) {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => return Next::Nothing,
        Some(UpdateState::Completed | UpdateState::RollbackCompleted) | None => {
            if !plan.tasks_of_service(id).any(|t| is_outdated(t, &service)) {
                return Next::Nothing;
            }
            let progress = Progress::read(plan, &service, ctx.now, ctx.now);
            if progress.outdated.is_empty() && progress.relieved.is_empty() {
                return rest(&progress);
            }
        }
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => {}
    }
    let open = |s: &UpdateStatus| matches!(s.state, UpdateState::Updating | UpdateState::RollbackStarted);
    let started = status.filter(open).map_or(ctx.now, |s| s.started_at);
    let progress = Progress::read(plan, &service, started, ctx.now);
    if progress.has_failed(&service.spec.update)
        && service.spec.update.failure_action != FailureAction::Continue
    {
        let why = match progress.failure {
            Some(task) => format!("failure or early termination of task {task}"),
            None => "failure of a task".to_owned(),
        };
        return fail(plan, ctx, &service, started, &why);
    }
    if progress.done {
        let status = ended(&service, started, ctx.now);
        put_status(plan, &service, status);
        return rest(&progress);
    }
    advance(plan, ctx, &service, &progress, started)
}

/// Worth a closer look: wanted, or perhaps the last word of its slot.
fn is_outdated(task: &Task, service: &Service) -> bool {
    task.desired_state < TaskState::Remove && is_dirty(task, service)
}

/// Takes as many slots as the pace allows.
fn advance(
    plan: &mut Plan,
    ctx: &mut Context<'_>,
    service: &Service,
    progress: &Progress,
    started: Timestamp,
) -> Next {
    let policy = &service.spec.update;
    for old in &progress.relieved {
        if plan.is_full() {
            return Next::More;
        }
        tell(plan, old, TaskState::Shutdown, Reason::SpecChanged);
    }
    let width = if policy.parallelism == 0 { u64::MAX } else { policy.parallelism };
    let mut free = width.saturating_sub(progress.busy);
    let mut gate = None;
    for slot in &progress.outdated {
        if !slot.never_ran && free == 0 {
            continue;
        }
        if plan.is_full() {
            return Next::More;
        }
        if !slot.never_ran {
            // Asked once a step: all slots have one template.
            let closed = gate.get_or_insert_with(|| no_room_for(plan, service));
            if let Some(why) = closed.clone() {
                return fail(plan, ctx, service, started, &why);
            }
            free -= 1;
        }
        take(plan, ctx, service, slot);
    }
    put_status(plan, service, running(service, started));
    progress.next.map_or(Next::Event, Next::Wake)
}

fn take(plan: &mut Plan, ctx: &mut Context<'_>, service: &Service, slot: &Outdated) {
    let old = &slot.old;
    // The new template may not want to be on a global task's node.
    let stays = |node: &Arc<Node>| filter::fits_forever(&service.spec.task, node);
    if old.slot == 0 && !plan.node(&old.node).is_some_and(stays) {
        tell(plan, old, TaskState::Shutdown, Reason::SpecChanged);
        return;
    }
    let stopped = !old.status.state.consumes_resources();
    if stopped || slot.never_ran {
        replace(plan, ctx, service, old, Start::Now, Attempt::default(), Reason::SpecChanged);
        return;
    }
    // Two tasks cannot have one port of a node: the new one would wait for the old one for ever.
    let shared = |new: &Port| old.spec.host_ports.iter().any(|port| collide(new, port));
    let order = match service.spec.task.host_ports.iter().any(shared) {
        true => UpdateOrder::StopFirst,
        false => service.spec.update.order,
    };
    match order {
        UpdateOrder::StopFirst => {
            let start = Start::After(ctx.now);
            replace(plan, ctx, service, old, start, Attempt::default(), Reason::SpecChanged);
        }
        UpdateOrder::StartFirst => {
            create(plan, ctx, service, slot.key, Start::Now, Reason::SpecChanged);
        }
    }
}

fn is_rollback(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(|s| s.state == UpdateState::RollbackStarted)
}

fn running(service: &Service, started_at: Timestamp) -> UpdateStatus {
    match &service.update_status {
        Some(status) if status.started_at == started_at => status.clone(),
        _ => UpdateStatus {
            state: UpdateState::Updating,
            started_at,
            completed_at: Timestamp::ZERO,
            message: "update in progress".into(),
        },
    }
}

fn ended(service: &Service, started_at: Timestamp, now: Timestamp) -> UpdateStatus {
    let (state, message) = match is_rollback(service) {
        true => (UpdateState::RollbackCompleted, "rollback completed"),
        false => (UpdateState::Completed, "update completed"),
    };
    UpdateStatus { state, started_at, completed_at: now, message: message.into() }
}

fn reason(state: UpdateState) -> Reason {
    match state {
        UpdateState::Updating => Reason::UpdateStarted,
        UpdateState::Paused => Reason::UpdatePaused,
        UpdateState::Completed => Reason::UpdateCompleted,
        UpdateState::RollbackStarted => Reason::RollbackStarted,
        UpdateState::RollbackPaused => Reason::RollbackPaused,
        UpdateState::RollbackCompleted => Reason::RollbackCompleted,
    }
}

fn put_status(plan: &mut Plan, service: &Service, status: UpdateStatus) {
    if service.update_status.as_ref() == Some(&status) {
        return;
    }
    let why = reason(status.state);
    plan.put_service(Service { update_status: Some(status), ..service.clone() }, why);
}

/// Stops the update, or turns it round if it shall and can be.
fn fail(plan: &mut Plan, ctx: &Context<'_>, service: &Service, started_at: Timestamp, why: &str) -> Next {
    let back = service.spec.update.failure_action == FailureAction::Rollback && !is_rollback(service);
    if let (true, Some(previous)) = (back, &service.previous_spec) {
        let status = UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: ctx.now,
            completed_at: Timestamp::ZERO,
            message: format!("update rolled back due to {why}"),
        };
        let mut rolled =
            Service { spec: Box::as_ref(previous).clone(), previous_spec: None, ..service.clone() };
        // How many there are is not part of what failed.
        rolled.spec.mode = service.spec.mode;
        rolled.spec_version += 1;
        rolled.update_status = Some(status);
        plan.put_service(rolled, Reason::RollbackStarted);
        return Next::More;
    }
    let (state, word) = match is_rollback(service) {
        true => (UpdateState::RollbackPaused, "rollback"),
        false => (UpdateState::Paused, "update"),
    };
    let message = format!("{word} paused due to {why}");
    put_status(plan, service, UpdateStatus { state, started_at, completed_at: Timestamp::ZERO, message });
    Next::Nothing
}

#[cfg(test)]
mod tests;
