//! Site: the addresses that a host uses outside of the cluster's networks, and what a subnet would hide of
//! them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::node::Node;

/// A prefix that a host uses. A network whose subnet overlaps with it hides it from the network's tasks; the
/// ingress network hides it from the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SitePrefix {
    /// What it is used for.
    pub kind: SiteKind,
    /// The addresses. Of an own address: it, with the length of the prefix that it is connected to.
    pub net: IpNet,
}

/// What a host uses a prefix for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteKind {
    /// The host has this address; its neighbours have the others of the prefix.
    Address,
    /// A name server of the host.
    Resolver,
    /// The host has a route there.
    Route,
}

impl SiteKind {
    /// `address`, `resolver` or `route`.
    pub fn as_str(self) -> &'static str {
        match self {
            SiteKind::Address => "address",
            SiteKind::Resolver => "resolver",
            SiteKind::Route => "route",
        }
    }
}

impl SitePrefix {
    /// The whole prefix, without the host's own bits.
    pub fn whole(&self) -> IpNet {
        self.net.trunc()
    }

    /// What is certainly in use of it: an address, not everything that may be reached by a route.
    pub fn certain(&self) -> Option<IpAddr> {
        match self.kind {
            SiteKind::Address | SiteKind::Resolver => Some(self.net.addr()),
            SiteKind::Route => None,
        }
    }
}

/// `address 192.0.2.7/24`, `resolver 10.0.0.2`, `route 10.8.0.0/16`.
impl fmt::Display for SitePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_str();
        match self.kind {
            SiteKind::Resolver => write!(f, "{kind} {}", self.net.addr()),
            SiteKind::Address | SiteKind::Route => write!(f, "{kind} {}", self.net),
        }
    }
}

/// They have an address in common.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// A node's own addresses below the networks: the one it is seen under, and the one for the traffic of
/// networks.
pub fn own_addrs(node: &Node) -> impl Iterator<Item = IpAddr> {
    let seen = node.status.addr.parse::<IpAddr>().ok();
    seen.into_iter().chain(node.description.network.data_addr)
}

/// The prefixes that a subnet overlaps with, as they come.
pub fn hidden<'a>(subnet: &IpNet, site: &'a [SitePrefix]) -> impl Iterator<Item = &'a SitePrefix> {
    let subnet = *subnet;
    site.iter().filter(move |prefix| overlap(&subnet, &prefix.whole()))
}

/// All of `prefixes` in words: `address 10.0.0.7/24, resolver 10.0.0.2`.
pub fn in_words<'a>(prefixes: impl IntoIterator<Item = &'a SitePrefix>) -> String {
    prefixes.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Vec<SitePrefix> {
        let prefix = |kind, net: &str| SitePrefix { kind, net: net.parse().unwrap() };
        vec![
            prefix(SiteKind::Address, "10.1.2.3/16"),
            prefix(SiteKind::Resolver, "10.255.255.53/32"),
            prefix(SiteKind::Route, "10.8.0.0/14"),
            prefix(SiteKind::Route, "fd00:7::/48"),
        ]
    }

    #[test]
    fn a_subnet_hides_what_it_has_an_address_in_common_with() {
        let hidden = |net: &str| in_words(hidden(&net.parse().unwrap(), &site()));
        assert_eq!(hidden("10.255.0.0/16"), "resolver 10.255.255.53");
        assert_eq!(hidden("10.1.9.0/24"), "address 10.1.2.3/16", "a neighbour's, perhaps");
        assert_eq!(hidden("10.11.255.0/24"), "route 10.8.0.0/14");
        assert_eq!(hidden("10.12.0.0/24"), "");
        assert_eq!(hidden("fd00:7:0:1::/64"), "route fd00:7::/48");
        assert_eq!(hidden("10.0.0.0/8"), "address 10.1.2.3/16, resolver 10.255.255.53, route 10.8.0.0/14");
    }

    #[test]
    fn only_addresses_are_certain() {
        let certain: Vec<_> = site().iter().filter_map(SitePrefix::certain).map(|a| a.to_string()).collect();
        assert_eq!(certain, ["10.1.2.3", "10.255.255.53"]);
    }
}
