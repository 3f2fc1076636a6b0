//! Entry: what the agent knows of one task of its node.
//!
//! Reads:   the task as managers sent it; what was found of its container.
//! Writes:  the task's own status; which operation runs; when to try again.
//! Never:   lets a state or a desired state go back.
//! Start:   [`Entry::learn`].

use std::sync::Arc;
use std::time::Duration;

use swarm_types::id::TaskId;
use swarm_types::task::{Task, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::backoff::doubled;
use crate::observed::{Found, FoundState};
use crate::step::{self, Facts, Failure, Next, Op, Outcome};

/// So many temporary failures of a preparation or a start in a row are final.
pub const MAX_TRIES: u32 = 4;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// One task of this node.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The task; its `status` is this node's own observation, not the managers'.
    pub(crate) task: Arc<Task>,
    pub(crate) facts: Facts,
    /// The operation that runs, and whether it was told to stop.
    pub(crate) running: Option<Running>,
    retry: Option<Retry>,
    /// Only the id is known: there is nothing to keep in the journal and nobody to report to.
    pub(crate) leftover: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) op: Op,
    pub(crate) cancelled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    op: Op,
    failures: u32,
    at: Timestamp,
}

impl Entry {
    /// A task that the agent has not seen before, from a manager.
    pub(crate) fn assigned(task: Arc<Task>, now: Timestamp) -> Self {
        let facts = Facts {
            confirmed: true,
            may_hold: task.status.state >= TaskState::Preparing && !task.status.state.is_terminal(),
            hold_until: hold_until(&task, now),
            removing: false,
        };
        Self { task, facts, running: None, retry: None, leftover: false }
    }

    /// A task from the journal.
    pub(crate) fn restored(task: Arc<Task>, now: Timestamp) -> Self {
        let mut entry = Self::assigned(task, now);
        entry.facts.confirmed = false;
        entry
    }

    /// A container whose task nobody knows any more.
    pub(crate) fn leftover(id: TaskId, now: Timestamp) -> Self {
        let task = Task { id, desired_state: TaskState::Remove, ..Task::default() };
        let mut entry = Self::restored(Arc::new(task), now);
        entry.facts.removing = true;
        entry.leftover = true;
        entry
    }

    /// The task as this node sees it.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The operation that runs for it.
    pub fn running(&self) -> Option<Op> {
        self.running.map(|r| r.op)
    }

    /// Its container is known not to run, and to have no links.
    pub fn is_stopped(&self) -> bool {
        !self.facts.may_hold
    }

    /// Takes over what a manager says of the task. True if that is worth keeping in the journal.
    pub(crate) fn learn(&mut self, theirs: &Arc<Task>, now: Timestamp) -> bool {
        let mut task = Task::clone(theirs);
        task.desired_state = task.desired_state.max(self.task.desired_state);
        // What is final there is final, even if this node says otherwise: a power cut may have taken the
        // end from the journal, and what the container shows may be read otherwise.
        let ended = task.status.state.is_terminal() && task.status.state != self.task.status.state;
        let ahead = ended || task.status.state > self.task.status.state;
        if !ahead {
            task.status = self.task.status.clone();
        }
        let worth = ahead
            || task.desired_state != self.task.desired_state
            || task.start_after != self.task.start_after;
        if task.start_after != self.task.start_after {
            self.facts.hold_until = hold_until(&task, now);
        } else {
            self.facts.hold_until = self.facts.hold_until.min(hold_until(&task, now));
        }
        self.facts.confirmed = true;
        self.facts.removing = false;
        self.task = Arc::new(task);
        std::mem::take(&mut self.leftover) || worth
    }

    /// Takes over what was found of the container. True if the status changed.
    pub(crate) fn find(&mut self, found: &Found, now: Timestamp) -> bool {
        self.facts.may_hold = !matches!(found.state, FoundState::Exited(_));
        match step::found(&self.task, found, now) {
            Some(status) => {
                self.set(status);
                true
            }
            None => false,
        }
    }

    /// The task is not assigned any more. True if that is news.
    pub(crate) fn remove(&mut self) -> bool {
        if self.facts.removing {
            return false;
        }
        self.facts.removing = true;
        Arc::make_mut(&mut self.task).desired_state = TaskState::Remove;
        true
    }

    /// What is next; nothing while an operation runs.
    pub(crate) fn next(&self, now: Timestamp) -> Next {
        if self.running.is_some() {
            return Next::Rest;
        }
        match step::next(&self.task, &self.facts, now) {
            Next::Do(op) => match self.retry {
                Some(retry) if retry.op == op && now < retry.at => Next::Until(retry.at),
                _ => Next::Do(op),
            },
            other => other,
        }
    }

    /// The operation that runs is to be dropped now.
    pub(crate) fn cancel(&mut self) -> bool {
        let must_stop = self.facts.must_stop(&self.task);
        match &mut self.running {
            Some(running) if must_stop && running.op.is_interruptible() && !running.cancelled => {
                running.cancelled = true;
                true
            }
            _ => false,
        }
    }

    /// `op` begins. True if the status changed.
    pub(crate) fn begin(&mut self, op: Op, now: Timestamp) -> bool {
        self.running = Some(Running { op, cancelled: false });
        if matches!(op, Op::Prepare | Op::Start) {
            self.facts.may_hold = true;
        }
        match step::begin(&self.task, op, now) {
            Some(status) => {
                self.set(status);
                true
            }
            None => false,
        }
    }

    /// `op` has ended. True if the status changed.
    pub(crate) fn finished(&mut self, op: Op, outcome: Outcome, now: Timestamp) -> bool {
        self.running = None;
        let outcome = self.count(op, outcome, now);
        if matches!(outcome, Outcome::Ended(_)) || (op == Op::Remove && outcome == Outcome::Done) {
            self.facts.may_hold = false;
        }
        match step::after(&self.task, op, &outcome, now) {
            Some(status) => {
                self.set(status);
                true
            }
            None => false,
        }
    }

    /// Plans the next try after a failure, or makes the failure final.
    fn count(&mut self, op: Op, outcome: Outcome, now: Timestamp) -> Outcome {
        let Outcome::Failed(failure) = outcome else {
            self.retry = None;
            return outcome;
        };
        let before = self.retry.filter(|r| r.op == op).map_or(0, |r| r.failures);
        let failures = before.saturating_add(1);
        let wait = doubled(RETRY_MIN, RETRY_MAX, failures);
        self.retry = Some(Retry { op, failures, at: now.plus(wait) });
        let worth_it = match op {
            Op::Prepare | Op::Start => failures < MAX_TRIES,
            // There may be a process: nobody gives up on it.
            Op::Wait | Op::Shutdown | Op::Remove => true,
        };
        Outcome::Failed(Failure { temporary: failure.temporary && worth_it, ..failure })
    }

    /// The task simply is in `state` now. True if that is news.
    pub(crate) fn become_state(&mut self, state: TaskState, now: Timestamp) -> bool {
        match step::advance(&self.task, state, now) {
            Some(status) => {
                self.set(status);
                true
            }
            None => false,
        }
    }

    fn set(&mut self, status: TaskStatus) {
        assert!(status.state > self.task.status.state, "a state only grows");
        Arc::make_mut(&mut self.task).status = status;
    }
}

/// When a task may start, by this node's clock. `start_after` is by the leader's: if this node's clock
/// is behind, the wait is no longer than what the leader saw left of it when it wrote the task.
fn hold_until(task: &Task, now: Timestamp) -> Timestamp {
    let left = task.start_after.since(task.meta.updated_at);
    task.start_after.min(now.plus(left))
}
