//! The two doors of a node: the local socket, always open; the port for other nodes, open while the
//! node is a manager, and after that, for those who still think that it is one ([`crate::switch`]).

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use swarm_identity::handshake;
use swarm_identity::tls::TlsIdentity;
use swarm_manager_server::{Calls, Peer, serve_connection};
use swarm_proto::roles::Caller;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::crowd::Crowd;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections whose other end is not known yet.
const MAX_HANDSHAKES: usize = 256;
/// Connections of those who showed no certificate: they may only ask to be let in.
const MAX_STRANGERS: usize = 64;
/// How long they may take for it: longer than a join waits for an election.
const STRANGERS_TIME: Duration = Duration::from_secs(30);
/// After an error of `accept` (too many open files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers calls; may be exchanged while connections are open.
pub(crate) type SharedCalls = Arc<ArcSwap<Calls>>;

/// The port for other nodes, while it is open.
pub(crate) struct Door {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Door {
    /// Opens the port at `addr`.
    pub(crate) async fn open(addr: &str, identity: Arc<TlsIdentity>, calls: SharedCalls) -> io::Result<Door> {
        let addr: SocketAddr = addr.parse().map_err(io::Error::other)?;
        let listener = TcpListener::bind(addr).await?;
        let stop = CancellationToken::new();
        // Owned by the door, which waits for it.
        #[allow(clippy::disallowed_methods)]
        let task = tokio::spawn(serve_remote(listener, identity, calls, stop.clone()));
        Ok(Door { task, stop })
    }

    /// Closes it, and all connections that came in through it.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        if let Err(e) = self.task.await {
            tracing::error!(error = %e, "the port for other nodes was closed badly");
        }
    }
}

/// Opens the local socket, for root and `group`.
pub(crate) fn bind_local(path: &Path, group: &str) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(group) {
        nix::unistd::chown(path, None, Some(group.gid))?;
    }
    Ok(listener)
}

/// Answers on the local socket until `stop`.
pub(crate) async fn serve_local(listener: UnixListener, calls: SharedCalls, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let calls = calls.load().as_ref().clone();
                    connections.spawn(async move {
                        if let Err(e) = serve_connection(stream, Peer::local(), calls).await {
                            tracing::debug!(error = %e, "local connection broke");
                        }
                    });
                }
                Err(e) => pause(&e).await,
            },
        }
    }
}

/// Answers on the port for other nodes until `stop`.
///
/// Who has not proved anything yet is bounded in number and time: see [`Crowd`].
async fn serve_remote(
    listener: TcpListener,
    identity: Arc<TlsIdentity>,
    calls: SharedCalls,
    stop: CancellationToken,
) {
    let mut handshakes: Crowd<Option<(TlsStream<TcpStream>, Peer)>> = Crowd::new(MAX_HANDSHAKES);
    let mut strangers = Crowd::new(MAX_STRANGERS);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            Some(_) = strangers.next() => {}
            Some(known) = handshakes.next() => {
                // Aborted as one too many, or refused.
                let Ok(Some((stream, peer))) = known else { continue };
                let calls = calls.load().as_ref().clone();
                if peer.caller == Caller::Anyone {
                    strangers.push(stranger(stream, peer, calls));
                } else {
                    connections.spawn(connection(stream, peer, calls));
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, addr)) => handshakes.push(greet(stream, addr, identity.clone())),
                Err(e) => pause(&e).await,
            },
        }
    }
}

/// Finds out who is at the other end.
async fn greet(
    stream: TcpStream,
    addr: SocketAddr,
    identity: Arc<TlsIdentity>,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "connection is gone already");
        return None;
    }
    let stream = match handshake::accept(stream, &identity, HANDSHAKE_TIMEOUT).await {
        Ok(stream) => stream,
        Err(e) => {
            tracing::debug!(peer.addr = %addr, error = %crate::connect::chain(&e), "connection refused");
            return None;
        }
    };
    match handshake::client_of(&stream) {
        Ok(peer) => Some((stream, Peer::remote(addr, peer))),
        Err(e) => {
            tracing::warn!(peer.addr = %addr, error = %e, "certificate cannot be read");
            None
        }
    }
}

async fn connection(stream: TlsStream<TcpStream>, peer: Peer, calls: Calls) {
    let addr = peer.remote;
    if let Err(e) = serve_connection(stream, peer, calls).await {
        tracing::debug!(peer.addr = ?addr, error = %e, "connection broke");
    }
}

async fn stranger(stream: TlsStream<TcpStream>, peer: Peer, calls: Calls) {
    // Who is let in comes back with a certificate.
    if tokio::time::timeout(STRANGERS_TIME, connection(stream, peer, calls)).await.is_err() {
        tracing::debug!("a connection without a certificate was ended: it took too long");
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(error = %error, "accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
