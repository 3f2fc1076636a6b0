//! The front of `core::control`: users' commands come in as messages, core decides, the log keeps.
//! One file for each noun; this one holds what they share and the list of RPCs.

mod cluster;
mod image;
mod network;
mod node;
mod service;
mod task;

use std::sync::Arc;

use futures::stream::BoxStream;
use swarm_manager_core::store::View;
use swarm_proto::v1;
use tonic::{Request, Response, Status, Streaming};

use crate::images::ProgressStream;
use crate::logs::{self, LogStream};
use crate::manager::Shared;
use crate::watch::{self, WatchStream};

/// Answers [`v1::control_server::Control`]. Runs on the leader: see [`crate::forward`].
#[derive(Clone)]
pub struct ControlApi {
    shared: Arc<Shared>,
}

impl ControlApi {
    /// Answers for `shared`.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        ControlApi { shared }
    }

    /// The state, with all that was committed before this call.
    async fn view(&self) -> Result<View, Status> {
        self.shared.barrier().await?;
        Ok(self.shared.state.view())
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    result.map(Response::new)
}

#[tonic::async_trait]
impl v1::control_server::Control for ControlApi {
    type WatchStream = WatchStream;
    type LogsStream = LogStream;
    type LoadImageStream = ProgressStream;
    type PullImageStream = ProgressStream;
    type RemoveImageStream = ProgressStream;
    type CheckNetworksStream = BoxStream<'static, Result<v1::NodeNetworkCheck, Status>>;

    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Answer<v1::GetClusterResponse> {
        answer(cluster::get(&self.view().await?))
    }
    async fn update_cluster(
        &self,
        r: Request<v1::UpdateClusterRequest>,
    ) -> Answer<v1::UpdateClusterResponse> {
        answer(cluster::update(&self.shared, r.into_inner()).await)
    }
    async fn get_join_tokens(
        &self,
        _: Request<v1::GetJoinTokensRequest>,
    ) -> Answer<v1::GetJoinTokensResponse> {
        answer(cluster::join_tokens(&self.shared, &self.view().await?))
    }
    async fn issue_admin_certificate(
        &self,
        r: Request<v1::IssueAdminCertificateRequest>,
    ) -> Answer<v1::IssueAdminCertificateResponse> {
        answer(cluster::issue_admin(&self.shared, &self.view().await?, &r.into_inner()))
    }
    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        answer(Ok(node::list(&self.shared, &self.view().await?)))
    }
    async fn get_node(&self, r: Request<v1::GetNodeRequest>) -> Answer<v1::GetNodeResponse> {
        answer(node::get(&self.shared, &self.view().await?, &r.into_inner()))
    }
    async fn update_node(&self, r: Request<v1::UpdateNodeRequest>) -> Answer<v1::UpdateNodeResponse> {
        answer(node::update(&self.shared, r.into_inner()).await)
    }
    async fn remove_node(&self, r: Request<v1::RemoveNodeRequest>) -> Answer<v1::RemoveNodeResponse> {
        answer(node::remove(&self.shared, r.into_inner()).await)
    }
    async fn create_service(
        &self,
        r: Request<v1::CreateServiceRequest>,
    ) -> Answer<v1::CreateServiceResponse> {
        answer(service::create(&self.shared, r.into_inner()).await)
    }
    async fn list_services(&self, _: Request<v1::ListServicesRequest>) -> Answer<v1::ListServicesResponse> {
        answer(Ok(service::list(&self.view().await?)))
    }
    async fn get_service(&self, r: Request<v1::GetServiceRequest>) -> Answer<v1::GetServiceResponse> {
        answer(service::get(&self.view().await?, &r.into_inner()))
    }
    async fn update_service(
        &self,
        r: Request<v1::UpdateServiceRequest>,
    ) -> Answer<v1::UpdateServiceResponse> {
        answer(service::update(&self.shared, r.into_inner()).await)
    }
    async fn remove_service(
        &self,
        r: Request<v1::RemoveServiceRequest>,
    ) -> Answer<v1::RemoveServiceResponse> {
        answer(service::remove(&self.shared, r.into_inner()).await)
    }
    async fn create_network(
        &self,
        r: Request<v1::CreateNetworkRequest>,
    ) -> Answer<v1::CreateNetworkResponse> {
        answer(network::create(&self.shared, r.into_inner()).await)
    }
    async fn list_networks(&self, _: Request<v1::ListNetworksRequest>) -> Answer<v1::ListNetworksResponse> {
        answer(Ok(network::list(&self.view().await?)))
    }
    async fn get_network(&self, r: Request<v1::GetNetworkRequest>) -> Answer<v1::GetNetworkResponse> {
        answer(network::get(&self.shared, &self.view().await?, &r.into_inner()))
    }
    async fn remove_network(
        &self,
        r: Request<v1::RemoveNetworkRequest>,
    ) -> Answer<v1::RemoveNetworkResponse> {
        answer(network::remove(&self.shared, r.into_inner()).await)
    }
    async fn check_networks(
        &self,
        r: Request<v1::CheckNetworksRequest>,
    ) -> Answer<Self::CheckNetworksStream> {
        answer(network::check(&self.shared, &self.view().await?, &r.into_inner()))
    }
    async fn list_tasks(&self, r: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksResponse> {
        answer(task::list(&self.shared, &self.view().await?, &r.into_inner()))
    }
    async fn get_task(&self, r: Request<v1::GetTaskRequest>) -> Answer<v1::GetTaskResponse> {
        answer(task::get(&self.shared, &self.view().await?, &r.into_inner()))
    }

    async fn watch(&self, r: Request<v1::WatchRequest>) -> Answer<WatchStream> {
        self.shared.barrier().await?;
        let (view, news) = self.shared.state.watch();
        let service = match r.into_inner().service.as_str() {
            "" => None,
            reference => Some(service::resolve(&view, reference)?.id),
        };
        let shared = self.shared.clone();
        answer(Ok(watch::watch(view, news, service, move |task| shared.passing.overlay(task))))
    }

    async fn logs(&self, r: Request<v1::LogsRequest>) -> Answer<LogStream> {
        self.shared.barrier().await?;
        let (view, news) = self.shared.state.watch();
        let selection = task::selection(&view, r.into_inner())?;
        answer(Ok(logs::stream(self.shared.commands.clone(), &view, news, selection)))
    }

    async fn load_image(&self, r: Request<Streaming<v1::LoadImageRequest>>) -> Answer<ProgressStream> {
        answer(image::load(&self.shared, &self.view().await?, r.into_inner()).await)
    }
    async fn pull_image(&self, r: Request<v1::PullImageRequest>) -> Answer<ProgressStream> {
        answer(image::pull(&self.shared, &self.view().await?, r.into_inner()))
    }
    async fn list_images(&self, r: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        answer(image::list(&self.shared, &self.view().await?, &r.into_inner()).await)
    }
    async fn remove_image(&self, r: Request<v1::RemoveImageRequest>) -> Answer<ProgressStream> {
        answer(image::remove(&self.shared, &self.view().await?, r.into_inner()))
    }
}
