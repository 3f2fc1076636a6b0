//! Task: what a task's namespace has: a device for each of its networks, and names at 127.0.0.11.
//!
//! Reads:   a task's attachments, the networks.
//! Writes:  the namespace.
//! Never:   gives a task that is on internal networks only a default route that leads out: the ingress
//!          sandbox does not let it pass.
//! Start:   [`namespace`], [`resolver`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use swarm_types::id::TaskId;
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::NetworkPart;

use super::address::{self, GATEWAY_MAC, MAIN, REPLIES, Version, WAY_OUT};
use super::firewall::{
    Chain, ChainKind, Choice, Chooser, Family, Field, HookPoint, Rule, Statement, Table, Value,
};
use super::ground::Ground;
use super::kernel::{self, Link, LinkKind, Namespace, Place, Route, Way};
use super::macvlan;
use super::sandbox::{DSTNAT, SRCNAT};

/// A task's place on a network.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) network: Arc<NetworkPart>,
    pub(crate) addrs: Vec<IpAddr>,
    /// Its device there.
    pub(crate) device: String,
}

/// Where programs that know Docker ask for names.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The address that a task's `resolv.conf` names: 127.0.0.11, or if none of its networks has IPv4 the
/// gateway of the first one; none if it is on no network with names.
pub(crate) fn resolver(ground: &Ground, seats: &[Seat]) -> Option<IpAddr> {
    match (names(ground, seats, Version::V4), names(ground, seats, Version::V6)) {
        (Some(_), _) => Some(IpAddr::V4(RESOLVER)),
        (None, Some((_, _, gateway))) => Some(gateway),
        (None, None) => None,
    }
}

/// The whole namespace of a task.
pub(crate) fn namespace(ground: &Ground, task: TaskId, seats: &[Seat]) -> Namespace {
    let mut ns = Namespace::default();
    // A client may have an address that the task's networks have too: replies still leave by `gw0`.
    for name in ["all", "default"] {
        ns.sysctls.insert(format!("ipv4/conf/{name}/rp_filter"), "0".into());
    }
    let mut routes = BTreeSet::new();
    for (n, seat) in seats.iter().enumerate() {
        match seat.network.driver {
            NetworkDriver::Overlay | NetworkDriver::Bridge => {
                plug(ground, task, n, seat, &mut ns, &mut routes)
            }
            NetworkDriver::Macvlan => macvlan::plug(ground, task, n, seat, &mut ns, &mut routes),
        }
    }
    // A way out through a network of the site, if there is none of ours.
    if !seats.iter().any(|seat| seat.device == WAY_OUT) {
        let site = seats.iter().find(|s| s.network.driver == NetworkDriver::Macvlan && !s.network.internal);
        routes.extend(site.into_iter().flat_map(|seat| default(ground, seat, MAIN)));
    }
    ns.routes = Arc::new(routes);
    ns.tables = names(ground, seats, Version::V4).map(|found| ask(&mut ns, found)).into_iter().collect();
    ns
}

/// Metric of a route to a subnet that an earlier network of the task may have too.
pub(crate) fn metric(n: usize) -> u32 {
    // 1024 is what IPv6 routes have that name none.
    if n == 0 { 0 } else { u32::try_from(n).map_or(u32::MAX, |n| n.saturating_add(1024)) }
}

/// A pair to a sandbox, the gateway as the only neighbour.
fn plug(
    ground: &Ground,
    task: TaskId,
    n: usize,
    seat: &Seat,
    ns: &mut Namespace,
    routes: &mut BTreeSet<Route>,
) {
    let Seat { network, addrs, device } = seat;
    let kind = LinkKind::Veth { peer: Place::Sandbox(network.id), peer_name: address::veth(task) };
    let mac = Some(address::task_mac(task, addrs));
    ns.links.insert(device.clone(), Link { kind, mac, mtu: ground.mtu(network) });
    settings(ground, seat, ns);
    let out = device == WAY_OUT;
    for (version, subnet, gateway) in ground.subnets(network) {
        let Some(addr) = version.first(addrs) else { continue };
        ns.addrs.insert((device.clone(), seen(addr, subnet)));
        ns.neighbours.insert((device.clone(), gateway), GATEWAY_MAC);
        let way = |via| Way::Device { name: device.clone(), via };
        let main = |to, way| Route { table: MAIN, to, way, src: Some(addr), metric: metric(n) };
        routes.insert(main(address::host_net(gateway), way(None)));
        routes.insert(main(subnet, way(Some(gateway))));
        if out {
            let replies = Some(kernel::Rule {
                priority: REPLIES,
                v6: version == Version::V6,
                from: Some(address::host_net(addr)),
                mark: None,
                table: REPLIES,
            });
            ns.rules.extend(replies);
        }
    }
    if out {
        routes.extend([MAIN, REPLIES].into_iter().flat_map(|table| default(ground, seat, table)));
    }
}

/// Default routes through a seat's gateways.
fn default(ground: &Ground, seat: &Seat, table: u32) -> Vec<Route> {
    let route = |(version, _, gateway): (Version, IpNet, IpAddr)| {
        let src = Some(version.first(&seat.addrs)?);
        let way = Way::Device { name: seat.device.clone(), via: Some(gateway) };
        Some(Route { table, to: version.any(), way, src, metric: 0 })
    };
    ground.subnets(&seat.network).into_iter().filter_map(route).collect()
}

/// An address with the prefix length of its network: that is what programs expect to see.
pub(crate) fn seen(addr: IpAddr, subnet: IpNet) -> IpNet {
    IpNet::new(addr, subnet.prefix_len()).unwrap_or_else(|_| address::host_net(addr))
}

/// Settings of the task's device.
pub(crate) fn settings(ground: &Ground, seat: &Seat, ns: &mut Namespace) {
    let device = &seat.device;
    let mut set =
        |name: &str, value: &str| drop(ns.sysctls.insert(name.replace("DEV", device), value.into()));
    set("ipv4/conf/DEV/rp_filter", "0");
    if !ground.facts.ipv6 {
        return;
    }
    if Version::V6.first(&seat.addrs).is_some() {
        set("ipv6/conf/DEV/disable_ipv6", "0");
        set("ipv6/conf/DEV/accept_dad", "0");
        set("ipv6/conf/DEV/accept_ra", "0");
    } else if !seat.addrs.is_empty() {
        set("ipv6/conf/DEV/disable_ipv6", "1");
    }
}

/// Where names are asked for: device, own address, gateway.
fn names(ground: &Ground, seats: &[Seat], version: Version) -> Option<(String, IpAddr, IpAddr)> {
    let ours = seats.iter().filter(|seat| seat.network.driver != NetworkDriver::Macvlan);
    ours.into_iter().find_map(|seat| {
        let addr = version.first(&seat.addrs)?;
        let (_, _, gateway) = ground.subnets(&seat.network).into_iter().find(|(v, ..)| *v == version)?;
        Some((seat.device.clone(), addr, gateway))
    })
}

/// 127.0.0.11 means the gateway, which knows the task by its address. Made once, never changed.
fn ask(ns: &mut Namespace, (device, addr, gateway): (String, IpAddr, IpAddr)) -> Table {
    ns.sysctls.insert(format!("ipv4/conf/{device}/route_localnet"), "1".into());
    let ask = |protocol| {
        Rule::new([
            Statement::is(Field::IpDaddr, IpAddr::V4(RESOLVER)),
            Statement::is(Field::L4Proto, Value::Protocol(protocol)),
            Statement::is(Field::DestinationPort, Value::Port(53)),
            Statement::Dnat(Choice { by: Chooser::Random, targets: vec![(gateway, None, 1)] }),
        ])
    };
    let loopback = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
    let own = Rule::new([
        Statement::is(Field::Oifname, device.as_str()),
        Statement::is(Field::IpSaddr, loopback),
        Statement::Snat(addr),
    ]);
    let nat = |point, priority, rules| Chain::base(ChainKind::Nat, point, priority, rules);
    Table::new(Family::Ip, "sw_dns")
        .chain("c_out", nat(HookPoint::Output, DSTNAT, vec![ask(17), ask(6)]))
        .chain("c_post", nat(HookPoint::Postrouting, SRCNAT, vec![own]))
}
