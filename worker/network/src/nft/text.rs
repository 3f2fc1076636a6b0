//! Text: rules and elements for people, from what the kernel has. Not all that nft can print, and not its
//! grammar: enough to find the rule in `nft list ruleset`.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::number::kind;
use super::set::Order;
use super::{LowData, LowExpression, LowKey, LowRule, LowSet};
use crate::netlink::{be32, find, text};

/// A rule: its comment if it has one, and what its steps are.
pub(crate) fn rule(rule: &LowRule) -> String {
    let steps: Vec<String> = rule.expressions.iter().map(expression).collect();
    let mut words = steps.join(" ");
    if !rule.comment.is_empty() {
        write!(words, " comment \"{}\"", rule.comment).expect("text");
    }
    words
}

fn expression(each: &LowExpression) -> String {
    let attribute = |number| find(&each.attributes, number);
    let number = |kind| attribute(kind).map_or(0, be32);
    let value = |kind| attribute(kind).and_then(|data| find(data, 1)).map_or(String::new(), hex);
    match &each.name[..] {
        "meta" | "ct" => {
            let key = number(2);
            let sets = if each.name == "meta" { attribute(3) } else { attribute(4) };
            let name = match (&each.name[..], key) {
                ("meta", 1) => "protocol",
                ("meta", 3) | ("ct", 3) => "mark",
                ("meta", 6) => "iifname",
                ("meta", 7) => "oifname",
                ("meta", 8) => "iiftype",
                ("meta", 15) => "nfproto",
                ("meta", 16) => "l4proto",
                ("ct", 0) => "state",
                ("ct", 1) => "direction",
                ("ct", 2) => "status",
                ("ct", 17) => "zone",
                _ => "?",
            };
            format!("{} {name}{}", each.name, if sets.is_some() { " set" } else { "" })
        }
        "payload" => {
            let base = ["ll", "nh", "th"].get(number(2) as usize).unwrap_or(&"?");
            format!(
                "@{base},{},{}{}",
                number(3) * 8,
                number(4) * 8,
                if attribute(5).is_some() { " set" } else { "" }
            )
        }
        "cmp" => format!(
            "{} {}",
            ["==", "!=", "<", "<=", ">", ">="].get(number(2) as usize).unwrap_or(&"?"),
            value(3)
        ),
        "bitwise" => format!("& {}", value(4)),
        "range" => format!("!= {}-{}", value(3), value(4)),
        "lookup" => match (&each.set, attribute(1)) {
            (Some(set), _) => elements(set),
            (None, Some(name)) => format!("{}@{}", if number(5) != 0 { "!= " } else { "" }, text(name)),
            _ => "lookup".into(),
        },
        "immediate" => {
            let inner = attribute(2).unwrap_or_default();
            match find(inner, 2) {
                Some(to) => {
                    verdict(find(to, 1).map_or(0, be32).cast_signed(), find(to, 2).map(text).as_deref())
                }
                None => value(2),
            }
        }
        "numgen" => format!("numgen random mod {}", number(2)),
        "hash" => format!("jhash mod {} seed 0x{:x}", number(4), number(5)),
        "nat" => {
            if number(1) == 0 {
                "snat".into()
            } else {
                "dnat".into()
            }
        }
        "masq" => "masquerade".into(),
        "fib" => "fib daddr type".into(),
        other => other.into(),
    }
}

fn elements(set: &LowSet) -> String {
    const SHOWN: usize = 8;
    let shown = set.elements.iter().take(SHOWN);
    let mut all: Vec<String> = shown
        .map(|(k, d)| match d {
            LowData::Nothing => key(set, k),
            d => format!("{} : {}", key(set, k), data(set, d)),
        })
        .collect();
    if set.elements.len() > SHOWN {
        all.push(format!("… {} more", set.elements.len() - SHOWN));
    }
    format!("{{ {} }}", all.join(", "))
}

/// A key of a set.
pub(crate) fn key(set: &LowSet, key: &LowKey) -> String {
    let native = set.notes.get(2..6).is_some_and(|n| n == (Order::Native as u32).to_ne_bytes());
    let mut words = joined(set.key_type, &key.key, native);
    if let Some(last) = key.last.as_ref().filter(|last| **last != key.key) {
        words = format!("{words}-{}", joined(set.key_type, last, native));
    }
    if key.is_end { format!("(end {words})") } else { words }
}

/// What a map says.
pub(crate) fn data(set: &LowSet, data: &LowData) -> String {
    match data {
        LowData::Nothing => "there".into(),
        LowData::Value(bytes) => joined(set.data_type, bytes, true),
        LowData::Verdict(code, chain) => verdict(*code, chain.as_deref()),
    }
}

fn verdict(code: i32, chain: Option<&str>) -> String {
    let word = match code {
        0 => "drop",
        1 => "accept",
        -3 => "jump",
        -4 => "goto",
        -5 => "return",
        _ => "verdict",
    };
    chain.map_or(word.to_owned(), |chain| format!("{word} {chain}"))
}

/// Values of several types, each filled up to four bytes.
fn joined(kinds: u32, mut bytes: &[u8], native: bool) -> String {
    let mut list = Vec::new();
    let mut rest = kinds;
    while rest != 0 {
        list.push(rest & ((1 << kind::BITS) - 1));
        rest >>= kind::BITS;
    }
    let mut words = Vec::new();
    for one in list.iter().rev() {
        let length = match *one {
            kind::IP6 | kind::NAME => 16,
            kind::ETHER => 6,
            kind::PORT => 2,
            kind::PROTOCOL | kind::NFPROTO => 1,
            _ if list.len() == 1 => bytes.len(),
            _ => 4,
        }
        .min(bytes.len());
        words.push(single(*one, &bytes[..length], native));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    words.join(" . ")
}

fn single(one: u32, bytes: &[u8], native: bool) -> String {
    let array4: Result<[u8; 4], _> = bytes.try_into();
    let array16: Result<[u8; 16], _> = bytes.try_into();
    match (one, array4, array16) {
        (kind::IP, Ok(addr), _) => Ipv4Addr::from(addr).to_string(),
        (kind::IP6, _, Ok(addr)) => Ipv6Addr::from(addr).to_string(),
        (kind::NAME, ..) => text(bytes),
        (kind::ETHER, ..) => {
            let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            parts.join(":")
        }
        (kind::PROTOCOL, ..) if bytes == [6] => "tcp".into(),
        (kind::PROTOCOL, ..) if bytes == [17] => "udp".into(),
        (kind::PORT | kind::PROTOCOL, ..) => {
            bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)).to_string()
        }
        (kind::MARK, Ok(number), _) => format!("0x{:x}", u32::from_ne_bytes(number)),
        (kind::INTEGER, Ok(number), _) if native => u32::from_ne_bytes(number).to_string(),
        (kind::INTEGER, ..) if !native && bytes.len() <= 4 => {
            bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)).to_string()
        }
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    let printable = |byte: &u8| byte.is_ascii_graphic();
    let name = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    if name >= 2 && bytes.len() > 4 && bytes[..name].iter().all(printable) {
        return format!("\"{}\"", text(bytes));
    }
    let mut words = String::from("0x");
    bytes.iter().for_each(|byte| write!(words, "{byte:02x}").expect("text"));
    words
}
