//! Who carries the tunnel: the kernel or a process.

use swarm_worker_wireguard::{KeyPair, Peer, PublicKey};

use super::in_kernel::InKernel;
use super::process::Process;

/// One of the two; the same is asked of either.
pub(super) enum Carrier {
    Kernel(Box<InKernel>),
    Process(Box<Process>),
}

/// Hands a call on to the one that there is.
macro_rules! either {
    ($self:ident, $it:ident => $call:expr) => {
        match $self {
            Carrier::Kernel($it) => $call,
            Carrier::Process($it) => $call,
        }
    };
}

impl Carrier {
    /// Makes it carry the tunnel of this node's number, in packets of this size. True if it is another one
    /// than before, which knows no peers of ours.
    pub(super) fn keep(&mut self, index: u16, mtu: u16, own: &[KeyPair]) -> bool {
        either!(self, it => it.keep(index, mtu, own))
    }

    pub(super) fn set_own_keys(&mut self, own: &[KeyPair]) -> Result<(), String> {
        either!(self, it => it.set_own_keys(own))
    }

    pub(super) fn set_peers(&mut self, peers: &[Peer]) -> Result<(), String> {
        either!(self, it => it.set_peers(peers))
    }

    /// All sessions are of this key of ours.
    pub(super) fn has_moved(&self, to: PublicKey) -> bool {
        either!(self, it => it.has_moved(to))
    }

    /// Whether it carries, and the device is as it is to be.
    pub(super) fn is_well(&self) -> bool {
        either!(self, it => it.is_well())
    }

    /// The node's number in the tunnel, if there is one.
    pub(super) fn index(&self) -> Option<u16> {
        either!(self, it => it.index())
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        either!(self, it => it.mtu())
    }

    /// Why there is none.
    pub(super) fn failed(&self) -> Option<&String> {
        either!(self, it => it.failed.as_ref())
    }

    /// Waits until it is to be looked at.
    pub(super) async fn news(&self) {
        match self {
            Carrier::Kernel(it) => it.news().await,
            Carrier::Process(it) => it.ended().await,
        }
    }

    /// True if it is to be started anew at once.
    pub(super) fn look(&mut self) -> bool {
        match self {
            Carrier::Kernel(it) => it.look(),
            Carrier::Process(it) => it.lost(),
        }
    }

    /// There is to be none, and no device.
    pub(super) fn remove(&mut self) {
        either!(self, it => it.remove());
    }
}
