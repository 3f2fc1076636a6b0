//! A task is never moved: its node, once chosen, its slot and its service stay (task model).

use swarm_types::task::Task;

/// Compares a task with what it was.
///
/// # Errors
/// If it was moved.
pub fn check(old: &Task, new: &Task) -> Result<(), String> {
    let moved = !old.node.is_empty() && old.node != new.node;
    if moved || old.service != new.service || old.slot != new.slot {
        return Err(format!("task {} moved from {} to {}", new.id, old.name(), new.name()));
    }
    Ok(())
}
