//! Firewall: tables of nftables as plain values: the part of them that we use.
//!
//! Reads:   nothing.
//! Writes:  nothing: plain values.
//! Never:   knows how the kernel encodes them.
//! Start:   [`Table`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::kernel::Mac;

/// A table. Names of chains, sets and maps are at most 31 bytes and no words of nft: `s_…`, `p_…`,
/// `c_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What packets it sees.
    pub family: Family,
    /// `sw_…`.
    pub name: String,
    /// Sets by name.
    pub sets: BTreeMap<String, Arc<Set>>,
    /// Maps by name.
    pub maps: BTreeMap<String, Arc<Map>>,
    /// Chains by name.
    pub chains: BTreeMap<String, Arc<Chain>>,
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Family {
    Ip,
    Ip6,
    Inet,
    Netdev,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where packets enter it; none: from other chains only.
    pub hook: Option<Hook>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What it may do.
    pub kind: ChainKind,
    /// When.
    pub point: HookPoint,
    /// Order among chains of one point.
    pub priority: i32,
    /// For `netdev`: the device.
    pub device: Option<String>,
    /// What passes all rules is dropped.
    pub drop_by_default: bool,
}

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ChainKind {
    Filter,
    Nat,
    Route,
}

/// When packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Ingress,
    Egress,
}

/// A rule: all of its statements in order, until one does not match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// What it does.
    pub statements: Vec<Statement>,
    /// For who reads `nft list ruleset`; at most 128 bytes.
    pub comment: String,
}

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on if the field is (or is not) this.
    Match(Field, Compare, Value),
    /// Goes on if the fields, together, are (or are not) in the set.
    InSet(Vec<Field>, Compare, String),
    /// Goes on if the field is between, both ends included.
    Between(Field, Compare, Value, Value),
    /// Does what the map says of the fields; goes on if it says nothing.
    VerdictMap(Vec<Field>, String),
    /// Ends the rule.
    Verdict(Verdict),
    /// Sets the other end of a new connection. Needs a match of the protocol before it in the rule if
    /// there are ports.
    Dnat(Choice),
    /// Sets the near end of a new connection.
    Snat(IpAddr),
    /// Sets the near end of a new connection to an address of the device that it leaves by.
    Masquerade,
    /// The connection is not tracked.
    Notrack,
    /// `meta mark set` a number.
    SetMark(u32),
    /// `meta mark set ct mark`.
    SetMarkFromConnection,
    /// `ct mark set` what the map says of the fields.
    SetConnectionMark(Vec<Field>, String),
    /// `ct original zone set` what the map says of the fields.
    SetOriginalZone(Vec<Field>, String),
    /// `ether daddr set` what the map says of the fields.
    SetEtherDestination(Vec<Field>, String),
    /// Counts packets and bytes.
    Counter,
    /// `reject`: a reset for TCP, else port unreachable.
    Reject,
}

/// Whether a field has to be or must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compare {
    Is,
    IsNot,
}

/// Where a new connection goes: one of several, by their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How one is chosen.
    pub by: Chooser,
    /// At least one: address, port (none: as it is), weight from 1.
    pub targets: Vec<(IpAddr, Option<u16>, u32)>,
}

/// How one of several targets is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    /// `numgen random`.
    Random,
    /// `jhash` of the source address, with this seed: the same on every node.
    SourceHash(u32),
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Field {
    Iifname,
    Oifname,
    IpSaddr,
    IpDaddr,
    Ip6Saddr,
    Ip6Daddr,
    /// `meta l4proto`.
    L4Proto,
    /// `th sport`.
    SourcePort,
    /// `th dport`.
    DestinationPort,
    EtherSaddr,
    /// `ct state`, as bits: invalid 1, established 2, related 4, new 8, untracked 64. `Is` means "any of".
    CtState,
    /// `ct status`, as bits; dnat is 32, snat 16. `Is` means "any of".
    CtStatus,
    /// `ct direction`: original 0, reply 1.
    CtDirection,
    CtMark,
    Mark,
    /// `fib daddr type`; local is 2.
    FibDestinationType,
    /// `fib daddr . mark oif`, whether a packet with this mark has a way there: 1, or 0 for `missing`,
    /// which local addresses are too.
    FibDestinationDevice,
    /// VXLAN network identifier (`@th,96,24`).
    Vni,
    /// `meta nfproto`; IPv4 is 2, IPv6 is 10.
    NfProto,
    /// `tcp flags`, masked: SYN is 2, RST 4. `Is` means "any of".
    TcpFlags,
    /// `icmp type`, `icmpv6 type`.
    IcmpType,
    Icmp6Type,
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A device's name; for prefixes ends in `*`.
    Name(String),
    /// An address.
    Addr(IpAddr),
    /// A subnet (in matches and in interval sets).
    Net(ipnet::IpNet),
    /// A port.
    Port(u16),
    /// IP protocol: 6 tcp, 17 udp, 132 sctp.
    Protocol(u8),
    /// A MAC address.
    Mac(Mac),
    /// A number of the field's own width.
    Number(u32),
}

/// A set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Set {
    /// What its elements are made of.
    pub key: Vec<Field>,
    /// Elements may be subnets.
    pub interval: bool,
    /// Each of as many values as the key has fields.
    pub elements: BTreeSet<Vec<Value>>,
}

/// A map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// What its keys are made of.
    pub key: Vec<Field>,
    /// What it says of each key.
    pub elements: MapElements,
}

/// What a map says of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MapElements {
    Verdicts(BTreeMap<Vec<Value>, Verdict>),
    /// For [`Statement::SetConnectionMark`].
    Marks(BTreeMap<Vec<Value>, u32>),
    /// For [`Statement::SetOriginalZone`].
    Zones(BTreeMap<Vec<Value>, u16>),
    /// For [`Statement::SetEtherDestination`].
    Macs(BTreeMap<Vec<Value>, Mac>),
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(String),
    Jump(String),
}

impl Table {
    /// An empty one.
    pub fn new(family: Family, name: &str) -> Self {
        let (sets, maps, chains) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { family, name: name.into(), sets, maps, chains }
    }
    /// With a chain more.
    pub fn chain(mut self, name: &str, chain: Chain) -> Self {
        self.chains.insert(name.into(), Arc::new(chain));
        self
    }
    /// With a set more.
    pub fn set(mut self, name: &str, key: &[Field], elements: BTreeSet<Vec<Value>>) -> Self {
        let set = Set { key: key.to_vec(), interval: false, elements };
        self.sets.insert(name.into(), Arc::new(set));
        self
    }
    /// With a map more.
    pub fn map(mut self, name: &str, key: &[Field], elements: MapElements) -> Self {
        self.maps.insert(name.into(), Arc::new(Map { key: key.to_vec(), elements }));
        self
    }
}

impl Table {
    /// Takes what is equal from an older plan's table of the same name, so that it is the same `Arc`.
    pub fn share(&mut self, old: &Table) {
        share(&mut self.sets, &old.sets);
        share(&mut self.maps, &old.maps);
        share(&mut self.chains, &old.chains);
    }
}

fn share<V: Eq>(new: &mut BTreeMap<String, Arc<V>>, old: &BTreeMap<String, Arc<V>>) {
    for (name, value) in new {
        if let Some(same) = old.get(name).filter(|same| *same == value) {
            *value = same.clone();
        }
    }
}

impl Chain {
    /// A chain that packets enter at a hook.
    pub fn base(kind: ChainKind, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Self {
        let hook = Hook { kind, point, priority, device: None, drop_by_default: false };
        Self { hook: Some(hook), rules }
    }
    /// What passes all rules is dropped.
    pub fn dropping(mut self) -> Self {
        if let Some(hook) = &mut self.hook {
            hook.drop_by_default = true;
        }
        self
    }
    /// For `netdev`: at this device.
    pub fn on(mut self, device: &str) -> Self {
        if let Some(hook) = &mut self.hook {
            hook.device = Some(device.into());
        }
        self
    }
}

impl Rule {
    /// A rule without a comment.
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self { statements: statements.into(), comment: String::new() }
    }
    /// With a comment, cut to what the kernel takes.
    pub fn said(mut self, comment: impl Into<String>) -> Self {
        self.comment = comment.into();
        let end =
            (0..=COMMENT_BYTES.min(self.comment.len())).rev().find(|i| self.comment.is_char_boundary(*i));
        self.comment.truncate(end.unwrap_or_default());
        self
    }
}

/// Longest comment of a rule.
pub const COMMENT_BYTES: usize = 128;

impl Statement {
    /// The field is this.
    pub fn is(field: Field, value: impl Into<Value>) -> Self {
        Statement::Match(field, Compare::Is, value.into())
    }
    /// The field is anything but this.
    pub fn not(field: Field, value: impl Into<Value>) -> Self {
        Statement::Match(field, Compare::IsNot, value.into())
    }
}

impl From<&str> for Value {
    fn from(name: &str) -> Self {
        Value::Name(name.into())
    }
}

impl From<IpAddr> for Value {
    fn from(addr: IpAddr) -> Self {
        Value::Addr(addr)
    }
}

impl From<ipnet::IpNet> for Value {
    fn from(net: ipnet::IpNet) -> Self {
        Value::Net(net)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(number)
    }
}
