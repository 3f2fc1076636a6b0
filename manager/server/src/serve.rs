//! Serves calls on one connection. Whose calls they are is put into every one of them, for
//! [`crate::authorize`] to see.

use std::convert::Infallible;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use swarm_proto::roles::Caller;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;

use crate::peer::Peer;

/// Something that answers calls.
pub type Calls = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// A peer that has died without a word is noticed after these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams on one connection: an agent needs a handful, a forwarding manager many.
const MAX_STREAMS: u32 = 4096;
/// The same for somebody without a certificate, who may only ask to be let in.
const MAX_STREAMS_OF_STRANGERS: u32 = 4;
const WINDOW_BYTES: u32 = 1 << 20;

/// Answers the calls that come in over `stream` with `calls`, until the peer hangs up.
///
/// # Errors
/// If the connection breaks or speaks something else than HTTP/2.
pub async fn serve_connection<S>(stream: S, peer: Peer, calls: Calls) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = match peer.caller {
        Caller::Anyone => MAX_STREAMS_OF_STRANGERS,
        Caller::Worker | Caller::Manager | Caller::Admin => MAX_STREAMS,
    };
    let with_peer = ServiceBuilder::new()
        .map_request(move |request: http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            request
        })
        .service(calls);
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(streams)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(with_peer))
        .await
}

/// Erases the type of a service.
pub fn calls<S>(service: S) -> Calls
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service)
}
