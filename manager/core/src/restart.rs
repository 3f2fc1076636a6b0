//! Restart: whether and when a task that ended is replaced, and when a waiting task may start.
//!
//! Reads:   tasks, their services and nodes.
//! Writes:  replacements (through `orchestrator::new_task`); Task.desired_state SHUTDOWN of what
//!          ended, READY -> RUNNING of what waited.
//! Never:   moves tasks that did not end (that is the enforcer's); counts slots.
//! Start:   [`decide`], [`Restart::plan`].

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_types::defaults;
use swarm_types::id::{NodeId, ServiceId};
use swarm_types::node::NodeState;
use swarm_types::policy::{RestartCondition, RestartPolicy};
use swarm_types::service::Service;
use swarm_types::task::{Attempt, Task};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::enforcer::unfit;
use crate::orchestrator::dirty::is_dirty;
use crate::orchestrator::new_task::{Start, keeps_old_spec, replace, tell};
use crate::orchestrator::slot::{Slot, key_of};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object};
use crate::store::{SlotKey, View};

/// What follows the end of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Its slot stays as it is.
    Never,
    /// A replacement starts then, and carries this.
    At(Timestamp, Attempt),
}

/// What the policy says about a task that ended (swarm.md B6). Depends on when the task ended, not
/// on when it is asked, so the answer never changes.
pub fn decide(task: &Task) -> Decision {
    let policy = &task.spec.restart;
    let again = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::Any => true,
    };
    if !again {
        return Decision::Never;
    }
    // A task that could not be made ready ended before it was due: its delay still counts.
    let ended = task.status.applied_at.max(task.start_after);
    let attempt = next_attempt(task.attempt, policy, ended);
    match policy.max_attempts {
        max if max > 0 && attempt.count > max => Decision::Never,
        _ => Decision::At(ended.plus(policy.delay), attempt),
    }
}

/// Counts one more restart, or begins a new window.
///
/// The time that replacements spend waiting for their delay does not use up the window: else a
/// window shorter than the delay would never see two restarts and never give up
/// (moby/swarmkit#2936).
fn next_attempt(before: Attempt, policy: &RestartPolicy, ended: Timestamp) -> Attempt {
    let waited = policy.delay.saturating_mul(u32::try_from(before.count).unwrap_or(u32::MAX));
    let over = policy.window > Duration::ZERO
        && ended.since(before.window_start) > policy.window.saturating_add(waited);
    if before.count == 0 || over {
        Attempt { count: 1, window_start: ended }
    } else {
        Attempt { count: before.count.saturating_add(1), ..before }
    }
}

/// The loop that answers ended tasks and starts waiting ones. Remembers which slots to look at and
/// when the next delay is over; both are rebuilt from the tasks.
#[derive(Debug, Clone, Default)]
pub struct Restart {
    dirty: BTreeSet<(ServiceId, SlotKey)>,
    timers: BTreeSet<(Timestamp, ServiceId, SlotKey)>,
    /// Nodes that went away: who waits for a task there to stop need not.
    gone: BTreeSet<NodeId>,
}

impl ControlLoop for Restart {
    fn restore(view: &View) -> Self {
        let mut this = Self::default();
        view.tasks().for_each(|t| this.notice(t));
        this
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Created(Object::Task(task)) | Event::Updated { new: Object::Task(task), .. } => {
                self.notice(task);
                // An old task has stopped: one that waits for it may go.
                if task.status.state.is_terminal() {
                    self.dirty.insert((task.service, key_of(task)));
                }
            }
            Event::Deleted(Object::Task(task)) => {
                self.dirty.insert((task.service, key_of(task)));
            }
            Event::Updated { new: Object::Node(node), .. } if node.status.state == NodeState::Down => {
                self.gone.insert(node.id);
            }
            Event::Deleted(Object::Node(node)) => {
                self.gone.insert(node.id);
            }
            _ => {}
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        while let Some((at, service, key)) = self.timers.first().copied() {
            if at > ctx.now {
                break;
            }
            self.timers.pop_first();
            self.dirty.insert((service, key));
        }
        for node in std::mem::take(&mut self.gone) {
            self.dirty
                .extend(plan.tasks_on_node(&node).filter(|t| t.is_live()).map(|t| (t.service, key_of(t))));
        }
        while let Some((service, key)) = self.dirty.pop_first() {
            if plan.is_full() {
                self.dirty.insert((service, key));
                return Wake::Now;
            }
            if let Some(at) = look(plan, ctx, &service, key) {
                self.timers.insert((at, service, key));
            }
        }
        self.timers.first().map_or(Wake::Never, |(at, ..)| Wake::At(*at))
    }
}

impl Restart {
    fn notice(&mut self, task: &Task) {
        let ended = task.status.state.is_terminal();
        if task.is_wanted() && (ended || task.desired_state == TaskState::Ready) {
            self.dirty.insert((task.service, key_of(task)));
        }
    }
}

/// Answers what ended in a slot and starts what is due; returns when to look again.
fn look(plan: &mut Plan, ctx: &mut Context<'_>, service: &ServiceId, key: SlotKey) -> Option<Timestamp> {
    let service = plan.service(service).cloned()?;
    let slot = Slot::read(plan, &service.id, key);
    let ended: Vec<_> = slot.wanted().filter(|t| t.status.state.is_terminal()).cloned().collect();
    // An update may have put two tasks into the slot, and both may end at once (their node lost its
    // power): one of them is answered. While the update is paused that is the one it spared.
    let heir = if keeps_old_spec(&service) { ended.first() } else { ended.last() }.map(|t| t.id);
    let mut later = None;
    for task in &ended {
        // It was refused while it waited for its delay. Without this, a template that nobody can
        // make ready would be tried without any pause.
        if task.start_after > ctx.now {
            later = Some(task.start_after);
            continue;
        }
        let other = Some(task.id) != heir || slot.wanted().any(|t| t.is_live());
        answer(plan, ctx, &service, task, other);
    }
    let slot = if ended.is_empty() { slot } else { Slot::read(plan, &service.id, key) };
    let waiting: Vec<_> =
        slot.wanted().filter(|t| t.desired_state == TaskState::Ready && t.is_live()).cloned().collect();
    waiting.iter().filter_map(|task| start(plan, ctx, &slot, task)).chain(later).min()
}

fn answer(plan: &mut Plan, ctx: &mut Context<'_>, service: &Service, task: &Task, replaced: bool) {
    match decide(task) {
        // An update has put another task beside it already.
        _ if replaced => tell(plan, task, TaskState::Shutdown, Reason::SpecChanged),
        Decision::Never if task.spec.restart.max_attempts > 0 => {
            tell(plan, task, TaskState::Shutdown, Reason::AttemptsUsedUp);
        }
        Decision::Never => tell(plan, task, TaskState::Shutdown, Reason::TaskEnded),
        // A global task has no other place: it comes back with its node.
        _ if task.slot == 0 && unfit(task, plan.node(&task.node).map(|n| &**n)).is_some() => {
            tell(plan, task, TaskState::Shutdown, Reason::TaskEnded);
        }
        Decision::At(at, mut attempt) => {
            if is_dirty(task, service) {
                attempt = Attempt::default();
            }
            let start = if at <= ctx.now { Start::Now } else { Start::After(at) };
            replace(plan, ctx, service, task, start, attempt, Reason::TaskEnded);
        }
    }
}

/// Lets a waiting task run if its time has come and the tasks before it have stopped; else says
/// when to look again (when an old task stops, an event does).
fn start(plan: &mut Plan, ctx: &Context<'_>, slot: &Slot, task: &Task) -> Option<Timestamp> {
    if task.start_after > ctx.now {
        return Some(task.start_after);
    }
    let give_up = task.meta.created_at.plus(defaults::RESTART_WAIT_OLD);
    let stopping = slot.tasks.iter().any(|t| t.id != task.id && !t.is_wanted() && may_still_run(plan, t));
    if stopping && ctx.now < give_up {
        return Some(give_up);
    }
    tell(plan, task, TaskState::Running, Reason::DelayOver);
    None
}

fn may_still_run(view: &View, task: &Task) -> bool {
    let reachable = view.node(&task.node).is_some_and(|n| n.status.state != NodeState::Down);
    task.is_live() && task.status.state >= TaskState::Assigned && reachable
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use swarm_types::task::TaskSpec;

    /// Ends of one slot's tasks in seconds, each made when the one before was answered.
    fn attempts(policy: RestartPolicy, ends: &[u64]) -> Vec<Decision> {
        let spec = Arc::new(TaskSpec { restart: policy, ..TaskSpec::default() });
        let mut task = Task { spec, ..Task::default() };
        task.status.state = TaskState::Failed;
        let answer = |end: &u64| {
            task.status.applied_at = Timestamp(end * 1000);
            let decision = decide(&task);
            if let Decision::At(at, attempt) = decision {
                task.attempt = attempt;
                task.start_after = at;
            }
            decision
        };
        ends.iter().map(answer).collect()
    }

    fn counts(max_attempts: u64, window: u64, ends: &[u64]) -> Vec<Option<u64>> {
        let window = Duration::from_secs(window);
        let policy = RestartPolicy { max_attempts, window, ..RestartPolicy::default() };
        let count = |d: Decision| match d {
            Decision::Never => None,
            Decision::At(_, attempt) => Some(attempt.count),
        };
        attempts(policy, ends).into_iter().map(count).collect()
    }

    #[test]
    fn the_delay_counts_from_the_end_or_from_when_the_task_was_due() {
        let starts: Vec<_> = attempts(RestartPolicy::default(), &[100, 101, 200])
            .into_iter()
            .map(|d| match d {
                Decision::At(at, _) => at.0 / 1000,
                Decision::Never => 0,
            })
            .collect();
        // The second was refused at 101, before it was due at 105.
        assert_eq!(starts, [105, 110, 205]);
    }

    #[test]
    fn attempts_are_counted_in_all_or_in_the_window() {
        assert_eq!(counts(0, 0, &[10, 20, 1000]), [Some(1), Some(2), Some(3)]);
        assert_eq!(counts(2, 0, &[10, 20, 1000]), [Some(1), Some(2), None]);
        assert_eq!(counts(2, 30, &[10, 20, 1000]), [Some(1), Some(2), Some(1)], "the window is over");
        assert_eq!(counts(2, 1, &[10, 15, 20]), [Some(1), Some(2), None], "shorter than the delay of 5 s");
    }
}
