//! The tunnel that the kernel carries, where it has WireGuard: the same peers and keys, no process of ours.
//!
//! A device of the kernel's has one key, and what may come from a peer belongs to one key of that peer. So a change
//! of keys is not what it is in user space ([`crate::Tunnel`]), where sessions of both keys go on side by side:
//!
//! - **Ours**: the device gets the new key when all peers know it. What peers send by the old sessions is still
//!   taken; what we send waits for a handshake with the new key, which is begun at once.
//! - **A peer's**: each of its keys is a peer of the device; its addresses are those of the key that had the last
//!   handshake. [`KernelTunnel::follow`] moves them. What the peer sends by its new key before that is dropped and
//!   sent again by whoever sent it: call it often while [`KernelTunnel::is_changing`].
//!
//! Everything outlives the process, and one that starts again changes only what is different.

mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::device::{self, DeviceError, Settings};
use crate::key::{KeyPair, PublicKey};
use crate::netlink::{Netlink, family_id};
use crate::peer::Peer;
use wire::{Device, PeerChange, PeerState, Wire};

/// Its name, among kinds of links and in generic netlink.
pub(crate) const FAMILY: &str = "wireguard";
/// Seconds; set and unset again, as the kernel then says a word to the peer, for which it makes a session.
const WORD: u16 = 25;
/// The protocol takes nothing by a session that is older.
const SESSION_ENDS: Duration = Duration::from_secs(180);

/// Time of a handshake by the kernel's clock, seconds and nanoseconds; zero: there was none.
pub(crate) type Moment = (i64, i64);

/// A device of the kernel's. Dropping it changes nothing.
#[derive(Debug)]
pub struct KernelTunnel {
    settings: Settings,
    own: PublicKey,
    peers: Vec<Peer>,
    /// Where peers were said to be: an address that one has moved to since is kept.
    told: BTreeMap<PublicKey, SocketAddr>,
    /// Handshakes of before the device got its key: their sessions are of the old one.
    before: BTreeMap<PublicKey, Moment>,
    /// When that was, if this process did it.
    switched: Option<Instant>,
}

/// Whether a device of this name is one that a process carries: it stays so until it is removed.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn is_of_process(device: &str) -> io::Result<bool> {
    let Some(family) = family_id(FAMILY)? else { return Ok(if_nametoindex(device).is_ok()) };
    match Wire::open(family)?.device(device) {
        Ok(_) => Ok(false),
        Err(err) if err.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(err) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(true),
        Err(err) => Err(err),
    }
}

impl KernelTunnel {
    /// Makes the device, or takes over one that was left. Peers that it has stay until [`Self::set_peers`].
    ///
    /// `own`: the first is the key of the device.
    ///
    /// # Errors
    /// When the kernel has no WireGuard or refuses, among others because the port is taken.
    pub fn open(settings: &Settings, own: &[KeyPair]) -> Result<Self, DeviceError> {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, "no key of our own");
        let failed = |source| DeviceError::Take { device: settings.device.clone(), source };
        let first = own.first().ok_or_else(|| failed(missing()))?;
        let mut tunnel = Self {
            settings: settings.clone(),
            own: first.public(),
            peers: Vec::new(),
            told: BTreeMap::new(),
            before: BTreeMap::new(),
            switched: None,
        };
        device::inside(settings.netns.as_deref(), || {
            Netlink::route().and_then(|route| route.make_link(&settings.device, FAMILY)).map_err(failed)
        })?;
        tunnel.set_own_keys(own)?;
        device::configure(settings)?;
        Ok(tunnel)
    }

    /// The device gets its addresses and size again, and is switched on.
    ///
    /// # Errors
    /// As [`crate::configure`].
    pub fn configure(&mut self, settings: &Settings) -> Result<(), DeviceError> {
        self.settings = settings.clone();
        device::configure(settings)
    }

    /// The first is the key of the device from now on.
    ///
    /// # Errors
    /// When the device is gone, or the kernel refuses.
    pub fn set_own_keys(&mut self, own: &[KeyPair]) -> Result<(), DeviceError> {
        let Some(first) = own.first() else { return Ok(()) };
        let before = self.ask(|wire, name| {
            let device = wire.device(name)?;
            let port = self.settings.listen.port();
            if device.own == Some(first.public()) && device.port == port {
                return Ok(None);
            }
            let is_other = device.own.is_some_and(|own| own != first.public());
            wire.set_device(name, first, port)?;
            // Peers hear of it at once, and not when there is something to be sent.
            for key in device.peers.keys().filter(|_| is_other) {
                for interval in [WORD, 0] {
                    wire.set_peer(name, &PeerChange { keepalive: Some(interval), ..PeerChange::of(*key) })?;
                }
            }
            Ok(is_other.then(|| device.peers.iter().map(|(key, peer)| (*key, peer.handshake)).collect()))
        })?;
        if let Some(before) = before {
            self.before = before;
            self.switched = Some(Instant::now());
        }
        self.own = first.public();
        Ok(())
    }

    /// Replaces the peers; what has not changed keeps its sessions.
    ///
    /// # Errors
    /// When the device is gone, or the kernel refuses.
    pub fn set_peers(&mut self, peers: &[Peer]) -> Result<(), DeviceError> {
        self.peers = peers.to_vec();
        let told = self.ask(|wire, name| {
            let device = wire.device(name)?;
            for change in self.changes(&device) {
                wire.set_peer(name, &change)?;
            }
            let keys = peers.iter().flat_map(|peer| peer.keys.iter().map(|key| (*key, peer.endpoint)));
            Ok(keys.collect())
        })?;
        self.told = told;
        Ok(())
    }

    /// Some peer has two keys: [`Self::follow`] is to be called often.
    pub fn is_changing(&self) -> bool {
        self.peers.iter().any(|peer| peer.keys.len() > 1)
    }

    /// Addresses of peers go over to the keys that they use now. True if any did.
    ///
    /// # Errors
    /// When the device is gone, or the kernel refuses.
    pub fn follow(&mut self) -> Result<bool, DeviceError> {
        self.ask(|wire, name| {
            let changes = self.changes(&wire.device(name)?);
            changes.iter().try_for_each(|change| wire.set_peer(name, change))?;
            Ok(!changes.is_empty())
        })
    }

    /// All peers with which there is a session have one of the key that the device has, which is this one.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn has_moved(&self, to: PublicKey) -> Result<bool, DeviceError> {
        let device = self.ask(|wire, name| wire.device(name))?;
        let since = self.switched.map(|at| at.elapsed());
        Ok(self.own == to && since.is_none_or(|since| is_rid_of_old(&device, &self.before, since)))
    }

    /// Of each key of a peer's, when its last handshake was.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn handshakes(&self) -> Result<BTreeMap<PublicKey, (i64, i64)>, DeviceError> {
        let device = self.ask(|wire, name| wire.device(name))?;
        Ok(device.peers.into_iter().map(|(key, peer)| (key, peer.handshake)).collect())
    }

    /// What is to be said so that the device has the peers, each with its addresses at the key in use.
    fn changes(&self, device: &Device) -> Vec<PeerChange> {
        let wanted: Vec<PublicKey> = self.peers.iter().flat_map(|peer| peer.keys.iter().copied()).collect();
        let gone = device.peers.keys().filter(|key| !wanted.contains(key));
        let mut changes: Vec<_> =
            gone.map(|key| PeerChange { remove: true, ..PeerChange::of(*key) }).collect();
        for peer in &self.peers {
            let used = in_use(peer, device);
            for key in &peer.keys {
                let has = device.peers.get(key);
                let mut change = PeerChange { is_new: has.is_none(), ..PeerChange::of(*key) };
                let is_told = self.told.get(key) == Some(&peer.endpoint);
                if has.is_none_or(|has| has.endpoint != Some(peer.endpoint) && !is_told) {
                    change.endpoint = Some(peer.endpoint);
                }
                // The kernel takes an address from the key that had it.
                if Some(*key) == used && has.is_none_or(|has| !has.has_exactly(&peer.tunnel_addrs)) {
                    change.addrs = Some(peer.tunnel_addrs.clone());
                }
                if change.says_anything() {
                    changes.push(change);
                }
            }
        }
        changes
    }

    fn ask<T: Send>(&self, ask: impl FnOnce(&Wire, &str) -> io::Result<T> + Send) -> Result<T, DeviceError> {
        let name = &self.settings.device;
        let failed = |source| DeviceError::Configure { device: name.clone(), source };
        device::inside(self.settings.netns.as_deref(), || {
            let family = family_id(FAMILY).and_then(|id| id.ok_or_else(|| Errno::EPROTONOSUPPORT.into()));
            let wire = family.and_then(Wire::open).map_err(failed)?;
            ask(&wire, name).map_err(failed)
        })
    }
}

/// No session is of the key that the device had until this long ago. A peer that is gone answers no more, and the
/// kernel goes on telling of its last handshake: it ends with the age of its session.
fn is_rid_of_old(device: &Device, before: &BTreeMap<PublicKey, Moment>, since: Duration) -> bool {
    let of_old = |(key, peer): (&PublicKey, &PeerState)| {
        peer.handshake != Moment::default() && before.get(key) == Some(&peer.handshake)
    };
    since >= SESSION_ENDS || !device.peers.iter().any(of_old)
}

/// The key of a peer's that it has spoken with last; the preferred one if it has not spoken yet.
fn in_use(peer: &Peer, device: &Device) -> Option<PublicKey> {
    let moment = |key: &PublicKey| device.peers.get(key).map(|peer| peer.handshake).unwrap_or_default();
    // Of equals the last one is taken: the first of the peer's.
    peer.keys.iter().rev().copied().max_by_key(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PublicKey {
        KeyPair::from_secret(&[number; 32]).public()
    }

    fn tunnel(peers: Vec<Peer>) -> KernelTunnel {
        let listen = "0.0.0.0:4790".parse().unwrap();
        let settings = Settings { netns: None, device: "wg".into(), listen, addresses: vec![], mtu: 1400 };
        KernelTunnel {
            settings,
            own: key(1),
            peers,
            told: BTreeMap::new(),
            before: BTreeMap::new(),
            switched: None,
        }
    }

    fn peer(keys: &[u8]) -> Peer {
        let keys = keys.iter().map(|number| key(*number)).collect();
        let tunnel_addrs = vec!["100.127.0.2".parse().unwrap()];
        Peer { keys, endpoint: "192.0.2.2:4790".parse().unwrap(), tunnel_addrs }
    }

    /// What the device has when it was told of all of this.
    fn told(tunnel: &KernelTunnel, mut device: Device) -> Device {
        for change in tunnel.changes(&device) {
            if change.remove {
                device.peers.remove(&change.key);
                continue;
            }
            for addr in change.addrs.iter().flatten() {
                device.peers.values_mut().for_each(|peer| peer.addrs.retain(|(has, _)| has != addr));
            }
            let state = device.peers.entry(change.key).or_default();
            state.endpoint = change.endpoint.or(state.endpoint);
            if let Some(addrs) = change.addrs {
                state.addrs = addrs.into_iter().map(|addr| (addr, 32)).collect();
            }
        }
        device
    }

    #[test]
    fn addresses_follow_the_key_that_spoke_last() {
        let mut tunnel = tunnel(vec![peer(&[2, 3])]);
        let holder = |device: &Device| {
            let mut has = device.peers.iter().filter(|(_, peer)| !peer.addrs.is_empty());
            (*has.next().unwrap().0, has.next().is_none())
        };
        let mut device = told(&tunnel, Device::default());
        assert_eq!(holder(&device), (key(2), true), "the preferred one");
        assert_eq!(tunnel.changes(&device), [], "nothing is said twice");
        device.peers.get_mut(&key(3)).unwrap().handshake = (9, 1);
        let mut device = told(&tunnel, device);
        assert_eq!(holder(&device), (key(3), true));
        device.peers.get_mut(&key(2)).unwrap().handshake = (9, 0);
        assert_eq!(tunnel.changes(&device), [], "an older handshake");
        tunnel.peers = vec![peer(&[3])];
        let device = told(&tunnel, device);
        assert_eq!((device.peers.len(), holder(&device)), (1, (key(3), true)));
        tunnel.peers.clear();
        assert_eq!(told(&tunnel, device).peers.len(), 0);
    }

    #[test]
    fn a_peer_that_is_gone_does_not_hold_a_change_of_keys_up() {
        let with = |handshake| Device {
            peers: [(key(2), PeerState { handshake, ..PeerState::default() })].into(),
            ..Device::default()
        };
        let before = [(key(2), (9, 1))].into();
        let soon = Duration::from_secs(1);
        assert!(!is_rid_of_old(&with((9, 1)), &before, soon), "it has not made a session since");
        assert!(is_rid_of_old(&with((9, 1)), &before, SESSION_ENDS), "and cannot use the old one any more");
        assert!(is_rid_of_old(&with((9, 2)), &before, soon));
        assert!(is_rid_of_old(&with((0, 0)), &before, soon), "there never was one");
    }

    #[test]
    fn where_a_peer_has_moved_to_is_kept_until_it_is_said_to_be_elsewhere() {
        let mut tunnel = tunnel(vec![peer(&[2])]);
        tunnel.told.insert(key(2), peer(&[2]).endpoint);
        let mut device = told(&tunnel, Device::default());
        device.peers.insert(
            key(2),
            PeerState { endpoint: Some("192.0.2.9:7".parse().unwrap()), ..device.peers[&key(2)].clone() },
        );
        assert_eq!(tunnel.changes(&device), []);
        tunnel.peers[0].endpoint = "192.0.2.3:4790".parse().unwrap();
        assert_eq!(tunnel.changes(&device)[0].endpoint, Some(tunnel.peers[0].endpoint));
    }
}
