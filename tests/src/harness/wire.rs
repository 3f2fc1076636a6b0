//! Connections of people who are not the shipped programs: any certificate or none, any bytes.

use std::sync::Arc;

use http::HeaderMap;
use hyper_util::rt::TokioIo;
use swarm_identity::credentials::Credentials;
use swarm_identity::handshake;
use swarm_identity::pin::PinnedClient;
use swarm_identity::tls::TlsIdentity;
use swarm_identity::token::JoinToken;
use swarm_types::time::Clock;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::ServiceExt;

use super::PATIENCE;

/// A connection with a certificate.
///
/// # Errors
/// Why there is none.
pub async fn with_certificate(
    addr: &str,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
) -> Result<Channel, String> {
    let identity = Arc::new(TlsIdentity::new(credentials, clock).map_err(|e| format!("{e:?}"))?);
    let target = addr.to_owned();
    let connector = tower::service_fn(move |_| {
        let (target, identity) = (target.clone(), identity.clone());
        async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            let opened = handshake::connect(stream, &identity, PATIENCE).await;
            opened.map(|(s, _)| TokioIo::new(s)).map_err(std::io::Error::other)
        }
    });
    connect(Endpoint::from_static("http://manager").connect_with_connector(connector).await)
}

/// A connection without a certificate, as of a machine that wants to join.
///
/// # Errors
/// Why there is none.
pub async fn without_certificate(
    addr: &str,
    token: &JoinToken,
    clock: Arc<dyn Clock>,
) -> Result<Channel, String> {
    let pin = Arc::new(PinnedClient::new(token.digest(), &clock).map_err(|e| e.to_string())?);
    let target = addr.to_owned();
    let connector = tower::service_fn(move |_| {
        let (target, pin) = (target.clone(), pin.clone());
        async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            let opened = handshake::connect_pinned(stream, &pin, PATIENCE).await;
            opened.map(|(s, _)| TokioIo::new(s)).map_err(std::io::Error::other)
        }
    });
    connect(Endpoint::from_static("http://manager").connect_with_connector(connector).await)
}

fn connect(result: Result<Channel, tonic::transport::Error>) -> Result<Channel, String> {
    result.map_err(|e| format!("{e:?}"))
}

/// Calls any RPC with an empty message. What it answers at once: a status, or that it goes on (`Ok`).
pub async fn call(channel: &Channel, path: &str) -> Status {
    call_with(channel, path, HeaderMap::new(), "\0\0\0\0\0".into()).await
}

/// As [`call`], with more headers and another body (frames of gRPC that happen to be text).
pub async fn call_with(channel: &Channel, path: &str, more: HeaderMap, body: String) -> Status {
    let mut request = http::Request::post(format!("http://manager{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body))
        .expect("a request");
    request.headers_mut().extend(more);
    match tokio::time::timeout(PATIENCE, channel.clone().oneshot(request)).await {
        Ok(Ok(response)) => {
            Status::from_header_map(response.headers()).unwrap_or_else(|| Status::new(Code::Ok, "goes on"))
        }
        Ok(Err(e)) => Status::new(Code::Unknown, format!("transport: {e:?}")),
        Err(_) => Status::new(Code::Unknown, "transport: no answer"),
    }
}
