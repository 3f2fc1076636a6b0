//! A task that a node has is forgotten only after it has ended there (task model), or was given up.
//!
//! What is asked is the node itself, its agent and its disk, not the store: the leader may hear of an end and
//! forget the task in one plan, which nobody can see in the store. A node that is no member any more is not asked: it
//! was removed by force, its tasks are given up with it. A power cut may take the end of a task from a node's journal,
//! which is not synced (worker/agent/src/journal.rs): what the node knew before counts.

use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::sim::Sim;
use crate::sim::net::Host;

/// Looks at a task that was just deleted; `host`: its node, if that is still known.
///
/// # Errors
/// If it had not ended.
pub fn check(sim: &Sim, task: &Task, host: Option<Host>) -> Result<(), String> {
    let state = task.status.state;
    let Some(host) = host.filter(|_| state != TaskState::Orphaned) else { return Ok(()) };
    if sim.is_running(host, &task.id) {
        return Err(format!("task {} was forgotten as {state}, and its container runs", task.id));
    }
    match sim.unended_on(host, &task.id) {
        Some(there) => Err(format!("task {} was forgotten as {state}, its node has it as {there}", task.id)),
        None => Ok(()),
    }
}
