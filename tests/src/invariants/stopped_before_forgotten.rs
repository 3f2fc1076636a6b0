//! A task that a node has is forgotten only after it has ended (task model), or was given up.

use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

/// Looks at a task that was just deleted; `runs`: its container does, on a node that is still known.
///
/// # Errors
/// If it had not ended.
pub fn check(task: &Task, runs: bool) -> Result<(), String> {
    let state = task.status.state;
    // The store may learn of the end and forget the task in one entry: only the node can be asked.
    if runs && state != TaskState::Orphaned {
        return Err(format!("task {} was forgotten as {state}, and its container runs", task.id));
    }
    Ok(())
}
