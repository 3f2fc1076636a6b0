//! Assignments: what each node is told to have.
//!
//! Reads:   tasks.
//! Writes:  nothing in the store; messages to agents.
//! Never:   scans tasks for a change: a complete set once a session, then events.
//! Start:   [`Assignments::register`], [`Assignments::observe`].
//!
//! A task is in its node's set from ASSIGNED until it is *deleted from the store*, ended tasks
//! included: an agent keeps an ended task's container, for its logs and for inspection, as long as
//! the task is in the set, and drops it when told [`AssignmentChange::Remove`], or when a complete
//! set does not name it. So the history that the reaper keeps is the one that nodes keep.
//! ORPHANED tasks are in no set: a node that comes back after so long drops them.
//!
//! Agents are not told what they said themselves: a change of status alone makes no message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::assignment::{AssignmentChange, AssignmentsKind, AssignmentsMessage};
use swarm_types::id::{NodeId, SessionId, TaskId};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::store::{Event, Object, View};

/// A message for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub node: NodeId,
    /// In which session.
    pub session: SessionId,
    /// What.
    pub message: AssignmentsMessage,
}

#[derive(Debug, Clone)]
struct Stream {
    session: SessionId,
    sent: u64,
    changes: BTreeMap<TaskId, AssignmentChange>,
}

/// What each node with a session is told to have.
#[derive(Debug, Clone, Default)]
pub struct Assignments {
    streams: BTreeMap<NodeId, Stream>,
    /// Nodes whose stream has changes to be sent.
    touched: BTreeSet<NodeId>,
}

/// True if the task belongs to the set of the node in `task.node`.
pub fn is_assigned(task: &Task) -> bool {
    let state = task.status.state;
    !task.node.is_empty() && state >= TaskState::Assigned && state != TaskState::Orphaned
}

impl Assignments {
    /// A session began: the complete set, numbered 1. Tasks that are kept back are in it as running on;
    /// they are given back too, for [`Assignments::update`] when their time has come.
    pub fn register(
        &mut self,
        view: &View,
        node: NodeId,
        session: SessionId,
        kept_back: impl Fn(&TaskId) -> bool,
    ) -> (Delivery, Vec<Arc<Task>>) {
        let (mut changes, mut kept) = (Vec::new(), Vec::new());
        for task in view.tasks_on_node(&node).filter(|task| is_assigned(task)) {
            if kept_back(&task.id) {
                kept.push(task.clone());
                let running = Task { desired_state: TaskState::Running, ..Task::clone(task) };
                changes.push(AssignmentChange::Update(Arc::new(running)));
            } else {
                changes.push(AssignmentChange::Update(task.clone()));
            }
        }
        self.streams.insert(node, Stream { session, sent: 1, changes: BTreeMap::new() });
        let message = AssignmentsMessage { kind: AssignmentsKind::Complete, results_in: 1, changes };
        (Delivery { node, session, message }, kept)
    }

    /// A session ended.
    pub fn ended(&mut self, node: &NodeId, session: SessionId) {
        if self.streams.get(node).is_some_and(|stream| stream.session == session) {
            self.streams.remove(node);
        }
    }

    /// Notes what a committed event means for a node, unless `keep_back` takes the task.
    pub fn observe(&mut self, event: &Event, mut keep_back: impl FnMut(&Arc<Task>) -> bool) {
        let task = |object: Option<&Object>| match object {
            Some(Object::Task(task)) if is_assigned(task) => Some(task.clone()),
            _ => None,
        };
        match (task(event.before()), task(event.now())) {
            (None, None) => {}
            (Some(old), None) => self.note(&old.node, old.id, AssignmentChange::Remove(old.id)),
            (None, Some(new)) => self.update(new),
            (Some(old), Some(new)) => {
                if tells_something(&old, &new) && !keep_back(&new) {
                    self.update(new);
                }
            }
        }
    }

    /// A node spoke of a task that is not (any more) in the store: it is to drop it.
    pub fn forget(&mut self, node: &NodeId, task: TaskId) {
        self.note(node, task, AssignmentChange::Remove(task));
    }

    /// Notes that a node is to have the task as it is here.
    pub fn update(&mut self, task: Arc<Task>) {
        let node = task.node;
        self.note(&node, task.id, AssignmentChange::Update(task));
    }

    fn note(&mut self, node: &NodeId, task: TaskId, change: AssignmentChange) {
        if let Some(stream) = self.streams.get_mut(node) {
            stream.changes.insert(task, change);
            self.touched.insert(*node);
        }
    }

    /// The noted changes, one message for each node that has any.
    pub fn flush(&mut self) -> Vec<Delivery> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().filter_map(|node| self.flush_node(node)).collect()
    }

    fn flush_node(&mut self, node: NodeId) -> Option<Delivery> {
        let stream = self.streams.get_mut(&node)?;
        let changes: Vec<_> = std::mem::take(&mut stream.changes).into_values().collect();
        if changes.is_empty() {
            return None;
        }
        let kind = AssignmentsKind::Incremental { applies_to: stream.sent };
        stream.sent += 1;
        let message = AssignmentsMessage { kind, results_in: stream.sent, changes };
        Some(Delivery { node, session: stream.session, message })
    }
}

/// Something changed that an agent acts upon.
fn tells_something(old: &Task, new: &Task) -> bool {
    old.desired_state != new.desired_state || old.start_after != new.start_after || old.spec != new.spec
}
