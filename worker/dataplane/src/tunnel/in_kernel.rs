//! The tunnel that the kernel carries: nothing of it needs this daemon but a change of keys.

use std::time::Duration;

use swarm_worker_core::network::address::TUNNEL;
use swarm_worker_wireguard::{KernelTunnel, KeyPair, Peer, PublicKey, remove};
use tokio::time::Instant;
use tracing::{info, warn};

use super::process::settings;
use super::{chain, is_as_wanted};

/// Between two looks at which key a peer uses, while it has two.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// The device of this node's tunnel, if there is to be one.
pub(super) struct InKernel {
    port: u16,
    device: Option<Device>,
    /// Why there is none.
    pub(super) failed: Option<String>,
}

struct Device {
    tunnel: KernelTunnel,
    index: u16,
    mtu: u16,
    /// When it is to be looked at, while keys change.
    look_at: Instant,
}

impl InKernel {
    pub(super) fn new(port: u16) -> Self {
        Self { port, device: None, failed: None }
    }

    pub(super) fn keep(&mut self, index: u16, mtu: u16, own: &[KeyPair]) -> bool {
        let wanted = settings(self.port, index, mtu);
        if let Some(device) = self.device.as_mut().filter(|device| device.index == index) {
            let changed = !is_as_wanted(index);
            if !changed && device.mtu == mtu {
                return false;
            }
            if device.tunnel.configure(&wanted).is_ok() {
                if changed {
                    warn!("the device {TUNNEL} was changed: it got its address back and is switched on");
                }
                device.mtu = mtu;
                self.failed = None;
                return false;
            }
            warn!("the device {TUNNEL} is gone or does not obey: it is made anew");
        }
        self.device = None;
        match KernelTunnel::open(&wanted, own) {
            Ok(tunnel) => {
                info!("the tunnel is carried by the kernel");
                self.failed = None;
                self.device = Some(Device { tunnel, index, mtu, look_at: Instant::now() });
            }
            Err(e) => {
                let text = chain(&e);
                if self.failed.as_ref() != Some(&text) {
                    warn!(error = text, "no tunnel: encrypted networks do not reach other nodes");
                }
                self.failed = Some(text);
            }
        }
        true
    }

    pub(super) fn set_own_keys(&mut self, own: &[KeyPair]) -> Result<(), String> {
        let Some(device) = &mut self.device else { return Ok(()) };
        device.tunnel.set_own_keys(own).map_err(|e| chain(&e))
    }

    pub(super) fn set_peers(&mut self, peers: &[Peer]) -> Result<(), String> {
        let Some(device) = &mut self.device else { return Ok(()) };
        device.tunnel.set_peers(peers).map_err(|e| chain(&e))
    }

    pub(super) fn has_moved(&self, to: PublicKey) -> bool {
        self.device.as_ref().is_none_or(|device| device.tunnel.has_moved(to).unwrap_or(false))
    }

    pub(super) fn is_well(&self) -> bool {
        self.device.as_ref().is_none_or(|device| is_as_wanted(device.index))
    }

    pub(super) fn index(&self) -> Option<u16> {
        self.device.as_ref().map(|device| device.index)
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        self.device.as_ref().map(|device| device.mtu)
    }

    /// Waits until a peer may have gone over to another key.
    pub(super) async fn news(&self) {
        match self.device.as_ref().filter(|device| device.tunnel.is_changing()) {
            Some(device) => tokio::time::sleep_until(device.look_at).await,
            None => std::future::pending().await,
        }
    }

    /// A device that cannot be asked is found to be gone at the next look at the host.
    pub(super) fn look(&mut self) -> bool {
        let Some(device) = &mut self.device else { return false };
        device.look_at = Instant::now() + FOLLOW_EVERY;
        if let Err(e) = device.tunnel.follow() {
            warn!(error = chain(&e), "which keys peers use cannot be seen");
            device.look_at = Instant::now() + Duration::from_secs(1);
        }
        false
    }

    pub(super) fn remove(&mut self) {
        if self.device.take().is_some() {
            info!("no network needs the tunnel any more: its device is removed");
        }
        self.failed = None;
        if let Err(e) = remove(None, TUNNEL) {
            warn!(error = chain(&e), "the tunnel's device cannot be removed");
        }
    }
}
