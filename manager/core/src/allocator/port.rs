//! Port: which published ports are taken, and by which service.
//!
//! Reads:   the ports that services have.
//! Writes:  its own books.
//! Never:   opens one.
//! Start:   [`Ports`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use swarm_types::defaults::DYNAMIC_PORTS;
use swarm_types::endpoint::{Port, Protocol, PublishMode};
use swarm_types::id::ServiceId;

use super::range::RangeSet;

/// Two ports that cannot be open on one node: same protocol and number, on addresses that overlap.
pub fn collide(a: &Port, b: &Port) -> bool {
    let addrs = a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip;
    a.published != 0 && a.published == b.published && a.protocol == b.protocol && addrs
}

type Holders = BTreeMap<(ServiceId, Option<IpAddr>, PublishMode), u32>;

/// The published ports of all services.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    taken: BTreeMap<(Protocol, u16), Holders>,
    used: BTreeMap<Protocol, RangeSet>,
    of: BTreeMap<ServiceId, Vec<Port>>,
}

impl Ports {
    /// What a service has, whatever it had before. True if something became free.
    pub fn put(&mut self, service: ServiceId, ports: &[Port]) -> bool {
        let before = match self.of.get(&service) {
            Some(before) if before == ports => return false,
            None if ports.is_empty() => return false,
            _ => self.of.remove(&service).unwrap_or_default(),
        };
        for port in ports {
            *self.holders(port).entry((service, port.host_ip, port.mode)).or_default() += 1;
            self.used.entry(port.protocol).or_default().insert(port.published.into());
        }
        for port in &before {
            let key = (service, port.host_ip, port.mode);
            let holders = self.holders(port);
            match holders.get_mut(&key) {
                Some(more) if *more > 1 => *more -= 1,
                _ => drop(holders.remove(&key)),
            }
            if holders.is_empty() {
                self.taken.remove(&(port.protocol, port.published));
                if let Some(used) = self.used.get_mut(&port.protocol) {
                    used.remove(port.published.into());
                }
            }
        }
        if !ports.is_empty() {
            self.of.insert(service, ports.to_vec());
        }
        !before.is_empty()
    }

    fn holders(&mut self, port: &Port) -> &mut Holders {
        self.taken.entry((port.protocol, port.published)).or_default()
    }

    /// Another service that has a port which cannot be open beside this one.
    pub fn conflict(&self, service: &ServiceId, port: &Port) -> Option<ServiceId> {
        let holders = self.taken.get(&(port.protocol, port.published))?;
        let clash = |(other, host_ip, mode): &&(ServiceId, Option<IpAddr>, PublishMode)| {
            let theirs = Port { host_ip: *host_ip, mode: *mode, ..*port };
            let ingress = port.mode == PublishMode::Ingress || *mode == PublishMode::Ingress;
            other != service && ingress && collide(port, &theirs)
        };
        holders.keys().find(clash).map(|(other, ..)| *other)
    }

    /// The lowest port of those that managers choose from which nobody has, nor is in `but`.
    pub fn lowest_free(&self, protocol: Protocol, but: &[u16]) -> Option<u16> {
        let empty = RangeSet::default();
        let used = self.used.get(&protocol).unwrap_or(&empty);
        let (mut from, last) = (u128::from(*DYNAMIC_PORTS.start()), u128::from(*DYNAMIC_PORTS.end()));
        loop {
            let port = u16::try_from(used.lowest_free(from, last)?).ok()?;
            if !but.contains(&port) {
                return Some(port);
            }
            from = u128::from(port) + 1;
        }
    }
}

/// The ports that a service gets: those that it wants, with every ingress port chosen. What it had
/// it keeps.
#[derive(Debug, Default)]
pub struct Chosen {
    /// What it gets.
    pub ports: Vec<Port>,
    /// What it cannot get, and who has it (nobody: all are in use).
    pub denied: Option<(Port, Option<ServiceId>)>,
}

/// Chooses the ports of a service that had `had` and wants `wanted`.
pub fn choose(books: &Ports, service: &ServiceId, had: &[Port], wanted: &[Port]) -> Chosen {
    let mut chosen = Chosen::default();
    let fixed: Vec<&Port> = wanted.iter().filter(|p| p.published != 0).collect();
    let is_fixed = |port: &Port| fixed.iter().any(|f| collide(f, port));
    let dynamic = |p: &&Port| p.mode == PublishMode::Ingress && !is_fixed(p);
    let mut kept: Vec<Port> = had.iter().filter(dynamic).copied().collect();
    for want in wanted {
        let port = match (want.mode, want.published) {
            (PublishMode::Host, _) => Some(*want),
            (PublishMode::Ingress, 0) => {
                let same =
                    |p: &Port| Port { published: 0, ..*p } == *want && DYNAMIC_PORTS.contains(&p.published);
                match kept.iter().position(same) {
                    Some(at) => Some(kept.remove(at)),
                    None => {
                        let of = |p: &&Port| p.protocol == want.protocol;
                        let but: Vec<u16> = chosen
                            .ports
                            .iter()
                            .chain(&kept)
                            .chain(fixed.iter().copied())
                            .filter(of)
                            .map(|p| p.published)
                            .collect();
                        books.lowest_free(want.protocol, &but).map(|published| Port { published, ..*want })
                    }
                }
            }
            (PublishMode::Ingress, _) => Some(*want),
        };
        let taken = port.and_then(|port| books.conflict(service, &port));
        match port {
            Some(port) if taken.is_none() => chosen.ports.push(port),
            _ => chosen.denied = chosen.denied.or(Some((*want, taken))),
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(published: u16, target: u16) -> Port {
        Port { published, target, ..Port::default() }
    }

    #[test]
    fn dynamic_ports_are_distinct_and_stay() {
        let (mut books, id) = (Ports::default(), ServiceId::new("a"));
        let wanted = [port(5005, 80), port(5006, 80), port(0, 80), port(0, 80)];
        let first = choose(&books, &id, &[], &wanted).ports;
        assert_eq!(first.iter().map(|p| p.published).collect::<Vec<_>>(), [5005, 5006, 30_000, 30_001]);
        books.put(id, &first);
        assert_eq!(choose(&books, &id, &first, &wanted).ports, first, "asked again: the same");
        let fewer = choose(&books, &id, &first, &[port(0, 80), port(30_001, 81)]).ports;
        assert_eq!(fewer.iter().map(|p| p.published).collect::<Vec<_>>(), [30_000, 30_001]);
        let other =
            choose(&books, &"b".into(), &[], &[port(0, 80), Port { protocol: Protocol::Udp, ..port(0, 80) }]);
        let numbers: Vec<_> = other.ports.iter().map(|p| p.published).collect();
        assert_eq!(numbers, [30_002, 30_000], "each protocol has its own");
    }

    #[test]
    fn a_port_has_one_service_but_for_other_addresses() {
        let mut books = Ports::default();
        books.put("a".into(), &[port(80, 80)]);
        let denied = |port| choose(&books, &"b".into(), &[], &[port]).denied.map(|(_, who)| who);
        assert_eq!(denied(port(80, 81)), Some(Some("a".into())));
        assert_eq!(denied(Port { protocol: Protocol::Udp, ..port(80, 81) }), None);
        let on = |ip: [u8; 4]| Port { host_ip: Some(ip.into()), ..port(80, 81) };
        assert_eq!(denied(on([10, 0, 0, 1])), Some(Some("a".into())));
        let mut books = Ports::default();
        books.put("a".into(), &[on([10, 0, 0, 1])]);
        assert!(choose(&books, &"b".into(), &[], &[on([10, 0, 0, 2])]).denied.is_none());
        let host = Port { mode: PublishMode::Host, ..port(80, 80) };
        let mut books = Ports::default();
        books.put("a".into(), &[host]);
        assert!(choose(&books, &"b".into(), &[], &[host]).denied.is_none(), "the scheduler keeps them apart");
        assert!(choose(&books, &"b".into(), &[], &[port(80, 80)]).denied.is_some());
        assert!(books.put("a".into(), &[]) && books.taken.is_empty() && books.of.is_empty());
    }

    #[test]
    fn all_ports_in_use() {
        let mut books = Ports::default();
        let all: Vec<_> = DYNAMIC_PORTS.map(|n| port(n, 1)).collect();
        books.put("a".into(), &all);
        let chosen = choose(&books, &"b".into(), &[], &[port(0, 80)]);
        assert_eq!((chosen.ports, chosen.denied), (vec![], Some((port(0, 80), None))));
    }
}
