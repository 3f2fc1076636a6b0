//! The addresses that the host uses outside of the cluster's networks: its own, its resolvers, its routes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use nix::ifaddrs::InterfaceAddress;
use swarm_types::site::{SiteKind, SitePrefix};

use crate::facts::ip;

/// Devices that are ours are called so (`swarm_worker_core::network::address`).
const OURS: &str = "sw-";
/// A router of the internet has a million routes: of more than this the widest are told.
const MOST_ROUTES: usize = 256;
/// Whom systemd-resolved asks when the host asks it at 127.0.0.53 (systemd-resolved.service(8)).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// All of it; sorted. `resolv_conf` names the host's resolvers.
pub(crate) fn look(resolv_conf: &Path) -> Vec<SitePrefix> {
    let addrs = addresses();
    let mut routes = routes_v4(&read("/proc/net/route"));
    routes.extend(routes_v6(&read("/proc/net/ipv6_route")));
    let resolvers = [resolv_conf, Path::new(BEHIND_STUB)].map(swarm_worker_dns::resolvers).concat();
    gather(addrs, &resolvers, routes)
}

/// What counts of it. Routes to what an address or another route covers already say nothing new.
fn gather(addrs: Vec<IpNet>, resolvers: &[IpAddr], mut routes: Vec<IpNet>) -> Vec<SitePrefix> {
    let prefix = |kind: SiteKind| move |net: IpNet| SitePrefix { kind, net };
    let addrs: Vec<IpNet> = addrs.into_iter().filter(|net| is_somewhere(net.addr())).collect();
    routes.retain(|net| is_somewhere(net.addr()) && !addrs.iter().any(|addr| addr.trunc().contains(net)));
    routes.sort_by_key(|net| (net.prefix_len(), *net));
    let mut widest: Vec<IpNet> = Vec::new();
    for route in routes {
        if widest.len() < MOST_ROUTES && !widest.iter().any(|wide| wide.contains(&route)) {
            widest.push(route);
        }
    }
    let resolvers = resolvers.iter().copied().filter(|addr| is_somewhere(*addr)).map(IpNet::from);
    let mut all: Vec<SitePrefix> = addrs.into_iter().map(prefix(SiteKind::Address)).collect();
    all.extend(resolvers.map(prefix(SiteKind::Resolver)));
    all.extend(widest.into_iter().map(prefix(SiteKind::Route)));
    all.sort();
    all.dedup();
    all
}

/// Not on this host itself, nor anywhere on any link: what a subnet could hide.
fn is_somewhere(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => !(a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_unspecified()),
        IpAddr::V6(a) => {
            !(a.is_loopback() || a.is_unicast_link_local() || a.is_multicast() || a.is_unspecified())
        }
    }
}

fn addresses() -> Vec<IpNet> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter(|one| !one.interface_name.starts_with(OURS)).filter_map(|one| connected(&one)).collect()
}

fn connected(one: &InterfaceAddress) -> Option<IpNet> {
    let (addr, mask) = (ip(one.address.as_ref()?)?, ip(one.netmask.as_ref()?)?);
    IpNet::with_netmask(addr, mask).ok()
}

/// Prefixes of more than one address with a route through a device: a route to one address comes and goes with
/// the containers of others.
fn routes_v4(table: &str) -> Vec<IpNet> {
    /// `RTF_UP` and not `RTF_REJECT`.
    const USED: (u32, u32) = (0x201, 0x1);
    let net = |line: &str| {
        // device, target, gateway, flags, references, uses, metric, mask, ...
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, target, _, flags, _, _, _, mask, ..] = words.as_slice() else { return None };
        // As the words of the packet lie in memory.
        let addr = |hex: &str| Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes()));
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let net = IpNet::with_netmask(addr(target)?.into(), addr(mask)?.into()).ok()?;
        (flags & USED.0 == USED.1 && counts(device, &net)).then_some(net)
    };
    table.lines().filter_map(net).collect()
}

fn routes_v6(table: &str) -> Vec<IpNet> {
    /// `RTF_UP` and neither `RTF_REJECT` nor `RTF_LOCAL`.
    const USED: (u32, u32) = (0x8000_0201, 0x1);
    let net = |line: &str| {
        // target, its prefix length, source, its prefix length, next hop, metric, references, use, flags, device
        let words: Vec<&str> = line.split_whitespace().collect();
        let [target, len, .., flags, device] = words.as_slice() else { return None };
        let addr = Ipv6Addr::from(u128::from_str_radix(target, 16).ok()?);
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let net = IpNet::new(addr.into(), u8::from_str_radix(len, 16).ok()?).ok()?;
        (flags & USED.0 == USED.1 && counts(device, &net)).then_some(net)
    };
    table.lines().filter_map(net).collect()
}

fn counts(device: &str, net: &IpNet) -> bool {
    device != "lo" && !device.starts_with(OURS) && (1..net.max_prefix_len()).contains(&net.prefix_len())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Linux on a little-endian machine, but for the device's names.
    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0000080A\t00000000\t0001\t0\t0\t0\t0000FEFF\t0\t0\t0
cali1\t0709080A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
*\t0000100A\t00000000\t0201\t0\t0\t0\t0000F0FF\t0\t0\t0
sw-ing\t0000FF0A\t024DFEA9\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
";
    const V6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000004 00000000 80200001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000004 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn texts<T: ToString>(all: &[T]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }
    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_lead_to_prefixes_through_devices_of_others() {
        assert_eq!(texts(&routes_v4(V4)), ["192.0.2.0/24", "10.8.0.0/15"]);
        let v6 = texts(&routes_v6(V6));
        assert_eq!(v6, ["fd00::/64", "fe80::/64", "ff00::/8"]);
        let all = gather(Vec::new(), &[], [routes_v4(V4), routes_v6(V6)].concat());
        assert_eq!(texts(&all), ["route 10.8.0.0/15", "route 192.0.2.0/24", "route fd00::/64"]);
    }

    #[test]
    fn nothing_is_said_twice() {
        let addrs = nets(&["10.1.2.3/24", "127.0.0.1/8", "fe80::1/64", "169.254.3.4/16"]);
        let resolvers = ["10.255.255.53", "127.0.0.53", "10.255.255.53"].map(|a| a.parse().unwrap());
        let routes = nets(&["10.1.2.0/24", "10.8.0.0/16", "10.8.4.0/24", "10.1.0.0/16"]);
        let all = gather(addrs, &resolvers, routes);
        let expected =
            ["address 10.1.2.3/24", "resolver 10.255.255.53", "route 10.1.0.0/16", "route 10.8.0.0/16"];
        assert_eq!(texts(&all), expected);
    }

    #[test]
    fn of_too_many_routes_the_widest_are_told() {
        let narrow = (0..1000u32).map(|n| Ipv4Addr::from(0x0b00_0000 + (n << 9)));
        let mut routes: Vec<IpNet> = narrow.map(|a| IpNet::new(a.into(), 24).unwrap()).collect();
        routes.extend(nets(&["10.0.0.0/8"]));
        let all = gather(Vec::new(), &[], routes);
        assert_eq!((all.len(), all[0].to_string()), (MOST_ROUTES, "route 10.0.0.0/8".to_owned()));
    }

    #[test]
    fn this_host_has_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 203.0.113.9\n").unwrap();
        let all = look(&file);
        assert!(all.iter().any(|p| p.to_string() == "resolver 203.0.113.9"), "{all:?}");
        assert!(all.iter().all(|p| is_somewhere(p.net.addr())), "{all:?}");
    }
}
