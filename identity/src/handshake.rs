//! From a byte stream to one whose other end is known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use swarm_types::id::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::peer::{PeerError, PeerIdentity};
use crate::pin::{self, PinError, PinnedClient};
use crate::tls::TlsIdentity;

/// Why an incoming connection is dropped.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Too slow.
    #[error("TLS handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The client's certificate is not good, or the client left.
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    /// The client's certificate is good but says nothing that we understand.
    #[error("read the client's certificate")]
    Peer(#[source] PeerError),
    /// The client's certificate is for another cluster.
    #[error("client {node} belongs to cluster {cluster}")]
    Cluster { node: NodeId, cluster: ClusterId },
}

/// Why an outgoing connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Too slow.
    #[error("TLS handshake took longer than {0:?}")]
    Timeout(Duration),
    /// It is not the cluster that the join token is for.
    #[error(transparent)]
    Pin(PinError),
    /// Its certificate is not that of a manager of our cluster, or is out of date.
    #[error("verify the manager's certificate: {0}")]
    Certificate(rustls::CertificateError),
    /// Anything else.
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    /// The certificate is good but says nothing that we understand.
    #[error("read the manager's certificate")]
    Peer(#[source] PeerError),
}

/// Takes the server's part with `identity` as it is now. The client may be anonymous (it wants to join); one
/// that shows a certificate is of our cluster. Who it is: [`client_of`].
pub async fn accept<S>(
    stream: S,
    identity: &TlsIdentity,
    limit: Duration,
) -> Result<server::TlsStream<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let acceptor = TlsAcceptor::from(identity.server_config());
    let accepted = timeout(limit, acceptor.accept(stream)).await.map_err(|_| AcceptError::Timeout(limit))?;
    let stream = accepted.map_err(AcceptError::Handshake)?;
    if let Some(peer) = client_of(&stream).map_err(AcceptError::Peer)?
        && peer.cluster != identity.own().cluster
    {
        return Err(AcceptError::Cluster { node: peer.node, cluster: peer.cluster });
    }
    Ok(stream)
}

/// Connects to a manager of our cluster, with our certificate, and says which manager it is.
pub async fn connect<S>(
    stream: S,
    identity: &TlsIdentity,
    limit: Duration,
) -> Result<(client::TlsStream<S>, PeerIdentity), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    start(stream, identity.client_config(), identity.server_name(), limit).await
}

/// Connects to any node of our cluster, to ask it its way. Nothing else may be said on such a connection.
pub async fn connect_to_any<S>(
    stream: S,
    identity: &TlsIdentity,
    limit: Duration,
) -> Result<(client::TlsStream<S>, PeerIdentity), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    start(stream, identity.asking_config(), identity.server_name(), limit).await
}

/// Connects to a manager of the cluster that `client` pins, without a certificate of our own.
/// The root it stands for is known afterwards: [`PinnedClient::root`].
pub async fn connect_pinned<S>(
    stream: S,
    client: &PinnedClient,
    limit: Duration,
) -> Result<(client::TlsStream<S>, PeerIdentity), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("manager").expect("a valid name; the pin decides, not the name");
    start(stream, client.config(), name, limit).await
}

/// Who the client is; `None` if it showed no certificate.
pub fn client_of<S>(stream: &server::TlsStream<S>) -> Result<Option<PeerIdentity>, PeerError> {
    PeerIdentity::from_chain(stream.get_ref().1.peer_certificates())
}

async fn start<S>(
    stream: S,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    limit: Duration,
) -> Result<(client::TlsStream<S>, PeerIdentity), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connecting = TlsConnector::from(config).connect(name, stream);
    let connected = timeout(limit, connecting).await.map_err(|_| ConnectError::Timeout(limit))?;
    let stream = connected.map_err(failed)?;
    let peer =
        PeerIdentity::from_chain(stream.get_ref().1.peer_certificates()).map_err(ConnectError::Peer)?;
    Ok((stream, peer.ok_or(ConnectError::Peer(PeerError::Parse))?))
}

fn failed(error: io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(cause) = tls.and_then(pin::cause) {
        return ConnectError::Pin(cause);
    }
    match tls {
        Some(rustls::Error::InvalidCertificate(cause)) => ConnectError::Certificate(cause.clone()),
        Some(_) | None => ConnectError::Handshake(error),
    }
}

#[cfg(test)]
pub(crate) mod tests;
