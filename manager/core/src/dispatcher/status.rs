//! Statuses: which of what agents say of their tasks enters the store.
//!
//! Reads:   tasks.
//! Writes:  Task.status from ACCEPTED on.
//! Never:   lets a state go back; takes a word of a node on another node's task.
//! Start:   [`Statuses::take`].
//!
//! Passing states (ACCEPTED to STARTING) stay in the leader's memory: agents say them again when
//! they register with another leader. RUNNING and final states are committed, as many to a
//! transaction as have gathered while the one before was on its way.

use std::collections::{BTreeMap, BTreeSet};

use swarm_types::id::{NodeId, TaskId};
use swarm_types::task::{Task, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object, View};

/// What became of a reported status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It says something new, and will be committed.
    Commit,
    /// It says something new that is kept in memory.
    Passing,
    /// It is old, repeated, or not the node's to say.
    Ignored,
    /// There is no such task: the node is to drop it.
    NoSuchTask,
}

/// What agents said that is newer than the store.
#[derive(Debug, Clone, Default)]
pub struct Statuses {
    newer: BTreeMap<TaskId, TaskStatus>,
    /// Those of `newer` that are to be committed.
    to_commit: BTreeSet<TaskId>,
    /// Those of `to_commit` that the next plan looks at.
    dirty: BTreeSet<TaskId>,
}

impl Statuses {
    /// Takes in what `node` says of a task, at the leader's time `now`.
    pub fn take(
        &mut self,
        view: &View,
        node: &NodeId,
        id: TaskId,
        says: TaskStatus,
        now: Timestamp,
    ) -> Verdict {
        let Some(task) = view.task(&id) else { return Verdict::NoSuchTask };
        let known = self.newer.get(&id).unwrap_or(&task.status);
        if task.node != *node || !may_follow(known, &says) {
            return Verdict::Ignored;
        }
        let commit = is_committed(known, &says) || self.to_commit.contains(&id);
        self.newer.insert(id, TaskStatus { applied_at: now, ..says });
        if !commit {
            return Verdict::Passing;
        }
        self.to_commit.insert(id);
        self.dirty.insert(id);
        Verdict::Commit
    }

    /// What is known of a task that the store does not say (yet).
    pub fn newer(&self, task: &TaskId) -> Option<&TaskStatus> {
        self.newer.get(task)
    }
    /// Something is to be written.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
    /// The last plan may be lost: looks at all that is not committed again.
    pub fn replan(&mut self) {
        self.dirty.clone_from(&self.to_commit);
    }

    fn drop_task(&mut self, id: &TaskId) {
        self.newer.remove(id);
        self.to_commit.remove(id);
        self.dirty.remove(id);
    }
}

/// True if `says` may come after `known`: only forward, the first final state stands, and of one
/// state only what differs in substance.
fn may_follow(known: &TaskStatus, says: &TaskStatus) -> bool {
    let sayable = says.state >= TaskState::Accepted && says.state < TaskState::Remove;
    if !sayable || known.state.is_terminal() || known.state < TaskState::Assigned {
        return false;
    }
    let same = says.message == known.message && says.err == known.err && says.container == known.container;
    says.state > known.state || (says.state == known.state && !same)
}

/// True if `says`, which may follow `known`, is worth a commit: the task runs or has ended, and it
/// is not only the words that changed.
fn is_committed(known: &TaskStatus, says: &TaskStatus) -> bool {
    let runs = says.state >= TaskState::Running;
    runs && (says.state > known.state || says.err != known.err || says.container != known.container)
}

/// True if the store says as much as `says`.
fn is_stored(task: &Task, says: &TaskStatus) -> bool {
    let (stored, same) = (&task.status, task.status.container == says.container);
    stored.state > says.state || (stored.state == says.state && same && stored.err == says.err)
}

impl ControlLoop for Statuses {
    fn restore(_: &View) -> Statuses {
        Statuses::default()
    }

    fn observe(&mut self, event: &Event) {
        let Object::Task(task) = event.latest() else { return };
        let gone = event.now().is_none();
        if gone || self.newer.get(&task.id).is_some_and(|newer| is_stored(task, newer)) {
            self.drop_task(&task.id);
        }
    }

    fn plan(&mut self, plan: &mut Plan, _: &mut Context<'_>) -> Wake {
        while let Some(id) = self.dirty.first().copied() {
            if plan.is_full() {
                return Wake::Now;
            }
            self.dirty.pop_first();
            let Some(says) = self.newer.get(&id) else { continue };
            match plan.task(&id) {
                Some(task) if !is_stored(task, says) => {
                    let mut task = Task::clone(task);
                    task.status = says.clone();
                    plan.put_task(task, Reason::Reported);
                }
                Some(_) | None => self.drop_task(&id),
            }
        }
        Wake::Never
    }
}

#[cfg(test)]
mod tests;
