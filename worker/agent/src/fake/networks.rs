//! The networks of a [`super::FakeExecutor`]: takes every set, and is what tests say it is.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use swarm_types::id::NetworkId;
use swarm_types::network_set::{NetworkDifference, NetworkSet};
use tokio::sync::watch;

use crate::executor::{ExecError, NetworkService, NetworkStatus};

/// Networks without a kernel.
#[derive(Debug, Default)]
pub struct FakeNetworks {
    set: watch::Sender<Arc<NetworkSet>>,
    status: watch::Sender<NetworkStatus>,
    stuck: watch::Sender<bool>,
    differences: watch::Sender<Vec<NetworkDifference>>,
}

impl FakeNetworks {
    /// The set that was applied last, now and as it changes.
    pub fn set(&self) -> watch::Receiver<Arc<NetworkSet>> {
        self.set.subscribe()
    }

    /// Something cannot be made so, or the node's end changes.
    pub fn change_status(&self, change: impl FnOnce(&mut NetworkStatus)) {
        self.status.send_modify(change);
    }

    /// The kernel stops agreeing with new sets, or goes on.
    pub fn stick(&self, stuck: bool) {
        self.stuck.send_replace(stuck);
    }

    /// What a check is to find.
    pub fn differ(&self, differences: Vec<NetworkDifference>) {
        self.differences.send_replace(differences);
    }
}

impl NetworkService for FakeNetworks {
    fn apply(&self, set: Arc<NetworkSet>) -> BoxFuture<'_, ()> {
        async move {
            let mut stuck = self.stuck.subscribe();
            stuck.wait_for(|stuck| !stuck).await.expect("the sender is in self");
            self.set.send_replace(set);
        }
        .boxed()
    }
    fn check(&self, _network: Option<NetworkId>) -> BoxFuture<'_, Result<Vec<NetworkDifference>, ExecError>> {
        std::future::ready(Ok(self.differences.borrow().clone())).boxed()
    }
    fn status(&self) -> watch::Receiver<NetworkStatus> {
        self.status.subscribe()
    }
}
