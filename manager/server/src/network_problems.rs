//! What nodes said that they could not do of their networks: kept in the leader's memory, shown to users.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use swarm_types::id::NodeId;
use swarm_types::network_set::NetworkProblem;

/// The problems of all nodes, as they said last.
#[derive(Default)]
pub(crate) struct NetworkProblems(Mutex<BTreeMap<NodeId, Vec<NetworkProblem>>>);

impl NetworkProblems {
    /// A node has these now.
    pub(crate) fn note(&self, node: NodeId, problems: Vec<NetworkProblem>) {
        match problems.is_empty() {
            true => drop(self.lock().remove(&node)),
            false => drop(self.lock().insert(node, problems)),
        }
    }

    /// Those of one node.
    pub(crate) fn of(&self, node: &NodeId) -> Vec<NetworkProblem> {
        self.lock().get(node).cloned().unwrap_or_default()
    }

    /// This manager does not lead any more.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<NetworkProblem>>> {
        self.0.lock().expect("no code panics while it holds the problems")
    }
}
