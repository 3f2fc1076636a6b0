//! Fields: how each is fetched, how wide it is, and what a value of it looks like.

use std::net::IpAddr;

use swarm_worker_core::network::firewall::{Field, Value};

use super::LowExpression;
use super::expression::{self as expr, Register};
use super::number::{Header, ct, kind, meta};

/// A value cannot be one of that field, or a rule cannot be what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unfit(pub(crate) String);

/// Longest name of a device, with its zero.
pub(crate) const NAME_BYTES: usize = 16;

/// What is to be known of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) bytes: usize,
    /// nft's type.
    pub(crate) kind: u32,
    /// In the byte order of the machine.
    pub(crate) native: bool,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Meta(u32),
    Ct(u32),
    Payload(Header, u32),
    FibType,
    FibDevice,
}

pub(crate) fn shape(field: Field) -> Shape {
    use Source::{Ct, FibDevice, FibType, Meta, Payload};
    let (bytes, kind, native, source) = match field {
        Field::Iifname => (NAME_BYTES, kind::NAME, true, Meta(meta::IIFNAME)),
        Field::Oifname => (NAME_BYTES, kind::NAME, true, Meta(meta::OIFNAME)),
        Field::IpSaddr => (4, kind::IP, false, Payload(Header::Network, 12)),
        Field::IpDaddr => (4, kind::IP, false, Payload(Header::Network, 16)),
        Field::Ip6Saddr => (16, kind::IP6, false, Payload(Header::Network, 8)),
        Field::Ip6Daddr => (16, kind::IP6, false, Payload(Header::Network, 24)),
        Field::L4Proto => (1, kind::PROTOCOL, false, Meta(meta::L4PROTO)),
        Field::SourcePort => (2, kind::PORT, false, Payload(Header::Transport, 0)),
        Field::DestinationPort => (2, kind::PORT, false, Payload(Header::Transport, 2)),
        Field::EtherSaddr => (6, kind::ETHER, false, Payload(Header::Link, 6)),
        Field::CtState => (4, kind::CT_STATE, true, Ct(ct::STATE)),
        Field::CtStatus => (4, kind::CT_STATUS, true, Ct(ct::STATUS)),
        Field::CtDirection => (1, kind::CT_DIRECTION, true, Ct(ct::DIRECTION)),
        Field::CtMark => (4, kind::MARK, true, Ct(ct::MARK)),
        Field::Mark => (4, kind::MARK, true, Meta(meta::MARK)),
        Field::FibDestinationType => (4, kind::FIB_TYPE, true, FibType),
        Field::FibDestinationDevice => (4, kind::INTEGER, true, FibDevice),
        Field::Vni => (3, kind::INTEGER, false, Payload(Header::Transport, 12)),
        Field::NfProto => (1, kind::NFPROTO, true, Meta(meta::NFPROTO)),
        Field::TcpFlags => (1, kind::TCP_FLAG, false, Payload(Header::Transport, 13)),
        Field::IcmpType => (1, kind::ICMP_TYPE, false, Payload(Header::Transport, 0)),
        Field::Icmp6Type => (1, kind::ICMP6_TYPE, false, Payload(Header::Transport, 0)),
    };
    Shape { bytes, kind, native, source }
}

/// Fetches a field into a register.
pub(crate) fn load(field: Field, to: Register) -> LowExpression {
    let shape = shape(field);
    load_start(&shape, shape.bytes, to).expect("all of a field can be fetched")
}

/// Fetches the first bytes of a field; none if only all of it can be fetched.
pub(crate) fn load_start(shape: &Shape, bytes: usize, to: Register) -> Option<LowExpression> {
    let length = u32::try_from(bytes).ok()?;
    match shape.source {
        Source::Payload(header, offset) => Some(expr::payload(header, offset, length, to)),
        _ if bytes != shape.bytes => None,
        Source::Meta(key) => Some(expr::meta(key, to)),
        Source::Ct(key) => Some(expr::ct(key, to)),
        Source::FibType => Some(expr::fib_destination_type(to)),
        Source::FibDevice => Some(expr::fib_destination_device(to)),
    }
}

/// A value in as many bytes as the field has. Not for subnets and not for prefixes of names.
pub(crate) fn bytes(field: Field, value: &Value) -> Result<Vec<u8>, Unfit> {
    let shape = shape(field);
    let unfit = || Unfit(format!("{value:?} is no value of {field:?}"));
    let bytes = match value {
        Value::Name(name) if shape.kind == kind::NAME && name.len() < NAME_BYTES && !name.ends_with('*') => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(NAME_BYTES, 0);
            bytes
        }
        Value::Addr(IpAddr::V4(addr)) if shape.kind == kind::IP => addr.octets().to_vec(),
        Value::Addr(IpAddr::V6(addr)) if shape.kind == kind::IP6 => addr.octets().to_vec(),
        Value::Net(net) if net.prefix_len() == net.max_prefix_len() => {
            bytes(field, &Value::Addr(net.addr()))?
        }
        Value::Port(port) if shape.kind == kind::PORT => port.to_be_bytes().to_vec(),
        Value::Protocol(number) if shape.kind == kind::PROTOCOL => vec![*number],
        Value::Mac(mac) if shape.kind == kind::ETHER => mac.0.to_vec(),
        Value::Number(number) if shape.bytes <= 4 => {
            let (big, spare) = (number.to_be_bytes(), 4 - shape.bytes);
            if big[..spare].iter().any(|&byte| byte != 0) {
                return Err(unfit());
            }
            let mut bytes = big[spare..].to_vec();
            if shape.native && cfg!(target_endian = "little") {
                bytes.reverse();
            }
            bytes
        }
        _ => return Err(unfit()),
    };
    Ok(bytes)
}

/// A value in network byte order: as it must be for "greater" to mean greater.
pub(crate) fn big_endian(field: Field, value: &Value) -> Result<Vec<u8>, Unfit> {
    let mut bytes = bytes(field, value)?;
    let shape = shape(field);
    if shape.native && shape.kind != kind::NAME && cfg!(target_endian = "little") {
        bytes.reverse();
    }
    Ok(bytes)
}
