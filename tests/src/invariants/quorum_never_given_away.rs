//! Taking a member out of the group leaves a majority that works now (Members::check).

use crate::sim::Sim;

/// A host that stopped working so recently counts as working: nobody can know yet.
const UNKNOWABLE_MS: u64 = 2500;

/// Looks at the group without a member that the leader on `host` takes out.
///
/// # Errors
/// If those that are left could not decide anything.
pub fn check(sim: &Sim, host: usize, raft_id: u64) -> Result<(), String> {
    let manager = sim.hosts[host].manager.as_ref().and_then(|m| m.running.as_ref());
    let Some(manager) = manager else { return Ok(()) };
    let mut voters = manager.core.members().voters();
    voters.remove(&raft_id);
    let works = |id: &&u64| {
        let Some(state) = sim.host_of(**id).map(|h| &sim.hosts[h]) else { return false };
        (state.up && !state.paused) || sim.now_ms < state.good_ms + UNKNOWABLE_MS
    };
    let working = voters.iter().filter(works).count();
    if working > voters.len() / 2 {
        return Ok(());
    }
    Err(format!("without {raft_id}, {working} of {} voters work", voters.len()))
}
