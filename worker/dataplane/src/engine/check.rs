//! Comparing what is wanted with what is there, in the words that people know things by.

use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::NetworkDifference;
use swarm_worker_agent::executor::ExecError;
use swarm_worker_core::network::kernel::Place;
use swarm_worker_network::Difference;

use super::Engine;
use crate::tunnel::chain;

impl Engine {
    pub(super) async fn check(
        &self,
        network: Option<NetworkId>,
    ) -> Result<Vec<NetworkDifference>, ExecError> {
        let ask = |e: swarm_worker_network::KernelError| ExecError::Temporary(chain(&e));
        let all = self.kernel.check(None).await.map_err(ask)?;
        let ingress = self.set.ingress().map(|entry| entry.network.id);
        let meant = |difference: &Difference| match (network, difference.place) {
            (None, _) => true,
            (Some(network), Place::Sandbox(id)) => id == network,
            (Some(network), Place::Host) => Some(network) == ingress,
            (Some(network), Place::Task(id)) => {
                self.tasks.get(&id).is_some_and(|t| t.attachments.iter().any(|a| a.network == network))
            }
        };
        let named = |difference: Difference| {
            let place = match difference.place {
                Place::Host => "host".to_owned(),
                Place::Sandbox(id) => self.name(id),
                Place::Task(id) => format!("task {}", self.task_name(id)),
            };
            difference.named(place)
        };
        let mut found: Vec<_> = all.into_iter().filter(meant).map(named).collect();
        found.extend(self.tunnel.differences());
        found.sort();
        Ok(found)
    }

    pub(super) fn name(&self, network: NetworkId) -> String {
        let known = self.set.networks.get(&network).map(|entry| entry.network.name.clone());
        known.unwrap_or_else(|| network.to_string())
    }

    pub(super) fn task_name(&self, task: TaskId) -> String {
        let mut entries = self.set.networks.values();
        let known = entries.find_map(|entry| entry.endpoints.get(&task)).map(|e| e.name.clone());
        known.unwrap_or_else(|| task.to_string())
    }
}
