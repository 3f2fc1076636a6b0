//! Host: what the networks need in the namespace that the daemon runs in.
//!
//! Published ports lead straight to tasks, on whichever node, and keep the client's address. Nobody
//! outside may send packets of the networks; those of encrypted networks use the tunnel or nothing.
//! `[::1]:port` is not led anywhere: IPv6 has no `route_localnet`. Who drives the data plane listens
//! there for every port of [`super::port::published`].
//!
//! What tasks may do to their node is what Docker's bridge allows: reach whatever listens on all of its
//! addresses, and nothing that listens on 127.0.0.1 only.
//!
//! Reads:   the ingress network, who holds which port, which networks are encrypted.
//! Writes:  the host's namespace.
//! Never:   touches what is not called `sw-…` or `sw_…`.
//! Start:   [`Host::namespace`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::address::{self, INGRESS, INGRESS_MAC, MAIN, TUNNEL, UPLINK, UPLINK_MAC, Version};
use super::firewall::{
    Chain, ChainKind, Compare, Field, HookPoint, MapElements, Rule, Statement, Table, Value, Verdict,
};
use super::ground::Ground;
use super::ingress::{self, ESTABLISHED, RELATED};
use super::kernel::{Link, LinkKind, Namespace, Place, Route, Way};
use super::port::{Held, Ports};
use super::sandbox::{DNAT, DSTNAT, FILTER, LOCAL, SRCNAT, Sandbox};

/// What the host's part is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) ground: &'a Ground,
    /// The ingress network, if the node is on it.
    pub(crate) ingress: Option<Sandbox<'a>>,
    /// Identifiers of encrypted networks.
    pub(crate) encrypted: &'a BTreeSet<u32>,
    /// Devices that macvlan networks without a parent stand on.
    pub(crate) private: &'a BTreeSet<String>,
}

/// The host's table.
pub(crate) const TABLE: &str = "sw_host";
/// Before all others look at a packet, and before connections are tracked.
const FIRST: i32 = -350;
/// After all others have.
const LAST: i32 = 300;

impl Host<'_> {
    /// All of it.
    pub(crate) fn namespace(&self, held: &Held<'_>) -> Namespace {
        let mut ns = Namespace::default();
        for name in self.private {
            ns.links.insert(name.clone(), Link { kind: LinkKind::Dummy, mac: None, mtu: 0 });
        }
        let entries = self.ingress.as_ref().map(ingress::entries).unwrap_or_default();
        if let Some(ingress) = &self.ingress {
            self.pair(ingress, &entries, &mut ns);
        }
        for version in Version::BOTH.into_iter().filter(|v| *v == Version::V4 || self.ground.facts.ipv6) {
            let entry = entries.iter().find(|(v, ..)| *v == version).map(|(_, entry, _)| *entry);
            ns.tables.push(self.table(version, entry, held));
        }
        ns
    }

    /// The pair to the ingress sandbox.
    fn pair(&self, ingress: &Sandbox<'_>, entries: &[(Version, IpAddr, IpAddr)], ns: &mut Namespace) {
        let kind = LinkKind::Veth { peer: Place::Sandbox(ingress.network.id), peer_name: UPLINK.into() };
        let mtu = self.ground.mtu(ingress.network);
        ns.links.insert(INGRESS.into(), Link { kind, mac: Some(INGRESS_MAC), mtu });
        let mut routes = BTreeSet::new();
        let mut settings: Vec<(String, &str)> = Vec::new();
        for (version, entry, _) in entries {
            let via = address::uplink_label(*version);
            ns.addrs.insert((INGRESS.into(), address::host_net(*entry)));
            ns.neighbours.insert((INGRESS.into(), via), UPLINK_MAC);
            let subnets = ingress.subnets().into_iter().filter(|(v, ..)| v == version);
            routes.extend(subnets.map(|(_, to, _)| {
                let way = Way::Device { name: INGRESS.into(), via: Some(via) };
                Route { table: MAIN, to, way, src: Some(*entry), metric: 0 }
            }));
            let own = |name: &str| format!("{}/conf/{INGRESS}/{name}", family_word(*version));
            settings.extend(match version {
                Version::V4 => vec![
                    // As Docker does. Only published ports are let through to tasks (`forward`).
                    ("ipv4/ip_forward".into(), "1"),
                    // For 127.0.0.1:port, on this device only.
                    (own("route_localnet"), "1"),
                    (own("send_redirects"), "0"),
                ],
                Version::V6 => vec![("ipv6/conf/all/forwarding".into(), "1"), (own("accept_ra"), "0")],
            });
            if *version == Version::V6 {
                let devices = self.ground.facts.router_devices.iter();
                settings.extend(devices.map(|device| (format!("ipv6/conf/{device}/accept_ra"), "2")));
            }
        }
        ns.routes = Arc::new(routes);
        ns.sysctls = settings.into_iter().map(|(name, value)| (name, value.into())).collect();
    }

    fn table(&self, version: Version, entry: Option<IpAddr>, held: &Held<'_>) -> Table {
        let nodes = self.ground.peers.values().map(|peer| peer.addr);
        let nodes = nodes.filter(|addr| Version::of(*addr) == version).map(|addr| vec![Value::Addr(addr)]);
        let vnis = self.encrypted.iter().map(|vni| vec![Value::Number(*vni)]);
        let filter = |point, priority, rules| Chain::base(ChainKind::Filter, point, priority, rules);
        let table = Table::new(version.family(), TABLE)
            .set("nodes", &[version.saddr()], nodes.collect())
            .set("encrypted", &[Field::Vni], vnis.collect())
            .chain("c_raw", filter(HookPoint::Prerouting, FIRST, self.raw(version)))
            .chain("c_last", filter(HookPoint::Postrouting, LAST, self.last()));
        let Some(entry) = entry else { return table };
        let ports = Ports::of(version, held);
        let key = [Field::L4Proto, Field::DestinationPort];
        let nat = |point, priority, rules| Chain::base(ChainKind::Nat, point, priority, rules);
        let mut table = table
            .map("pub", &key, MapElements::Verdicts(ports.ways))
            .map("pub_ip", &[[version.daddr()].as_slice(), &key].concat(), MapElements::Verdicts(ports.only))
            .chain("c_fwd", filter(HookPoint::Forward, FILTER, forward()))
            .chain("c_pre", nat(HookPoint::Prerouting, DSTNAT, dispatch(version)))
            .chain("c_out", nat(HookPoint::Output, DSTNAT, dispatch(version)))
            .chain("c_post", nat(HookPoint::Postrouting, SRCNAT, leave(version, entry)));
        table.chains.extend(ports.chains);
        table
    }

    /// VXLAN comes from nodes of the cluster only, and what is encrypted through the tunnel only.
    fn raw(&self, version: Version) -> Vec<Rule> {
        let outside = || [self.vxlan().as_slice(), &[Statement::not(Field::Iifname, TUNNEL)]].concat();
        let drop = || Statement::Verdict(Verdict::Drop);
        let forged = Statement::InSet(vec![version.saddr()], Compare::IsNot, "nodes".into());
        let clear = Statement::InSet(vec![Field::Vni], Compare::Is, "encrypted".into());
        let mut rules = vec![
            Rule::new([outside(), vec![forged, drop()]].concat()).said("forged: not from a node"),
            Rule::new([outside(), vec![clear, drop()]].concat())
                .said("encrypted networks use the tunnel only"),
        ];
        let inner = Statement::is(Field::Iifname, TUNNEL);
        let elsewhere = Statement::not(Field::FibDestinationType, LOCAL);
        // The kernel's WireGuard checks who sent a packet, not to whom; this host forwards.
        rules.push(Rule::new([inner, elsewhere, drop()]).said("the tunnel leads to this node only"));
        if version == Version::V4 {
            let from = Statement::is(Field::Iifname, INGRESS);
            let to = Statement::is(Field::IpDaddr, loopback());
            // CVE-2020-8558: route_localnet alone would let tasks reach what listens on 127.0.0.1.
            rules.push(Rule::new([from, to, drop()]).said("route_localnet is for this host's own programs"));
        }
        rules
    }

    /// The same for what goes out, whoever sends it: without the tunnel its packets would take the
    /// default route, in the clear.
    fn last(&self) -> Vec<Rule> {
        let mut statements = self.vxlan();
        statements.push(Statement::not(Field::Oifname, TUNNEL));
        statements.push(Statement::InSet(vec![Field::Vni], Compare::Is, "encrypted".into()));
        statements.push(Statement::Verdict(Verdict::Drop));
        vec![Rule::new(statements).said("encrypted networks use the tunnel only")]
    }

    fn vxlan(&self) -> Vec<Statement> {
        vec![
            Statement::is(Field::L4Proto, Value::Protocol(17)),
            Statement::is(Field::DestinationPort, Value::Port(self.ground.data_port())),
        ]
    }
}

/// Into the ingress network only by published ports, and back: who has this host as a router reaches no
/// other port of a task (moby/moby#14041).
fn forward() -> Vec<Rule> {
    let inward = || Statement::is(Field::Oifname, INGRESS);
    let accept = || Statement::Verdict(Verdict::Accept);
    vec![
        Rule::new([inward(), Statement::is(Field::CtState, ESTABLISHED | RELATED), accept()]),
        Rule::new([inward(), Statement::is(Field::CtStatus, DNAT), accept()]),
        Rule::new([inward(), Statement::Verdict(Verdict::Drop)])
            .said("tasks are reached by published ports only"),
    ]
}

/// Ports of this host's addresses. Those on one address go before those on all.
fn dispatch(version: Version) -> Vec<Rule> {
    let local = || {
        let mut statements = vec![Statement::is(Field::FibDestinationType, LOCAL)];
        if version == Version::V6 {
            // There is no way from ::1 to another host; a listener is there instead.
            statements.push(Statement::not(Field::Ip6Daddr, IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)));
        }
        statements
    };
    let key = vec![Field::L4Proto, Field::DestinationPort];
    let only = [vec![version.daddr()], key.clone()].concat();
    vec![
        Rule::new([local(), vec![Statement::VerdictMap(only, "pub_ip".into())]].concat()),
        Rule::new([local(), vec![Statement::VerdictMap(key, "pub".into())]].concat()),
    ]
}

/// Who leaves in whose name.
fn leave(version: Version, entry: IpAddr) -> Vec<Rule> {
    let out = |compare| Statement::Match(Field::Oifname, compare, INGRESS.into());
    let from = || Statement::is(Field::Iifname, INGRESS);
    let mut rules = vec![
        Rule::new([from(), out(Compare::Is), Statement::Snat(entry)]).said("a task calls a port of its node"),
        Rule::new([from(), out(Compare::IsNot), Statement::Masquerade]).said("the way out"),
    ];
    if version == Version::V4 {
        let local = Statement::is(Field::IpSaddr, loopback());
        let rule =
            Rule::new([out(Compare::Is), local, Statement::Snat(entry)]).said("127.0.0.1 calls a port");
        rules.insert(0, rule);
    }
    rules
}

fn loopback() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8))
}

fn family_word(version: Version) -> &'static str {
    match version {
        Version::V4 => "ipv4",
        Version::V6 => "ipv6",
    }
}
