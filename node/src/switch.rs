//! What the doors lead to: the node's own API (local socket only), and the manager's, if this node
//! is one just now.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use swarm_manager_server::Calls;
use swarm_proto::LEADER_METADATA;
use swarm_worker_agent::Status;
use tokio::sync::watch;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// Docker's words: scripts look for them.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster \
     state. Please run this command on a manager node or promote the current node to a manager.";
const NOT_IN_A_SWARM: &str = "This node is not a swarm manager. Use \"swarmctl init\" or \"swarmctl join\" to connect \
     this node to swarm and try again.";

/// The manager's API while there is one.
#[derive(Clone, Default)]
pub(crate) struct ManagerCalls {
    calls: Arc<ArcSwapOption<Calls>>,
    place: Arc<ArcSwapOption<Place>>,
}

/// This node's place in a cluster.
pub(crate) struct Place {
    /// What its agent knows.
    pub(crate) agent: watch::Receiver<Status>,
    /// `host:port` under which other nodes know it.
    pub(crate) addr: String,
}

impl ManagerCalls {
    pub(crate) fn set(&self, calls: Option<Calls>) {
        self.calls.store(calls.map(Arc::new));
    }
    /// This node belongs to a cluster from now on, or to none.
    pub(crate) fn set_place(&self, place: Option<Place>) {
        self.place.store(place.map(Arc::new));
    }
    /// What a node answers that is no manager. One that was is still called by nodes that were away
    /// meanwhile, and may be the only one that they know: it names a manager.
    fn refusal(&self) -> tonic::Status {
        let Some(place) = self.place.load_full() else {
            return tonic::Status::failed_precondition(NOT_IN_A_SWARM);
        };
        let mut status = tonic::Status::failed_precondition(NOT_A_MANAGER);
        if let Some(manager) = place.manager().and_then(|addr| addr.parse().ok()) {
            status.metadata_mut().insert(LEADER_METADATA, manager);
        }
        status
    }
}

impl Place {
    /// A manager: the one that this node's agent has a session with, else any.
    fn manager(&self) -> Option<String> {
        let agent = self.agent.borrow();
        let mut known = agent.manager.iter().chain(&agent.managers);
        known.find(|addr| **addr != self.addr).cloned()
    }
}

/// Leads each call where it belongs.
#[derive(Clone)]
pub(crate) struct Switch {
    /// The node's own API; none on the port for other nodes.
    pub(crate) local: Option<Calls>,
    pub(crate) manager: ManagerCalls,
}

impl Service<http::Request<Body>> for Switch {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let own = request.uri().path().starts_with("/swarm.v1.LocalNode/");
        if let Some(local) = self.local.clone().filter(|_| own) {
            return Box::pin(local.oneshot(request));
        }
        match self.manager.calls.load_full() {
            Some(calls) => Box::pin(calls.as_ref().clone().oneshot(request)),
            None => {
                let refusal = self.manager.refusal();
                Box::pin(async move { Ok(refusal.into_http()) })
            }
        }
    }
}
