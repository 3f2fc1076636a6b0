//! Text: a plan as a person reads it, in the words of `ip` and `nft`.
//!
//! A table's text is what `nft -f` takes; that of a route, a rule and so on what follows `ip route add`,
//! `ip rule add` and so on.
//!
//! Reads:   a plan.
//! Writes:  text.
//! Never:   says the same thing in two orders.
//! Start:   [`Plan`]'s `Display`.

mod field;

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::address::MAIN;

use super::firewall::{
    Chain, ChainKind, Choice, Chooser, Compare, Family, Field, Hook, HookPoint, Map, MapElements, Rule, Set,
    Statement, Table, Value, Verdict,
};
use super::kernel::{self, Link, LinkKind, Namespace, Place, Plan, Route, Way};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, ns) in &self.namespaces {
            writeln!(f, "# {place}\n{ns}")?;
        }
        Ok(())
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Place::Host => f.write_str("host"),
            Place::Sandbox(network) => write!(f, "network {network}"),
            Place::Task(task) => write!(f, "task {task}"),
        }
    }
}

impl Display for Namespace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, link) in &self.links {
            writeln!(f, "link {name} {link}")?;
        }
        for (device, addr) in &self.addrs {
            writeln!(f, "addr {addr} dev {device}")?;
        }
        for ((device, addr), mac) in &self.neighbours {
            writeln!(f, "neigh {addr} lladdr {mac} dev {device}")?;
        }
        for ((device, mac), addr) in &self.forwarding {
            writeln!(f, "fdb {mac} dev {device} dst {addr}")?;
        }
        for route in self.routes.iter() {
            writeln!(f, "route {route}")?;
        }
        for rule in &self.rules {
            writeln!(f, "rule {rule}")?;
        }
        for (name, value) in &self.sysctls {
            writeln!(f, "sysctl net.{} = {value}", name.replace('/', "."))?;
        }
        for table in &self.tables {
            write!(f, "{table}")?;
        }
        Ok(())
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.mtu != 0 {
            write!(f, "mtu {} ", self.mtu)?;
        }
        if let Some(mac) = self.mac {
            write!(f, "address {mac} ")?;
        }
        match &self.kind {
            LinkKind::Veth { peer, peer_name } => write!(f, "type veth peer {peer_name} of {peer}"),
            LinkKind::Vxlan { vni, local, port } => {
                write!(f, "type vxlan id {vni} dstport {port} local {local} nolearning")
            }
            LinkKind::Macvlan { parent } => write!(f, "type macvlan mode bridge of {parent}"),
            LinkKind::Dummy => f.write_str("type dummy"),
        }
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let default = self.to.prefix_len() == 0;
        match &self.way {
            Way::Unreachable => write!(f, "unreachable {}", self.to)?,
            Way::Device { .. } if default => f.write_str("default")?,
            Way::Device { .. } => write!(f, "{}", self.to)?,
        }
        if let Way::Device { name, via } = &self.way {
            if let Some(via) = via {
                write!(f, " via {via}")?;
            }
            write!(f, " dev {name}")?;
            f.write_str(if via.is_some() { " onlink" } else { "" })?;
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        if self.table != MAIN {
            write!(f, " table {}", self.table)?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

impl Display for kernel::Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.v6 { "-6 " } else { "" })?;
        write!(f, "pref {}", self.priority)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        write!(f, " lookup {}", self.table)
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family.word(), self.name)?;
        for (name, set) in &self.sets {
            writeln!(f, "  set {name} {{\n{set}  }}")?;
        }
        for (name, map) in &self.maps {
            writeln!(f, "  map {name} {{\n{map}  }}")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "  chain {name} {{\n{chain}  }}")?;
        }
        writeln!(f, "}}")
    }
}

impl Family {
    /// nft's word.
    pub fn word(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
            Family::Netdev => "netdev",
        }
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "    typeof {}", joined(&self.key))?;
        if self.interval {
            writeln!(f, "    flags interval")?;
        }
        let elements: Vec<_> = self.elements.iter().map(|e| values(&self.key, e)).collect();
        listed(f, &elements)
    }
}

impl Display for Map {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = |key| values(&self.key, key);
        let (kind, elements): (_, Vec<_>) = match &self.elements {
            MapElements::Verdicts(all) => {
                ("verdict", all.iter().map(|(k, v)| format!("{} : {v}", key(k))).collect())
            }
            MapElements::Marks(all) => {
                ("ct mark", all.iter().map(|(k, v)| format!("{} : {v:#x}", key(k))).collect())
            }
            MapElements::Zones(all) => {
                ("ct zone", all.iter().map(|(k, v)| format!("{} : {v}", key(k))).collect())
            }
            MapElements::Macs(all) => {
                ("ether daddr", all.iter().map(|(k, v)| format!("{} : {v}", key(k))).collect())
            }
        };
        writeln!(f, "    typeof {} : {kind}", joined(&self.key))?;
        listed(f, &elements)
    }
}

fn listed(f: &mut Formatter<'_>, elements: &[String]) -> fmt::Result {
    if elements.is_empty() { Ok(()) } else { writeln!(f, "    elements = {{ {} }}", elements.join(", ")) }
}

fn joined(key: &[Field]) -> String {
    key.iter().map(|field| field.word()).collect::<Vec<_>>().join(" . ")
}

fn values(key: &[Field], values: &[Value]) -> String {
    let words = key.iter().zip(values).map(|(field, value)| field.value(value));
    words.collect::<Vec<_>>().join(" . ")
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(hook) = &self.hook {
            writeln!(f, "    {hook}")?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "    {rule}"))
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let point = match self.point {
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
            HookPoint::Ingress => "ingress",
            HookPoint::Egress => "egress",
        };
        write!(f, "type {kind} hook {point}")?;
        if let Some(device) = &self.device {
            write!(f, " device \"{device}\"")?;
        }
        let policy = if self.drop_by_default { "drop" } else { "accept" };
        write!(f, " priority {}; policy {policy};", self.priority)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut words: Vec<_> = self.statements.iter().map(ToString::to_string).collect();
        if !self.comment.is_empty() {
            words.push(format!("comment \"{}\"", self.comment.replace(['"', '\\'], "'")));
        }
        f.write_str(&words.join(" "))
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Match(field, compare, value) if field.is_bits() => {
                let word = match compare {
                    Compare::Is => "!=",
                    Compare::IsNot => "==",
                };
                match (field, compare) {
                    (Field::CtState | Field::CtStatus, Compare::Is) => {
                        write!(f, "{} {}", field.word(), field.value(value))
                    }
                    _ => write!(f, "{} & ({}) {word} 0", field.word(), field.value(value).replace(',', "|")),
                }
            }
            Statement::Match(field, compare, value) => {
                write!(f, "{}{} {}", field.word(), compare.word(), field.value(value))
            }
            Statement::InSet(key, compare, set) => write!(f, "{}{} @{set}", joined(key), compare.word()),
            Statement::Between(field, compare, a, b) => {
                write!(f, "{}{} {}-{}", field.word(), compare.word(), field.value(a), field.value(b))
            }
            Statement::VerdictMap(key, map) => write!(f, "{} vmap @{map}", joined(key)),
            Statement::Verdict(verdict) => write!(f, "{verdict}"),
            Statement::Dnat(choice) => write!(f, "dnat to {choice}"),
            Statement::Snat(addr) => write!(f, "snat to {addr}"),
            Statement::Masquerade => f.write_str("masquerade"),
            Statement::Notrack => f.write_str("notrack"),
            Statement::SetMark(mark) => write!(f, "meta mark set {mark:#x}"),
            Statement::SetMarkFromConnection => f.write_str("meta mark set ct mark"),
            Statement::SetConnectionMark(key, map) => write!(f, "ct mark set {} map @{map}", joined(key)),
            Statement::SetOriginalZone(key, map) => {
                write!(f, "ct original zone set {} map @{map}", joined(key))
            }
            Statement::SetEtherDestination(key, map) => {
                write!(f, "ether daddr set {} map @{map}", joined(key))
            }
            Statement::Counter => f.write_str("counter"),
            Statement::Reject => f.write_str("reject"),
        }
    }
}

impl Compare {
    fn word(self) -> &'static str {
        match self {
            Compare::Is => "",
            Compare::IsNot => " !=",
        }
    }
}

impl Display for Choice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let [(addr, port, _)] = self.targets.as_slice() {
            return match (addr, port) {
                (addr, None) => write!(f, "{addr}"),
                (IpAddr::V4(addr), Some(port)) => write!(f, "{addr}:{port}"),
                (IpAddr::V6(addr), Some(port)) => write!(f, "[{addr}]:{port}"),
            };
        }
        let v6 = self.targets.first().is_some_and(|(addr, ..)| addr.is_ipv6());
        let sum: u32 = self.targets.iter().map(|(_, _, weight)| weight).sum();
        match self.by {
            Chooser::Random => write!(f, "numgen random mod {sum}")?,
            Chooser::SourceHash(seed) => {
                write!(f, "jhash {} saddr mod {sum} seed {seed:#x}", if v6 { "ip6" } else { "ip" })?;
            }
        }
        let mut slot = 0;
        let targets = self.targets.iter().map(|(addr, port, weight)| {
            let first = slot;
            slot += weight;
            let slots = if *weight == 1 { first.to_string() } else { format!("{first}-{}", slot - 1) };
            let port = port.map(|port| format!(" . {port}")).unwrap_or_default();
            format!("{slots} : {addr}{port}")
        });
        write!(f, " map {{ {} }}", targets.collect::<Vec<_>>().join(", "))
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}
