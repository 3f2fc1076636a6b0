//! What nodes are told of the networks, carried over the simulated net, and kernels that take a while
//! to agree.

use std::sync::Arc;

use swarm_manager_core::leader::{Input as LeaderInput, NetworkReport};
use swarm_types::id::SessionId;
use swarm_types::network_set::NetworkSet;
use swarm_worker_core::agent::Input;
use swarm_worker_core::networks::NetworkReport as Report;

use super::Sim;
use super::event::What;
use super::net::Host;

/// A kernel agrees within so many milliseconds.
const SLOWEST_MS: u64 = 40;

impl Sim {
    /// The agent's kernel is to agree with `set`, which is kept on the disk too.
    pub fn apply_networks(&mut self, host: Host, turn: u64, set: Arc<NetworkSet>) {
        let took = 1 + self.dice.below(SLOWEST_MS);
        let life = self.hosts[host].life;
        self.hosts[host].worker.networks = Some(set);
        self.after(took, What::KernelAgrees { host, life, turn });
    }

    /// It does.
    pub fn kernel_agrees(&mut self, host: Host, turn: u64) {
        self.agent_in(host, Input::NetworksApplied(turn));
    }

    /// The agent of a host says so, and a manager takes it in.
    pub fn take_network_report(
        &mut self,
        host: Host,
        from: Host,
        (conn, session): (u64, SessionId),
        report: Report,
    ) -> bool {
        let current = self.session_is_current(host, from, conn, session);
        if current {
            let Report { applied, problems, description } = report;
            let report = NetworkReport { applied, problems, description };
            let node = self.hosts[from].node;
            self.leader_in(host, LeaderInput::NetworkStatus(node, session, report));
        }
        current
    }
}
