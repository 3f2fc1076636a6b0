//! Step: the next operation of one task, and what its outcome makes of the task's status.
//!
//! Reads:   one task (its desired state, its status) and [`Facts`] of its container.
//! Writes:  `Task.status` from ACCEPTED, as a value.
//! Never:   remembers anything; lets a state go back; starts what is to stop.
//! Start:   [`next`].

use swarm_types::task::{ContainerStatus, Task, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::observed::{Exit, Found, FoundState};

/// Something to be done with a task's container. One at a time for each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Have the image here and the container made.
    Prepare,
    /// Start the container.
    Start,
    /// Wait for its end.
    Wait,
    /// Stop signal, grace period, kill, for what runs; in any case its links go.
    Shutdown,
    /// Remove the container and its logs.
    Remove,
}

impl Op {
    /// For logs: `prepare`, `start`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Prepare => "prepare",
            Op::Start => "start",
            Op::Wait => "wait",
            Op::Shutdown => "shutdown",
            Op::Remove => "remove",
        }
    }
    /// It takes long and may be dropped when the task is to stop. (A start is quick, and dropping it
    /// would leave open whether the container runs.)
    pub fn is_interruptible(self) -> bool {
        matches!(self, Op::Prepare | Op::Wait)
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Prepared, or removed.
    Done,
    /// Started: the container.
    Started(ContainerStatus),
    /// The container has ended: by itself (`Wait`) or because it was asked to (`Shutdown`).
    Ended(Exit),
    /// It could not be done.
    Failed(Failure),
    /// It was dropped because the agent said `Cancel`.
    Cancelled,
}

/// Why an operation could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// It may work if it is tried again.
    pub temporary: bool,
    /// For the user.
    pub err: String,
}

/// What the agent knows about a task beside its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// A manager named the task since the daemon started: what was not started before the restart
    /// is not started before a manager still wants it.
    pub confirmed: bool,
    /// The task is not assigned any more: stop it, remove its container, forget it.
    pub removing: bool,
    /// There may be a process, or what is made for one before it starts: links, whose addresses are to be free
    /// when the task has ended.
    pub may_hold: bool,
    /// Not to be started before this.
    pub hold_until: Timestamp,
}

impl Facts {
    /// No process of this task may stay.
    pub fn must_stop(&self, task: &Task) -> bool {
        self.removing
            || task.desired_state >= TaskState::Shutdown
            || (task.status.state.is_terminal() && self.may_hold)
    }
}

/// What is next for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This operation.
    Do(Op),
    /// Nothing to do, it just is in this state now.
    Become(TaskState),
    /// Nothing before this time.
    Until(Timestamp),
    /// Nothing until something changes.
    Rest,
}

/// What is next for a task that no operation runs for.
pub fn next(task: &Task, facts: &Facts, now: Timestamp) -> Next {
    let state = task.status.state;
    if state.is_terminal() {
        return match (facts.may_hold, facts.removing) {
            (true, _) => Next::Do(Op::Shutdown),
            (false, true) => Next::Do(Op::Remove),
            (false, false) => Next::Rest,
        };
    }
    if facts.must_stop(task) {
        return if facts.may_hold { Next::Do(Op::Shutdown) } else { Next::Become(TaskState::Shutdown) };
    }
    if state < TaskState::Accepted {
        return Next::Become(TaskState::Accepted);
    }
    if state == TaskState::Running {
        return Next::Do(Op::Wait);
    }
    if !facts.confirmed {
        return Next::Rest;
    }
    match state {
        TaskState::Accepted | TaskState::Preparing => Next::Do(Op::Prepare),
        TaskState::Ready if task.desired_state < TaskState::Running => Next::Rest,
        TaskState::Ready if now < facts.hold_until => Next::Until(facts.hold_until),
        _ => Next::Do(Op::Start),
    }
}

/// The status of a task when `op` begins; none if it stays.
pub fn begin(task: &Task, op: Op, now: Timestamp) -> Option<TaskStatus> {
    match op {
        Op::Prepare => advance(task, TaskState::Preparing, now),
        Op::Start => advance(task, TaskState::Starting, now),
        Op::Wait | Op::Shutdown | Op::Remove => None,
    }
}

/// The status of a task when `op` has ended so; none if it stays. A temporary failure changes
/// nothing here: the caller tries again, or makes it final.
pub fn after(task: &Task, op: Op, outcome: &Outcome, now: Timestamp) -> Option<TaskStatus> {
    match (op, outcome) {
        (Op::Prepare, Outcome::Done) => advance(task, TaskState::Ready, now),
        (Op::Start, Outcome::Started(container)) => {
            let mut status = advance(task, TaskState::Running, now)?;
            status.container = Some(container.clone());
            Some(status)
        }
        // It never ran: there is no exit to tell of.
        (Op::Shutdown, Outcome::Ended(_)) if task.status.state < TaskState::Starting => {
            advance(task, TaskState::Shutdown, now)
        }
        (Op::Shutdown, Outcome::Ended(exit)) => ended(task, TaskState::Shutdown, exit, now),
        (Op::Start | Op::Wait, Outcome::Ended(exit)) => ended(task, verdict(task, exit), exit, now),
        (Op::Prepare, Outcome::Failed(f)) if !f.temporary => failed(task, TaskState::Rejected, &f.err, now),
        (Op::Start | Op::Wait, Outcome::Failed(f)) if !f.temporary => {
            failed(task, TaskState::Failed, &f.err, now)
        }
        (
            Op::Prepare | Op::Start | Op::Wait | Op::Shutdown | Op::Remove,
            Outcome::Done | Outcome::Started(_) | Outcome::Ended(_) | Outcome::Failed(_) | Outcome::Cancelled,
        ) => None,
    }
}

/// The status that follows from what was found of a container after a restart of the daemon; none if
/// it stays.
pub fn found(task: &Task, found: &Found, now: Timestamp) -> Option<TaskStatus> {
    match &found.state {
        FoundState::Created => None,
        FoundState::Running => {
            let mut status = advance(task, TaskState::Running, now)?;
            status.container = Some(found.container.clone());
            Some(status)
        }
        FoundState::Exited(exit) => {
            let mut status = ended(task, verdict(task, exit), exit, now)?;
            if let Some(container) = &mut status.container
                && container.container_id.is_empty()
            {
                container.container_id.clone_from(&found.container.container_id);
            }
            Some(status)
        }
    }
}

/// The status of a task that simply is in `state` now; none if it is there or further already, or
/// has ended: how it ended is not changed any more.
pub fn advance(task: &Task, state: TaskState, now: Timestamp) -> Option<TaskStatus> {
    if state <= task.status.state || task.status.state.is_terminal() {
        return None;
    }
    Some(TaskStatus {
        state,
        at: now,
        applied_at: Timestamp::ZERO,
        message: message(state).into(),
        err: String::new(),
        container: task.status.container.clone(),
    })
}

/// The state that a container's end puts its task in.
fn verdict(task: &Task, exit: &Exit) -> TaskState {
    match (task.desired_state >= TaskState::Shutdown, exit.code) {
        (true, _) => TaskState::Shutdown,
        (false, 0) => TaskState::Complete,
        (false, _) => TaskState::Failed,
    }
}

fn ended(task: &Task, state: TaskState, exit: &Exit, now: Timestamp) -> Option<TaskStatus> {
    let mut status = advance(task, state, if exit.at.is_zero() { now } else { exit.at })?;
    let container = status.container.get_or_insert_default();
    container.pid = 0;
    container.exit_code = exit.code;
    container.oom_killed = exit.oom_killed;
    if state == TaskState::Failed {
        status.err = exit_words(exit);
    }
    Some(status)
}

/// Docker's words for an exit that is a failure, and the reason that Docker does not give.
fn exit_words(exit: &Exit) -> String {
    let oom = if exit.oom_killed { ": OOM killed" } else { "" };
    format!("task: non-zero exit ({}){oom}", exit.code)
}

fn failed(task: &Task, state: TaskState, err: &str, now: Timestamp) -> Option<TaskStatus> {
    let mut status = advance(task, state, now)?;
    // What it was doing says more than "failed", which the state says.
    status.message.clone_from(&task.status.message);
    status.err = err.into();
    if let Some(container) = &mut status.container {
        container.pid = 0;
    }
    Some(status)
}

/// Docker's message for a state.
fn message(state: TaskState) -> &'static str {
    match state {
        TaskState::New => "created",
        TaskState::Pending => "pending task scheduling",
        TaskState::Assigned => "scheduler assigned task to node",
        TaskState::Accepted => "accepted",
        TaskState::Preparing => "preparing",
        TaskState::Ready => "prepared",
        TaskState::Starting => "starting",
        TaskState::Running | TaskState::Failed => "started",
        TaskState::Complete => "finished",
        TaskState::Shutdown | TaskState::Remove => "shutdown",
        TaskState::Rejected => "preparing",
        TaskState::Orphaned => "orphaned",
    }
}

#[cfg(test)]
mod tests;
