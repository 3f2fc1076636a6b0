//! Expressions: the steps that rules are made of, as the kernel prints them.

use super::number::{Comparison, Header};
use super::{LowData, LowExpression, LowSet};
use crate::netlink::{self, Writer};

/// A register, counted in pieces of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    pub(crate) const FIRST: Self = Self(0);

    /// The number that the kernel prints for it: whole registers of 16 bytes have numbers of their own.
    fn number(self) -> u32 {
        if self.0.is_multiple_of(4) { 1 + self.0 / 4 } else { 8 + self.0 }
    }

    pub(crate) fn after(self, bytes: usize) -> Self {
        Self(self.0 + u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX))
    }
}

fn make(name: &str, fill: impl FnOnce(&mut Writer<'_>)) -> LowExpression {
    let mut attributes = Vec::new();
    fill(&mut Writer::new(&mut attributes));
    LowExpression { name: name.into(), attributes: canonical(name, &attributes), set: None }
}

/// Writes data: a value or a verdict.
pub(crate) fn data(w: &mut Writer<'_>, kind: u16, data: &LowData) {
    w.nest(kind, |w| match data {
        LowData::Nothing => {}
        LowData::Value(value) => w.bytes(1, value),
        LowData::Verdict(code, chain) => w.nest(2, |w| {
            w.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        }),
    });
}

fn value(bytes: &[u8]) -> LowData {
    LowData::Value(bytes.to_vec())
}

pub(crate) fn meta(key: u32, to: Register) -> LowExpression {
    make("meta", |w| {
        w.be32(1, to.number());
        w.be32(2, key);
    })
}

pub(crate) fn meta_set(key: u32, from: Register) -> LowExpression {
    make("meta", |w| {
        w.be32(2, key);
        w.be32(3, from.number());
    })
}

pub(crate) fn ct(key: u32, to: Register) -> LowExpression {
    make("ct", |w| {
        w.be32(1, to.number());
        w.be32(2, key);
    })
}

/// `direction` 0: the original one.
pub(crate) fn ct_set(key: u32, from: Register, direction: Option<u8>) -> LowExpression {
    make("ct", |w| {
        w.be32(2, key);
        if let Some(direction) = direction {
            w.u8(3, direction);
        }
        w.be32(4, from.number());
    })
}

pub(crate) fn payload(header: Header, offset: u32, length: u32, to: Register) -> LowExpression {
    make("payload", |w| {
        w.be32(1, to.number());
        w.be32(2, header as u32);
        w.be32(3, offset);
        w.be32(4, length);
    })
}

/// Writes into a packet where no sum has to be put right.
pub(crate) fn payload_set(header: Header, offset: u32, length: u32, from: Register) -> LowExpression {
    make("payload", |w| {
        w.be32(2, header as u32);
        w.be32(3, offset);
        w.be32(4, length);
        w.be32(5, from.number());
        w.be32(6, 0);
        w.be32(7, 0);
        w.be32(8, 0);
    })
}

/// What kind of address the destination is.
pub(crate) fn fib_destination_type(to: Register) -> LowExpression {
    const TYPE: u32 = 3;
    fib(to, TYPE, 0)
}

/// Whether there is a device that leads to the destination, for a packet with this mark.
pub(crate) fn fib_destination_device(to: Register) -> LowExpression {
    const DEVICE: u32 = 1;
    const MARK: u32 = 4;
    const PRESENT: u32 = 32;
    fib(to, DEVICE, MARK | PRESENT)
}

fn fib(to: Register, what: u32, flags: u32) -> LowExpression {
    const DESTINATION: u32 = 2;
    make("fib", |w| {
        w.be32(1, to.number());
        w.be32(2, what);
        w.be32(3, DESTINATION | flags);
    })
}

pub(crate) fn cmp(from: Register, how: Comparison, with: &[u8]) -> LowExpression {
    make("cmp", |w| {
        w.be32(1, from.number());
        w.be32(2, how as u32);
        data(w, 3, &value(with));
    })
}

/// `register &= mask`.
pub(crate) fn and(register: Register, mask: &[u8]) -> LowExpression {
    make("bitwise", |w| {
        w.be32(1, register.number());
        w.be32(2, register.number());
        w.be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        data(w, 4, &value(mask));
        data(w, 5, &value(&vec![0; mask.len()]));
        w.be32(6, 0);
    })
}

/// To network byte order, four bytes.
pub(crate) fn to_network_order(register: Register) -> LowExpression {
    make("byteorder", |w| {
        w.be32(1, register.number());
        w.be32(2, register.number());
        w.be32(3, 1);
        w.be32(4, 4);
        w.be32(5, 4);
    })
}

pub(crate) fn outside(from: Register, first: &[u8], last: &[u8]) -> LowExpression {
    make("range", |w| {
        w.be32(1, from.number());
        w.be32(2, 1);
        data(w, 3, &value(first));
        data(w, 4, &value(last));
    })
}

/// Where a lookup's answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nowhere: the rule goes on if the key is there.
    IsThere,
    IsNotThere,
    To(Register),
    Verdict,
}

/// Looks into a set with a name.
pub(crate) fn lookup(set: &str, from: Register, answer: Answer) -> LowExpression {
    make("lookup", |w| {
        w.text(1, set);
        lookup_rest(w, from, answer);
    })
}

/// Looks into a set of its own.
pub(crate) fn lookup_in(set: LowSet, from: Register, answer: Answer) -> LowExpression {
    let expression = make("lookup", |w| lookup_rest(w, from, answer));
    LowExpression { set: Some(Box::new(set)), ..expression }
}

fn lookup_rest(w: &mut Writer<'_>, from: Register, answer: Answer) {
    w.be32(2, from.number());
    match answer {
        Answer::To(to) => w.be32(3, to.number()),
        Answer::Verdict => w.be32(3, 0),
        Answer::IsThere | Answer::IsNotThere => {}
    }
    w.be32(5, u32::from(answer == Answer::IsNotThere));
}

pub(crate) fn immediate(to: Register, bytes: &[u8]) -> LowExpression {
    make("immediate", |w| {
        w.be32(1, to.number());
        data(w, 2, &value(bytes));
    })
}

pub(crate) fn verdict(code: i32, chain: Option<&str>) -> LowExpression {
    make("immediate", |w| {
        w.be32(1, 0);
        data(w, 2, &LowData::Verdict(code, chain.map(str::to_owned)));
    })
}

pub(crate) fn random(modulus: u32, to: Register) -> LowExpression {
    make("numgen", |w| {
        w.be32(1, to.number());
        w.be32(2, modulus);
        w.be32(3, 1);
        w.be32(4, 0);
    })
}

pub(crate) fn jhash(from: Register, length: u32, modulus: u32, seed: u32, to: Register) -> LowExpression {
    make("hash", |w| {
        w.be32(1, from.number());
        w.be32(2, to.number());
        w.be32(3, length);
        w.be32(4, modulus);
        w.be32(5, seed);
        w.be32(7, 0);
    })
}

/// `source`: changes the near end, else the far one. `family`: NFPROTO of the address.
pub(crate) fn nat(source: bool, family: u8, addr: Register, port: Option<Register>) -> LowExpression {
    const ADDRS: u32 = 1;
    const PORTS: u32 = 2;
    make("nat", |w| {
        w.be32(1, u32::from(!source));
        w.be32(2, u32::from(family));
        w.be32(3, addr.number());
        w.be32(4, addr.number());
        if let Some(port) = port {
            w.be32(5, port.number());
            w.be32(6, port.number());
        }
        w.be32(7, if port.is_some() { ADDRS | PORTS } else { ADDRS });
    })
}

pub(crate) fn masquerade() -> LowExpression {
    make("masq", |_| {})
}

pub(crate) fn notrack() -> LowExpression {
    make("notrack", |_| {})
}

pub(crate) fn counter() -> LowExpression {
    make("counter", |_| {})
}

/// `reject`: kind 0 an ICMP message of that code, 1 a reset of TCP, 2 an ICMP message of either family.
pub(crate) fn reject(kind: u32, code: Option<u8>) -> LowExpression {
    make("reject", |w| {
        w.be32(1, kind);
        if let Some(code) = code {
            w.u8(2, code);
        }
    })
}

/// Attributes in the order of their numbers, without flags and without what the kernel makes up.
pub(crate) fn canonical(name: &str, attributes: &[u8]) -> Vec<u8> {
    let nested: &[u16] = match name {
        "cmp" => &[3],
        "immediate" => &[2],
        "bitwise" => &[4, 5],
        "range" => &[3, 4],
        _ => &[],
    };
    let left_out: &[u16] = match name {
        "counter" => &[1, 2],
        "lookup" => &[4],
        _ => &[],
    };
    let mut found: Vec<(u16, Vec<u8>)> = netlink::attributes(attributes)
        .filter(|(kind, _)| !left_out.contains(kind))
        .map(|(kind, value)| match nested.contains(&kind) {
            true => (kind, canonical_data(value, true)),
            false => (kind, value.to_vec()),
        })
        .collect();
    found.sort();
    write(&found)
}

/// Data is a value (1), or a verdict (2), which has attributes in turn.
fn canonical_data(bytes: &[u8], outer: bool) -> Vec<u8> {
    let mut found: Vec<(u16, Vec<u8>)> = netlink::attributes(bytes)
        .map(|(kind, value)| match kind {
            2 if outer => (kind, canonical_data(value, false)),
            _ => (kind, value.to_vec()),
        })
        .collect();
    found.sort();
    write(&found)
}

fn write(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    for (kind, value) in attributes {
        writer.bytes(*kind, value);
    }
    bytes
}
