//! The cluster's settings, tokens and admins.

use std::time::Duration;

use swarm_identity::digest::Digest;
use swarm_identity::role::Role as CertRole;
use swarm_identity::token::JoinToken;
use swarm_manager_core::control;
use swarm_manager_core::store::View;
use swarm_proto::v1;
use swarm_types::cluster::{Cluster, ClusterSpec};
use swarm_types::id::NodeId;
use tonic::Status;

use crate::ca;
use crate::manager::Shared;
use crate::status::malformed;

fn current(view: &View) -> Result<&Cluster, Status> {
    view.cluster().map(AsRef::as_ref).ok_or_else(|| Status::unavailable("the cluster has no state yet"))
}

pub(super) fn get(view: &View) -> Result<v1::GetClusterResponse, Status> {
    Ok(v1::GetClusterResponse { cluster: Some(v1::Cluster::public(current(view)?)) })
}

pub(super) async fn update(
    shared: &Shared,
    request: v1::UpdateClusterRequest,
) -> Result<v1::UpdateClusterResponse, Status> {
    shared.barrier().await?;
    let cluster = current(&shared.state.view())?.clone();
    let spec: Option<ClusterSpec> = request.spec.map(TryInto::try_into).transpose().map_err(malformed)?;
    let worker = request.rotate_worker_token.then(|| new_token(&cluster)).transpose()?;
    let manager = request.rotate_manager_token.then(|| new_token(&cluster)).transpose()?;
    shared
        .write(|draft, _| {
            if let Some(spec) = spec.clone() {
                control::cluster::update(draft, request.version, spec)?;
            }
            control::cluster::rotate_tokens(draft, worker.clone(), manager.clone())
        })
        .await?;
    tracing::info!(
        settings = spec.is_some(),
        worker_token = worker.is_some(),
        manager_token = manager.is_some(),
        "cluster updated"
    );
    let view = shared.state.view();
    Ok(v1::UpdateClusterResponse { cluster: Some(v1::Cluster::public(current(&view)?)) })
}

/// A fresh token for the cluster's root.
fn new_token(cluster: &Cluster) -> Result<String, Status> {
    let roots = swarm_identity::credentials::certs_from_pem(&cluster.root_ca.cert_pem);
    let roots = roots.map_err(|e| Status::internal(format!("read the root certificate: {e}")))?;
    let root = roots.first().ok_or_else(|| Status::internal("the cluster has no root certificate"))?;
    let token = JoinToken::generate(Digest::of(root)).map_err(|e| Status::internal(e.to_string()))?;
    Ok(token.to_string())
}

pub(super) fn join_tokens(shared: &Shared, view: &View) -> Result<v1::GetJoinTokensResponse, Status> {
    let cluster = current(view)?;
    Ok(v1::GetJoinTokensResponse {
        worker: cluster.join_tokens.worker.clone(),
        manager: cluster.join_tokens.manager.clone(),
        manager_addrs: shared.manager_addrs(),
    })
}

pub(super) fn issue_admin(
    shared: &Shared,
    view: &View,
    request: &v1::IssueAdminCertificateRequest,
) -> Result<v1::IssueAdminCertificateResponse, Status> {
    let cluster = current(view)?;
    let ttl = match request.ttl_ms {
        0 => cluster.spec.cert_expiry,
        ms => Duration::from_millis(ms),
    };
    if !swarm_identity::peer::is_id(&request.name) {
        return Err(Status::invalid_argument("name: use at most 25 characters a-z, 0-9 and `-`"));
    }
    let name = NodeId::new(&request.name);
    let cert_pem = ca::issue(cluster, &request.csr, name, CertRole::Admin, ttl, shared.now())?;
    tracing::info!(admin = request.name, "admin certificate issued");
    Ok(v1::IssueAdminCertificateResponse {
        cert_pem,
        root_cert_pem: cluster.root_ca.cert_pem.clone(),
        cluster_id: cluster.id.to_string(),
        manager_addrs: shared.manager_addrs(),
    })
}
