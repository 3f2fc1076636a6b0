//! The state and the desired state of a task never go back (task model).

use swarm_types::task::Task;

/// Compares a task with what it was.
///
/// # Errors
/// If a state went back, or an ended task ended otherwise.
pub fn check(old: &Task, new: &Task) -> Result<(), String> {
    let (a, b) = (old.status.state, new.status.state);
    if b < a || (a.is_terminal() && a != b) {
        return Err(format!("task {} went from {a} to {b}", new.id));
    }
    if new.desired_state < old.desired_state {
        return Err(format!("desired state of task {} went back to {}", new.id, new.desired_state));
    }
    Ok(())
}
