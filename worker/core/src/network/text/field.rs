//! Field: what rules look at, in nft's words.
//!
//! Reads:   fields and values.
//! Writes:  text.
//! Never:   knows rules.
//! Start:   [`Field::word`].

use swarm_types::endpoint::Protocol;

use crate::network::address::protocol_number;
use crate::network::firewall::{Field, Value};

impl Field {
    /// nft's words.
    pub fn word(self) -> &'static str {
        match self {
            Field::Iifname => "iifname",
            Field::Oifname => "oifname",
            Field::IpSaddr => "ip saddr",
            Field::IpDaddr => "ip daddr",
            Field::Ip6Saddr => "ip6 saddr",
            Field::Ip6Daddr => "ip6 daddr",
            Field::L4Proto => "meta l4proto",
            Field::SourcePort => "th sport",
            Field::DestinationPort => "th dport",
            Field::EtherSaddr => "ether saddr",
            Field::CtState => "ct state",
            Field::CtStatus => "ct status",
            Field::CtDirection => "ct direction",
            Field::CtMark => "ct mark",
            Field::Mark => "meta mark",
            Field::FibDestinationType => "fib daddr type",
            Field::FibDestinationDevice => "fib daddr . mark oif",
            Field::Vni => "@th,96,24",
            Field::NfProto => "meta nfproto",
            Field::TcpFlags => "tcp flags",
            Field::IcmpType => "icmp type",
            Field::Icmp6Type => "icmpv6 type",
        }
    }

    /// Its values are bits that may be there together.
    pub(super) fn is_bits(self) -> bool {
        matches!(self, Field::CtState | Field::CtStatus | Field::TcpFlags)
    }

    /// A value of it.
    pub(super) fn value(self, value: &Value) -> String {
        match value {
            Value::Name(name) => format!("\"{name}\""),
            Value::Addr(addr) => addr.to_string(),
            Value::Net(net) => net.to_string(),
            Value::Port(port) => port.to_string(),
            Value::Protocol(number) => {
                let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
                let word = known.into_iter().find(|p| protocol_number(*p) == *number);
                word.map_or_else(|| number.to_string(), |p| p.as_str().into())
            }
            Value::Mac(mac) => mac.to_string(),
            Value::Number(number) => self.number(*number),
        }
    }

    fn number(self, number: u32) -> String {
        let bits = |words: &[(u32, &str)]| {
            let known = words.iter().filter(|(bit, _)| number & bit != 0).map(|(_, word)| *word);
            known.collect::<Vec<_>>().join(",")
        };
        match (self, number) {
            (Field::CtState, _) => {
                bits(&[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")])
            }
            (Field::CtStatus, _) => bits(&[(16, "snat"), (32, "dnat")]),
            (Field::TcpFlags, _) => bits(&[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack")]),
            (Field::CtDirection, 0) => "original".into(),
            (Field::CtDirection, _) => "reply".into(),
            (Field::FibDestinationType, 2) => "local".into(),
            (Field::FibDestinationDevice, 0) => "missing".into(),
            (Field::FibDestinationDevice, _) => "exists".into(),
            (Field::NfProto, 2) => "ipv4".into(),
            (Field::NfProto, 10) => "ipv6".into(),
            (Field::CtMark | Field::Mark, _) => format!("{number:#x}"),
            (_, number) => number.to_string(),
        }
    }
}
