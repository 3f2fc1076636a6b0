//! How this machine becomes a node of a cluster that it knows by a token, and how its certificate
//! is renewed.

use std::sync::Arc;

use swarm_identity::credentials::{Credentials, CredentialsError, certs_from_pem};
use swarm_identity::csr::{KeyError, NodeKey};
use swarm_identity::pin::PinnedClient;
use swarm_identity::token::{JoinToken, TokenError};
use swarm_proto::v1;
use swarm_types::id::{ClusterId, NodeId};
use swarm_types::time::Clock;
use tonic::Code;
use tonic::transport::Channel;
use v1::ca_client::CaClient;

use crate::connect;

/// A machine could not become a node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("a join token is necessary to join a swarm")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("make a key")]
    Key(#[from] KeyError),
    #[error("prepare TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("connect to {addr}")]
    Connect {
        addr: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{}", .0.message())]
    Refused(tonic::Status),
    #[error("the manager's certificate was not verified")]
    NoRoot,
    #[error("read the certificate that the manager sent")]
    Certificate(#[from] CredentialsError),
    #[error("the manager sent an id that is none: {0}")]
    Id(String),
}

impl JoinError {
    /// It may work later: the manager was not there, or the cluster had no leader.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            JoinError::Connect { .. } => !self.is_wrong_cluster(),
            JoinError::Refused(status) => matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled | Code::Internal
            ),
            JoinError::NoToken
            | JoinError::Token(_)
            | JoinError::Key(_)
            | JoinError::Tls(_)
            | JoinError::NoRoot
            | JoinError::Certificate(_)
            | JoinError::Id(_) => false,
        }
    }

    fn is_wrong_cluster(&self) -> bool {
        connect::chain(self).contains("fingerprint")
    }
}

/// What joining gave.
pub(crate) struct Joined {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) credentials: Credentials,
    pub(crate) managers: Vec<String>,
}

/// What a machine asks to be let in with.
#[derive(Clone)]
pub(crate) struct Application {
    pub(crate) token: String,
    pub(crate) availability: v1::Availability,
    pub(crate) hostname: String,
}

/// Reads a token.
pub(crate) fn token(text: &str) -> Result<JoinToken, JoinError> {
    if text.is_empty() {
        return Err(JoinError::NoToken);
    }
    Ok(text.parse()?)
}

/// Asks the manager at `addr` to be let in. The token's secret is sent only to a manager whose
/// root certificate the token names.
pub(crate) async fn join(
    addr: &str,
    wish: &Application,
    clock: &Arc<dyn Clock>,
) -> Result<Joined, JoinError> {
    let token = token(&wish.token)?;
    let pin = PinnedClient::new(token.digest(), clock).map_err(|e| JoinError::Tls(Box::new(e)))?;
    let pin = Arc::new(pin);
    let channel = connect::pinned(addr, pin.clone()).await;
    let channel = channel.map_err(|source| JoinError::Connect { addr: addr.to_owned(), source })?;
    let key = NodeKey::generate()?;
    let request = v1::JoinClusterRequest {
        token: wish.token.clone(),
        csr: key.request()?.into(),
        availability: wish.availability.into(),
        hostname: wish.hostname.clone(),
    };
    let answer = CaClient::new(channel).join_cluster(request).await.map_err(JoinError::Refused)?.into_inner();
    let root = pin.root().ok_or(JoinError::NoRoot)?;
    let chain = certs_from_pem(&answer.cert_pem)?;
    let credentials = Credentials { key, chain, roots: vec![root] };
    credentials.check()?;
    Ok(Joined {
        node: answer.node_id.parse().map_err(|_| JoinError::Id(answer.node_id.clone()))?,
        cluster: answer.cluster_id.parse().map_err(|_| JoinError::Id(answer.cluster_id.clone()))?,
        credentials,
        managers: answer.manager_addrs,
    })
}

/// Asks the manager behind `channel` for a new certificate, with the role that the node has now.
pub(crate) async fn renew(channel: Channel, roots: &Credentials) -> Result<Credentials, JoinError> {
    let key = NodeKey::generate()?;
    let request = v1::RenewCertificateRequest { csr: key.request()?.into() };
    let answer =
        CaClient::new(channel).renew_certificate(request).await.map_err(JoinError::Refused)?.into_inner();
    let chain = certs_from_pem(&answer.cert_pem)?;
    let credentials = Credentials { key, chain, roots: roots.roots.clone() };
    credentials.check()?;
    Ok(credentials)
}
