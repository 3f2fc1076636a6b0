//! Sandbox: a network on this node: a namespace that routes between the node's tasks and other nodes.
//!
//! No bridge and no ARP: each task is alone on a link with the gateway, neighbours are permanent, MAC
//! addresses computed. Nothing leads out of it but the tunnel, so networks never meet, and may have the
//! same subnets.
//!
//! Reads:   a network, the ground, the node's tasks on it, the services' chains.
//! Writes:  the namespace.
//! Never:   passes on what a task sends in another one's name.
//! Start:   [`Sandbox::namespace`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use swarm_types::endpoint::Protocol;
use swarm_types::id::{ServiceId, TaskId};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::NetworkPart;

use super::address::{self, GATEWAY_MAC, MAIN, VXLAN, Version, protocol_number};
use super::firewall::{
    Chain, ChainKind, Compare, Field, HookPoint, MapElements, Rule, Statement, Table, Value,
};
use super::ground::Ground;
use super::kernel::{Link, LinkKind, Mac, Namespace, Place, Route, Way};
use super::service::{Vip, Vips};

/// A task of this node on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// The sandbox's end of its pair.
    pub(crate) veth: String,
    /// The task's end.
    pub(crate) device: String,
    pub(crate) mac: Mac,
    pub(crate) addrs: Vec<IpAddr>,
    /// May send to the world by itself (on the ingress network).
    pub(crate) way_out: bool,
}

/// The node's tasks on a network.
pub(crate) type Locals = BTreeMap<TaskId, Local>;

/// What a sandbox is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sandbox<'a> {
    pub(crate) network: &'a NetworkPart,
    pub(crate) ground: &'a Ground,
    pub(crate) locals: &'a Locals,
}

/// The table of a sandbox that is not the ingress network's.
pub(crate) const TABLE: &str = "sw_net";

/// Priorities of hooks (`nft` calls them raw, mangle, dstnat, filter, srcnat).
pub(crate) const RAW: i32 = -300;
pub(crate) const MANGLE: i32 = -150;
pub(crate) const DSTNAT: i32 = -100;
pub(crate) const AFTER_DSTNAT: i32 = -90;
pub(crate) const FILTER: i32 = 0;
pub(crate) const SRCNAT: i32 = 100;

impl Sandbox<'_> {
    /// All but routes to other nodes' tasks, and tables.
    pub(crate) fn namespace(&self) -> Namespace {
        let mut ns = Namespace { sysctls: self.sysctls(), ..Namespace::default() };
        let mtu = self.ground.mtu(self.network);
        for (_, _, gateway) in self.subnets() {
            ns.addrs.insert(("lo".into(), address::host_net(gateway)));
        }
        for (task, local) in self.locals {
            let kind = LinkKind::Veth { peer: Place::Task(*task), peer_name: local.device.clone() };
            ns.links.insert(local.veth.clone(), Link { kind, mac: Some(GATEWAY_MAC), mtu });
            for addr in self.own_addrs(local) {
                ns.neighbours.insert((local.veth.clone(), addr), local.mac);
            }
        }
        if let Some(local) = self.tunnel() {
            let (vni, port) = (self.network.vni, self.ground.data_port());
            let mac = Some(address::vtep_mac(vni, self.ground.own.index));
            ns.links.insert(VXLAN.into(), Link { kind: LinkKind::Vxlan { vni, local, port }, mac, mtu });
            for (peer, remote) in self.ground.remotes(self.network) {
                let mac = address::vtep_mac(vni, peer.index);
                ns.forwarding.insert((VXLAN.into(), mac), remote);
                for (version, ..) in self.subnets() {
                    ns.neighbours.insert((VXLAN.into(), address::label(version, peer.index)), mac);
                }
            }
        }
        ns
    }

    /// Routes to the node's own tasks; to addresses that nobody has: who calls is told at once.
    pub(crate) fn routes(&self) -> BTreeSet<Route> {
        let subnets = self.subnets();
        let nowhere = subnets.iter().map(|(_, net, _)| route(*net, Way::Unreachable));
        let locals = self.locals.values().flat_map(|local| {
            let way = Way::Device { name: local.veth.clone(), via: None };
            self.own_addrs(local).map(move |addr| route(address::host_net(addr), way.clone()))
        });
        // Two tasks with one address are wrong; the first one has it.
        let mut seen = BTreeSet::new();
        nowhere.chain(locals).filter(|route| seen.insert(route.to)).collect()
    }

    /// Where the tunnel's packets are sent from; none: there is no tunnel.
    pub(crate) fn tunnel(&self) -> Option<IpAddr> {
        let overlay = self.network.driver == NetworkDriver::Overlay;
        self.ground.local(self.network).filter(|_| overlay && self.network.vni != 0)
    }

    pub(crate) fn subnets(&self) -> Vec<(Version, IpNet, IpAddr)> {
        self.ground.subnets(self.network)
    }

    /// The table of a version: spoofed addresses, virtual addresses, and tasks that call themselves.
    pub(crate) fn table(&self, version: Version, gateway: IpAddr, vips: Vips) -> Table {
        let (saddr, daddr) = (version.saddr(), version.daddr());
        let hairpin = self.addrs(version).map(|(_, addr)| vec![Value::Addr(addr), Value::Addr(addr)]);
        let pre = Rule::new([Statement::VerdictMap(vec![daddr], "svc".into())]);
        let post = Rule::new([
            Statement::is(Field::CtStatus, DNAT),
            Statement::InSet(vec![saddr, daddr], Compare::Is, "hairpin".into()),
            Statement::Snat(gateway),
        ])
        .said("a task that drew itself");
        let mut table = Table::new(version.family(), TABLE)
            .set("own", &[Field::Iifname, saddr], self.own_set(version))
            .set("hairpin", &[saddr, daddr], hairpin.collect())
            .map("svc", &[daddr], MapElements::Verdicts(vips.ways))
            .chain(
                "c_raw",
                Chain::base(ChainKind::Filter, HookPoint::Prerouting, RAW, vec![spoof(version, &[VXLAN])]),
            )
            .chain("c_pre", Chain::base(ChainKind::Nat, HookPoint::Prerouting, DSTNAT, vec![pre]))
            .chain("c_gone", gone())
            .chain("c_post", Chain::base(ChainKind::Nat, HookPoint::Postrouting, SRCNAT, vec![post]));
        table.chains.extend(vips.chains);
        table
    }

    /// Which device may send with which addresses.
    pub(crate) fn own_set(&self, version: Version) -> BTreeSet<Vec<Value>> {
        self.addrs(version)
            .map(|(local, addr)| vec![Value::Name(local.veth.clone()), Value::Addr(addr)])
            .collect()
    }

    /// The node's tasks' addresses of a version.
    pub(crate) fn addrs(&self, version: Version) -> impl Iterator<Item = (&Local, IpAddr)> {
        let all = self.locals.values().flat_map(|local| local.addrs.iter().map(move |addr| (local, *addr)));
        all.filter(move |(_, addr)| Version::of(*addr) == version)
    }

    fn own_addrs(&self, local: &Local) -> impl Iterator<Item = IpAddr> {
        let versions: Vec<_> = self.subnets().iter().map(|(version, ..)| *version).collect();
        let addrs = local.addrs.clone();
        addrs.into_iter().filter(move |addr| versions.contains(&Version::of(*addr)))
    }

    /// Settings of no device come before devices: a new namespace may inherit the host's.
    fn sysctls(&self) -> BTreeMap<String, String> {
        let versions: Vec<_> = self.subnets().iter().map(|(version, ..)| *version).collect();
        let mut settings = vec![
            ("ipv4/ip_forward", if versions.contains(&Version::V4) { "1" } else { "0" }),
            // The tunnel has no address, so that even a loose filter drops all that comes from it.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ];
        if versions.contains(&Version::V6) {
            settings.extend([
                ("ipv6/conf/all/disable_ipv6", "0"),
                ("ipv6/conf/default/disable_ipv6", "0"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                // Without link-local addresses nobody is sent redirects either; they have no switch.
                ("ipv6/conf/default/addr_gen_mode", "1"),
            ]);
        } else if self.ground.facts.ipv6 {
            settings.extend([("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")]);
        }
        settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }
}

/// Of `fib daddr type`: an address of this namespace.
pub(crate) const LOCAL: u32 = 2;
/// Bit of `ct status`: the other end was chosen by us.
pub(crate) const DNAT: u32 = 32;

/// A task sends in its own name only. `others`: devices that lead elsewhere.
pub(crate) fn spoof(version: Version, others: &[&str]) -> Rule {
    let mut statements = vec![Statement::not(Field::Iifname, "lo")];
    statements.extend(others.iter().map(|device| Statement::not(Field::Iifname, *device)));
    let key = vec![Field::Iifname, version.saddr()];
    statements.push(Statement::InSet(key, Compare::IsNot, "own".into()));
    statements.push(Statement::Verdict(super::firewall::Verdict::Drop));
    Rule::new(statements).said("a task sends in its own name only")
}

/// Who speaks to an address that nobody has is told so, with what ends a connection: "no route", which the
/// kernel would answer, does not. Those of a node that has died would hang until they give up. A reply to
/// a client of another node has its way by the mark.
pub(crate) fn gone() -> Chain {
    let protocols = [Protocol::Tcp, Protocol::Udp].map(protocol_number);
    let rule = |protocol| {
        Rule::new([
            Statement::is(Field::L4Proto, Value::Protocol(protocol)),
            Statement::not(Field::FibDestinationType, LOCAL),
            Statement::is(Field::FibDestinationDevice, 0),
            Statement::Reject,
        ])
        .said("nobody has this address")
    };
    let rules = protocols.map(rule).into();
    Chain::base(ChainKind::Filter, HookPoint::Prerouting, AFTER_DSTNAT, rules)
}

/// A route of the main table.
pub(crate) fn route(to: IpNet, way: Way) -> Route {
    Route { table: MAIN, to, way, src: None, metric: 0 }
}

/// Tables of a sandbox that is not the ingress network's.
pub(crate) fn tables(sandbox: &Sandbox<'_>, vips: &BTreeMap<ServiceId, Vip>) -> Vec<Table> {
    let table = |(version, _, gateway)| sandbox.table(version, gateway, Vips::of(version, vips));
    sandbox.subnets().into_iter().map(table).collect()
}
