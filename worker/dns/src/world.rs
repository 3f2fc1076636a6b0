//! All that names are answered from, and what is answered: the zones of the node's networks and which
//! task is on which of them. Replaced as a whole, never changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use swarm_types::endpoint::Protocol;
use swarm_types::id::{NetworkId, ServiceId, TaskId};
use swarm_types::network_set::{NetworkSet, ServiceEndpoint};

use crate::shuffle::Shuffle;
use crate::zone::{Found, Target, Zone};

/// Seconds that an answer of ours may be kept, negative ones too. As long as a task that leaves is
/// given, after all nodes have taken it out of their rules, before it is told to stop: who still uses
/// an answer from before finds it there. Asking again costs some 50 µs on the same node.
pub const TTL: u32 = 1;

/// Most records in one answer: what a message of 64 KiB holds, with room for all else.
const MOST_RECORDS: usize = 2_000;

/// The networks of each task in the order of its attachments.
pub type Attachments = BTreeMap<TaskId, Vec<NetworkId>>;

/// What names are answered from.
#[derive(Debug, Default)]
pub(crate) struct World {
    zones: BTreeMap<NetworkId, Arc<Zone>>,
    /// Published ports are told with the ingress network only.
    ports: HashMap<ServiceId, Arc<ServiceEndpoint>>,
    attachments: Arc<Attachments>,
    /// Addresses that names are asked at: forwarding there would go round in circles.
    pub(crate) gateways: BTreeSet<IpAddr>,
}

/// Who asks, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    /// The network whose socket was asked.
    pub(crate) network: NetworkId,
    /// Where the question came from.
    pub(crate) source: IpAddr,
    /// More records than this do not fit into the answer.
    pub(crate) most: usize,
}

/// What is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// These, and in addition those.
    Records(Vec<Record>, Vec<Record>),
    /// The name is there, without records of this type.
    NoData,
    /// There is no such name.
    NoName,
    /// Not ours: ask the host's resolvers.
    Forward,
    /// Nobody may ask this.
    Refused,
}

impl World {
    /// What follows from `set`. Zones of networks that are as in `old` are kept from `before`.
    pub(crate) fn new(
        set: &NetworkSet,
        attachments: Arc<Attachments>,
        before: &World,
        old: &NetworkSet,
    ) -> Self {
        let zones = set.networks.iter().map(|(id, entry)| {
            let same = old.networks.get(id).is_some_and(|old| old == entry);
            let kept = before.zones.get(id).filter(|_| same).cloned();
            (*id, kept.unwrap_or_else(|| Arc::new(Zone::new(entry))))
        });
        let ingress = set.ingress().into_iter().flat_map(|entry| entry.services.values());
        let subnets = set.networks.values().flat_map(|entry| &entry.network.subnets);
        Self {
            zones: zones.collect(),
            ports: ingress.filter(|s| !s.ports.is_empty()).map(|s| (s.service, s.clone())).collect(),
            attachments,
            gateways: subnets.map(|(_, gateway)| *gateway).collect(),
        }
    }

    /// What to answer to a question.
    pub(crate) fn ask(&self, asker: Asker, query: &Query, shuffle: &mut Shuffle) -> Answer {
        let transfer = [RecordType::AXFR, RecordType::IXFR].contains(&query.query_type);
        if query.query_class != DNSClass::IN || transfer {
            return Answer::Refused;
        }
        let zones = self.zones_of(asker.network, asker.source);
        let most = asker.most.min(MOST_RECORDS);
        let mut pick = |addrs: &mut Vec<IpAddr>| shuffle.front(addrs, most);
        let answer = text(&query.name).and_then(|name| self.look(&zones, &name, query, &mut pick));
        match answer {
            Some(answer) => answer,
            None if !may_leave(&zones) => Answer::NoName,
            // whatever the world has on it: all records of a name in one answer are of use to attackers
            None if query.query_type == RecordType::ANY => Answer::Records(vec![minimal(query)], Vec::new()),
            None => Answer::Forward,
        }
    }

    /// The networks that whoever asks is on, in the order in which their names are tried. Nobody that
    /// we know: the network asked.
    fn zones_of(&self, asked: NetworkId, source: IpAddr) -> Vec<&Zone> {
        let Some(here) = self.zones.get(&asked) else { return Vec::new() };
        let Some(task) = here.task_at(source) else { return vec![here] };
        if let Some(order) = self.attachments.get(&task) {
            let zones = order.iter().filter_map(|id| self.zones.get(id));
            let zones: Vec<&Zone> = zones.filter(|zone| zone.has_task(task)).map(|zone| &**zone).collect();
            if !zones.is_empty() {
                return zones;
            }
        }
        let others = self.zones.iter().filter(|(id, zone)| **id != asked && zone.has_task(task));
        [&**here].into_iter().chain(others.map(|(_, zone)| &**zone)).collect()
    }

    /// The answer of the first of the networks that has the name; none if it is no name of ours.
    fn look(&self, zones: &[&Zone], name: &str, query: &Query, pick: Pick<'_>) -> Option<Answer> {
        if name.ends_with(".arpa")
            && let Some(addr) = reverse(&query.name)
        {
            let owner = zones.iter().find_map(|zone| zone.owner(addr));
            let inside = zones.iter().any(|zone| zone.contains(addr));
            return match owner.and_then(|owner| to_name(&owner)) {
                Some(owner) => Some(only(query, RecordType::PTR, RData::PTR(PTR(owner)))),
                None => inside.then_some(Answer::NoName),
            };
        }
        let (location, host) = Location::split(name);
        let mut missing = None;
        for zone in zones {
            match zone.find(host) {
                Some(Found::Missing) => missing = Some(Answer::NoName),
                Some(found) => {
                    return Some(match location {
                        Some(location) => self.located(zone, &found, location, query),
                        None => addresses(zone.addrs(&found), query, pick),
                    });
                }
                None => {}
            }
        }
        missing
    }

    /// Service locations: where a port of a service is.
    fn located(&self, zone: &Zone, found: &Found<'_>, location: Location<'_>, query: &Query) -> Answer {
        // in any order: clients choose by weight (RFC 2782)
        let targets = zone.targets(found);
        let ports_of = |target: &Target| self.ports.get(&target.service).map(|s| location.ports(s));
        let (mut records, mut more) = (Vec::new(), Vec::new());
        for target in targets.iter().take(MOST_RECORDS) {
            let ports = ports_of(target).unwrap_or_default();
            let Some(name) = to_name(&target.name).filter(|_| !ports.is_empty()) else { continue };
            let locations = ports.iter().map(|port| SRV::new(0, target.weight, *port, name.clone()));
            records.extend(locations.map(|srv| record(&query.name, RData::SRV(srv))));
            more.extend(target.addrs.iter().map(|addr| record(&name, address(*addr))));
        }
        match query.query_type {
            _ if records.is_empty() => Answer::NoName,
            RecordType::SRV => Answer::Records(records, more),
            RecordType::ANY => Answer::Records(vec![minimal(query)], Vec::new()),
            _ => Answer::NoData,
        }
    }
}

/// Leaves as many as fit, by chance.
type Pick<'a> = &'a mut dyn FnMut(&mut Vec<IpAddr>);

/// One of a task's networks, other than the ingress network, has a way out; or it has no other.
fn may_leave(zones: &[&Zone]) -> bool {
    let mut own = zones.iter().filter(|zone| !zone.network().ingress).peekable();
    match own.peek() {
        Some(_) => own.any(|zone| !zone.network().internal),
        None => zones.iter().any(|zone| !zone.network().internal),
    }
}

/// The front of a service location's name (RFC 2782): `_<port>._<protocol>.` or `_<protocol>.`.
#[derive(Debug, Clone, Copy)]
struct Location<'a> {
    port: Option<&'a str>,
    protocol: &'a str,
}

impl<'a> Location<'a> {
    /// What is before a host's name, and the host's name.
    fn split(name: &'a str) -> (Option<Self>, &'a str) {
        let Some((first, rest)) = name.strip_prefix('_').and_then(|name| name.split_once('.')) else {
            return (None, name);
        };
        match rest.strip_prefix('_').and_then(|rest| rest.split_once('.')) {
            Some((second, host)) => (Some(Self { port: Some(first), protocol: second }), host),
            None => (Some(Self { port: None, protocol: first }), rest),
        }
    }

    /// The ports of tasks that are meant: a port has the number that tasks use, and the one that is
    /// published; the answer is the one that tasks use, as nothing listens on the other here.
    fn ports(&self, service: &ServiceEndpoint) -> Vec<u16> {
        let number = self.port.map(|port| port.parse::<u16>().unwrap_or(0));
        let of_protocol = |protocol: Protocol| protocol.as_str() == self.protocol;
        let ports = service.ports.iter().filter(|port| of_protocol(port.protocol));
        let meant = ports.filter(|p| number.is_none_or(|n| n != 0 && (p.target == n || p.published == n)));
        meant.map(|port| port.target).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The records of a name that is there.
fn addresses(mut addrs: Vec<IpAddr>, query: &Query, pick: Pick<'_>) -> Answer {
    match query.query_type {
        RecordType::A => addrs.retain(IpAddr::is_ipv4),
        RecordType::AAAA => addrs.retain(IpAddr::is_ipv6),
        RecordType::ANY => return Answer::Records(vec![minimal(query)], Vec::new()),
        _ => return Answer::NoData,
    }
    pick(&mut addrs);
    let records: Vec<_> = addrs.into_iter().map(|addr| record(&query.name, address(addr))).collect();
    if records.is_empty() { Answer::NoData } else { Answer::Records(records, Vec::new()) }
}

fn only(query: &Query, kind: RecordType, data: RData) -> Answer {
    match query.query_type {
        RecordType::ANY => Answer::Records(vec![minimal(query)], Vec::new()),
        asked if asked == kind => Answer::Records(vec![record(&query.name, data)], Vec::new()),
        _ => Answer::NoData,
    }
}

/// The whole answer to ANY (RFC 8482, 4.2): no bigger than the question.
fn minimal(query: &Query) -> Record {
    record(&query.name, RData::HINFO(HINFO::new("RFC8482".into(), String::new())))
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn address(addr: IpAddr) -> RData {
    match addr {
        IpAddr::V4(addr) => RData::A(A(addr)),
        IpAddr::V6(addr) => RData::AAAA(AAAA(addr)),
    }
}

/// Lower case, without the last dot; none if it is not a text that a name of ours could be.
fn text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(64);
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        if !label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') {
            return None;
        }
        text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    Some(text)
}

fn to_name(text: &str) -> Option<Name> {
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The address that a name of `in-addr.arpa` or `ip6.arpa` is about, if it is about a single one.
fn reverse(name: &Name) -> Option<IpAddr> {
    let mut labels = name.iter().rev().skip(1);
    let kind = labels.next()?;
    let labels: Vec<&str> = labels.map(|l| std::str::from_utf8(l).ok()).collect::<Option<_>>()?;
    if kind.eq_ignore_ascii_case(b"in-addr") && labels.len() == 4 {
        let digits = |l: &&str| l.bytes().all(|b| b.is_ascii_digit());
        let bytes = labels.iter().map(|l| l.parse::<u8>().ok().filter(|_| digits(l)));
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    }
    if kind.eq_ignore_ascii_case(b"ip6") && labels.len() == 32 {
        let nibble = |l: &&str| (l.len() == 1).then(|| l.chars().next()?.to_digit(16)).flatten();
        let value =
            labels.iter().map(nibble).try_fold(0u128, |value, n| Some(value << 4 | u128::from(n?)))?;
        return Some(IpAddr::from(value.to_be_bytes()));
    }
    None
}

#[cfg(test)]
mod tests;
