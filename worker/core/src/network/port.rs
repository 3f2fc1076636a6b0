//! Port: which published port of this node leads where, and who has it.
//!
//! Reads:   the services and tasks of the ingress network, the host-mode ports of the node's tasks.
//! Writes:  the chains of ports; who has which.
//! Never:   gives one port to two services.
//! Start:   [`published`], [`claims`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use swarm_types::endpoint::{Balance, Port, Protocol, PublishMode};
use swarm_types::id::{ServiceId, TaskId};
use swarm_types::network_set::{NetworkSet, ServiceEndpoint, TaskEndpoint};

use super::address::{self, Version};
use super::firewall::{Chain, Field, Rule, Statement, Value, Verdict};
use super::planner::LocalTask;
use super::service::{self, Tasks};

/// A port of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// Transport.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Only on this address; none: on all.
    pub host_ip: Option<IpAddr>,
}

/// Who has a port of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// On every node, or for the task of this node.
    pub mode: PublishMode,
    /// The tasks' port.
    pub target: u16,
    /// It leads somewhere: at least one task serves.
    pub serving: bool,
}

/// What one service wants of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) holder: Holder,
    /// For each version that has a task to lead to.
    pub(crate) ways: Vec<(Version, Arc<Chain>)>,
}

/// What one service wants, by port.
pub(crate) type Claims = BTreeMap<PortKey, Claim>;

impl PortKey {
    /// The port of the node that a published port stands for; none if it has none (yet).
    pub fn of(port: &Port) -> Option<Self> {
        let Port { protocol, published, host_ip, .. } = *port;
        (published != 0).then_some(Self { protocol, port: published, host_ip })
    }

    /// It is open there for callers of a version.
    fn has(&self, version: Version) -> bool {
        self.host_ip.is_none_or(|addr| Version::of(addr) == version)
    }

    /// The one address that it is open on; none: all. `0.0.0.0` means all of IPv4, `::` of IPv6.
    pub(crate) fn only(&self) -> Option<IpAddr> {
        self.host_ip.filter(|addr| !addr.is_unspecified())
    }

    /// All keys of this protocol and number.
    fn everywhere(&self) -> RangeInclusive<Self> {
        let last = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
        Self { host_ip: None, ..*self }..=Self { host_ip: Some(last), ..*self }
    }

    /// The two would be one entry of a map: 0.0.0.0 and "on all addresses" are for IPv4.
    fn clashes(&self, other: &Self) -> bool {
        let both = |version: &Version| self.has(*version) && other.has(*version);
        self.only() == other.only() && Version::BOTH.iter().any(both)
    }

    /// The name of its chain.
    pub(crate) fn chain(&self) -> String {
        address::port_chain(self.protocol, self.port, self.only())
    }
}

impl std::fmt::Display for PortKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(addr)) => write!(f, "[{addr}]:")?,
            Some(addr) => write!(f, "{addr}:")?,
            None => {}
        }
        write!(f, "{}/{}", self.port, self.protocol.as_str())
    }
}

/// What a service wants. `host`: the host-mode ports of its tasks on this node.
pub(crate) fn claims(
    id: ServiceId,
    service: Option<&Arc<ServiceEndpoint>>,
    tasks: &Tasks,
    host: &BTreeMap<TaskId, Arc<LocalTask>>,
) -> Claims {
    let balance = service.map_or(Balance::Random, |service| service.balance);
    let name = service.map_or_else(|| id.to_string(), |service| service.name.clone());
    let mut claims = Claims::new();
    let mut claim = |port: &Port, tasks: &Tasks| {
        let Some(key) = PortKey::of(port) else { return };
        let ways: Vec<_> = Version::BOTH
            .into_iter()
            .filter(|version| key.has(*version))
            .filter_map(|version| Some((version, chain(&key, port, balance, version, tasks, &name)?)))
            .collect();
        let serving = !ways.is_empty();
        let holder =
            Holder { service: id, name: name.clone(), mode: port.mode, target: port.target, serving };
        // A port that is asked for twice leads where it was first said to lead.
        claims.entry(key).or_insert(Claim { holder, ways });
    };
    let ports = service.iter().flat_map(|service| &service.ports);
    ports.filter(|port| port.mode == PublishMode::Ingress).for_each(|port| claim(port, tasks));
    // While one task takes over from another both have the port.
    let mut local: BTreeMap<(PortKey, u16), (Port, Tasks)> = BTreeMap::new();
    for (id, task) in tasks {
        for port in host.get(id).iter().flat_map(|task| &task.ports) {
            let Some(key) = PortKey::of(port).filter(|_| port.mode == PublishMode::Host) else { continue };
            let (_, tasks) = local.entry((key, port.target)).or_insert_with(|| (*port, Tasks::new()));
            tasks.insert(*id, task.clone());
        }
    }
    local.values().for_each(|(port, tasks)| claim(port, tasks));
    claims
}

fn chain(
    key: &PortKey,
    port: &Port,
    balance: Balance,
    version: Version,
    tasks: &BTreeMap<TaskId, Arc<TaskEndpoint>>,
    name: &str,
) -> Option<Arc<Chain>> {
    let choice = service::choice(balance, version, tasks.values(), Some(port.target))?;
    let protocol = Value::Protocol(address::protocol_number(key.protocol));
    let rule = Rule::new([Statement::is(Field::L4Proto, protocol), Statement::Dnat(choice)]);
    Some(Arc::new(Chain { hook: None, rules: vec![rule.said(format!("{name} {key}"))] }))
}

/// They want the same ports in the same way, for callers of the same versions.
pub(crate) fn same_ports(a: &Claims, b: &Claims) -> bool {
    let same = |((a_key, a), (b_key, b)): ((_, &Claim), (_, &Claim))| {
        let versions = |claim: &Claim| claim.ways.iter().map(|(version, _)| *version).collect::<Vec<_>>();
        a_key == b_key && a.holder == b.holder && versions(a) == versions(b)
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Chains of ports by name, and which port leads to which.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub(crate) chains: BTreeMap<String, Arc<Chain>>,
    pub(crate) ways: BTreeMap<Vec<Value>, Verdict>,
    /// Of ports on one address only.
    pub(crate) only: BTreeMap<Vec<Value>, Verdict>,
}

impl Ports {
    pub(crate) fn of(version: Version, held: &Held<'_>) -> Self {
        let mut all = Self::default();
        for (key, claim) in held {
            let Some((_, chain)) = claim.ways.iter().find(|(v, _)| *v == version) else { continue };
            let goto = Verdict::Goto(key.chain());
            let number = Value::Protocol(address::protocol_number(key.protocol));
            let port = [number, Value::Port(key.port)];
            let first = match key.only() {
                None => all.ways.insert(port.into(), goto),
                Some(addr) => all.only.insert([[Value::Addr(addr)].as_slice(), &port].concat(), goto),
            };
            debug_assert!(first.is_none(), "{key} has two holders");
            all.chains.insert(key.chain(), chain.clone());
        }
        all
    }
}

/// Who has which port.
pub(crate) type Held<'a> = BTreeMap<PortKey, &'a Claim>;

/// Who has which port, and who does not get one that it wants.
pub(crate) fn settle(all: &BTreeMap<ServiceId, Claims>) -> (Held<'_>, Vec<(PortKey, &Holder, &Holder)>) {
    let (mut held, mut denied) = (Held::new(), Vec::new());
    // Ports of all nodes come first: managers gave them away. Then by id, so that every node says the same.
    for mode in [PublishMode::Ingress, PublishMode::Host] {
        let claims = all.values().flatten().filter(|(_, claim)| claim.holder.mode == mode);
        for (key, claim) in claims {
            let rival = held.range(key.everywhere()).find(|(other, _)| key.clashes(other));
            let rival = rival.map(|(_, claim)| &claim.holder);
            match rival {
                Some(holder) => denied.push((*key, &claim.holder, holder)),
                None => drop(held.insert(*key, claim)),
            }
        }
    }
    (held, denied)
}

/// Which ports of this node are taken, and by whom: what the node must keep other programs off.
pub fn published(set: &NetworkSet, tasks: &BTreeMap<TaskId, Arc<LocalTask>>) -> BTreeMap<PortKey, Holder> {
    let Some(entry) = set.ingress() else { return BTreeMap::new() };
    let mut by_service: BTreeMap<ServiceId, Tasks> = BTreeMap::new();
    for (id, task) in &entry.endpoints {
        by_service.entry(task.service).or_default().insert(*id, task.clone());
    }
    let ids = entry.services.keys().chain(by_service.keys()).copied();
    let none = Tasks::new();
    let all: BTreeMap<_, _> = ids
        .map(|id| (id, claims(id, entry.services.get(&id), by_service.get(&id).unwrap_or(&none), tasks)))
        .collect();
    settle(&all).0.into_iter().map(|(key, claim)| (key, claim.holder.clone())).collect()
}
