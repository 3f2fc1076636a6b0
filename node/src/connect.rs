//! Connections to managers: TCP, mutual TLS, HTTP/2. The one implementation of what the manager's
//! and the agent's rooms only know as a trait.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use swarm_identity::handshake::{self, ConnectError};
use swarm_identity::pin::PinnedClient;
use swarm_identity::tls::TlsIdentity;
use swarm_manager_server::Peers;
use swarm_proto::{LEADER_METADATA, v1};
use swarm_types::id::NodeId;
use swarm_worker_agent::{DialError, Dialer};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use v1::ca_client::CaClient;

/// A manager that does not answer within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection on which nothing is heard for twice this is dead: a host that lost its power says nothing.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// Opens connections to managers with this node's certificate.
pub(crate) struct Connector {
    identity: Arc<TlsIdentity>,
    kept: Mutex<BTreeMap<(String, Option<NodeId>), Channel>>,
}

impl Connector {
    pub(crate) fn new(identity: Arc<TlsIdentity>) -> Arc<Self> {
        Arc::new(Connector { identity, kept: Mutex::default() })
    }

    /// Connections made from now on use the certificate as it is now; those in use go on.
    pub(crate) fn forget(&self) {
        self.kept.lock().expect("no code panics while it holds the channels").clear();
    }

    fn make(&self, addr: &str, expected: Option<NodeId>) -> Channel {
        let identity = self.identity.clone();
        let target = addr.to_owned();
        endpoint(addr).connect_with_connector_lazy(service_fn(move |_| {
            let (identity, target) = (identity.clone(), target.clone());
            async move { open(&target, &identity, expected).await.map(TokioIo::new) }
        }))
    }
}

fn endpoint(addr: &str) -> Endpoint {
    let uri = format!("http://{addr}");
    let endpoint =
        Endpoint::from_shared(uri).unwrap_or_else(|_| Endpoint::from_static("http://invalid.invalid"));
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

async fn tcp(addr: &str) -> io::Result<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await;
    let stream = connected
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{addr} does not answer")))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn open(
    addr: &str,
    identity: &TlsIdentity,
    expected: Option<NodeId>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let (stream, peer) =
        handshake::connect(tcp(addr).await?, identity, CONNECT_TIMEOUT).await.map_err(io::Error::other)?;
    match expected.filter(|node| *node != peer.node) {
        Some(node) => Err(io::Error::other(format!("{addr} is node {}, not {node}", peer.node))),
        None => Ok(stream),
    }
}

impl Peers for Connector {
    fn channel(&self, addr: &str, expected: Option<NodeId>) -> Channel {
        let mut kept = self.kept.lock().expect("no code panics while it holds the channels");
        kept.entry((addr.to_owned(), expected)).or_insert_with(|| self.make(addr, expected)).clone()
    }
}

impl Dialer for Connector {
    fn dial(&self, addr: String) -> BoxFuture<'_, Result<Channel, DialError>> {
        let identity = self.identity.clone();
        Box::pin(async move {
            let target = addr.clone();
            let connector = service_fn(move |_| {
                let (identity, target) = (identity.clone(), target.clone());
                async move { open(&target, &identity, None).await.map(TokioIo::new) }
            });
            let failed = match endpoint(&addr).connect_with_connector(connector).await {
                Ok(channel) => return Ok(channel),
                Err(e) => e,
            };
            if is_no_manager(&failed)
                && let Some(manager) = ask_the_way(&addr, &self.identity).await
            {
                return Err(DialError::Elsewhere(manager));
            }
            Err(DialError::Failed(chain(&failed)))
        })
    }
}

/// Whoever answered does not have a manager's certificate.
fn is_no_manager(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        let inner = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let refused = inner.and_then(|e| e.downcast_ref::<ConnectError>());
        if matches!(refused, Some(ConnectError::Certificate(_))) {
            return true;
        }
        cause = e.source();
    }
    false
}

/// The manager that a former one names. It answers every call so ([`crate::switch`]); this one has
/// nothing in it that it should not know.
async fn ask_the_way(addr: &str, identity: &Arc<TlsIdentity>) -> Option<String> {
    let target = addr.to_owned();
    let identity = identity.clone();
    let connector = service_fn(move |_| {
        let (identity, target) = (identity.clone(), target.clone());
        async move {
            let stream = tcp(&target).await?;
            let opened = handshake::connect_to_any(stream, &identity, CONNECT_TIMEOUT).await;
            opened.map(|(stream, _)| TokioIo::new(stream)).map_err(io::Error::other)
        }
    });
    let channel = endpoint(addr).connect_with_connector(connector).await.ok()?;
    let asked = CaClient::new(channel).get_root_certificate(v1::GetRootCertificateRequest {}).await;
    let named = asked.err()?.metadata().get(LEADER_METADATA)?.to_str().ok()?.to_owned();
    Some(named).filter(|manager| manager != addr)
}

/// A connection to a cluster that is known by its token only.
pub(crate) async fn pinned(addr: &str, pin: Arc<PinnedClient>) -> Result<Channel, tonic::transport::Error> {
    let target = addr.to_owned();
    let connector = service_fn(move |_| {
        let (pin, target) = (pin.clone(), target.clone());
        async move {
            let stream = tcp(&target).await?;
            let (stream, _) =
                handshake::connect_pinned(stream, &pin, CONNECT_TIMEOUT).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint(addr).connect_with_connector(connector).await
}

/// An error with all its causes, each once, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
