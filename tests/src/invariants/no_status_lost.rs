//! Once all is calm, what a node knows of its tasks is what the managers know (agent, dispatcher).
//!
//! States before RUNNING are not compared: they are never in the log, by design (docs/adr/0005). Nor is ORPHANED,
//! the one state that the leader says and no node. A removed node has nobody to tell; nor has one that can
//! ask nobody who the managers are.

use swarm_types::task_state::TaskState;

use crate::invariants::settles::restless;
use crate::sim::Sim;

/// Compares the agents with the store.
///
/// # Errors
/// If a status did not arrive.
pub fn check(sim: &Sim) -> Result<(), String> {
    let restless = restless(sim.view());
    let has_somebody = |n: &usize| sim.view().node(&sim.hosts[*n].node).is_some() && sim.can_ask(*n);
    for host in (0..sim.hosts.len()).filter(has_somebody).map(|n| &sim.hosts[n]) {
        let Some(running) = &host.worker.running else { continue };
        for (id, entry) in running.agent.tasks() {
            let Some(stored) = sim.view().task(id).filter(|t| !restless.contains(&t.service)) else {
                continue;
            };
            let mine = &entry.task().status;
            let matters = mine.state >= TaskState::Running && stored.status.state != TaskState::Orphaned;
            if matters && stored.status.state != mine.state {
                return Err(format!(
                    "task {id} is {} on {}, {} in the store",
                    mine.state, host.name, stored.status.state
                ));
            }
        }
        if running.agent.owed() > 0 && restless.is_empty() {
            return Err(format!("{} owes {} statuses", host.name, running.agent.owed()));
        }
    }
    Ok(())
}
