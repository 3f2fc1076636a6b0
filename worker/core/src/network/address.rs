//! Address: what is computed instead of learnt: MAC addresses, next hops, names of devices and chains.
//!
//! Reads:   numbers of nodes and networks, ids, addresses.
//! Writes:  nothing: plain values.
//! Never:   gives two things in one namespace the same name.
//! Start:   [`Version`], [`vtep_mac`], [`label`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use swarm_types::defaults;
use swarm_types::endpoint::Protocol;
use swarm_types::id::{NetworkId, ServiceId, TaskId};

use super::firewall::{Family, Field};
use super::kernel::Mac;

/// The tunnel's end in every sandbox.
pub const VXLAN: &str = "vx0";
/// The ingress sandbox's end of the pair to the host.
pub const UPLINK: &str = "up0";
/// The host's end of it.
pub const INGRESS: &str = "sw-ing";
/// The host's end of the encrypted tunnel. Made by who runs the tunnel.
pub const TUNNEL: &str = "sw-wg0";
/// A task's way out, and the way in of published ports.
pub const WAY_OUT: &str = "gw0";
/// Our end of every pair to a task, on every node: a task's neighbour for its gateway never changes.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0x53, 0, 0, 0, 1]);
/// The host's end of the pair to the ingress sandbox.
pub const INGRESS_MAC: Mac = Mac([0x02, 0x53, 0, 0, 1, 1]);
/// The sandbox's end of it.
pub const UPLINK_MAC: Mac = Mac([0x02, 0x53, 0, 0, 1, 2]);
/// Where replies to other nodes seem to go, until the connection's mark has put the right one in.
pub const NOBODY_MAC: Mac = Mac([0x02, 0x53, 0xff, 0xff, 0xff, 0xff]);
/// Routing table of replies.
pub const REPLIES: u32 = 100;
/// The main routing table.
pub const MAIN: u32 = 254;
/// Bit of a mark that says: a reply to a node; the low 16 bits are the node's number.
pub const REPLY_MARK: u32 = 0x1_0000;
/// Seed of sticky choices: the same everywhere, else nodes would choose differently.
pub const STICKY_SEED: u32 = 0x5357_4d01;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Version {
    V4,
    V6,
}

impl Version {
    /// Both, the older first.
    pub const BOTH: [Version; 2] = [Version::V4, Version::V6];

    /// Of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Version::V4 } else { Version::V6 }
    }
    /// The first of some addresses that is of this version.
    pub fn first(self, addrs: &[IpAddr]) -> Option<IpAddr> {
        addrs.iter().copied().find(|addr| Version::of(*addr) == self)
    }
    /// The family of tables.
    pub fn family(self) -> Family {
        match self {
            Version::V4 => Family::Ip,
            Version::V6 => Family::Ip6,
        }
    }
    /// Source address.
    pub fn saddr(self) -> Field {
        match self {
            Version::V4 => Field::IpSaddr,
            Version::V6 => Field::Ip6Saddr,
        }
    }
    /// Destination address.
    pub fn daddr(self) -> Field {
        match self {
            Version::V4 => Field::IpDaddr,
            Version::V6 => Field::Ip6Daddr,
        }
    }
    /// Every address.
    pub fn any(self) -> IpNet {
        match self {
            Version::V4 => IpNet::V4(Ipv4Net::default()),
            Version::V6 => IpNet::V6(Ipv6Net::default()),
        }
    }
}

/// One address as a subnet.
pub fn host_net(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

/// A node's end of a network's tunnel. Unique in the network, which is all that matters.
pub fn vtep_mac(vni: u32, index: u16) -> Mac {
    let [_, _, _, low] = vni.to_be_bytes();
    let [a, b] = index.to_be_bytes();
    Mac([0x02, 0x53, 0x03, low, a, b])
}

/// A task's device with these addresses. Each is alone with the gateway on its link, but for macvlan,
/// where addresses of one subnet are to differ: the low 24 bits of the IPv4 address, else a hash.
pub fn task_mac(task: TaskId, addrs: &[IpAddr]) -> Mac {
    let [_, a, b, c] = match (Version::V4.first(addrs), Version::V6.first(addrs)) {
        (Some(IpAddr::V4(addr)), _) => addr.octets(),
        (_, Some(IpAddr::V6(addr))) => low_half(hash(&addr.octets())),
        _ => low_half(hash(task.as_str().as_bytes())),
    };
    Mac([0x02, 0x53, 0x02, a, b, c])
}

/// A node's address in the encrypted tunnel.
pub fn tunnel_addr(index: u16) -> IpAddr {
    let [a, b, ..] = defaults::tunnel_net().addr().octets();
    let [c, d] = index.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// What stands for a node as the next hop of a route in a sandbox. It is on no wire: neighbours turn it
/// into the MAC address of the node's tunnel, and that is forwarded to where the node is. Thus routes
/// stay when a node's address changes, and IPv6 goes over IPv4 and the other way round.
/// 0: whoever the connection came from.
pub fn label(version: Version, index: u16) -> IpAddr {
    match version {
        Version::V4 => tunnel_addr(index),
        Version::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x53, index)),
    }
}

/// The next hop of the host to the ingress sandbox, on [`INGRESS`] only.
pub fn uplink_label(version: Version) -> IpAddr {
    match version {
        Version::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, 77, 2)),
        Version::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x5377, 2)),
    }
}

/// The sandbox's end of a task's pair: what `swarmctl service ps` calls the task.
pub fn veth(task: TaskId) -> String {
    format!("t-{}", task.short())
}

/// The device of a task's n-th network that is not the way out.
pub fn eth(n: usize) -> String {
    format!("eth{n}")
}

/// The host's device for macvlan networks that name no parent.
pub fn private_parent(network: NetworkId) -> String {
    format!("sw-{}", network.short())
}

/// The chain of a service's virtual address.
pub fn service_chain(service: ServiceId) -> String {
    format!("s_{service}")
}

/// The chain of a published port: at most 29 bytes. With an address, a hash of it.
pub fn port_chain(protocol: Protocol, port: u16, host_ip: Option<IpAddr>) -> String {
    let name = format!("p_{}_{port}", protocol.as_str());
    match host_ip {
        None => name,
        Some(IpAddr::V4(addr)) => format!("{name}_{:08x}", u32::from(addr)),
        Some(IpAddr::V6(addr)) => format!("{name}_{:016x}", hash(&addr.octets())),
    }
}

/// The number of a transport protocol in an IP header.
pub fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// FNV-1a: the same on every machine and in every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

fn low_half(hash: u64) -> [u8; 4] {
    let [.., a, b, c, d] = hash.to_be_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_say_what_they_are() {
        let id = "abcdefghijklmnopqrstuvwxy";
        assert_eq!(veth(id.into()), "t-abcdefghijkl");
        assert_eq!(private_parent(id.into()).len(), 15);
        assert!(service_chain(id.into()).len() <= 31);
        let v6 = Some("2001:db8::1".parse().unwrap());
        let chain = port_chain(Protocol::Sctp, 65535, v6);
        assert!(chain.len() <= 31, "{chain}");
        assert_eq!(port_chain(Protocol::Udp, 53, Some("10.0.0.1".parse().unwrap())), "p_udp_53_0a000001");
        assert_eq!(vtep_mac(4097, 0x1234).to_string(), "02:53:03:01:12:34");
        assert_eq!(tunnel_addr(258).to_string(), "100.127.1.2");
        assert_eq!(label(Version::V6, 3).to_string(), "fe80::53:3");
        let task = TaskId::new("t");
        assert_eq!(task_mac(task, &["10.0.1.13".parse().unwrap()]).to_string(), "02:53:02:00:01:0d");
        assert_ne!(task_mac(task, &["fd00::1".parse().unwrap()]), task_mac(task, &[]));
    }
}
