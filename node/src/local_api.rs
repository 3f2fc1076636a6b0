//! What users ask of this machine's daemon: init, join, leave, info.

use std::sync::Arc;

use swarm_proto::v1;
use tonic::{Request, Response, Status};

use crate::node::Node;

/// Answers [`v1::local_node_server::LocalNode`].
pub(crate) struct LocalApi(pub(crate) Arc<Node>);

#[tonic::async_trait]
impl v1::local_node_server::LocalNode for LocalApi {
    async fn info(&self, _: Request<v1::InfoRequest>) -> Result<Response<v1::InfoResponse>, Status> {
        Ok(Response::new(self.0.info().await))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        let node = self.0.clone();
        finish(async move { node.init(request.into_inner()).await }).await
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let node = self.0.clone();
        finish(async move { node.join(request.into_inner()).await }).await
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let node = self.0.clone();
        finish(async move { node.leave(request.into_inner()).await }).await
    }
}

/// Runs a command to its end even if the caller hangs up: none of them may stop halfway.
async fn finish<T: Send + 'static>(
    command: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<Response<T>, Status> {
    // Nobody owns it on purpose: the caller's connection must not.
    #[allow(clippy::disallowed_methods)]
    let running = tokio::spawn(command);
    running.await.map_err(|e| Status::internal(format!("the command ended badly: {e}")))?.map(Response::new)
}
