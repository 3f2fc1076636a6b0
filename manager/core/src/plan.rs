//! Plan: a draft with a reason for each change, bounded in size.
//!
//! Reads:   the view under it.
//! Writes:  what control loops decide, for one transaction.
//! Never:   takes a change without a reason.
//! Start:   [`Plan::new`].

use std::fmt;
use std::ops::Deref;

use swarm_types::cluster::Cluster;
use swarm_types::id::{NodeId, TaskId};
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use crate::reason::Reason;
use crate::store::{Change, Checkpoint, Draft, Event, Key, Transaction, View};

/// Most changes of one plan, unless said otherwise: what does not fit waits for the next pass.
pub const MAX_CHANGES: usize = 20_000;

/// What one pass of the leader's loops wants to change. Dereferences to the view with these changes.
///
/// Its `Display`, one line for each change, is what logs and dry runs show.
#[derive(Debug, Clone)]
pub struct Plan {
    draft: Draft,
    reasons: Vec<(Key, Reason)>,
    fresh: Vec<Event>,
    max_changes: usize,
}

/// A moment to which [`Plan::rollback`] returns.
#[derive(Debug, Clone)]
pub struct PlanCheckpoint {
    draft: Checkpoint,
    changes: usize,
}

impl Deref for Plan {
    type Target = View;
    fn deref(&self) -> &View {
        &self.draft
    }
}

impl Plan {
    /// An empty plan on `view` with room for [`MAX_CHANGES`].
    pub fn new(view: View, now: Timestamp) -> Plan {
        Plan {
            draft: Draft::new(view, now),
            reasons: Vec::new(),
            fresh: Vec::new(),
            max_changes: MAX_CHANGES,
        }
    }
    /// The same with room for `changes`.
    #[must_use]
    pub fn with_room_for(mut self, changes: usize) -> Plan {
        self.max_changes = changes;
        self
    }
    /// The time that its changes get.
    pub fn now(&self) -> Timestamp {
        self.draft.now()
    }
    /// The view without its changes.
    pub fn base(&self) -> &View {
        self.draft.base()
    }
    /// Creates or updates the cluster. Nothing happens if it is as it was; true if it changed.
    pub fn put_cluster(&mut self, cluster: Cluster, reason: Reason) -> bool {
        self.write(Key::Cluster, reason, |draft| draft.put_cluster(cluster))
    }
    /// Creates or updates a node; see [`Plan::put_cluster`].
    pub fn put_node(&mut self, node: Node, reason: Reason) -> bool {
        self.write(Key::Node(node.id), reason, |draft| draft.put_node(node))
    }
    /// Creates or updates a network; see [`Plan::put_cluster`].
    pub fn put_network(&mut self, network: Network, reason: Reason) -> bool {
        self.write(Key::Network(network.id), reason, |draft| draft.put_network(network))
    }
    /// Creates or updates a service; see [`Plan::put_cluster`].
    pub fn put_service(&mut self, service: Service, reason: Reason) -> bool {
        self.write(Key::Service(service.id), reason, |draft| draft.put_service(service))
    }
    /// Creates or updates a task; see [`Plan::put_cluster`].
    pub fn put_task(&mut self, task: Task, reason: Reason) -> bool {
        self.write(Key::Task(task.id), reason, |draft| draft.put_task(task))
    }
    /// Deletes a task, if there is one; true if there was.
    pub fn delete_task(&mut self, id: &TaskId, reason: Reason) -> bool {
        self.write(Key::Task(*id), reason, |draft| draft.delete_task(id))
    }
    /// Deletes a node, if there is one; true if there was.
    pub fn delete_node(&mut self, id: &NodeId, reason: Reason) -> bool {
        self.write(Key::Node(*id), reason, |draft| draft.delete_node(id))
    }
    /// Makes the plan depend on an object that was only read; see [`Draft::require_unchanged`].
    pub fn require_unchanged(&mut self, key: Key) {
        self.draft.require_unchanged(key);
    }

    fn write(&mut self, key: Key, reason: Reason, write: impl FnOnce(&mut Draft) -> bool) -> bool {
        if !write(&mut self.draft) {
            return false;
        }
        self.reasons.push((key, reason));
        let old = self.draft.before().last().cloned().flatten();
        let new = self.draft.changes().last().and_then(Change::object);
        self.fresh.push(match (old, new) {
            (Some(old), Some(new)) => Event::Updated { old, new },
            (None, Some(new)) => Event::Created(new),
            (Some(old), None) => Event::Deleted(old),
            (None, None) => unreachable!("a draft said that it changed what is not there"),
        });
        true
    }

    /// True if no more should be planned in this pass.
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }
    /// How many more changes there is room for.
    pub fn room(&self) -> usize {
        self.max_changes.saturating_sub(self.draft.len())
    }
    /// How many changes were planned.
    pub fn len(&self) -> usize {
        self.draft.len()
    }
    /// True if nothing was planned.
    pub fn is_empty(&self) -> bool {
        self.draft.is_empty()
    }
    /// What was planned so far, as the events that it will become, in order.
    pub fn fresh(&self) -> &[Event] {
        &self.fresh
    }
    /// Why each change was made, in order.
    pub fn reasons(&self) -> &[(Key, Reason)] {
        &self.reasons
    }

    /// Remembers this moment.
    pub fn checkpoint(&self) -> PlanCheckpoint {
        PlanCheckpoint { draft: self.draft.checkpoint(), changes: self.reasons.len() }
    }
    /// Drops all that was planned since `to`.
    pub fn rollback(&mut self, to: PlanCheckpoint) {
        self.draft.rollback(to.draft);
        self.reasons.truncate(to.changes);
        self.fresh.truncate(to.changes);
    }
    /// The transaction to propose, and why each change is made.
    pub fn into_parts(self) -> (Transaction, Vec<(Key, Reason)>) {
        (self.draft.into_transaction(), self.reasons)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (event, (key, reason)) in self.fresh.iter().zip(&self.reasons) {
            let verb = match event {
                Event::Created(_) => "create",
                Event::Updated { .. } => "update",
                Event::Deleted(_) => "delete",
            };
            writeln!(f, "{verb} {key}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::testing;

    #[test]
    fn shows_what_and_why_and_forgets_what_is_rolled_back() {
        let mut plan = Plan::new(View::default(), Timestamp(1)).with_room_for(2);
        assert!(plan.put_node(testing::node("n1"), Reason::NodeRegistered));
        assert!(!plan.put_node(testing::node("n1"), Reason::NodeRegistered));
        let here = plan.checkpoint();
        assert!(plan.put_task(Task { id: "t1".into(), ..Task::default() }, Reason::ScaledUp));
        assert!(plan.is_full());
        assert_eq!(plan.to_string(), "create node n1: node registered\ncreate task t1: scaled up\n");
        plan.rollback(here);
        assert_eq!(plan.task_count(), 0);
        assert_eq!(plan.fresh().len(), 1);
        assert_eq!(plan.into_parts().0.changes.len(), 1);
    }
}
