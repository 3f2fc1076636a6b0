//! Ingress: the sandbox of the network that published ports and the way out use.
//!
//! What comes in on one node for a task of another passes through here with the client's own address.
//! The task's node keeps in mind, per connection, which node that was (by the MAC address of its
//! tunnel), and sends replies there: one route for all nodes, the right MAC address put in at the end.
//!
//! Reads:   as a sandbox.
//! Writes:  the namespace's routes, rules and tables.
//! Never:   lets tasks reach each other.
//! Start:   [`extend`], [`tables`].

use std::collections::{BTreeMap, BTreeSet};

use std::net::IpAddr;

use super::address::{
    self, INGRESS, INGRESS_MAC, NOBODY_MAC, REPLIES, REPLY_MARK, UPLINK, UPLINK_MAC, VXLAN,
};
use super::address::{MAIN, Version};
use super::firewall::{
    Chain, ChainKind, Compare, Family, Field, HookPoint, MapElements, Rule, Statement, Table, Value, Verdict,
};
use super::kernel::{self, Link, LinkKind, Mac, Namespace, Place, Route, Way};
use super::sandbox::{FILTER, MANGLE, RAW, SRCNAT, Sandbox, gone, spoof};

/// The versions that go in and out here, each with the node's own address and the gateway.
pub(crate) fn entries(sandbox: &Sandbox<'_>) -> Vec<(Version, IpAddr, IpAddr)> {
    let entry = |(version, _, gateway)| Some((version, sandbox.ground.entry(version)?, gateway));
    sandbox.subnets().into_iter().filter_map(entry).collect()
}

/// The pair to the host, and the way of replies.
pub(crate) fn extend(sandbox: &Sandbox<'_>, ns: &mut Namespace, routes: &mut BTreeSet<Route>) {
    let kind = LinkKind::Veth { peer: Place::Host, peer_name: INGRESS.into() };
    let mtu = sandbox.ground.mtu(sandbox.network);
    ns.links.insert(UPLINK.into(), Link { kind, mac: Some(UPLINK_MAC), mtu });
    for (version, entry, gateway) in entries(sandbox) {
        ns.neighbours.insert((UPLINK.into(), entry), INGRESS_MAC);
        let direct = Way::Device { name: UPLINK.into(), via: None };
        let to = address::host_net(entry);
        routes.insert(Route { table: MAIN, to, way: direct, src: None, metric: 0 });
        let out = Way::Device { name: UPLINK.into(), via: Some(entry) };
        routes.insert(Route { table: MAIN, to: version.any(), way: out, src: Some(gateway), metric: 0 });
        if sandbox.tunnel().is_none() {
            continue;
        }
        let nobody = address::label(version, 0);
        ns.neighbours.insert((VXLAN.into(), nobody), NOBODY_MAC);
        let back = Way::Device { name: VXLAN.into(), via: Some(nobody) };
        routes.insert(Route { table: REPLIES, to: version.any(), way: back, src: None, metric: 0 });
        ns.rules.insert(kernel::Rule {
            priority: REPLIES,
            v6: version == Version::V6,
            from: None,
            mark: Some((REPLY_MARK, REPLY_MARK)),
            table: REPLIES,
        });
    }
}

/// Its tables.
pub(crate) fn tables(sandbox: &Sandbox<'_>) -> Vec<Table> {
    let mut tables: Vec<_> = sandbox.subnets().iter().map(|(version, ..)| table(sandbox, *version)).collect();
    if sandbox.tunnel().is_some() {
        tables.push(egress(sandbox));
    }
    tables
}

/// Each other node: its tunnel's MAC address and its number.
fn nodes(sandbox: &Sandbox<'_>) -> Vec<(Mac, u16)> {
    let vni = sandbox.network.vni;
    let remotes = sandbox.ground.remotes(sandbox.network);
    remotes.map(|(peer, _)| (address::vtep_mac(vni, peer.index), peer.index)).collect()
}

fn table(sandbox: &Sandbox<'_>, version: Version) -> Table {
    let here = sandbox.addrs(version).map(|(_, addr)| vec![Value::Addr(addr)]).collect();
    let outgoing = sandbox.addrs(version).filter(|(local, _)| local.way_out);
    let outgoing = outgoing.map(|(_, addr)| vec![Value::Addr(addr)]).collect();
    let nodes = nodes(sandbox);
    let zones = nodes.iter().map(|(mac, index)| (vec![Value::Mac(*mac)], *index)).collect();
    let marks =
        nodes.iter().map(|(mac, index)| (vec![Value::Mac(*mac)], REPLY_MARK | u32::from(*index))).collect();
    let filter = |point, priority, rules| Chain::base(ChainKind::Filter, point, priority, rules);
    Table::new(version.family(), "sw_ing")
        .set("own", &[Field::Iifname, version.saddr()], sandbox.own_set(version))
        .set("here", &[version.daddr()], here)
        .set("outgoing", &[version.saddr()], outgoing)
        .map("zone_by_mac", &[Field::EtherSaddr], MapElements::Zones(zones))
        .map("mark_by_mac", &[Field::EtherSaddr], MapElements::Marks(marks))
        .chain("c_raw", filter(HookPoint::Prerouting, RAW, raw(sandbox, version)))
        .chain("c_gone", gone())
        .chain("c_mangle", filter(HookPoint::Prerouting, MANGLE, mangle()))
        .chain("c_fwd", filter(HookPoint::Forward, FILTER, forward(version)).dropping())
        // Empty, and yet needed: it changes the port when two clients' connections through two nodes
        // would look the same to the task.
        .chain("c_post", Chain::base(ChainKind::Nat, HookPoint::Postrouting, SRCNAT, Vec::new()))
}

/// What only passes is not tracked. What came from another node is tracked as that node's: a client may
/// use one port of its own through several nodes.
fn raw(sandbox: &Sandbox<'_>, version: Version) -> Vec<Rule> {
    let here = |compare| Statement::InSet(vec![version.daddr()], compare, "here".into());
    let mut rules = vec![spoof(version, &[VXLAN, UPLINK])];
    for (_, subnet, _) in sandbox.subnets().into_iter().filter(|(v, ..)| *v == version) {
        let up = Statement::is(Field::Iifname, UPLINK);
        let to = Statement::is(version.daddr(), subnet);
        rules.push(
            Rule::new([up, to, here(Compare::IsNot), Statement::Notrack]).said("to another node's task"),
        );
    }
    let other = || Statement::is(Field::Iifname, VXLAN);
    rules.push(
        Rule::new([other(), here(Compare::IsNot), Statement::Notrack]).said("replies of other nodes' tasks"),
    );
    let zone = Statement::SetOriginalZone(vec![Field::EtherSaddr], "zone_by_mac".into());
    rules.push(Rule::new([other(), here(Compare::Is), zone]));
    rules
}

fn mangle() -> Vec<Rule> {
    let mark = Statement::SetConnectionMark(vec![Field::EtherSaddr], "mark_by_mac".into());
    let came = [Statement::is(Field::Iifname, VXLAN), Statement::is(Field::CtState, NEW), mark];
    let reply = [
        Statement::not(Field::Iifname, VXLAN),
        Statement::is(Field::CtDirection, REPLY),
        Statement::not(Field::CtMark, 0),
        Statement::SetMarkFromConnection,
    ];
    vec![
        Rule::new(came).said("keeps in mind the node that was called"),
        Rule::new(reply).said("and replies through it"),
    ]
}

/// `ct state` bits.
pub(crate) const NEW: u32 = 8;
pub(crate) const ESTABLISHED: u32 = 2;
pub(crate) const RELATED: u32 = 4;
const REPLY: u32 = 1;

/// Tasks reach the world (if they may), never each other.
fn forward(version: Version) -> Vec<Rule> {
    let accept = || Statement::Verdict(Verdict::Accept);
    vec![
        Rule::new([Statement::is(Field::CtState, ESTABLISHED | RELATED), accept()]),
        Rule::new([Statement::is(Field::Iifname, UPLINK), accept()]),
        Rule::new([Statement::is(Field::Iifname, VXLAN), accept()]),
        Rule::new([
            Statement::is(Field::Oifname, UPLINK),
            Statement::InSet(vec![version.saddr()], Compare::Is, "outgoing".into()),
            accept(),
        ])
        .said("the way out"),
        Rule::new([Statement::is(Field::Oifname, UPLINK), Statement::Reject])
            .said("on internal networks only"),
    ]
}

/// The MAC address of the node that a reply goes to; and no mark leaves: the kernel would look the way
/// of the tunnel's packet up with it, in the host's namespace.
fn egress(sandbox: &Sandbox<'_>) -> Table {
    let macs: BTreeMap<_, _> = nodes(sandbox)
        .into_iter()
        .map(|(mac, index)| (vec![Value::Number(REPLY_MARK | u32::from(index))], mac))
        .collect();
    let rules = vec![
        Rule::new([Statement::SetEtherDestination(vec![Field::Mark], "mac_by_mark".into())]),
        Rule::new([Statement::SetMark(0)]),
    ];
    Table::new(Family::Netdev, "sw_ing_out")
        .map("mac_by_mark", &[Field::Mark], MapElements::Macs(macs))
        .chain("c_out", Chain::base(ChainKind::Filter, HookPoint::Egress, FILTER, rules).on(VXLAN))
}
