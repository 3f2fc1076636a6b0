//! Addresses, routes, policy rules, neighbours and forwarding entries as rtnetlink has them.

use std::net::IpAddr;

use ipnet::IpNet;
use swarm_worker_core::network::kernel::{Mac, OURS, Route, Rule, Way};

use crate::netlink::{Buffer, CREATE, REPLACE, attributes_after, ne32, u32_at};
use crate::socket::{Refusal, Socket};

pub(crate) mod message {
    pub(crate) const NEW_ADDR: u16 = 20;
    pub(crate) const DELETE_ADDR: u16 = 21;
    pub(crate) const GET_ADDR: u16 = 22;
    pub(crate) const NEW_ROUTE: u16 = 24;
    pub(crate) const DELETE_ROUTE: u16 = 25;
    pub(crate) const GET_ROUTE: u16 = 26;
    pub(crate) const NEW_NEIGHBOUR: u16 = 28;
    pub(crate) const DELETE_NEIGHBOUR: u16 = 29;
    pub(crate) const GET_NEIGHBOUR: u16 = 30;
    pub(crate) const NEW_RULE: u16 = 32;
    pub(crate) const DELETE_RULE: u16 = 33;
    pub(crate) const GET_RULE: u16 = 34;
}

const V4: u8 = 2;
const V6: u8 = 10;
const BRIDGE: u8 = 7;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;
const ONLINK: u32 = 4;
const PERMANENT: u16 = 0x80;
/// What the kernel makes of "no metric" in IPv6.
pub(crate) const V6_METRIC: u32 = 1024;

/// Protocol of routes and rules that the kernel made itself.
pub(crate) const KERNEL: u8 = 2;

pub(crate) fn addr(value: &[u8]) -> Option<IpAddr> {
    let v4: Result<[u8; 4], _> = value.try_into();
    let v6: Result<[u8; 16], _> = value.try_into();
    v4.map(IpAddr::from).or(v6.map(IpAddr::from)).ok()
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn family(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { V4 } else { V6 }
}

fn zero(family: u8) -> IpAddr {
    if family == V4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

/// Whether a request adds or removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Be,
    /// Of a route or rule: only if it is ours.
    Go,
    /// Whosever it is.
    GoAnyway,
}

impl To {
    fn kind(self, new: u16) -> u16 {
        if self == To::Be { new } else { new + 1 }
    }

    fn protocol(self) -> u8 {
        if self == To::GoAnyway { 0 } else { OURS }
    }

    fn flags(self) -> u16 {
        if self == To::Be { CREATE | REPLACE } else { 0 }
    }
}

/// Address `net` on device `index`. It makes no route of its own, and is not probed for.
pub(crate) fn address(requests: &mut Buffer, to: To, index: u32, net: IpNet) {
    const NO_DETECTION: u32 = 2;
    const NO_ROUTE: u32 = 0x200;
    requests.message(to.kind(message::NEW_ADDR), to.flags(), |w| {
        let host_scope = if net.addr().is_loopback() { 254 } else { 0 };
        let mut head = [family(net.addr()), net.prefix_len(), 0, host_scope, 0, 0, 0, 0];
        head[4..].copy_from_slice(&index.to_ne_bytes());
        w.fixed(&head);
        w.bytes(1, &octets(net.addr()));
        w.bytes(2, &octets(net.addr()));
        if to == To::Be {
            w.u32(8, NO_ROUTE | NO_DETECTION);
        }
    });
}

/// Device index, address, and whether the kernel made it itself (link-local).
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, Refusal> {
    socket.dump(message::GET_ADDR, |w| w.fixed(&[0; 8]), read_address)
}

pub(crate) fn read_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let (prefix, index) = (*body.get(1)?, u32_at(body, 4)?);
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes_after(body, 8) {
        match kind {
            1 => other = addr(value),
            2 => local = addr(value),
            _ => {}
        }
    }
    Some((index, IpNet::new(local.or(other)?, prefix).ok()?))
}

/// A route, through device `index` if it goes through one.
pub(crate) fn route(requests: &mut Buffer, to: To, route: &Route, index: u32) {
    requests.message(to.kind(message::NEW_ROUTE), to.flags(), |w| {
        let (is_direct, kind, flags) = match &route.way {
            Way::Unreachable => (false, UNREACHABLE, 0),
            Way::Device { via: None, .. } => (true, UNICAST, 0),
            Way::Device { via: Some(_), .. } => (false, UNICAST, ONLINK),
        };
        // IPv6 has no scopes; and removal finds a route of any scope with 255
        let scope = match (to, route.to.addr().is_ipv4() && is_direct) {
            (To::Go | To::GoAnyway, _) => 255,
            (To::Be, true) => 253,
            (To::Be, false) => 0,
        };
        let table = u8::try_from(route.table).unwrap_or(0);
        let mut head = [
            family(route.to.addr()),
            route.to.prefix_len(),
            0,
            0,
            table,
            to.protocol(),
            scope,
            kind,
            0,
            0,
            0,
            0,
        ];
        head[8..].copy_from_slice(&flags.to_ne_bytes());
        w.fixed(&head);
        w.bytes(1, &octets(route.to.network()));
        w.u32(15, route.table);
        if let Way::Device { via, .. } = &route.way {
            w.u32(4, index);
            match via {
                Some(via) if via.is_ipv4() == route.to.addr().is_ipv4() => w.bytes(5, &octets(*via)),
                Some(via) => {
                    let mut other = u16::from(family(*via)).to_ne_bytes().to_vec();
                    other.extend(octets(*via));
                    w.bytes(18, &other);
                }
                None => {}
            }
        }
        if let Some(src) = route.src {
            w.bytes(7, &octets(src));
        }
        if route.metric > 0 {
            w.u32(6, route.metric);
        }
    });
}

/// A route that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRoute {
    pub(crate) protocol: u8,
    pub(crate) kind: u8,
    pub(crate) index: u32,
    /// With the device's name left empty.
    pub(crate) route: Route,
}

/// Routes of both families; of one protocol, or all.
pub(crate) fn routes(socket: &mut Socket, protocol: Option<u8>) -> Result<Vec<FoundRoute>, Refusal> {
    let mut all = Vec::new();
    for family in [V4, V6] {
        let head = [family, 0, 0, 0, 0, protocol.unwrap_or(0), 0, 0, 0, 0, 0, 0];
        all.extend(socket.dump(message::GET_ROUTE, |w| w.fixed(&head), read_route)?);
    }
    Ok(all)
}

pub(crate) fn read_route(body: &[u8]) -> Option<FoundRoute> {
    const CLONED: u32 = 0x200;
    let [family, prefix, _, _, table, protocol, _, kind] = *body.first_chunk()?;
    if ![V4, V6].contains(&family) || u32_at(body, 8)? & CLONED != 0 {
        return None;
    }
    let (mut to, mut via, mut src) = (zero(family), None, None);
    let (mut index, mut metric, mut number) = (0, 0, u32::from(table));
    for (attribute, value) in attributes_after(body, 12) {
        match attribute {
            1 => to = addr(value)?,
            4 => index = ne32(value),
            5 => via = addr(value),
            6 => metric = ne32(value),
            7 => src = addr(value),
            15 => number = ne32(value),
            18 => via = value.get(2..).and_then(addr),
            _ => {}
        }
    }
    let way = if kind == UNREACHABLE { Way::Unreachable } else { Way::Device { name: String::new(), via } };
    let route = Route { table: number, to: IpNet::new(to, prefix).ok()?, way, src, metric };
    Some(FoundRoute { protocol, kind, index, route })
}

impl FoundRoute {
    /// Whether a plan could say this.
    pub(crate) fn is_plain(&self) -> bool {
        [UNICAST, UNREACHABLE].contains(&self.kind)
    }
}

/// A policy rule.
pub(crate) fn rule(requests: &mut Buffer, to: To, rule: &Rule) {
    // a rule that is there already is refused: there is no replacing one
    let flags = if to == To::Be { CREATE | crate::netlink::EXCL } else { 0 };
    requests.message(to.kind(message::NEW_RULE), flags, |w| {
        let from = rule.from.map_or(0, |from| from.prefix_len());
        let table = u8::try_from(rule.table).unwrap_or(0);
        w.fixed(&[if rule.v6 { V6 } else { V4 }, 0, from, 0, table, 0, 0, 1, 0, 0, 0, 0]);
        if let Some(from) = rule.from {
            w.bytes(2, &octets(from.network()));
        }
        w.u32(6, rule.priority);
        if let Some((mark, mask)) = rule.mark {
            w.u32(10, mark);
            w.u32(16, mask);
        }
        w.u32(15, rule.table);
        if to != To::GoAnyway {
            w.u8(21, OURS);
        }
    });
}

/// The kernel's own rule that leads to the main table, of each family. Who flushes rules takes it away.
pub(crate) const MAIN: [Rule; 2] = [main(false), main(true)];

const fn main(v6: bool) -> Rule {
    Rule { priority: 32766, v6, from: None, mark: None, table: 254 }
}

/// Policy rules of both families, and whose they are.
pub(crate) fn rules(socket: &mut Socket) -> Result<Vec<(u8, Rule)>, Refusal> {
    let mut all = Vec::new();
    for family in [V4, V6] {
        let mut head = [0; 12];
        head[0] = family;
        all.extend(socket.dump(message::GET_RULE, |w| w.fixed(&head), read_rule)?);
    }
    Ok(all)
}

pub(crate) fn read_rule(body: &[u8]) -> Option<(u8, Rule)> {
    let [family, _, prefix, _, table] = *body.first_chunk()?;
    let (mut protocol, mut mark, mut mask, mut from) = (0, None, u32::MAX, None);
    let mut rule = Rule { priority: 0, v6: family == V6, from: None, mark: None, table: u32::from(table) };
    for (kind, value) in attributes_after(body, 12) {
        match kind {
            2 => from = addr(value),
            6 => rule.priority = ne32(value),
            10 => mark = Some(ne32(value)),
            15 => rule.table = ne32(value),
            16 => mask = ne32(value),
            21 => protocol = value.first().copied().unwrap_or_default(),
            _ => {}
        }
    }
    rule.from = from.and_then(|from| IpNet::new(from, prefix).ok());
    // a mark is said without its value when it is zero
    let masked = mark.or((mask != u32::MAX).then_some(0));
    rule.mark = masked.filter(|mark| *mark != 0 || mask != u32::MAX).map(|mark| (mark, mask));
    Some((protocol, rule))
}

/// `struct ndmsg` of something permanent on device `index`; flag 2: an entry of the device itself.
fn neighbour_head(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut head = [0; 12];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&state.to_ne_bytes());
    head[10] = flags;
    head
}

/// A neighbour on device `index`.
pub(crate) fn neighbour(requests: &mut Buffer, to: To, index: u32, at: IpAddr, mac: Mac) {
    requests.message(to.kind(message::NEW_NEIGHBOUR), to.flags(), |w| {
        w.fixed(&neighbour_head(family(at), index, PERMANENT, 0));
        w.bytes(1, &octets(at));
        if to == To::Be {
            w.bytes(2, &mac.0);
        }
    });
}

/// A forwarding entry of VXLAN device `index`.
pub(crate) fn forwarding(requests: &mut Buffer, to: To, index: u32, mac: Mac, behind: IpAddr) {
    const SELF: u8 = 2;
    requests.message(to.kind(message::NEW_NEIGHBOUR), to.flags(), |w| {
        w.fixed(&neighbour_head(BRIDGE, index, PERMANENT, SELF));
        w.bytes(1, &octets(behind));
        w.bytes(2, &mac.0);
    });
}

/// Device index, address and MAC address of something permanent.
type Permanent = (u32, IpAddr, Mac);

pub(crate) fn neighbours(socket: &mut Socket) -> Result<Vec<Permanent>, Refusal> {
    socket.dump(message::GET_NEIGHBOUR, |w| w.fixed(&[0; 12]), read_neighbour)
}

/// Forwarding entries of device `index`: what `bridge fdb show dev` asks.
pub(crate) fn forwardings(socket: &mut Socket, index: u32) -> Result<Vec<Permanent>, Refusal> {
    let head = neighbour_head(BRIDGE, index, 0, 0);
    socket.dump(message::GET_NEIGHBOUR, |w| w.fixed(&head), read_neighbour)
}

pub(crate) fn read_neighbour(body: &[u8]) -> Option<Permanent> {
    let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    if state & PERMANENT == 0 {
        return None;
    }
    let (mut at, mut mac) = (None, None);
    for (kind, value) in attributes_after(body, 12) {
        match kind {
            1 => at = addr(value),
            2 => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((u32_at(body, 4)?, at?, mac?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink;
    use proptest::prelude::*;

    /// Bodies of the messages in a buffer.
    fn bodies(requests: &Buffer) -> Vec<Vec<u8>> {
        let (range, _) = requests.chunk(0, usize::MAX);
        netlink::messages(requests.bytes(range)).map(|m| m.body.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn anything_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop((read_address(&body), read_route(&body), read_rule(&body), read_neighbour(&body)));
            drop(crate::link::read(&body));
        }

        #[test]
        fn what_is_written_is_read(
            to: [u8; 4], via: [u8; 4], prefix in 0u8..=32, table in 1u32..1000, metric: u32, mark: u32,
            mask in 1u32.., mac: [u8; 6], index: u32,
        ) {
            let net = IpNet::new(to.into(), prefix).expect("a subnet").trunc();
            let way = Way::Device { name: String::new(), via: Some(via.into()) };
            let wanted = Route { table, to: net, way, src: None, metric };
            let policy = Rule {
                priority: metric, v6: false, from: (prefix > 0).then_some(net), mark: Some((mark & mask, mask)), table,
            };
            let mut requests = Buffer::default();
            route(&mut requests, To::Be, &wanted, index);
            rule(&mut requests, To::Be, &policy);
            neighbour(&mut requests, To::Be, index, via.into(), Mac(mac));
            address(&mut requests, To::Be, index, IpNet::new(via.into(), prefix).expect("a subnet"));
            let bodies = bodies(&requests);
            let found = read_route(&bodies[0]).expect("a route");
            prop_assert_eq!((found.protocol, found.index, found.route), (OURS, index, wanted));
            if (mark & mask, mask) != (0, u32::MAX) {
                prop_assert_eq!(read_rule(&bodies[1]), Some((OURS, policy)));
            }
            prop_assert_eq!(read_neighbour(&bodies[2]), Some((index, via.into(), Mac(mac))));
            let read = read_address(&bodies[3]);
            prop_assert_eq!(read, Some((index, IpNet::new(via.into(), prefix).expect("a subnet"))));
        }
    }
}
