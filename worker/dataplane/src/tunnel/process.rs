//! The process that carries the tunnel: found or started, kept as the set wants it, replaced when it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use swarm_types::defaults;
use swarm_worker_core::network::address::{TUNNEL, tunnel_addr};
use swarm_worker_wireguard::helper::{Helper, HelperError, Place};
use swarm_worker_wireguard::{KeyPair, Peer, PublicKey, Settings, configure, remove};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::{chain, is_as_wanted, listen};
use crate::sys;

/// One that ends sooner than this is started anew at the next look, not at once.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// A helper that carries our tunnel.
struct Running {
    helper: Helper,
    /// Readable when it has ended.
    end: AsyncFd<OwnedFd>,
    /// When this daemon started it; none of one that it found.
    started: Option<Instant>,
    index: u16,
    mtu: u16,
}

/// A helper, its end, and when it was started if it was not found.
type Obtained = (Helper, AsyncFd<OwnedFd>, Option<Instant>);

/// The process of this node's tunnel, if there is to be one.
pub(super) struct Process {
    place: Place,
    port: u16,
    running: Option<Running>,
    /// Why there is none.
    pub(super) failed: Option<String>,
    /// Whether a daemon before this one may have left one.
    may_be_left: bool,
}

impl Process {
    pub(super) fn new(place: Place, port: u16) -> Self {
        Self { place, port, running: None, failed: None, may_be_left: true }
    }

    /// Makes it carry the tunnel of this node's number, in packets of this size. True if it is another one
    /// than before, which knows no peers of ours.
    pub(super) fn keep(&mut self, index: u16, mtu: u16, own: &[KeyPair]) -> bool {
        if let Some(running) = &mut self.running
            && running.index == index
            && running.helper.is_alive()
        {
            let changed = !is_as_wanted(index);
            if changed {
                warn!("the device {TUNNEL} was changed: it gets its address back and is switched on");
            }
            if changed || running.mtu != mtu {
                self.failed = configure(&settings(self.port, index, mtu)).err().map(|e| chain(&e));
                running.mtu = mtu;
            }
            return false;
        }
        if let Some(Running { helper, .. }) = &self.running
            && !helper.is_alive()
        {
            warn!(pid = helper.pid(), "the tunnel's process has ended or does not answer: it is replaced");
        }
        self.end();
        match self.obtain(&settings(self.port, index, mtu), own) {
            Ok((helper, end, started)) => {
                self.failed = None;
                self.running = Some(Running { helper, end, started, index, mtu });
            }
            Err(text) => {
                if self.failed.as_ref() != Some(&text) {
                    warn!(error = text, "no tunnel: encrypted networks do not reach other nodes");
                }
                self.failed = Some(text);
            }
        }
        true
    }

    /// That of the daemon before this one, or a new one.
    fn obtain(&mut self, settings: &Settings, own: &[KeyPair]) -> Result<Obtained, String> {
        let (helper, started) = match self.found(settings, own).map_err(|e| chain(&e))? {
            Some(helper) => (helper, None),
            None => {
                let helper = Helper::start(&self.place).map_err(|e| chain(&e))?;
                (opened(helper, settings, own)?, Some(Instant::now()))
            }
        };
        self.may_be_left = false;
        let end = watch(&helper).map_err(|e| format!("watch the tunnel's process: {e}"))?;
        info!(
            pid = helper.pid(),
            program = helper.program(),
            "the tunnel is carried by a process of its own"
        );
        Ok((helper, end, started))
    }

    fn found(&self, settings: &Settings, own: &[KeyPair]) -> Result<Option<Helper>, HelperError> {
        let Some(helper) = Helper::find(&self.place)? else { return Ok(None) };
        if helper.carries(settings) && helper.set_own_keys(own).is_ok() {
            // Its packets are as large as they were, and somebody may have changed the device meanwhile.
            configure(settings)?;
            return Ok(Some(helper));
        }
        // Another node number or another port, or it was never told to start: a new one is as quick.
        helper.end()?;
        Ok(None)
    }

    /// Whether it runs, and the device is as it is to be.
    pub(super) fn is_well(&self) -> bool {
        self.running.as_ref().is_none_or(|r| r.helper.is_alive() && is_as_wanted(r.index))
    }

    pub(super) fn index(&self) -> Option<u16> {
        self.running.as_ref().map(|r| r.index)
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        self.running.as_ref().map(|r| r.mtu)
    }

    pub(super) fn set_own_keys(&self, own: &[KeyPair]) -> Result<(), String> {
        self.running.as_ref().map_or(Ok(()), |r| r.helper.set_own_keys(own)).map_err(|e| chain(&e))
    }

    pub(super) fn set_peers(&self, peers: &[Peer]) -> Result<(), String> {
        self.running.as_ref().map_or(Ok(()), |r| r.helper.set_peers(peers)).map_err(|e| chain(&e))
    }

    /// All sessions are of this key of ours.
    pub(super) fn has_moved(&self, to: PublicKey) -> bool {
        let Some(running) = &self.running else { return true };
        let Ok(peers) = running.helper.peers() else { return false };
        peers.iter().filter_map(|peer| peer.session.as_ref()).all(|session| session.own == to)
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(&self) {
        match &self.running {
            // An error: it cannot be waited for, and is looked at each second.
            Some(running) => match running.end.readable().await {
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// It has ended by itself. True if it is to be started anew at once.
    pub(super) fn lost(&mut self) -> bool {
        let Some(running) = self.running.take() else { return false };
        warn!(pid = running.helper.pid(), "the tunnel's process has ended by itself and is started anew");
        let lived = running.started.map(|at| at.elapsed()).filter(|lived| *lived < SHORT_LIFE);
        if let Some(lived) = lived {
            self.failed = Some(format!("the tunnel's process ended after {} ms", lived.as_millis()));
        }
        lived.is_none()
    }

    /// Ends it if it is there. Its device stays, and swallows what is sent to it until it is taken over.
    fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        if let Err(e) = running.helper.end() {
            warn!(error = chain(&e), "the tunnel's process stays");
        }
    }

    /// There is to be none, and no device.
    pub(super) fn remove(&mut self) {
        if self.running.is_some() {
            info!("no network needs the tunnel any more: its process is ended");
        }
        self.end();
        self.failed = None;
        if self.may_be_left {
            let ended = Helper::find(&self.place).and_then(|left| left.map_or(Ok(()), Helper::end));
            match ended {
                Ok(()) => self.may_be_left = false,
                Err(e) => warn!(error = chain(&e), "the tunnel's process of before stays"),
            }
        }
        if let Err(e) = remove(None, TUNNEL) {
            warn!(error = chain(&e), "the tunnel's device cannot be removed");
        }
    }
}

/// A helper that has nothing to carry is not left behind.
fn opened(mut helper: Helper, settings: &Settings, own: &[KeyPair]) -> Result<Helper, String> {
    let Err(why) = helper.open(settings, own) else { return Ok(helper) };
    let text = chain(&why);
    match helper.end() {
        Ok(()) => Err(text),
        Err(e) => Err(format!("{text}; {}", chain(&e))),
    }
}

fn watch(helper: &Helper) -> io::Result<AsyncFd<OwnedFd>> {
    sys::watch_readable(helper.process().try_clone_to_owned()?)
}

/// The device of this node's tunnel.
pub(super) fn settings(port: u16, index: u16, mtu: u16) -> Settings {
    Settings {
        netns: None,
        device: TUNNEL.into(),
        listen: listen(port),
        addresses: vec![(tunnel_addr(index), defaults::tunnel_net().prefix_len())],
        mtu,
    }
}
