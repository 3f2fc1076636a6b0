//! Progress: how far an update has come, read from the tasks alone.
//!
//! Reads:   a service, its tasks, nodes.
//! Writes:  nothing.
//! Never:   decides the next step.
//! Start:   [`Progress::read`].

use std::sync::Arc;
use std::time::Duration;

use swarm_types::id::TaskId;
use swarm_types::node::Node;
use swarm_types::policy::UpdatePolicy;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::orchestrator::dirty::is_dirty;
use crate::orchestrator::slot::{Slot, key_of};
use crate::scheduler::filter;
use crate::store::{SlotKey, View};

/// How far an update has come, read from the tasks alone.
#[derive(Debug, Default)]
pub struct Progress {
    /// Slots whose task is of another template, in the order in which they are taken.
    pub(super) outdated: Vec<Outdated>,
    /// Slots whose new task is on its way, or whose delay after it is not over.
    pub(super) busy: u64,
    /// Start-first: old tasks whose successor runs.
    pub(super) relieved: Vec<Arc<Task>>,
    /// Slots that have been, or will be, replaced by this update.
    pub(super) total: u64,
    /// Slots whose new task ended by itself; one of these tasks.
    pub(super) failed: u64,
    pub(super) failure: Option<TaskId>,
    /// Outdated global tasks on nodes that are paused or away: left alone until they are not.
    pub(super) held: u64,
    /// When a delay or a watch ends next.
    pub(super) next: Option<Timestamp>,
    /// All replaced, none on its way, all watched for long enough.
    pub(super) done: bool,
}

/// A slot whose task is of another template.
#[derive(Debug)]
pub(super) struct Outdated {
    pub(super) key: SlotKey,
    pub(super) old: Arc<Task>,
    /// It never ran: nothing is lost by replacing it, whatever the pace.
    pub(super) never_ran: bool,
}

impl Progress {
    /// Reads all slots of a service; `started` is when the update began.
    pub fn read(view: &View, service: &Service, started: Timestamp, now: Timestamp) -> Progress {
        let mut progress = Progress { done: true, ..Progress::default() };
        let mut tasks = view.tasks_of_service(&service.id).cloned().peekable();
        while let Some(first) = tasks.next() {
            let key = key_of(&first);
            let mut slot = vec![first];
            while let Some(task) = tasks.next_if(|t| key_of(t) == key) {
                slot.push(task);
            }
            if slot.iter().any(|t| t.desired_state < TaskState::Remove) {
                progress.add(view, service, key, &Slot::of(slot), started, now);
            }
        }
        progress.done &= progress.outdated.is_empty() && progress.busy == 0 && progress.relieved.is_empty();
        progress
    }

    fn add(
        &mut self,
        view: &View,
        service: &Service,
        key: SlotKey,
        slot: &Slot,
        started: Timestamp,
        now: Timestamp,
    ) {
        let fresh = |t: &&Arc<Task>| !is_dirty(t, service);
        let ours = |t: &&Arc<Task>| fresh(t) && t.meta.created_at >= started;
        let new = slot.wanted().filter(fresh).last();
        // An update that was overtaken by another one may have left two: what ran first goes on.
        let outdated = || slot.wanted().filter(|t| !fresh(t));
        let runs = |t: &&Arc<Task>| t.status.state == TaskState::Running;
        let first = outdated().find(runs).or_else(|| outdated().next());
        self.relieved.extend(outdated().filter(|t| Some(*t) != first).cloned());
        // What ended for good counts only where nothing else is wanted: after a rollback that came
        // in time, the task from before may still fill the slot.
        let old = first.or_else(|| slot.spent().filter(|t| new.is_none() && !fresh(t)));
        let failure = slot.tasks.iter().filter(ours).find(|t| failed(t));
        if let Some(task) = failure {
            self.failed += 1;
            self.failure.get_or_insert(task.id);
        }
        let replaced = slot.tasks.iter().any(|t| ours(&t)) && slot.tasks.iter().any(|t| !fresh(&t));
        match (old, new) {
            (Some(old), Some(new)) => {
                self.total += 1;
                if new.status.state == TaskState::Running {
                    self.relieved.push(old.clone());
                }
                self.watch(service, new, failure, now);
            }
            (Some(old), None) if is_held(view, old) => self.held += 1,
            (Some(old), None) if is_over(view, service, old) => {}
            (Some(old), None) => {
                self.total += 1;
                let never_ran =
                    old.status.state <= TaskState::Assigned || old.desired_state == TaskState::Ready;
                self.outdated.push(Outdated { key, old: old.clone(), never_ran });
            }
            (None, Some(new)) if new.meta.created_at >= started => {
                self.total += u64::from(replaced);
                self.watch(service, new, failure, now);
            }
            _ => self.total += u64::from(replaced),
        }
    }

    /// A slot is busy until its new task runs and the delay after that is over; the update is not
    /// done before the task has been watched for long enough. After a failure the turn ends too,
    /// but later: the other slots of the batch shall have their say before the next is risked.
    fn watch(&mut self, service: &Service, new: &Task, failure: Option<&Arc<Task>>, now: Timestamp) {
        let policy = &service.spec.update;
        let until = |task: &Task, d: Duration| Some(task.status.applied_at.plus(d)).filter(|at| *at > now);
        let (turn, watched) = match failure {
            _ if new.status.state == TaskState::Running => {
                (until(new, policy.delay), until(new, policy.monitor))
            }
            Some(task) => {
                self.done = false;
                (until(task, policy.delay.max(policy.monitor)), None)
            }
            None => {
                self.done = false;
                self.busy += 1;
                return;
            }
        };
        self.busy += u64::from(turn.is_some());
        self.done &= watched.is_none();
        for at in [turn, watched].into_iter().flatten() {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// More slots failed than the policy allows.
    pub(super) fn has_failed(&self, policy: &UpdatePolicy) -> bool {
        // In thousandths of the slots, compared without dividing.
        self.failed.saturating_mul(1000)
            > u64::from(policy.max_failure_permille).saturating_mul(self.total.max(1))
            && self.failed > 0
    }
}

/// Ended by itself. One that was told to stop, or whose node was lost, says nothing of its template.
fn failed(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected | TaskState::Complete)
}

/// It has ended on a node that the new template does not fit: nothing is to take its place.
fn is_over(view: &View, service: &Service, task: &Task) -> bool {
    let fits = |node: &Arc<Node>| filter::fits_forever(&service.spec.task, node);
    task.slot == 0 && !task.is_wanted() && !view.node(&task.node).is_some_and(fits)
}

/// On a paused node a global task is left alone.
fn is_held(view: &View, task: &Task) -> bool {
    task.slot == 0 && view.node(&task.node).is_some_and(|n| !n.takes_tasks())
}
