//! The front of the certificate authority: how a machine becomes a node, and stays one.

use std::sync::Arc;

use swarm_identity::ca::{Grant, RootCa};
use swarm_identity::csr::Csr;
use swarm_identity::role::Role as CertRole;
use swarm_identity::token::JoinToken;
use swarm_manager_core::control::{self, cluster::Joining};
use swarm_proto::v1;
use swarm_types::cluster::Cluster;
use swarm_types::id::NodeId;
use swarm_types::node::Role;
use tonic::{Request, Response, Status};

use crate::manager::Shared;
use crate::peer::Peer;

/// Answers [`v1::ca_server::Ca`].
#[derive(Clone)]
pub struct CaApi {
    shared: Arc<Shared>,
}

impl CaApi {
    /// Answers for `shared`.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        CaApi { shared }
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Status> {
        let view = self.shared.state.view();
        view.cluster()
            .cloned()
            .ok_or_else(|| Status::unavailable("this manager does not have the cluster's state yet"))
    }
}

/// Signs a certificate for a node's key.
pub(crate) fn issue(
    cluster: &Cluster,
    csr: &[u8],
    node: NodeId,
    role: CertRole,
    ttl: std::time::Duration,
    now: swarm_types::time::Timestamp,
) -> Result<String, Status> {
    let csr =
        Csr::from_der(csr).map_err(|e| Status::invalid_argument(format!("read certificate request: {e}")))?;
    let ca = RootCa::from_pem(&cluster.root_ca.cert_pem, &cluster.root_ca.key_pem)
        .map_err(|e| Status::internal(format!("load the root of the cluster: {e}")))?;
    let grant = Grant { node, role, cluster: cluster.id, ttl };
    let cert =
        ca.issue(&csr, &grant, now).map_err(|e| Status::internal(format!("issue certificate: {e}")))?;
    Ok(swarm_identity::credentials::certs_to_pem(&[cert]))
}

fn cert_role(role: Role) -> CertRole {
    match role {
        Role::Worker => CertRole::Worker,
        Role::Manager => CertRole::Manager,
    }
}

/// The role that `token` gives.
fn role_of(cluster: &Cluster, token: &str) -> Result<Role, Status> {
    let refused = || Status::permission_denied("invalid join token");
    let shown: JoinToken = token.parse().map_err(|_| refused())?;
    let is = |kept: &str| kept.parse::<JoinToken>().is_ok_and(|kept| kept.same_secret(&shown));
    match (is(&cluster.join_tokens.worker), is(&cluster.join_tokens.manager)) {
        (true, _) => Ok(Role::Worker),
        (_, true) => Ok(Role::Manager),
        (false, false) => Err(refused()),
    }
}

#[tonic::async_trait]
impl v1::ca_server::Ca for CaApi {
    async fn get_root_certificate(
        &self,
        _: Request<v1::GetRootCertificateRequest>,
    ) -> Result<Response<v1::GetRootCertificateResponse>, Status> {
        let root_cert_pem = self.cluster()?.root_ca.cert_pem.clone();
        Ok(Response::new(v1::GetRootCertificateResponse { root_cert_pem }))
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let request = request.into_inner();
        let cluster = self.cluster()?;
        let role = role_of(&cluster, &request.token)?;
        let availability = v1::Availability::try_from(request.availability)
            .map_err(|e| Status::invalid_argument(format!("availability: {e}")))?;
        let id: NodeId = self.shared.new_id().into();
        let now = self.shared.now();
        // The certificate first: a bad request leaves no node behind.
        let cert_pem = issue(&cluster, &request.csr, id, cert_role(role), cluster.spec.cert_expiry, now)?;
        let joining = Joining { node: id, role, availability: availability.into(), addr: String::new() };
        self.shared.write(|draft, _| control::cluster::join(draft, &joining)).await?;
        tracing::info!(node.id = %id, node.role = role.as_str(), "node joined the cluster");
        Ok(Response::new(v1::JoinClusterResponse {
            node_id: id.to_string(),
            cluster_id: cluster.id.to_string(),
            role: v1::Role::from(role).into(),
            cert_pem,
            root_cert_pem: cluster.root_ca.cert_pem.clone(),
            manager_addrs: self.shared.manager_addrs(),
        }))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|p| p.identity.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("a node renews with its own certificate"))?;
        let cluster = self.cluster()?;
        let view = self.shared.state.view();
        let node = view
            .node(&peer.node)
            .ok_or_else(|| Status::not_found(format!("node {} is not in the cluster", peer.node)))?;
        let csr = request.into_inner().csr;
        let ttl = cluster.spec.cert_expiry;
        let cert_pem = issue(&cluster, &csr, node.id, cert_role(node.role), ttl, self.shared.now())?;
        tracing::info!(node.id = %node.id, node.role = node.role.as_str(), "certificate renewed");
        Ok(Response::new(v1::RenewCertificateResponse {
            cert_pem,
            root_cert_pem: cluster.root_ca.cert_pem.clone(),
            role: v1::Role::from(node.role).into(),
        }))
    }
}
