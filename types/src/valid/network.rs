//! Which specs of networks are valid, and which pools they may come from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Invalid, invalid, labels, no_nul, object_name};
use crate::cluster::ClusterSpec;
use crate::defaults;
use crate::network::{NetworkDriver, NetworkSpec, SubnetSpec};

/// Networks of every node, which need not be created: no other may have their names.
pub const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];
/// Longest prefix of an IPv4 subnet: a gateway, a virtual address and tasks need eight addresses
/// (Docker Swarm's limit too, of the subnets from its pools).
pub const LONGEST_PREFIX_V4: u8 = 29;
/// Longest prefix of an IPv6 subnet.
pub const LONGEST_PREFIX_V6: u8 = 125;
/// Shortest prefix of both.
pub const SHORTEST_PREFIX: u8 = 8;
/// Bytes that a packet may have: what IPv4 has to carry (RFC 791), and what a length field can say.
pub const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;
/// What a packet of IPv6 may have at least (RFC 8200).
pub const LEAST_MTU_V6: u32 = 1280;
/// UDP ports that VXLAN may use (Docker Swarm's).
pub const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49_151;

/// Names of networks: as those of services, and none of [`PREDEFINED`].
pub fn network_name(name: &str) -> Result<(), Invalid> {
    object_name(name)?;
    match PREDEFINED.contains(&name) {
        true => invalid("name", format!("`{name}` is a pre-defined network")),
        false => Ok(()),
    }
}

/// Checks all of a network's spec.
pub fn network(spec: &NetworkSpec) -> Result<(), Invalid> {
    network_name(&spec.annotations.name)?;
    labels("label", &spec.annotations.labels)?;
    driver(spec)?;
    ingress(spec)?;
    subnets(&spec.subnets)?;
    mtu(spec)
}

fn driver(spec: &NetworkSpec) -> Result<(), Invalid> {
    let driver = spec.driver.as_str();
    if spec.encrypted && spec.driver != NetworkDriver::Overlay {
        return invalid("opt", format!("encrypted: a {driver} network has nothing between nodes to encrypt"));
    }
    for (key, value) in &spec.options {
        match (spec.driver, key.as_str()) {
            (NetworkDriver::Macvlan, "parent") => device(value)?,
            _ => return invalid("opt", format!("{key}: a {driver} network has no such option")),
        }
    }
    match spec.driver {
        NetworkDriver::Macvlan if !spec.options.contains_key("parent") => {
            invalid("opt", "a macvlan network needs a device of the nodes: parent=eth0")
        }
        NetworkDriver::Overlay | NetworkDriver::Bridge | NetworkDriver::Macvlan => Ok(()),
    }
}

/// What Linux allows as the name of a device (`dev_valid_name` of the kernel).
fn device(name: &str) -> Result<(), Invalid> {
    let bad = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b.is_ascii_control();
    match name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.bytes().any(bad) {
        true => invalid("opt", format!("parent: `{name}` is not the name of a network device")),
        false => Ok(()),
    }
}

fn ingress(spec: &NetworkSpec) -> Result<(), Invalid> {
    let refused = match spec.driver {
        _ if !spec.ingress => None,
        NetworkDriver::Bridge | NetworkDriver::Macvlan => Some("the ingress network must be an overlay"),
        NetworkDriver::Overlay if spec.internal => {
            Some("the ingress network is the way in and out: it cannot be internal")
        }
        NetworkDriver::Overlay if spec.attachable => Some("the ingress network cannot be attachable"),
        NetworkDriver::Overlay => None,
    };
    refused.map_or(Ok(()), |problem| invalid("ingress", problem))
}

fn subnets(subnets: &[SubnetSpec]) -> Result<(), Invalid> {
    for (i, one) in subnets.iter().enumerate() {
        subnet(one)?;
        for other in &subnets[..i] {
            if overlap(&one.subnet, &other.subnet) {
                return invalid("subnet", format!("{} and {} overlap", other.subnet, one.subnet));
            }
            if family(&one.subnet) == family(&other.subnet) {
                return invalid(
                    "subnet",
                    format!("{} and {}: one of each family is allowed", other.subnet, one.subnet),
                );
            }
        }
    }
    Ok(())
}

fn subnet(spec: &SubnetSpec) -> Result<(), Invalid> {
    let net = spec.subnet;
    whole("subnet", &net)?;
    prefix("subnet", &net)?;
    usable("subnet", &net)?;
    if let Some(gateway) = spec.gateway {
        inside("gateway", &net, gateway)?;
    }
    if let Some(range) = &spec.range {
        whole("ip-range", range)?;
        if !net.contains(range) {
            return invalid("ip-range", format!("{range} is not inside of {net}"));
        }
    }
    let mut taken: BTreeSet<IpAddr> = spec.gateway.into_iter().collect();
    for (name, addr) in &spec.reserved {
        no_nul("aux-address", name)?;
        inside("aux-address", &net, *addr)?;
        if !taken.insert(*addr) {
            return invalid("aux-address", format!("{addr} is given twice"));
        }
    }
    match has_room(spec) {
        true => Ok(()),
        false => {
            let range = spec.range.unwrap_or(net);
            invalid("ip-range", format!("{range} has no address left for tasks"))
        }
    }
}

/// An address that is neither the network's, the broadcast's, the gateway's nor reserved.
fn has_room(spec: &SubnetSpec) -> bool {
    let range = spec.range.unwrap_or(spec.subnet);
    // The gateway is the first address unless another is named.
    let gateway = spec.gateway.or_else(|| spec.subnet.hosts().next());
    let taken = |addr: &IpAddr| Some(*addr) == gateway || spec.reserved.values().any(|r| r == addr);
    let tries = spec.reserved.len().saturating_add(4);
    addresses(&range).take(tries).any(|addr| !taken(&addr) && is_host(&spec.subnet, addr))
}

/// All addresses of a range, its ends too.
fn addresses(range: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match *range {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            Box::new((first..=last).map(|bits| IpAddr::V4(bits.into())))
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            Box::new((first..=last).map(|bits| IpAddr::V6(bits.into())))
        }
    }
}

fn is_host(net: &IpNet, addr: IpAddr) -> bool {
    net.contains(&addr) && addr != net.network() && (addr.is_ipv6() || addr != net.broadcast())
}

fn inside(field: &str, net: &IpNet, addr: IpAddr) -> Result<(), Invalid> {
    match is_host(net, addr) {
        true => Ok(()),
        false if net.contains(&addr) => invalid(
            field,
            format!("{addr} is the first or the last address of {net}, which no host may have"),
        ),
        false => invalid(field, format!("{addr} is not inside of {net}")),
    }
}

/// No bits behind the prefix (Docker's words).
fn whole(field: &str, net: &IpNet) -> Result<(), Invalid> {
    match net.trunc() == *net {
        true => Ok(()),
        false => invalid(field, format!("{net}: it should be {}", net.trunc())),
    }
}

fn prefix(field: &str, net: &IpNet) -> Result<(), Invalid> {
    let longest = if family(net) == 4 { LONGEST_PREFIX_V4 } else { LONGEST_PREFIX_V6 };
    match net.prefix_len() {
        len if len > longest => {
            invalid(field, format!("{net} is too small: a subnet has a prefix of at most {longest} bits"))
        }
        len if len < SHORTEST_PREFIX => invalid(
            field,
            format!("{net} is too large: a subnet has a prefix of at least {SHORTEST_PREFIX} bits"),
        ),
        _ => Ok(()),
    }
}

/// Addresses that mean something else to every host, or to our own tunnels.
fn usable(field: &str, net: &IpNet) -> Result<(), Invalid> {
    let special = |text: &str| text.parse::<IpNet>().expect("a constant that is a subnet");
    for (other, what) in [
        (special("0.0.0.0/8"), "`this host`"),
        (special("127.0.0.0/8"), "loopback"),
        (special("169.254.0.0/16"), "link-local addresses"),
        (special("224.0.0.0/3"), "multicast and reserved addresses"),
        (special("::/8"), "loopback and embedded IPv4"),
        (special("fe80::/10"), "link-local addresses"),
        (special("ff00::/8"), "multicast"),
        (IpNet::V4(defaults::tunnel_net()), "the tunnels between nodes"),
    ] {
        if overlap(net, &other) {
            return invalid(field, format!("{net} overlaps {other}, which is for {what}"));
        }
    }
    Ok(())
}

fn mtu(spec: &NetworkSpec) -> Result<(), Invalid> {
    if spec.mtu == 0 {
        return Ok(());
    }
    if !MTU.contains(&spec.mtu) {
        return invalid("opt", format!("mtu {}: must be from {} to {}", spec.mtu, MTU.start(), MTU.end()));
    }
    let ipv6 = spec.ipv6 || spec.subnets.iter().any(|s| family(&s.subnet) == 6);
    match ipv6 && spec.mtu < LEAST_MTU_V6 {
        true => invalid("opt", format!("mtu {}: IPv6 needs at least {LEAST_MTU_V6}", spec.mtu)),
        false => Ok(()),
    }
}

/// The part of a cluster's settings that networks depend on.
pub(super) fn pools(spec: &ClusterSpec) -> Result<(), Invalid> {
    let (field, size) = ("default-addr-pool", spec.subnet_size);
    if !(1..=LONGEST_PREFIX_V4).contains(&size) {
        return invalid(
            "default-addr-pool-mask-length",
            format!("subnet size is out of range: {size} (1 to {LONGEST_PREFIX_V4})"),
        );
    }
    if spec.address_pools.is_empty() {
        return invalid(field, "at least one is needed");
    }
    for (i, pool) in spec.address_pools.iter().enumerate() {
        whole(field, pool)?;
        usable(field, pool)?;
        if pool.prefix_len() < SHORTEST_PREFIX {
            return invalid(field, format!("{pool} is too large: at least {SHORTEST_PREFIX} bits of prefix"));
        }
        // Subnets of IPv6 have 64 bits for hosts, whatever the size of those of IPv4.
        let longest = if family(pool) == 4 { size } else { 64 };
        if pool.prefix_len() > longest {
            return invalid(field, format!("{pool}: subnet size is too small for pool: {longest}"));
        }
        if let Some(other) = spec.address_pools[..i].iter().find(|other| overlap(pool, other)) {
            return invalid(field, format!("{other} and {pool} overlap"));
        }
    }
    Ok(())
}

/// The port of VXLAN.
pub(super) fn data_path_port(port: u16) -> Result<(), Invalid> {
    let field = "data-path-port";
    if !DATA_PATH_PORTS.contains(&port) {
        return invalid(field, format!("{port} is not in the range 1024 to 49151"));
    }
    match port == defaults::TUNNEL_PORT {
        true => invalid(field, format!("{port} is the port of the encrypted tunnels")),
        false => Ok(()),
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn family(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 6,
    }
}

#[cfg(test)]
mod tests;
