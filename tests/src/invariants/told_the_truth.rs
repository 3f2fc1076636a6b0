//! At rest every node was told of the networks what the store says, no more and no less: what
//! differences made of its set is what a complete set would say (ADR 12).

use swarm_manager_core::dispatcher::Networks;
use swarm_types::network_set::NetworkSet;
use swarm_types::time::Timestamp;

use crate::sim::Sim;

/// Whether all nodes that answer know the truth.
///
/// # Errors
/// Which node does not, and where it differs.
pub fn check(sim: &Sim) -> Result<(), String> {
    let view = sim.view();
    for host in sim.hosts.iter().filter(|host| host.up && !host.paused) {
        let Some(running) = host.worker.running.as_ref() else { continue };
        let Some(session) = running.agent.session().filter(|_| view.node(&host.node).is_some()) else {
            continue;
        };
        let mut networks = Networks::new(&view, Timestamp::ZERO);
        let mut truth = NetworkSet::default();
        truth.take(&networks.register(&view, host.node, session).message);
        let told = running.agent.network_set();
        truth.version = told.version;
        if truth != **told {
            return Err(format!("{} was told {told:?}, the truth is {truth:?}", host.node));
        }
    }
    Ok(())
}
