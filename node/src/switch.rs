//! What the doors lead to: the node's own API (local socket only), and the manager's, if this node
//! is one just now.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use swarm_manager_server::Calls;
use tonic::Status;
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
    in_swarm: Arc<std::sync::atomic::AtomicBool>,
}

impl ManagerCalls {
    pub(crate) fn set(&self, calls: Option<Calls>) {
        self.calls.store(calls.map(Arc::new));
    }
    pub(crate) fn set_in_swarm(&self, in_swarm: bool) {
        self.in_swarm.store(in_swarm, std::sync::atomic::Ordering::Relaxed);
    }
    fn refusal(&self) -> Status {
        let in_swarm = self.in_swarm.load(std::sync::atomic::Ordering::Relaxed);
        Status::failed_precondition(if in_swarm { NOT_A_MANAGER } else { NOT_IN_A_SWARM })
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
