//! The encrypted tunnel of this node, started when a network needs it, with the peers and keys that the
//! set names. The kernel carries it where it can ([`in_kernel`]), else a process of its own ([`process`]): either goes
//! on while this one is dead.

mod carrier;
mod in_kernel;
mod process;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use swarm_types::network_set::{NetworkDifference, NetworkProblem, NetworkSet};
use swarm_worker_core::network::address::{TUNNEL, tunnel_addr};
use swarm_worker_wireguard::helper::Place;
use swarm_worker_wireguard::{Encryption, Peer, PublicKey, is_of_process};
use tracing::warn;

use self::carrier::Carrier;
use self::in_kernel::InKernel;
use self::process::Process;
use crate::keys::Keys;

/// Octets that the tunnel adds to a packet.
const OVERHEAD_V4: u32 = 60;
const OVERHEAD_V6: u32 = 80;

/// The tunnel and what it was made from.
pub(crate) struct Keeper {
    pub(crate) keys: Keys,
    port: u16,
    carrier: Carrier,
    /// Who encrypts here, in the words of the node's description; empty if nothing can.
    pub(crate) encryption: &'static str,
    /// What the carrier was told.
    peers: Option<Vec<Peer>>,
    /// Why the keys stay as they are.
    stuck: Option<String>,
    refused: Option<String>,
}

impl Keeper {
    pub(crate) fn new(keys: Keys, port: u16, place: Place) -> Self {
        let encryption = encryption();
        let carrier = match encryption {
            KERNEL => Carrier::Kernel(Box::new(InKernel::new(port))),
            _ => Carrier::Process(Box::new(Process::new(place, port))),
        };
        Self { keys, port, carrier, encryption, peers: None, stuck: None, refused: None }
    }

    /// Makes the tunnel what the set wants; the largest packet in it, none if there is no tunnel. One that
    /// is not wanted any more goes with [`Self::leave`], when nothing is led to it.
    pub(crate) fn update(&mut self, set: &NetworkSet, underlay: Option<IpAddr>, underlay_mtu: u32) {
        let Some(own) = &set.own else { return };
        let moved = self.has_moved();
        match self.keys.follow(own.key_epoch, &own.keys, moved) {
            Ok(false) => self.stuck = None,
            Ok(true) => {
                self.stuck = None;
                self.refused = self.carrier.set_own_keys(&self.keys.own()).err().or(self.refused.take());
            }
            Err(e) => self.stuck = Some(format!("keep the tunnel's keys: {e}")),
        }
        let overhead = if underlay.is_some_and(|a| a.is_ipv6()) { OVERHEAD_V6 } else { OVERHEAD_V4 };
        let below = if underlay_mtu == 0 { 1500 } else { underlay_mtu };
        let mtu = u16::try_from(below.saturating_sub(overhead).clamp(576, 65_000)).unwrap_or(1420);
        if is_wanted(set) && self.carrier.keep(own.index, mtu, &self.keys.own()) {
            self.peers = None;
        }
        self.set_peers(set);
    }

    /// The kernel's networks are as the set wants them: a tunnel that none of them needs goes.
    pub(crate) fn leave(&mut self, set: &NetworkSet) {
        if !is_wanted(set) {
            self.carrier.remove();
            (self.peers, self.refused) = (None, None);
        }
    }

    /// Waits until the carrier wants to be looked at ([`Self::look`]).
    pub(crate) async fn news(&self) {
        self.carrier.news().await;
    }

    /// Looks at the carrier. True if it is to be started anew at once.
    pub(crate) fn look(&mut self) -> bool {
        self.carrier.look()
    }

    /// What somebody has done to the device and was not repaired yet.
    pub(crate) fn differences(&self) -> impl Iterator<Item = NetworkDifference> {
        let wrong = self.carrier.index().is_some_and(|index| !is_as_wanted(index));
        wrong
            .then(|| NetworkDifference {
                place: "host".into(),
                what: format!("device {TUNNEL}"),
                how: "down, or without its address".into(),
            })
            .into_iter()
    }

    fn set_peers(&mut self, set: &NetworkSet) {
        let Some(index) = self.carrier.index() else { return };
        let mut seen: BTreeSet<PublicKey> = self.keys.own().iter().map(|pair| pair.public()).collect();
        let others = set.peers.values().filter(|p| p.index != 0 && p.index != index && p.tunnel_port != 0);
        let peers = others.filter_map(|peer| {
            let keys = peer.keys.iter().filter_map(|key| key.parse().ok());
            // A key that two nodes claim is nobody's: the first one's.
            let keys: Vec<PublicKey> = keys.filter(|key| seen.insert(*key)).collect();
            let endpoint = SocketAddr::new(peer.addr, peer.tunnel_port);
            let tunnel_addrs = vec![tunnel_addr(peer.index)];
            (!keys.is_empty()).then_some(Peer { keys, endpoint, tunnel_addrs })
        });
        let peers: Vec<Peer> = peers.collect();
        if self.peers.as_ref() == Some(&peers) {
            return;
        }
        self.refused = self.carrier.set_peers(&peers).err();
        if self.refused.is_none() {
            self.peers = Some(peers);
        }
    }

    /// All sessions are of the key that we change to.
    fn has_moved(&self) -> bool {
        self.keys.switching().is_some_and(|newest| self.carrier.has_moved(newest))
    }

    /// A step of a change of keys, or a new start, may be due.
    pub(crate) fn is_due(&self) -> bool {
        !self.carrier.is_well() || self.carrier.failed().is_some() || self.stuck.is_some() || self.has_moved()
    }

    pub(crate) fn mtu(&self) -> Option<u32> {
        self.carrier.mtu().map(u32::from)
    }

    /// The UDP port, for others to know; 0 if nothing can encrypt here.
    pub(crate) fn port(&self) -> u16 {
        if self.encryption.is_empty() { 0 } else { self.port }
    }

    /// Nothing of it is to stay.
    pub(crate) fn clear(&mut self) {
        self.carrier.remove();
        (self.peers, self.refused) = (None, None);
        if let Err(e) = self.keys.renew() {
            warn!(error = %e, "the keys of the tunnel stay as they were");
        }
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = NetworkProblem> {
        let failed = self.carrier.failed().into_iter().chain(&self.stuck).map(|why| {
            format!("{why}: encrypted networks do not reach other nodes from here (nothing is sent in clear)")
        });
        let texts = failed.chain(self.refused.clone());
        texts.map(|text| NetworkProblem { subject: "tunnel".into(), text })
    }
}

const KERNEL: &str = "kernel";

/// Who encrypts here. A tunnel that a process carries already stays with it, until no network needs it and the
/// daemon starts again.
fn encryption() -> &'static str {
    match (Encryption::detect(), is_of_process(TUNNEL)) {
        (Ok(Encryption::Kernel), Ok(false)) => KERNEL,
        _ if std::path::Path::new("/dev/net/tun").exists() => "user space",
        _ => "",
    }
}

/// Whether a network of the set needs the tunnel.
fn is_wanted(set: &NetworkSet) -> bool {
    let numbered = set.own.as_ref().is_some_and(|own| own.index != 0);
    numbered && set.networks.values().any(|e| e.network.encrypted && e.network.vni != 0)
}

/// The device is on and has its address.
fn is_as_wanted(index: u16) -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return true };
    let wanted = tunnel_addr(index);
    interfaces.filter(|interface| interface.interface_name == TUNNEL).any(|interface| {
        let addr = interface.address.as_ref().and_then(|a| a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip())));
        interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP) && addr == Some(wanted)
    })
}

/// All addresses, IPv4 and IPv6, if the host has the latter.
fn listen(port: u16) -> SocketAddr {
    let v6 = std::path::Path::new("/proc/net/if_inet6").exists();
    if v6 { (std::net::Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
