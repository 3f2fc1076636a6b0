//! Withdrawal: a task that others send connections to is taken out of all nodes' rules before its own
//! node hears that it is to stop.
//!
//! Reads:   what nodes have acknowledged.
//! Writes:  nothing in the store.
//! Never:   waits longer than [`defaults::WITHDRAW_PATIENCE`] for a node, nor for one that does not answer.
//! Start:   [`Withdrawals::hold`].

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::defaults;
use swarm_types::id::{NodeId, TaskId};
use swarm_types::node::NodeState;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::store::View;

#[derive(Debug, Clone)]
struct Held {
    /// What its node is to be told, once that was decided.
    task: Option<Arc<Task>>,
    /// Who has not said yet that it is out, and the number of the set that says so.
    waiting: BTreeMap<NodeId, u64>,
    until: Timestamp,
    /// It has ended by itself: nothing comes to it any more.
    ended: bool,
    /// When what was sent to it before all had taken it out has come.
    settled: Option<Timestamp>,
}

/// Tasks that are being withdrawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Withdrawals(BTreeMap<TaskId, Held>);

/// The task runs and is asked to stop.
pub(super) fn is_stopping(task: &Task) -> bool {
    !task.is_wanted() && task.status.state == TaskState::Running
}

/// The node is thought to be alive.
pub(super) fn is_ready(view: &View, node: &NodeId) -> bool {
    view.node(node).is_some_and(|node| node.status.state == NodeState::Ready)
}

pub(super) fn ready_nodes(view: &View) -> impl Iterator<Item = NodeId> + '_ {
    view.nodes().filter(|node| node.status.state == NodeState::Ready).map(|node| node.id)
}

impl Withdrawals {
    pub(super) fn hold(&mut self, task: TaskId, waiting: BTreeMap<NodeId, u64>, now: Timestamp) {
        let until = now.plus(defaults::WITHDRAW_PATIENCE);
        self.0.entry(task).or_insert(Held { task: None, waiting, until, ended: false, settled: None });
    }

    pub(super) fn is_held(&self, task: &TaskId) -> bool {
        self.0.contains_key(task)
    }

    pub(super) fn keep_back(&mut self, task: &Arc<Task>) -> bool {
        match self.0.get_mut(&task.id) {
            Some(held) => {
                held.task = Some(task.clone());
                true
            }
            None => false,
        }
    }

    /// Tasks that have ended by themselves are not waited for any longer.
    pub(super) fn settle(&mut self, view: &View) {
        self.0.retain(|id, _| view.task(id).is_some());
        for (id, held) in &mut self.0 {
            if !view.task(id).is_some_and(|task| is_stopping(task)) {
                held.ended = true;
            }
        }
    }

    pub(super) fn registered(&mut self, node: &NodeId, version: u64) {
        for held in self.0.values_mut() {
            if let Some(waited) = held.waiting.get_mut(node) {
                *waited = version;
            }
        }
    }

    pub(super) fn applied(&mut self, node: &NodeId, version: u64) {
        for held in self.0.values_mut() {
            held.waiting.retain(|waited, wanted| waited != node || *wanted > version);
        }
    }

    pub(super) fn gone(&mut self, node: &NodeId) {
        for held in self.0.values_mut() {
            held.waiting.remove(node);
        }
    }

    pub(super) fn take_released(&mut self, now: Timestamp) -> Vec<Arc<Task>> {
        for held in self.0.values_mut() {
            if held.settled.is_none() && (held.waiting.is_empty() || held.until <= now) {
                held.settled = Some(now.plus(defaults::WITHDRAW_SETTLE));
            }
        }
        let done = |held: &Held| held.ended || held.settled.is_some_and(|at| at <= now);
        let ids: Vec<TaskId> = self.0.iter().filter(|(_, held)| done(held)).map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.0.remove(id)?.task).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.0.values().map(|held| held.settled.unwrap_or(held.until)).min()
    }
}
