//! Reaper: which tasks may be forgotten.
//!
//! Reads:   tasks, nodes, the cluster's history limit.
//! Writes:  deletions of tasks; Network.released of the addresses that they had.
//! Never:   forgets a task that may still run.
//! Start:   [`Reaper::plan`], [`forgettable`].
//!
//! Slots that were scaled away keep no history: their tasks are wanted REMOVEd and vanish when they
//! have stopped.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_types::defaults;
use swarm_types::id::{NodeId, ServiceId};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::allocator::address::Releases;
use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::orchestrator::slot::{Slot, key_of};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object};
use crate::store::{SlotKey, View};

/// The loop. Remembers which slots to look at, and when a failure stops to matter.
#[derive(Debug, Clone, Default)]
pub struct Reaper {
    dirty: BTreeSet<(ServiceId, SlotKey)>,
    timers: BTreeSet<(Timestamp, ServiceId, SlotKey)>,
    /// Nodes that are no members any more: what was on them cannot run.
    gone: BTreeSet<NodeId>,
    /// The history limit changed: all slots.
    everything: bool,
}

impl ControlLoop for Reaper {
    fn restore(view: &View) -> Self {
        let mut this = Self::default();
        view.tasks().for_each(|t| this.notice(t));
        this
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Created(Object::Task(task)) | Event::Updated { new: Object::Task(task), .. } => {
                self.notice(task);
            }
            Event::Updated { old: Object::Cluster(old), new: Object::Cluster(new) } => {
                self.everything |= old.spec.task_history_limit != new.spec.task_history_limit;
            }
            Event::Deleted(Object::Node(node)) => {
                self.gone.insert(node.id);
            }
            _ => {}
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        if std::mem::take(&mut self.everything) {
            let all: Vec<Arc<Task>> = plan.tasks().cloned().collect();
            all.iter().for_each(|t| self.notice(t));
        }
        for node in std::mem::take(&mut self.gone) {
            let left: Vec<Arc<Task>> = plan.tasks_on_node(&node).cloned().collect();
            left.iter().for_each(|t| self.notice(t));
        }
        while let Some((at, service, key)) = self.timers.first().copied().filter(|(at, ..)| *at <= ctx.now) {
            self.timers.remove(&(at, service, key));
            self.dirty.insert((service, key));
        }
        let limit = plan.cluster().map_or(defaults::TASK_HISTORY_LIMIT, |c| c.spec.task_history_limit);
        // One write for each network, with the tasks in one transaction: else a leader that comes
        // between would give their addresses to others at once.
        let mut releases = Releases::default();
        let mut full = false;
        while let Some((service, key)) = self.dirty.pop_first() {
            if plan.is_full() {
                self.dirty.insert((service, key));
                full = true;
                break;
            }
            let slot = Slot::read(plan, &service, key);
            let verdict = forgettable(plan, &slot, limit, ctx.now);
            for task in verdict.now {
                releases.add_task(&task, ctx.now);
                plan.delete_task(&task.id, Reason::HistoryFull);
            }
            self.timers.extend(verdict.later.map(|at| (at, service, key)));
        }
        for network in releases.networks(plan, ctx.now) {
            plan.put_network(network, Reason::AddressesReleased);
        }
        if full {
            return Wake::Now;
        }
        self.timers.first().map_or(Wake::Never, |(at, ..)| Wake::At(*at))
    }
}

impl Reaper {
    /// Only a task that is not wanted can be forgotten, and only then a slot's history has grown.
    fn notice(&mut self, task: &Task) {
        if !task.is_wanted() {
            self.dirty.insert((task.service, key_of(task)));
        }
    }
}

/// What may be forgotten of a slot.
#[derive(Debug, Default)]
pub struct Verdict {
    /// At once.
    pub now: Vec<Arc<Task>>,
    /// More may be by then.
    pub later: Option<Timestamp>,
}

/// Which tasks of a slot may be forgotten, given how many are kept (negative: all).
pub fn forgettable(view: &View, slot: &Slot, limit: i64, now: Timestamp) -> Verdict {
    let mut verdict = Verdict::default();
    // Youngest first: the first `keep` stay.
    for (age, task) in slot.tasks.iter().rev().enumerate() {
        if task.is_wanted() || may_still_run(view, task) {
            continue;
        }
        if task.desired_state == TaskState::Remove || task.status.state < TaskState::Assigned {
            verdict.now.push(task.clone());
            continue;
        }
        let Ok(limit) = usize::try_from(limit) else { continue };
        if age < keep(task, limit) {
            continue;
        }
        match remembered_until(task, age).filter(|at| *at > now) {
            Some(at) => verdict.later = Some(verdict.later.map_or(at, |l: Timestamp| l.min(at))),
            None => verdict.now.push(task.clone()),
        }
    }
    verdict
}

/// How many of a slot's youngest tasks stay. At least one: the last word of a slot that is not
/// restarted fills it. With a limit on attempts, all of them can be seen.
fn keep(task: &Task, limit: usize) -> usize {
    let attempts = usize::try_from(task.spec.restart.max_attempts).unwrap_or(usize::MAX);
    let attempts = if attempts == 0 { 0 } else { attempts.saturating_add(1) };
    limit.max(attempts).max(1)
}

/// The scheduler counts recent failures from the tasks that are stored, so the last few of a slot
/// stay until they do not count any more.
fn remembered_until(task: &Task, age: usize) -> Option<Timestamp> {
    let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    let few = age <= usize::try_from(defaults::MAX_FAILURES).unwrap_or(usize::MAX);
    (failed && few).then(|| task.status.applied_at.plus(defaults::FAILURE_WINDOW))
}

/// A process of it may exist: it came to a node that is still a member, and has not ended.
fn may_still_run(view: &View, task: &Task) -> bool {
    let assigned = task.status.state >= TaskState::Assigned && !task.node.is_empty();
    assigned && task.is_live() && view.node(&task.node).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, age: u64, desired: TaskState, state: TaskState) -> Arc<Task> {
        let mut task =
            Task { id: id.into(), slot: 1, node: "n".into(), desired_state: desired, ..Task::default() };
        task.meta.created_at = Timestamp(1000 - age);
        task.status.state = state;
        task.status.applied_at = Timestamp(1000);
        Arc::new(task)
    }

    fn forgotten(tasks: Vec<Arc<Task>>, limit: i64, now: u64) -> (Vec<String>, Option<Timestamp>) {
        let verdict = forgettable(&View::default(), &Slot::of(tasks), limit, Timestamp(now));
        (verdict.now.iter().map(|t| t.id.to_string()).collect(), verdict.later)
    }

    fn history() -> Vec<Arc<Task>> {
        let end = |id: &str, age| task(id, age, TaskState::Shutdown, TaskState::Shutdown);
        vec![task("a", 0, TaskState::Running, TaskState::Running), end("b", 1), end("c", 2), end("d", 3)]
    }

    #[test]
    fn the_limit_counts_the_current_task() {
        assert_eq!(forgotten(history(), 5, 2000).0, Vec::<String>::new());
        assert_eq!(forgotten(history(), 2, 2000).0, ["c", "d"]);
        assert_eq!(forgotten(history(), 0, 2000).0, ["b", "c", "d"]);
        assert_eq!(forgotten(history(), -1, 2000).0, Vec::<String>::new());
    }

    #[test]
    fn removed_and_never_assigned_tasks_go_at_once() {
        let gone = task("a", 0, TaskState::Remove, TaskState::Shutdown);
        let unplaced = task("b", 1, TaskState::Shutdown, TaskState::Pending);
        assert_eq!(forgotten(vec![gone, unplaced], -1, 2000).0, ["a", "b"]);
    }

    #[test]
    fn recent_failures_stay_until_they_do_not_count() {
        let failed = |id: &str, age| task(id, age, TaskState::Shutdown, TaskState::Failed);
        let tasks = || vec![task("a", 0, TaskState::Running, TaskState::Running), failed("b", 1)];
        let until = Timestamp(1000).plus(defaults::FAILURE_WINDOW);
        assert_eq!(forgotten(tasks(), 0, 2000), (vec![], Some(until)));
        assert_eq!(forgotten(tasks(), 0, until.0).0, ["b"]);
    }
}
