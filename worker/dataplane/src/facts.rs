//! What the planner must know of the host, found out by looking.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use nix::sys::socket::SockaddrStorage;
use swarm_worker_core::network::ground::Facts;

use crate::sys;

/// How the host is now. `underlay`: its address for the networks, if the settings say one; `seen`: the
/// one that managers see it under.
pub(crate) fn look(underlay: Option<IpAddr>, seen: Option<IpAddr>, tunnel_mtu: Option<u32>) -> Facts {
    let device = underlay.or(seen).and_then(device_with);
    let ipv6 = read("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_some_and(|text| text.trim() == "0");
    Facts {
        underlay,
        underlay_mtu: device.and_then(|name| sys::mtu(&name).ok()).unwrap_or(0),
        tunnel_mtu,
        ipv6,
        router_devices: if ipv6 { told_by_routers() } else { BTreeSet::new() },
    }
}

/// The device that has an address.
fn device_with(addr: IpAddr) -> Option<String> {
    let mut all = nix::ifaddrs::getifaddrs().ok()?;
    all.find(|one| one.address.as_ref().and_then(ip) == Some(addr)).map(|one| one.interface_name)
}

pub(crate) fn ip(addr: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = addr.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// Devices whose default route a router has advertised.
fn told_by_routers() -> BTreeSet<String> {
    /// `RTF_ADDRCONF`.
    const ADVERTISED: u32 = 0x4_0000;
    let table = read("/proc/net/ipv6_route").unwrap_or_default();
    let device = |line: &str| {
        // target, its prefix length, source, its prefix length, next hop, metric, references, use, flags, device
        let words: Vec<&str> = line.split_whitespace().collect();
        let [target, "00", .., flags, device] = words.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let default = target.bytes().all(|b| b == b'0');
        (default && flags & ADVERTISED != 0).then(|| (*device).to_owned())
    };
    table.lines().filter_map(device).collect()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_an_address_tells_the_mtu() {
        let facts = look(Some(IpAddr::from([127, 0, 0, 1])), None, None);
        assert_eq!(facts.underlay_mtu, sys::mtu("lo").unwrap());
        let nowhere = look(None, Some(IpAddr::from([192, 0, 2, 1])), Some(1420));
        assert_eq!((nowhere.underlay_mtu, nowhere.tunnel_mtu), (0, Some(1420)));
    }
}
