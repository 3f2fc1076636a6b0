//! A running tunnel: its threads, and what can be changed and seen from outside.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};

use crate::counter::{Count, Counters};
use crate::device::{self, DeviceError, Opened, Settings};
use crate::key::{KeyPair, PublicKey};
use crate::netlink::Prefix;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::table::{Table, TableError, Wanted, check_own};
use crate::{clock, inward, outward};

/// Why a tunnel did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum StartError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Keys(#[from] TableError),
    #[error("start tunnel threads")]
    Threads { source: io::Error },
}

/// How a peer is at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The first of its keys in the settings.
    pub key: PublicKey,
    /// Where packets to it go.
    pub endpoint: SocketAddr,
    /// Its addresses inside the tunnel.
    pub tunnel_addrs: Vec<IpAddr>,
    /// The session that packets to it go by, `None` while there is none.
    pub session: Option<SessionStatus>,
}

/// A session with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The key of ours that it was made with.
    pub own: PublicKey,
    /// The key of the peer's that it was made with.
    pub theirs: PublicKey,
    /// Time since it was made.
    pub age: Duration,
}

/// An encrypted tunnel to all peers.
///
/// Dropping it ends the threads and leaves the device, which swallows what is sent to it: see
/// [`crate::remove`].
pub struct Tunnel {
    shared: Arc<Shared>,
    wanted: Arc<Mutex<Wanted>>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes the device or takes it over, and starts. There are no peers yet.
    ///
    /// `own`: the key that handshakes are begun with comes first.
    ///
    /// # Errors
    /// When the device or the socket cannot be had ([`DeviceError::Busy`] while another process has the
    /// device), or `own` is empty. A device that was there before is left.
    pub fn start(settings: &Settings, own: Vec<KeyPair>) -> Result<Self, StartError> {
        check_own(&own)?;
        let opened = device::open(settings)?;
        let tunnel = Self::run(opened, settings.addresses.clone(), own)?;
        tracing::info!(device = settings.device, listen = %settings.listen, "tunnel started");
        Ok(tunnel)
    }

    /// Starts on a device and a socket that are there.
    pub(crate) fn run(opened: Opened, addresses: Vec<Prefix>, own: Vec<KeyPair>) -> Result<Self, StartError> {
        let wanted = Wanted::new(addresses.clone(), own, arbitrary())?;
        let threads = |source| StartError::Threads { source };
        let event = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let shared = Arc::new(Shared {
            tun: opened.tun,
            offload: opened.offload,
            socket: opened.socket,
            addresses,
            table: ArcSwap::from_pointee(Table::default()),
            count: Count::default(),
            stop: event().map_err(|errno| threads(errno.into()))?,
            stops: AtomicBool::new(false),
            hurry: event().map_err(|errno| threads(errno.into()))?,
            ended: event().map_err(|errno| threads(errno.into()))?,
        });
        let wanted = Arc::new(Mutex::new(wanted));
        let mut tunnel = Tunnel { shared, wanted, threads: Vec::new() };
        tunnel.apply(&mut tunnel.wanted());
        tunnel.spawn().map_err(threads)?;
        Ok(tunnel)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let wanted = Arc::clone(&self.wanted);
        self.thread("wg-out", outward::run)?;
        self.thread("wg-in", inward::run)?;
        self.thread("wg-clock", move |shared| clock::run(shared, &wanted))
    }

    fn thread(
        &mut self,
        name: &'static str,
        run: impl FnOnce(&Arc<Shared>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            let _end = SayEnd(&shared);
            if let Err(err) = run(&shared) {
                tracing::error!(thread = name, error = %err, "the tunnel has stopped");
            }
        };
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(body)?);
        Ok(())
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        // its values are replaced whole
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, wanted: &mut Wanted) {
        let table = wanted.table(&self.shared.table.load(), Instant::now());
        self.shared.table.store(Arc::new(table));
        // the clock looks every 100 ms in any case
        let _ = self.shared.hurry.write(1);
    }

    /// Sets all peers. Sessions with those that stay go on; with new ones, and with those of which the first key
    /// or the endpoint is another one, handshakes are begun at once. What is known of a peer stays its own as
    /// long as it keeps one of its keys. Packets of keys that a peer has no more are taken for 5 s;
    /// those of peers that are no more are not.
    ///
    /// # Errors
    /// When keys or addresses are ambiguous; then nothing has changed.
    pub fn set_peers(&self, peers: Vec<Peer>) -> Result<(), TableError> {
        let mut wanted = self.wanted();
        wanted.set_peers(peers)?;
        self.apply(&mut wanted);
        Ok(())
    }

    /// Sets the keys of this node. Handshakes to all of them are taken, the first is the one to begin with.
    /// Packets go by the old key until the peer has answered to the new one. What is still on its way by a key
    /// that is not there any more is taken for 5 s.
    ///
    /// # Errors
    /// When there is none, or one is there twice or is a peer's; then nothing has changed.
    pub fn set_own_keys(&self, own: Vec<KeyPair>) -> Result<(), TableError> {
        let mut wanted = self.wanted();
        wanted.set_own(own)?;
        self.apply(&mut wanted);
        Ok(())
    }

    /// How the peers are, in the order in which they were set.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let table = self.shared.table.load();
        let status = table.entries.iter().map(|entry| PeerStatus {
            key: entry.peer.keys[0],
            endpoint: entry.endpoint(),
            tunnel_addrs: entry.peer.tunnel_addrs.clone(),
            session: entry.ready().and_then(|pair| {
                let (own, theirs) = pair.keys();
                Some(SessionStatus { own, theirs, age: pair.session_age()? })
            }),
        });
        status.collect()
    }

    /// What was done and thrown away since the start.
    pub fn counters(&self) -> Counters {
        self.shared.count.read()
    }

    /// Where the tunnel listens: the port, if the settings left it open.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.socket.local_addr()
    }

    /// Readable when a thread has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.shared.ended.as_fd()
    }

    /// Whether all threads run. They end when somebody deletes the device: then nothing is sent, and a new
    /// tunnel has to be started.
    pub fn is_running(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        // it stays readable for everybody, as nobody reads it
        let _ = self.shared.stop.write(1);
        for thread in self.threads.drain(..) {
            // it has said already what went wrong
            drop(thread.join());
        }
    }
}

/// Says that a thread has ended when it goes out of scope, also in a panic.
struct SayEnd<'a>(&'a Shared);

impl Drop for SayEnd<'_> {
    fn drop(&mut self) {
        // it stays readable, as nobody reads it
        let _ = self.0.ended.write(1);
    }
}

/// A number that is another one in each process. It need not be secret.
fn arbitrary() -> u32 {
    let number = RandomState::new().build_hasher().finish();
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}
