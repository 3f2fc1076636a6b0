//! Choices: where a new connection goes, one of several by their weights.

use std::collections::BTreeMap;
use std::net::IpAddr;

use swarm_worker_core::network::firewall::{Choice, Chooser};

use super::expression::{self as expr, Answer, Register};
use super::field::Unfit;
use super::number::{NFPROTO_IPV4, NFPROTO_IPV6, flag, kind};
use super::set::{self, Order};
use super::{LowData, LowExpression, LowKey, LowSet};
use crate::nft::number::Header;

/// Up to so many places the map has one element for each; looking into it costs the same for all. Above,
/// it has an element for each target's range.
const PLACES: u32 = 1024;

/// Data of a NAT: address, and port if there is one.
fn address(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

pub(crate) fn family(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 }
}

/// `snat to` one address.
pub(crate) fn snat(addr: IpAddr) -> Vec<LowExpression> {
    let to = expr::immediate(Register::FIRST, &address(addr));
    vec![to, expr::nat(true, family(addr), Register::FIRST, None)]
}

/// `dnat to` one of several.
pub(crate) fn dnat(choice: &Choice) -> Result<Vec<LowExpression>, Unfit> {
    let Some(&(first, port, _)) = choice.targets.first() else {
        return Err(Unfit("a choice of no targets".into()));
    };
    let alike = |(addr, other, weight): &(IpAddr, Option<u16>, u32)| {
        addr.is_ipv4() == first.is_ipv4() && other.is_some() == port.is_some() && *weight > 0
    };
    if !choice.targets.iter().all(alike) {
        return Err(Unfit("a choice of targets of different kinds, or of no weight".into()));
    }
    let at = Register::FIRST;
    let port_at = port.map(|_| at.after(address(first).len()));
    let nat = expr::nat(false, family(first), at, port_at);
    if choice.targets.iter().all(|(addr, other, _)| (*addr, *other) == (first, port)) {
        let mut all = vec![expr::immediate(at, &address(first))];
        all.extend(port_at.zip(port).map(|(at, port)| expr::immediate(at, &port.to_be_bytes())));
        all.push(nat);
        return Ok(all);
    }
    let places = Places::of(choice)?;
    let mut all = match choice.by {
        Chooser::Random => vec![expr::random(places.count, at)],
        Chooser::SourceHash(seed) => {
            let (offset, length) = if first.is_ipv4() { (12, 4) } else { (8, 16) };
            let from = Register(4);
            let source = expr::payload(Header::Network, offset, length, from);
            vec![source, expr::jhash(from, length, places.count, seed, at)]
        }
    };
    if places.count > PLACES {
        all.push(expr::to_network_order(at));
    }
    all.extend([expr::lookup_in(places.map(choice), at, Answer::To(at)), nat]);
    Ok(all)
}

/// How many places there are, and which target has how many of them.
struct Places {
    count: u32,
    shares: Vec<u32>,
}

impl Places {
    fn of(choice: &Choice) -> Result<Self, Unfit> {
        let divisor = choice.targets.iter().fold(0, |a, (_, _, weight)| common_divisor(a, *weight));
        let shares: Vec<u32> = choice.targets.iter().map(|(_, _, weight)| weight / divisor).collect();
        let count = shares.iter().try_fold(0u32, |sum, share| sum.checked_add(*share));
        count.map(|count| Self { count, shares }).ok_or_else(|| Unfit("weights are too large".into()))
    }

    fn map(&self, choice: &Choice) -> LowSet {
        let ranges = self.count > PLACES;
        let mut elements = BTreeMap::new();
        let mut first = 0u32;
        for ((addr, port, _), share) in choice.targets.iter().zip(&self.shares) {
            let mut data = address(*addr);
            data.extend(port.iter().flat_map(|port| [port.to_be_bytes(), [0, 0]].concat()));
            let data = LowData::Value(data);
            if ranges {
                elements.insert(key(first.to_be_bytes(), false), data);
            } else {
                let each = first..first + share;
                elements.extend(each.map(|place| (key(place.to_ne_bytes(), false), data.clone())));
            }
            first += share;
            if ranges {
                elements.insert(key(first.to_be_bytes(), true), LowData::Nothing);
            }
        }
        let (addr, port, _) = choice.targets[0];
        let addr_kind = if addr.is_ipv4() { kind::IP } else { kind::IP6 };
        let (data_type, data_length) = match port {
            None => (addr_kind, address(addr).len()),
            Some(_) => (addr_kind << kind::BITS | kind::PORT, address(addr).len() + 4),
        };
        LowSet {
            flags: flag::ANONYMOUS | flag::CONSTANT | flag::MAP | if ranges { flag::INTERVAL } else { 0 },
            key_type: kind::INTEGER,
            key_length: 4,
            data_type,
            data_length: u32::try_from(data_length).expect("an address and a port"),
            parts: Vec::new(),
            notes: set::notes(if ranges { Order::Network } else { Order::Native }, Some(Order::Network)),
            elements,
        }
    }
}

fn key(bytes: [u8; 4], is_end: bool) -> LowKey {
    LowKey { key: bytes.to_vec(), last: None, is_end }
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if a == 0 { b } else { common_divisor(b % a, a) }
}
