//! Ground: what all networks of a node stand on: itself, the other nodes, its host.
//!
//! Reads:   what managers said of nodes, what was found out about the host.
//! Writes:  nothing: answers.
//! Never:   says an address for an encrypted network that is not in the tunnel.
//! Start:   [`Ground`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use swarm_types::defaults;
use swarm_types::id::NodeId;
use swarm_types::network_set::{NetworkPart, Peer, SelfPart};

use super::address::{self, Version};

/// What was found out about the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The host's own address that other nodes reach it under, if it is known better than managers
    /// know it (`--data-path-addr`).
    pub underlay: Option<IpAddr>,
    /// Largest packet in bytes of the device that has this address; 0: 1500.
    pub underlay_mtu: u32,
    /// Largest packet of the encrypted tunnel; none: there is no tunnel.
    pub tunnel_mtu: Option<u32>,
    /// The kernel has IPv6 and it is not switched off.
    pub ipv6: bool,
    /// Devices that are told their IPv6 routes by routers. A host that forwards IPv6 stops listening to
    /// routers, unless it is told not to (`accept_ra=2`).
    pub router_devices: BTreeSet<String>,
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) own: Arc<SelfPart>,
    pub(crate) peers: BTreeMap<NodeId, Arc<Peer>>,
    pub(crate) facts: Facts,
}

/// Outer headers of VXLAN over IPv4: 20 IP, 8 UDP, 8 VXLAN, 14 Ethernet.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;
/// What WireGuard takes at most (over IPv6).
const OVERHEAD_TUNNEL: u32 = 80;

impl Ground {
    pub(crate) fn is(&self, own: &Arc<SelfPart>, peers: &BTreeMap<NodeId, Arc<Peer>>, facts: &Facts) -> bool {
        self.own == *own && self.peers == *peers && self.facts == *facts
    }

    /// The node's own address below the networks.
    pub(crate) fn underlay(&self) -> Option<IpAddr> {
        self.facts.underlay.or(self.own.addr)
    }

    /// The address that a network's packets to other nodes are sent from; none: there is no way.
    pub(crate) fn local(&self, network: &NetworkPart) -> Option<IpAddr> {
        match (self.own.index, network.encrypted) {
            (0, _) => None,
            (index, true) => self.facts.tunnel_mtu.map(|_| address::tunnel_addr(index)),
            (_, false) => self.underlay(),
        }
    }

    /// The address that a network's packets to a node are sent to.
    pub(crate) fn remote(&self, network: &NetworkPart, peer: &Peer) -> Option<IpAddr> {
        let local = self.local(network)?;
        let remote = if network.encrypted { address::tunnel_addr(peer.index) } else { peer.addr };
        (peer.index != 0 && local.is_ipv4() == remote.is_ipv4()).then_some(remote)
    }

    /// The nodes that a network's packets can be sent to, with these addresses.
    pub(crate) fn remotes(&self, network: &NetworkPart) -> impl Iterator<Item = (&Arc<Peer>, IpAddr)> {
        let others = self.peers.values().filter(|peer| peer.node != self.own.node);
        others.filter_map(move |peer| Some((peer, self.remote(network, peer)?)))
    }

    /// UDP port of VXLAN.
    pub(crate) fn data_port(&self) -> u16 {
        if self.own.data_port == 0 { defaults::DATA_PATH_PORT } else { self.own.data_port }
    }

    /// The most that a packet of a network may have here, and what it is asked to have.
    pub(crate) fn mtu(&self, network: &NetworkPart) -> u32 {
        let most = self.most(network);
        if network.mtu == 0 { most } else { network.mtu.min(most) }
    }

    /// The most that a packet of a network may have here.
    pub(crate) fn most(&self, network: &NetworkPart) -> u32 {
        let underlay = if self.facts.underlay_mtu == 0 { 1500 } else { self.facts.underlay_mtu };
        if network.encrypted {
            let tunnel = self.facts.tunnel_mtu.unwrap_or(underlay.saturating_sub(OVERHEAD_TUNNEL));
            return tunnel.saturating_sub(OVERHEAD_V4);
        }
        let v6 = self.underlay().is_some_and(|addr| addr.is_ipv6());
        underlay.saturating_sub(if v6 { OVERHEAD_V6 } else { OVERHEAD_V4 })
    }

    /// A network's subnets that can be made here: one of a version, with its gateway.
    pub(crate) fn subnets(&self, network: &NetworkPart) -> Vec<(Version, IpNet, IpAddr)> {
        let usable = Version::BOTH.into_iter().filter(|v| *v == Version::V4 || self.facts.ipv6);
        let subnet = |version: Version| {
            let found = network.subnets.iter().find(|(net, _)| Version::of(net.addr()) == version);
            found.map(|(net, gateway)| (version, net.trunc(), *gateway))
        };
        usable.filter_map(subnet).collect()
    }

    /// The node's own address on the ingress network.
    pub(crate) fn entry(&self, version: Version) -> Option<IpAddr> {
        version.first(&self.own.entry)
    }
}
