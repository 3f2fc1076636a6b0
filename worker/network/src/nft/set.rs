//! Sets and maps with names, as the kernel has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use swarm_worker_core::network::firewall::{Field, Map, MapElements, Set, Value, Verdict};

use super::field::{self, Unfit, shape};
use super::number::{ACCEPT, DROP, GOTO, JUMP, RETURN, flag, kind};
use super::{LowData, LowKey, LowSet};
use crate::netlink::Writer;

/// In which order the bytes of a number are: kept with a set for who prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Native = 1,
    Network = 2,
}

/// What nft wants to know of a set to print it.
pub(crate) fn notes(key: Order, data: Option<Order>) -> Vec<u8> {
    let mut notes = Vec::new();
    for (kind, order) in [(0u8, Some(key)), (1, data)] {
        if let Some(order) = order {
            notes.extend([kind, 4]);
            notes.extend((order as u32).to_ne_bytes());
        }
    }
    notes
}

fn order(fields: &[Field]) -> Order {
    match fields {
        [one] if shape(*one).native => Order::Native,
        _ => Order::Network,
    }
}

/// The two numbers of a verdict: its code and its chain.
pub(crate) fn verdict(verdict: &Verdict) -> (i32, Option<&str>) {
    match verdict {
        Verdict::Accept => (ACCEPT.cast_signed(), None),
        Verdict::Drop => (DROP.cast_signed(), None),
        Verdict::Return => (RETURN, None),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
    }
}

/// Type and length of a key of these fields.
fn key_shape(fields: &[Field]) -> Result<(u32, u32), Unfit> {
    const MOST_FIELDS: usize = 5;
    const MOST_BYTES: usize = 64;
    let (mut kinds, mut bytes) = (0, 0);
    for one in fields.iter().map(|field| shape(*field)) {
        kinds = kinds << kind::BITS | one.kind;
        bytes += if fields.len() == 1 { one.bytes } else { one.bytes.next_multiple_of(4) };
    }
    if fields.is_empty() || fields.len() > MOST_FIELDS || bytes > MOST_BYTES {
        return Err(Unfit(format!("a key of {fields:?}")));
    }
    Ok((kinds, u32::try_from(bytes).expect("at most 64")))
}

/// A key: its values one after the other, each filled up to four bytes if there are several.
fn key_bytes(fields: &[Field], values: &[Value], last: bool) -> Result<Vec<u8>, Unfit> {
    if fields.len() != values.len() {
        return Err(Unfit(format!("{values:?} as a key of {fields:?}")));
    }
    let mut key = Vec::new();
    for (field, value) in fields.iter().zip(values) {
        match value {
            Value::Net(net) => {
                let end = if last { net.broadcast() } else { net.network() };
                key.extend(field::bytes(*field, &Value::Addr(end))?);
            }
            _ => key.extend(field::bytes(*field, value)?),
        }
        if fields.len() > 1 {
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    Ok(key)
}

pub(crate) fn set(set: &Set) -> Result<LowSet, Unfit> {
    let (key_type, key_length) = key_shape(&set.key)?;
    let mut low = LowSet { key_type, key_length, notes: notes(order(&set.key), None), ..Default::default() };
    if !set.interval {
        low.elements = plain(&set.key, set.elements.iter().map(|key| (key, LowData::Nothing)))?;
        return Ok(low);
    }
    if set.key.iter().any(|field| shape(*field).native && shape(*field).kind != kind::NAME) {
        return Err(Unfit(format!("ranges of {:?}", set.key)));
    }
    low.flags = flag::INTERVAL;
    if let [one] = set.key[..] {
        low.elements = intervals(one, &set.elements)?;
        return Ok(low);
    }
    low.flags |= flag::CONCAT;
    low.parts = set.key.iter().map(|field| u32::try_from(shape(*field).bytes).expect("at most 16")).collect();
    for values in &set.elements {
        let key = key_bytes(&set.key, values, false)?;
        let last = Some(key_bytes(&set.key, values, true)?);
        low.elements.insert(LowKey { key, last, is_end: false }, LowData::Nothing);
    }
    Ok(low)
}

pub(crate) fn map(map: &Map) -> Result<LowSet, Unfit> {
    let (key_type, key_length) = key_shape(&map.key)?;
    let (data_type, data_length, data_order) = match map.elements {
        // as large as the kernel makes it
        MapElements::Verdicts(_) => (kind::VERDICT, 16, None),
        MapElements::Marks(_) => (kind::MARK, 4, Some(Order::Native)),
        MapElements::Zones(_) => (kind::INTEGER, 2, Some(Order::Native)),
        MapElements::Macs(_) => (kind::ETHER, 6, Some(Order::Network)),
    };
    let key = &map.key;
    let value = |bytes: &[u8]| LowData::Value(bytes.to_vec());
    let elements = match &map.elements {
        MapElements::Verdicts(all) => plain(
            key,
            all.iter().map(|(key, to)| {
                let (code, chain) = verdict(to);
                (key, LowData::Verdict(code, chain.map(str::to_owned)))
            }),
        ),
        MapElements::Marks(all) => plain(key, all.iter().map(|(key, to)| (key, value(&to.to_ne_bytes())))),
        MapElements::Zones(all) => plain(key, all.iter().map(|(key, to)| (key, value(&to.to_ne_bytes())))),
        MapElements::Macs(all) => plain(key, all.iter().map(|(key, to)| (key, value(&to.0)))),
    }?;
    Ok(LowSet {
        flags: flag::MAP,
        key_type,
        key_length,
        data_type,
        data_length,
        parts: Vec::new(),
        notes: notes(order(key), data_order),
        elements,
    })
}

fn plain<'a>(
    fields: &[Field],
    elements: impl Iterator<Item = (&'a Vec<Value>, LowData)>,
) -> Result<BTreeMap<LowKey, LowData>, Unfit> {
    let low = |(values, data): (&'a Vec<Value>, LowData)| {
        let key = key_bytes(fields, values, false)?;
        Ok((LowKey { key, last: None, is_end: false }, data))
    };
    elements.map(low).collect()
}

/// Subnets as the kernel's tree has them: the first address of each range, and the first after it.
/// Ranges that touch or overlap are one: the tree refuses others.
fn intervals(field: Field, elements: &BTreeSet<Vec<Value>>) -> Result<BTreeMap<LowKey, LowData>, Unfit> {
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    let bits = 8 * shape(field).bytes;
    for values in elements {
        let [value] = &values[..] else { return Err(Unfit(format!("{values:?} in a set of {field:?}"))) };
        let number = |addr: IpAddr| field::bytes(field, &Value::Addr(addr)).map(|bytes| to_number(&bytes));
        let range = match value {
            Value::Net(net) => (number(net.network())?, number(IpNet::broadcast(net))?),
            other => {
                let one = to_number(&field::big_endian(field, other)?);
                (one, one)
            }
        };
        ranges.push(range);
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    let top = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    let key = |number: u128, is_end| {
        let key = number.to_be_bytes()[16 - bits / 8..].to_vec();
        (LowKey { key, last: None, is_end }, LowData::Nothing)
    };
    let mut low = BTreeMap::new();
    if merged.first().is_some_and(|(first, _)| *first > 0) {
        low.extend([key(0, true)]);
    }
    for (first, last) in merged {
        low.extend([key(first, false)]);
        low.extend((last < top).then(|| key(last + 1, true)));
    }
    Ok(low)
}

fn to_number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Writes a set's kind, see [`super::wire`].
pub(crate) fn describe(w: &mut Writer<'_>, set: &LowSet) {
    if set.flags != 0 {
        w.be32(3, set.flags);
    }
    w.be32(4, set.key_type);
    w.be32(5, set.key_length);
    if set.flags & flag::MAP != 0 {
        w.be32(6, set.data_type);
        w.be32(7, set.data_length);
    }
    w.nest(9, |w| {
        if set.flags & flag::CONSTANT != 0 {
            w.be32(1, u32::try_from(set.elements.len()).unwrap_or(u32::MAX));
        }
        if !set.parts.is_empty() {
            w.nest(2, |w| set.parts.iter().for_each(|bytes| w.nest(1, |w| w.be32(1, *bytes))));
        }
    });
}
