//! The helper's side: one thread that listens to the daemon, beside those of the tunnel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use tracing::{debug, info, warn};

use super::frame::{self, FrameError};
use super::message::{About, PROTOCOL, Reply, Request, Running, Secret, Start};
use crate::device::Opened;
use crate::socket::Socket;
use crate::sys::Offload;
use crate::tunnel::Tunnel;

/// What the program says on its standard output, before it closes it, when the daemon may connect.
pub const READY: &str = "ready\n";

/// For the rest of a message that has begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a helper has nothing more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The daemon said so.
    Told,
    /// The device was deleted, or the tunnel failed.
    Tunnel,
}

/// A helper cannot listen (any more).
#[derive(Debug, thiserror::Error)]
#[error("listen to the daemon")]
pub struct ServeError(#[from] io::Error);

/// Does what the daemon says, until there is nothing more to do. Daemons may come and go meanwhile; the one
/// that came last is listened to.
///
/// # Errors
/// When the kernel does not let it wait.
pub fn serve(listener: &UnixListener) -> Result<Ended, ServeError> {
    let mut server = Server { tunnel: None };
    let mut daemon: Option<UnixStream> = None;
    loop {
        let woken = wait(listener, daemon.as_ref(), server.tunnel.as_ref().map(|(_, tunnel)| tunnel))?;
        if woken.tunnel {
            return Ok(Ended::Tunnel);
        }
        if woken.daemon
            && let Some(stream) = &daemon
        {
            match server.answer(stream) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(FrameError::Gone) => daemon = None,
                Err(err) => {
                    warn!(error = %err, "the daemon is not understood");
                    daemon = None;
                }
            }
        }
        if woken.listener {
            match accept(listener) {
                Ok(stream) => daemon = Some(stream),
                Err(err) => warn!(error = %err, "somebody was not let in"),
            }
        }
    }
}

/// Who has something for us.
struct Woken {
    listener: bool,
    daemon: bool,
    tunnel: bool,
}

fn wait(listener: &UnixListener, daemon: Option<&UnixStream>, tunnel: Option<&Tunnel>) -> io::Result<Woken> {
    // one that is not there is the listener once more
    let daemon_fd = daemon.map_or(listener.as_fd(), AsFd::as_fd);
    let tunnel_fd = tunnel.map_or(listener.as_fd(), Tunnel::ended);
    let mut fds = [listener.as_fd(), daemon_fd, tunnel_fd].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let [listening, speaking, ending] = fds.map(|fd| fd.revents().is_some_and(|r| !r.is_empty()));
    Ok(Woken {
        listener: listening,
        daemon: daemon.is_some() && speaking,
        tunnel: tunnel.is_some() && ending,
    })
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let stream = listener.accept()?.0;
    let who = getsockopt(&stream, sockopt::PeerCredentials)?;
    if who.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("process {} of user {}", who.pid(), who.uid())));
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

struct Server {
    tunnel: Option<(Running, Tunnel)>,
}

impl Server {
    /// Does what one message says.
    fn answer(&mut self, daemon: &UnixStream) -> Result<Option<Ended>, FrameError> {
        let (request, files) = match frame::receive(daemon) {
            // of a later version, perhaps: it is one whole message, and the next may be better
            Err(err @ FrameError::Unreadable(_)) => {
                debug!(error = %err, "a request is refused");
                frame::send(daemon, &Reply::Refused(err.to_string()), &[])?;
                return Ok(None);
            }
            other => other?,
        };
        let ended = matches!(request, Request::Stop).then_some(Ended::Told);
        let reply = self.act(request, files).unwrap_or_else(Reply::Refused);
        match frame::send(daemon, &reply, &[]) {
            // it need not wait for the answer
            Err(_) if ended.is_some() => Ok(ended),
            sent => sent.map(|()| ended),
        }
    }

    fn act(&mut self, request: Request, files: Vec<OwnedFd>) -> Result<Reply, String> {
        match request {
            Request::Hello { version } => {
                debug!(version, "a daemon is there");
                let tunnel = self.tunnel.as_ref().map(|(running, _)| running.clone());
                let program = env!("CARGO_PKG_VERSION").to_owned();
                Ok(Reply::Hello(About { version: PROTOCOL, program, tunnel }))
            }
            Request::Stop => {
                self.tunnel = None;
                Ok(Reply::Done)
            }
            Request::Start(start) => self.start(start, files),
            Request::SetOwnKeys(own) => {
                let own = own.iter().map(Secret::pair).collect();
                self.running()?.set_own_keys(own).map_err(|e| e.to_string())?;
                Ok(Reply::Done)
            }
            Request::SetPeers(peers) => {
                self.running()?.set_peers(peers).map_err(|e| e.to_string())?;
                Ok(Reply::Done)
            }
            Request::Peers => Ok(Reply::Peers(self.running()?.peers())),
        }
    }

    fn running(&self) -> Result<&Tunnel, String> {
        self.tunnel.as_ref().map(|(_, tunnel)| tunnel).ok_or_else(|| "there is no tunnel yet".to_owned())
    }

    fn start(&mut self, start: Start, files: Vec<OwnedFd>) -> Result<Reply, String> {
        if self.tunnel.is_some() {
            return Err("there is a tunnel already".to_owned());
        }
        let count = files.len();
        let Ok([tun, socket]) = <[OwnedFd; 2]>::try_from(files) else {
            return Err(format!("a tunnel needs a device and a socket, and {count} open files came"));
        };
        let text = |e: &dyn std::error::Error| e.to_string();
        let socket = Socket::adopt(socket.into()).map_err(|e| text(&e))?;
        let listen = socket.local_addr().map_err(|e| text(&e))?;
        let opened = Opened { tun: tun.into(), offload: Offload { udp: start.joins_udp }, socket };
        let own = start.own.iter().map(Secret::pair).collect();
        let running = Running { device: start.device, listen, addresses: start.addresses.clone() };
        let tunnel = Tunnel::run(opened, start.addresses, own).map_err(|e| text(&e))?;
        info!(device = running.device, listen = %listen, "the tunnel runs");
        self.tunnel = Some((running, tunnel));
        Ok(Reply::Done)
    }
}
