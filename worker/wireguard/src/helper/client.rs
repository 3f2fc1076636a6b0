//! The daemon's side: the helper found or started, told, and ended.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use tracing::{info, warn};

use super::frame::{self, FrameError};
use super::message::{About, PROTOCOL, Reply, Request, Secret, Start};
use super::place::Place;
use crate::device::{self, DeviceError, Settings};
use crate::key::KeyPair;
use crate::peer::Peer;
use crate::sys;
use crate::tunnel::PeerStatus;

/// For a helper to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the helper does not do what it is to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum HelperError {
    #[error("reach the tunnel's process in {place}")]
    Reach { place: Place, source: io::Error },
    #[error("use the tunnel's process in {place}: it is of user {uid}")]
    Foreign { place: Place, uid: u32 },
    #[error("start the tunnel's process {}", place.program.display())]
    Start { place: Place, source: io::Error },
    #[error("talk to the tunnel's process {pid}: {why}")]
    Lost { pid: i32, why: String },
    #[error("the tunnel's process {pid} refuses: {why}")]
    Refused { pid: i32, why: String },
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// The helper of this node. Dropping it leaves the helper alone, and the tunnel with it.
#[derive(Debug)]
pub struct Helper {
    place: Place,
    stream: UnixStream,
    /// Readable when the process has ended; never means another one.
    process: OwnedFd,
    pid: i32,
    about: About,
    is_lost: AtomicBool,
}

impl Helper {
    /// The helper that a daemon before this one has started. One of another [`PROTOCOL`], and one that does
    /// not answer, is ended: its peers are then reached by the next one, after a handshake.
    ///
    /// # Errors
    /// When there is something that is no helper of ours.
    pub fn find(place: &Place) -> Result<Option<Self>, HelperError> {
        let reach = |source| HelperError::Reach { place: place.clone(), source };
        let Some(stream) = place.connect().map_err(reach)? else { return Ok(None) };
        let who = getsockopt(&stream, sockopt::PeerCredentials).map_err(|e| reach(e.into()))?;
        if who.uid() != geteuid().as_raw() {
            return Err(HelperError::Foreign { place: place.clone(), uid: who.uid() });
        }
        let process = match sys::pidfd_open(who.pid()) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            other => other.map_err(reach)?,
        };
        let about = About { version: PROTOCOL, program: String::new(), tunnel: None };
        let is_lost = AtomicBool::new(false);
        let mut helper = Helper { place: place.clone(), stream, process, pid: who.pid(), about, is_lost };
        // whoever answers now was there when its process was opened: it is this one
        match helper.ask(&Request::Hello { version: PROTOCOL }, &[]) {
            Ok(Reply::Hello(about)) if about.version == PROTOCOL => {
                helper.about = about;
                return Ok(Some(helper));
            }
            Ok(Reply::Hello(about)) => {
                let versions = (about.version, PROTOCOL);
                info!(
                    pid = helper.pid,
                    ?versions,
                    "the tunnel's process is of another version, and is replaced"
                );
            }
            Ok(_) | Err(_) => {
                if helper.has_ended(Duration::ZERO) {
                    return Ok(None);
                }
                warn!(pid = helper.pid, "the tunnel's process does not answer, and is replaced");
            }
        }
        helper.end()?;
        Ok(None)
    }

    /// Starts one. There must be none.
    ///
    /// # Errors
    /// When its program does not start; the cause is what it said.
    pub fn start(place: &Place) -> Result<Self, HelperError> {
        let failed = |source| HelperError::Start { place: place.clone(), source };
        place.launch().map_err(failed)?;
        let vanished = || failed(io::Error::other("it has ended at once"));
        Self::find(place)?.ok_or_else(vanished)
    }

    /// Makes the device or takes it over, and lets the helper carry packets. There are no peers yet.
    /// `own`: the key that handshakes are begun with comes first.
    ///
    /// # Errors
    /// When the device or the socket cannot be had, or the helper has a tunnel already.
    pub fn open(&mut self, settings: &Settings, own: &[KeyPair]) -> Result<(), HelperError> {
        let opened = device::open(settings)?;
        let start = Start {
            device: settings.device.clone(),
            joins_udp: opened.offload.udp,
            addresses: settings.addresses.clone(),
            own: own.iter().map(Secret::of).collect(),
        };
        self.done(&Request::Start(start), &[opened.tun.as_fd(), opened.socket.as_fd()])?;
        // ours are closed: when the helper ends, the device swallows what is sent to it
        drop(opened);
        self.greet()
    }

    fn greet(&mut self) -> Result<(), HelperError> {
        match self.ask(&Request::Hello { version: PROTOCOL }, &[])? {
            Reply::Hello(about) => self.about = about,
            other => return Err(self.odd(&other)),
        }
        Ok(())
    }

    /// Whether it carries a tunnel with this device, these addresses and this port.
    pub fn carries(&self, settings: &Settings) -> bool {
        self.about.tunnel.as_ref().is_some_and(|tunnel| {
            tunnel.device == settings.device
                && tunnel.addresses == settings.addresses
                && same(tunnel.listen, settings.listen)
        })
    }

    /// Whether it carries a tunnel at all.
    pub fn has_tunnel(&self) -> bool {
        self.about.tunnel.is_some()
    }

    /// As [`crate::Tunnel::set_peers`].
    ///
    /// # Errors
    /// [`HelperError::Refused`] when keys or addresses are ambiguous; then nothing has changed.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<(), HelperError> {
        self.done(&Request::SetPeers(peers.to_vec()), &[])
    }

    /// As [`crate::Tunnel::set_own_keys`].
    ///
    /// # Errors
    /// [`HelperError::Refused`] when there is none, or one is there twice or is a peer's; then nothing has
    /// changed.
    pub fn set_own_keys(&self, own: &[KeyPair]) -> Result<(), HelperError> {
        self.done(&Request::SetOwnKeys(own.iter().map(Secret::of).collect()), &[])
    }

    /// How the peers are, in the order in which they were set.
    ///
    /// # Errors
    /// When there is no tunnel yet.
    pub fn peers(&self) -> Result<Vec<PeerStatus>, HelperError> {
        match self.ask(&Request::Peers, &[])? {
            Reply::Peers(peers) => Ok(peers),
            other => Err(self.odd(&other)),
        }
    }

    /// Its number, for people.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The version of its program, for people.
    pub fn program(&self) -> &str {
        &self.about.program
    }

    /// Readable when the process has ended.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Whether it is there and has answered what it was asked last.
    pub fn is_alive(&self) -> bool {
        !self.is_lost.load(Ordering::Relaxed) && !self.has_ended(Duration::ZERO)
    }

    /// Ends the process, whatever state it is in. The device stays, and swallows what is sent to it.
    ///
    /// # Errors
    /// When it goes on all the same.
    pub fn end(self) -> Result<(), HelperError> {
        let told = !self.is_lost.load(Ordering::Relaxed) && self.ask(&Request::Stop, &[]).is_ok();
        if !(told && self.has_ended(PATIENCE)) {
            // an error: it has ended already
            drop(sys::pidfd_kill(self.process.as_fd()));
            if !self.has_ended(PATIENCE) {
                return Err(HelperError::Lost { pid: self.pid, why: "it cannot be killed".into() });
            }
        }
        self.place.forget().map_err(|source| HelperError::Reach { place: self.place.clone(), source })
    }

    fn has_ended(&self, patience: Duration) -> bool {
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)], patience) {
                Err(Errno::EINTR) => {}
                count => return count.is_ok_and(|count| count > 0),
            }
        }
    }

    fn done(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<(), HelperError> {
        match self.ask(request, files)? {
            Reply::Done => Ok(()),
            other => Err(self.odd(&other)),
        }
    }

    fn ask(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<Reply, HelperError> {
        let answer = || -> Result<Reply, FrameError> {
            frame::send(&self.stream, request, files)?;
            Ok(frame::receive(&self.stream)?.0)
        };
        match answer() {
            Ok(Reply::Refused(why)) => Err(HelperError::Refused { pid: self.pid, why }),
            Ok(reply) => Ok(reply),
            Err(err) => Err(self.lost(err.to_string())),
        }
    }

    fn odd(&self, reply: &Reply) -> HelperError {
        self.lost(format!("it has answered something else than was asked: {reply:?}"))
    }

    /// What comes next on the socket may be the answer to something else: it is of no use any more.
    fn lost(&self, why: String) -> HelperError {
        self.is_lost.store(true, Ordering::Relaxed);
        HelperError::Lost { pid: self.pid, why }
    }
}

/// Whether both are one socket; a port that was left open is any.
fn same(bound: SocketAddr, wanted: SocketAddr) -> bool {
    bound.ip() == wanted.ip() && (wanted.port() == 0 || bound.port() == wanted.port())
}
