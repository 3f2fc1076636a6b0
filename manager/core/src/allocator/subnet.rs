//! Subnet: the address space of a new network, and its number.
//!
//! Reads:   the cluster's pools, all networks, the nodes' addresses, what their hosts use.
//! Writes:  nothing.
//! Never:   gives two networks addresses that overlap (D16), or chooses a node's own address.
//! Start:   [`subnets`], [`next_vni`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use swarm_types::cluster::ClusterSpec;
use swarm_types::defaults;
use swarm_types::id::{ClusterId, IdSource, NetworkId, Seed};
use swarm_types::network::{Network, NetworkDriver, NetworkSpec, Subnet, SubnetSpec};
use swarm_types::site::{self, SitePrefix, overlap};

use super::address::{addr_of, number};
use super::range::RangeSet;
use crate::store::View;

/// Prefix length of IPv6 subnets.
const V6_SIZE: u8 = 64;
/// The largest VXLAN network identifier: 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;

/// Why a network gets no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSubnet {
    /// One that was asked for is not free.
    #[error("subnet {asked} overlaps with subnet {other} of network {network}")]
    Overlaps {
        /// What was asked for.
        asked: IpNet,
        /// What there is.
        other: IpNet,
        /// Whose it is.
        network: String,
    },
    /// All network identifiers are in use.
    #[error("no VXLAN network identifier is free")]
    NoNumber,
    /// Nothing is left.
    #[error(
        "no free subnet of {size} bits in the address pools ({pools}): give --subnet, or remove networks"
    )]
    Exhausted {
        /// Prefix length.
        size: u8,
        /// All pools.
        pools: String,
    },
}

/// The lowest number that no network has; none if there are 16 million networks.
pub fn next_vni(view: &View) -> Option<u32> {
    let mut used = RangeSet::default();
    view.networks().filter(|n| n.vni != 0).for_each(|n| used.insert(n.vni.into()));
    let free = used.lowest_free(defaults::FIRST_VNI.into(), LAST_VNI.into())?;
    u32::try_from(free).ok()
}

/// A new network with all that managers give it.
///
/// # Errors
/// See [`NoSubnet`].
pub fn network(view: &View, id: NetworkId, spec: NetworkSpec) -> Result<Network, NoSubnet> {
    let vni = match spec.driver {
        NetworkDriver::Overlay => next_vni(view).ok_or(NoSubnet::NoNumber)?,
        NetworkDriver::Bridge | NetworkDriver::Macvlan => 0,
    };
    Ok(Network { id, vni, subnets: subnets(view, &spec)?, spec, ..Network::default() })
}

/// The ingress network that a cluster is founded with. Its id follows from the cluster's.
///
/// # Errors
/// See [`NoSubnet`].
pub fn ingress(view: &View, cluster: ClusterId) -> Result<Network, NoSubnet> {
    let mut spec = NetworkSpec { ingress: true, ipv6: true, ..NetworkSpec::default() };
    spec.annotations.name = "ingress".into();
    let id = IdSource::new(Seed(fnv(cluster.as_str()))).next_id();
    network(view, id.into(), spec)
}

/// The subnets of a new network: those asked for, and one from the pools for each family that it is
/// to have and none is asked for. IPv4 first.
///
/// # Errors
/// See [`NoSubnet`].
pub fn subnets(view: &View, spec: &NetworkSpec) -> Result<Vec<Subnet>, NoSubnet> {
    let of = |v4: bool| spec.subnets.iter().find(move |s| s.subnet.addr().is_ipv4() == v4);
    let mut all = Vec::new();
    for (v4, wanted) in [(true, true), (false, spec.ipv6)] {
        match of(v4) {
            Some(asked) => {
                overlaps(view, &asked.subnet)?;
                all.push(made_of(asked));
            }
            // Addresses of the device's own network are not ours to choose.
            None if spec.driver == NetworkDriver::Macvlan || !wanted => {}
            None => all.push(plain(if v4 { from_pools_v4(view, spec)? } else { from_pools_v6(view)? })),
        }
    }
    Ok(all)
}

fn made_of(asked: &SubnetSpec) -> Subnet {
    Subnet {
        gateway: asked.gateway.unwrap_or_else(|| first(&asked.subnet)),
        range: asked.range.unwrap_or(asked.subnet),
        reserved: asked.reserved.values().copied().collect(),
        net: asked.subnet,
    }
}

fn plain(net: IpNet) -> Subnet {
    Subnet { gateway: first(&net), range: net, reserved: Vec::new(), net }
}

fn first(net: &IpNet) -> IpAddr {
    addr_of(number(net.network()).saturating_add(1), net).unwrap_or(net.network())
}

fn overlaps(view: &View, asked: &IpNet) -> Result<(), NoSubnet> {
    for network in view.networks() {
        if let Some(other) = network.subnets.iter().find(|s| overlap(&s.net, asked)) {
            let name = network.spec.annotations.name.clone();
            return Err(NoSubnet::Overlaps { asked: *asked, other: other.net, network: name });
        }
    }
    Ok(())
}

fn settings(view: &View) -> ClusterSpec {
    view.cluster().map(|c| c.spec.clone()).unwrap_or_default()
}

/// How much of what hosts use new subnets stay clear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// All of it.
    Everything,
    /// What is certainly there: their addresses and resolvers. Of a site that routes the whole pool to
    /// somewhere (10.0.0.0/8, say) most may be unused.
    Addresses,
}

/// The first choice stays clear of everything that a host uses; if nothing is left then, of addresses.
fn careful(choose: impl Fn(Care) -> Option<IpNet>) -> Option<IpNet> {
    choose(Care::Everything).or_else(|| choose(Care::Addresses))
}

fn from_pools_v4(view: &View, spec: &NetworkSpec) -> Result<IpNet, NoSubnet> {
    let settings = settings(view);
    let usual = settings.address_pools == [defaults::address_pool()];
    let pools = || settings.address_pools.iter().filter(|pool| pool.addr().is_ipv4());
    let chosen = careful(|care| {
        if let (true, true) = (spec.ingress, usual) {
            let used = used(view, true, &[IpNet::V4(defaults::tunnel_net())], care);
            let usually = defaults::ingress_subnet();
            let large = Some(usually).filter(|net| is_free(&used, net));
            if let Some(net) =
                large.or_else(|| last_block(&used, &pools().next().copied()?, usually.prefix_len()))
            {
                return Some(net);
            }
        }
        let used = used(view, true, &[IpNet::V4(defaults::tunnel_net()), defaults::ingress_subnet()], care);
        pools().find_map(|pool| free_block(&used, pool, settings.subnet_size))
    });
    chosen.ok_or_else(|| exhausted(settings.subnet_size, pools()))
}

fn from_pools_v6(view: &View) -> Result<IpNet, NoSubnet> {
    let settings = settings(view);
    let mut pools: Vec<IpNet> =
        settings.address_pools.iter().filter(|pool| pool.addr().is_ipv6()).copied().collect();
    if pools.is_empty() {
        pools.push(unique_local(view.cluster().map_or(ClusterId::default(), |c| c.id)));
    }
    let chosen = careful(|care| {
        let used = used(view, false, &[], care);
        pools.iter().find_map(|pool| free_block(&used, pool, V6_SIZE))
    });
    chosen.ok_or_else(|| exhausted(V6_SIZE, pools.iter()))
}

fn exhausted<'a>(size: u8, pools: impl Iterator<Item = &'a IpNet>) -> NoSubnet {
    let pools: Vec<String> = pools.map(ToString::to_string).collect();
    NoSubnet::Exhausted { size, pools: pools.join(", ") }
}

/// The cluster's own /48 of unique local addresses (RFC 4193): its 40 random bits are a hash of the
/// cluster's id, which is random.
fn unique_local(cluster: ClusterId) -> IpNet {
    let random = fnv(cluster.as_str()) >> 24;
    let bits = (0xfd_u128 << 120) | (u128::from(random) << 80);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 48))
}

/// FNV-1a, 64 bits.
pub(crate) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// What new subnets must stay clear of: networks, `others`, the nodes' own addresses, and what their
/// hosts use.
fn used(view: &View, v4: bool, others: &[IpNet], care: Care) -> RangeSet {
    let networks = view.networks().flat_map(|n| n.subnets.iter().map(|s| s.net));
    let mut nets: BTreeSet<IpNet> = networks.chain(others.iter().copied()).collect();
    for node in view.nodes() {
        let site = &node.description.network.site;
        nets.extend(
            site::own_addrs(node).chain(site.iter().filter_map(SitePrefix::certain)).map(IpNet::from),
        );
        if care == Care::Everything {
            nets.extend(site.iter().map(SitePrefix::whole));
        }
    }
    let mut used = RangeSet::default();
    for net in nets.iter().filter(|net| net.addr().is_ipv4() == v4) {
        used.insert_all(number(net.network()), number(net.broadcast()));
    }
    used
}

fn is_free(used: &RangeSet, net: &IpNet) -> bool {
    used.last_overlap(number(net.network()), number(net.broadcast())).is_none()
}

/// The highest block of `size` in `pool` that is wholly free: far from those that networks get.
fn last_block(used: &RangeSet, pool: &IpNet, size: u8) -> Option<IpNet> {
    let mut blocks: Vec<IpNet> = pool.subnets(size).ok()?.collect();
    blocks.reverse();
    blocks.into_iter().find(|block| is_free(used, block))
}

/// The lowest block of `size` in `pool` that is wholly free.
fn free_block(used: &RangeSet, pool: &IpNet, size: u8) -> Option<IpNet> {
    let width = if pool.addr().is_ipv4() { 32 } else { 128 };
    let block = 1u128 << (width - u32::from(size).min(width));
    let (mut at, last) = (number(pool.network()), number(pool.broadcast()));
    if pool.prefix_len() > size {
        return None;
    }
    while at <= last {
        let end = at + (block - 1);
        match used.last_overlap(at, end) {
            None => return IpNet::new(addr_of(at, pool)?, size).ok(),
            Some(taken) => at = (taken / block).checked_add(1)?.checked_mul(block)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_come_one_after_the_other_and_fill_gaps() {
        let (pool, mut used) = (net("20.20.0.0/16"), RangeSet::default());
        let mut got = Vec::new();
        for _ in 0..3 {
            let block = free_block(&used, &pool, 24).unwrap();
            used.insert_all(number(block.network()), number(block.broadcast()));
            got.push(block.to_string());
        }
        assert_eq!(got, ["20.20.0.0/24", "20.20.1.0/24", "20.20.2.0/24"]);
        let mut used = RangeSet::default();
        used.insert(number("20.20.0.77".parse().unwrap()));
        assert_eq!(free_block(&used, &pool, 24), Some(net("20.20.1.0/24")), "a node has that address");
        used.insert_all(number("20.20.0.0".parse().unwrap()), number("20.20.255.0".parse().unwrap()));
        assert_eq!(free_block(&used, &pool, 24), None);
        assert_eq!(free_block(&used, &pool, 8), None, "larger than the pool");
        assert_eq!(free_block(&RangeSet::default(), &net("255.255.0.0/16"), 16), Some(net("255.255.0.0/16")));
    }

    #[test]
    fn each_cluster_has_its_own_local_addresses() {
        let (a, b) = (unique_local("a".into()), unique_local("b".into()));
        assert_ne!(a, b);
        assert!(net("fd00::/8").contains(&a) && a.prefix_len() == 48);
    }
}
