//! When a task is given to a node, the node has what all its tasks reserve.

use swarm_manager_core::store::View;
use swarm_types::id::NodeId;
use swarm_types::resources::Resources;

/// Looks at a node that was just given a task.
///
/// # Errors
/// If it has less than its tasks reserve.
pub fn check(view: &View, id: &NodeId) -> Result<(), String> {
    let Some(node) = view.node(id) else { return Ok(()) };
    let tasks = view.tasks_on_node(id).filter(|t| t.status.state.consumes_resources());
    let used = tasks.fold(Resources::default(), |sum, t| sum.plus(t.spec.resources.reservations));
    if node.description.resources.covers(used) {
        return Ok(());
    }
    Err(format!("node {id} has {:?}, its tasks reserve {used:?}", node.description.resources))
}
