//! Lowering: the tables of a plan become what the kernel is told.

use std::net::IpAddr;

use swarm_worker_core::network::firewall::{
    Chain, ChainKind, Compare, Family, Field, Hook, HookPoint, Rule, Statement, Table, Value,
};

use super::expression::{self as expr, Answer, Register};
use super::field::{self, NAME_BYTES, Unfit, load_start, shape};
use super::number::{self, Comparison, Header, ct, kind, meta};
use super::{LowChain, LowExpression, LowHook, LowRule, LowTable, choice, set};

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

pub(crate) fn family(family: Family) -> u8 {
    match family {
        Family::Ip => number::NFPROTO_IPV4,
        Family::Ip6 => number::NFPROTO_IPV6,
        Family::Inet => number::NFPROTO_INET,
        Family::Netdev => number::NFPROTO_NETDEV,
    }
}

/// A whole table.
pub(crate) fn table(table: &Table) -> Result<LowTable, Unfit> {
    some(table, |_| true, |_| true)
}

/// What of two tables is not the same in both.
pub(crate) fn changed(have: &Table, want: &Table) -> Result<(LowTable, LowTable), Unfit> {
    let of = |table: &Table, other: &Table| {
        let is_new_chain = |name: &str| table.chains.get(name) != other.chains.get(name);
        let is_new_set = |name: &str| {
            (table.sets.get(name), table.maps.get(name)) != (other.sets.get(name), other.maps.get(name))
        };
        some(table, is_new_chain, is_new_set)
    };
    Ok((of(have, want)?, of(want, have)?))
}

fn some(
    table: &Table,
    chain_counts: impl Fn(&str) -> bool,
    set_counts: impl Fn(&str) -> bool,
) -> Result<LowTable, Unfit> {
    let in_table = |what: String, why: Unfit| Unfit(format!("{what} of table {}: {why}", table.name));
    let mut low = LowTable::default();
    for (name, each) in table.sets.iter().filter(|(name, _)| set_counts(name)) {
        let set = set::set(each).map_err(|why| in_table(format!("set {name}"), why))?;
        low.sets.insert(name.clone(), set);
    }
    for (name, each) in table.maps.iter().filter(|(name, _)| set_counts(name)) {
        let map = set::map(each).map_err(|why| in_table(format!("map {name}"), why))?;
        low.sets.insert(name.clone(), map);
    }
    for (name, each) in table.chains.iter().filter(|(name, _)| chain_counts(name)) {
        let chain = chain(table.family, each).map_err(|why| in_table(format!("chain {name}"), why))?;
        low.chains.insert(name.clone(), chain);
    }
    Ok(low)
}

fn chain(family: Family, chain: &Chain) -> Result<LowChain, Unfit> {
    let mut rules = Vec::new();
    for (index, each) in chain.rules.iter().enumerate() {
        let at = |why| Unfit(format!("rule {}: {why}", index + 1));
        for rule in split(each) {
            rules.push(LowRule {
                expressions: statements(family, &rule).map_err(at)?,
                comment: comment(each),
            });
        }
    }
    Ok(LowChain { hook: chain.hook.as_ref().map(hook), rules })
}

/// The kernel keeps 128 bytes, and nft cannot print its own quotes.
fn comment(rule: &Rule) -> String {
    let mut end = rule.comment.len().min(127);
    while !rule.comment.is_char_boundary(end) {
        end -= 1;
    }
    rule.comment[..end].replace(['"', '\n', '\0'], "'")
}

fn hook(hook: &Hook) -> LowHook {
    let kind = match hook.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    };
    // the numbers of `ingress` and `egress` are those of netdev
    let point = match hook.point {
        HookPoint::Prerouting | HookPoint::Ingress => 0,
        HookPoint::Input | HookPoint::Egress => 1,
        HookPoint::Forward => 2,
        HookPoint::Output => 3,
        HookPoint::Postrouting => 4,
    };
    let policy = if hook.drop_by_default { number::DROP } else { number::ACCEPT };
    LowHook { kind: kind.into(), point, priority: hook.priority, device: hook.device.clone(), policy }
}

/// "A reset for TCP, else port unreachable" is two rules to the kernel.
fn split(rule: &Rule) -> Vec<Rule> {
    let Some(at) = rule.statements.iter().position(|s| *s == Statement::Reject) else {
        return vec![rule.clone()];
    };
    let decides = |s: &Statement| matches!(s, Statement::Match(Field::L4Proto, Compare::Is, _));
    if rule.statements[..at].iter().any(decides) {
        return vec![rule.clone()];
    }
    let mut tcp = rule.clone();
    tcp.statements.insert(at, Statement::Match(Field::L4Proto, Compare::Is, Value::Protocol(TCP)));
    vec![tcp, rule.clone()]
}

fn statements(family: Family, rule: &Rule) -> Result<Vec<LowExpression>, Unfit> {
    let mut known = Known::of(family);
    rule.statements.iter().try_for_each(|statement| known.add(statement))?;
    Ok(known.expressions)
}

/// A rule as it grows, and what is known of a packet that comes so far. Fields that only some packets
/// have are preceded by a look at what kind it is, once.
struct Known {
    family: Family,
    network: Option<u8>,
    transport: Option<u8>,
    is_ether: bool,
    expressions: Vec<LowExpression>,
}

impl Known {
    fn of(family: Family) -> Self {
        let network = match family {
            Family::Ip => Some(IPV4),
            Family::Ip6 => Some(IPV6),
            Family::Inet | Family::Netdev => None,
        };
        let expressions = Vec::new();
        Self { family, network, transport: None, is_ether: false, expressions }
    }

    fn push(&mut self, expression: LowExpression) {
        self.expressions.push(expression);
    }

    fn look(&mut self, load: LowExpression, with: &[u8]) {
        self.push(load);
        self.push(expr::cmp(Register::FIRST, Comparison::Equal, with));
    }

    fn need_network(&mut self, protocol: u8) -> Result<(), Unfit> {
        match self.network {
            Some(known) if known == protocol => return Ok(()),
            Some(_) => return Err(Unfit("a field of the other family of addresses".into())),
            None => self.network = Some(protocol),
        }
        if self.family == Family::Netdev {
            let ether_type: u16 = if protocol == IPV4 { 0x0800 } else { 0x86dd };
            self.look(expr::meta(meta::PROTOCOL, Register::FIRST), &ether_type.to_be_bytes());
        } else {
            self.look(expr::meta(meta::NFPROTO, Register::FIRST), &[protocol]);
        }
        Ok(())
    }

    fn need_transport(&mut self, protocol: u8) -> Result<(), Unfit> {
        match self.transport {
            Some(known) if known == protocol => Ok(()),
            Some(_) => Err(Unfit("a field of another protocol".into())),
            None => {
                self.transport = Some(protocol);
                self.look(expr::meta(meta::L4PROTO, Register::FIRST), &[protocol]);
                Ok(())
            }
        }
    }

    fn need_ether(&mut self) {
        const ETHER: u16 = 1;
        if !self.is_ether {
            self.is_ether = true;
            self.look(expr::meta(meta::IIFTYPE, Register::FIRST), &ETHER.to_ne_bytes());
        }
    }

    fn need(&mut self, field: Field) -> Result<(), Unfit> {
        match field {
            Field::IpSaddr | Field::IpDaddr => self.need_network(IPV4),
            Field::Ip6Saddr | Field::Ip6Daddr => self.need_network(IPV6),
            Field::TcpFlags => self.need_transport(TCP),
            Field::IcmpType => self.need_transport(ICMP),
            Field::Icmp6Type => self.need_transport(ICMP6),
            Field::EtherSaddr => {
                self.need_ether();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Fetches fields into one register after the other, each starting at four bytes.
    fn load(&mut self, fields: &[Field]) -> Result<(), Unfit> {
        fields.iter().try_for_each(|field| self.need(*field))?;
        let mut at = Register::FIRST;
        for field in fields {
            self.push(field::load(*field, at));
            at = at.after(shape(*field).bytes);
        }
        Ok(())
    }

    fn add(&mut self, statement: &Statement) -> Result<(), Unfit> {
        let first = Register::FIRST;
        match statement {
            Statement::Match(field, compare, value) => self.compare(*field, *compare, value)?,
            Statement::InSet(fields, compare, name) => {
                self.load(fields)?;
                let answer = if *compare == Compare::Is { Answer::IsThere } else { Answer::IsNotThere };
                self.push(expr::lookup(name, first, answer));
            }
            Statement::Between(field, compare, from, to) => self.between(*field, *compare, from, to)?,
            Statement::VerdictMap(fields, name) => {
                self.load(fields)?;
                self.push(expr::lookup(name, first, Answer::Verdict));
            }
            Statement::Verdict(verdict) => {
                let (code, chain) = set::verdict(verdict);
                self.push(expr::verdict(code, chain));
            }
            Statement::Dnat(choice) => {
                if let Some((addr, ..)) = choice.targets.first() {
                    self.need_network(protocol(*addr))?;
                }
                self.expressions.extend(choice::dnat(choice)?);
            }
            Statement::Snat(addr) => {
                self.need_network(protocol(*addr))?;
                self.expressions.extend(choice::snat(*addr));
            }
            Statement::Masquerade => self.push(expr::masquerade()),
            Statement::Notrack => self.push(expr::notrack()),
            Statement::SetMark(mark) => {
                self.push(expr::immediate(first, &mark.to_ne_bytes()));
                self.push(expr::meta_set(meta::MARK, first));
            }
            Statement::SetMarkFromConnection => {
                self.push(expr::ct(ct::MARK, first));
                self.push(expr::meta_set(meta::MARK, first));
            }
            Statement::SetConnectionMark(fields, map) => {
                self.load_from(fields, map)?;
                self.push(expr::ct_set(ct::MARK, first, None));
            }
            Statement::SetOriginalZone(fields, map) => {
                self.load_from(fields, map)?;
                self.push(expr::ct_set(ct::ZONE, first, Some(0)));
            }
            Statement::SetEtherDestination(fields, map) => {
                self.need_ether();
                self.load_from(fields, map)?;
                self.push(expr::payload_set(Header::Link, 0, 6, first));
            }
            Statement::Counter => self.push(expr::counter()),
            Statement::Reject => self.reject()?,
        }
        Ok(())
    }

    fn load_from(&mut self, fields: &[Field], map: &str) -> Result<(), Unfit> {
        self.load(fields)?;
        self.push(expr::lookup(map, Register::FIRST, Answer::To(Register::FIRST)));
        Ok(())
    }

    /// Port unreachable has a number of its own for each family, and one for both.
    fn reject(&mut self) -> Result<(), Unfit> {
        let expression = match (self.transport, self.family) {
            (Some(TCP), _) => expr::reject(1, None),
            (_, Family::Ip) => expr::reject(0, Some(3)),
            (_, Family::Ip6) => expr::reject(0, Some(4)),
            (_, Family::Inet) => expr::reject(2, Some(1)),
            (_, Family::Netdev) => return Err(Unfit("reject in a table of devices".into())),
        };
        self.push(expression);
        Ok(())
    }

    fn compare(&mut self, field: Field, compare: Compare, value: &Value) -> Result<(), Unfit> {
        let how = if compare == Compare::Is { Comparison::Equal } else { Comparison::NotEqual };
        let first = Register::FIRST;
        match (field, value) {
            (Field::CtState | Field::CtStatus | Field::TcpFlags, _) => {
                let mask = field::bytes(field, value)?;
                self.load(&[field])?;
                self.push(expr::and(first, &mask));
                let any = if compare == Compare::Is { Comparison::NotEqual } else { Comparison::Equal };
                self.push(expr::cmp(first, any, &vec![0; mask.len()]));
                return Ok(());
            }
            (Field::NfProto | Field::L4Proto, _) if compare == Compare::Is => {
                let known = field::bytes(field, value)?;
                let place = if field == Field::NfProto { &mut self.network } else { &mut self.transport };
                // a family's own table knows already
                if *place == Some(known[0]) {
                    return Ok(());
                }
                *place = Some(known[0]);
            }
            _ => {}
        }
        let shape = shape(field);
        let bytes = match value {
            Value::Net(net) => return self.compare_net(field, how, *net),
            Value::Name(name) if shape.kind == kind::NAME && name.ends_with('*') => {
                let prefix = name.trim_end_matches('*');
                if prefix.is_empty() || prefix.len() >= NAME_BYTES {
                    return Err(Unfit(format!("{name:?} as a prefix of names")));
                }
                prefix.as_bytes().to_vec()
            }
            value => field::bytes(field, value)?,
        };
        self.load(&[field])?;
        self.push(expr::cmp(first, how, &bytes));
        Ok(())
    }

    fn compare_net(&mut self, field: Field, how: Comparison, net: ipnet::IpNet) -> Result<(), Unfit> {
        let (shape, first) = (shape(field), Register::FIRST);
        let network = field::bytes(field, &Value::Addr(net.network()))?;
        let length = usize::from(net.prefix_len());
        self.need(field)?;
        if length.is_multiple_of(8) && length > 0 {
            let load = load_start(&shape, length / 8, first).ok_or_else(|| Unfit(format!("{field:?}")))?;
            self.push(load);
            self.push(expr::cmp(first, how, &network[..length / 8]));
            return Ok(());
        }
        let mask = field::bytes(field, &Value::Addr(net.netmask()))?;
        self.push(field::load(field, first));
        self.push(expr::and(first, &mask));
        self.push(expr::cmp(first, how, &network));
        Ok(())
    }

    fn between(&mut self, field: Field, compare: Compare, from: &Value, to: &Value) -> Result<(), Unfit> {
        let (from, to) = (field::big_endian(field, from)?, field::big_endian(field, to)?);
        let (shape, first) = (shape(field), Register::FIRST);
        self.load(&[field])?;
        if shape.native && shape.bytes == 4 {
            self.push(expr::to_network_order(first));
        } else if shape.native && shape.bytes > 1 {
            return Err(Unfit(format!("a range of {field:?}")));
        }
        match compare {
            Compare::Is => {
                self.push(expr::cmp(first, Comparison::AtLeast, &from));
                self.push(expr::cmp(first, Comparison::AtMost, &to));
            }
            Compare::IsNot => self.push(expr::outside(first, &from, &to)),
        }
        Ok(())
    }
}

fn protocol(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { IPV4 } else { IPV6 }
}
