//! Laws of plans, held while anything may happen to a small world in any order.
//!
//! Reads:   plans, as values.
//! Writes:  a world.
//! Never:   leaves the tests.
//! Start:   `laws_hold_whatever_happens`.

mod play;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_types::defaults;
use swarm_types::endpoint::{EndpointMode, PublishMode};
use swarm_types::id::TaskId;
use swarm_types::network_set::NetworkSet;

use super::address::{self, Version};
use super::bridge;
use super::firewall::{Chain, Choice, MapElements, Statement, Table, Value, Verdict};
use super::ground::Facts;
use super::kernel::{LinkKind, Namespace, Place, Plan};
use super::planner::{Planned, Planner};
use play::{Play, event};

fn tables(plan: &Plan) -> impl Iterator<Item = (&Place, &Table)> {
    plan.namespaces.iter().flat_map(|(place, ns)| ns.tables.iter().map(move |table| (place, table)))
}

/// Every name is short enough, and everything that is named is there.
fn names_are_right(plan: &Plan) {
    for (place, table) in tables(plan) {
        let names = table.sets.keys().chain(table.maps.keys()).chain(table.chains.keys());
        names.for_each(|name| assert!(name.len() <= 31, "{place}: {name}"));
        let chain = |verdict: &Verdict| match verdict {
            Verdict::Goto(name) | Verdict::Jump(name) => assert!(table.chains.contains_key(name), "{name}"),
            Verdict::Accept | Verdict::Drop | Verdict::Return => {}
        };
        let map = |name: &str| assert!(table.maps.contains_key(name), "{place}: map {name}");
        for map in table.maps.values() {
            if let MapElements::Verdicts(all) = &map.elements {
                all.values().for_each(chain);
            }
        }
        for statement in
            table.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements)
        {
            match statement {
                Statement::InSet(_, _, name) => assert!(table.sets.contains_key(name), "{place}: set {name}"),
                Statement::VerdictMap(_, name)
                | Statement::SetConnectionMark(_, name)
                | Statement::SetOriginalZone(_, name)
                | Statement::SetEtherDestination(_, name) => map(name),
                Statement::Verdict(verdict) => chain(verdict),
                _ => {}
            }
        }
        let used: BTreeSet<_> = table
            .maps
            .values()
            .flat_map(|map| match &map.elements {
                MapElements::Verdicts(all) => all.values().cloned().collect(),
                _ => Vec::new(),
            })
            .collect();
        let idle = table.chains.iter().filter(|(_, chain)| chain.hook.is_none());
        idle.for_each(|(name, _)| {
            assert!(used.contains(&Verdict::Goto(name.clone())), "nothing leads to {name}")
        });
    }
}

/// Pairs have two ends, devices that are named are there, and nothing has two routes.
fn devices_are_right(plan: &Plan) {
    for (place, ns) in &plan.namespaces {
        for (name, link) in &ns.links {
            assert!(name.len() <= 15, "{name}");
            let LinkKind::Veth { peer, peer_name } = &link.kind else { continue };
            // The sandbox of a network that is not known (any more) has no ends.
            let Some(other) = plan.namespaces.get(peer) else { panic!("{place} {name}: no {peer}") };
            let Some(back) = other.links.get(peer_name) else { panic!("{place} {name}: no {peer_name}") };
            assert_eq!(back.kind, LinkKind::Veth { peer: *place, peer_name: name.clone() });
            assert_eq!(back.mtu, link.mtu);
        }
        let there = |name: &String| assert!(name == "lo" || ns.links.contains_key(name), "{place}: {name}");
        ns.addrs.iter().for_each(|(name, _)| there(name));
        ns.neighbours.keys().for_each(|(name, _)| there(name));
        ns.forwarding.keys().for_each(|(name, _)| there(name));
        let mut seen = BTreeSet::new();
        for route in ns.routes.iter() {
            assert!(seen.insert((route.table, route.to, route.metric)), "{place}: two routes: {route}");
            if let super::kernel::Way::Device { name, .. } = &route.way {
                there(name);
            }
        }
    }
}

/// Encrypted networks know tunnel addresses only, and the host lets nothing else of them through.
fn encrypted_is_encrypted(set: &NetworkSet, plan: &Plan) {
    let tunnel = |addr: IpAddr| matches!(addr, IpAddr::V4(addr) if defaults::tunnel_net().contains(&addr));
    let host = &plan.namespaces[&Place::Host];
    for (id, entry) in set.networks.iter().filter(|(_, entry)| entry.network.encrypted) {
        if entry.network.vni != 0 {
            let number = vec![Value::Number(entry.network.vni)];
            host.tables.iter().for_each(|table| assert!(table.sets["encrypted"].elements.contains(&number)));
        }
        let Some(ns) = plan.namespaces.get(&Place::Sandbox(*id)) else { continue };
        for link in ns.links.values() {
            if let LinkKind::Vxlan { local, .. } = link.kind {
                assert!(tunnel(local), "{local}");
            }
        }
        ns.forwarding.values().for_each(|addr| assert!(tunnel(*addr), "{addr}"));
    }
}

/// Nodes that are gone have left nothing.
fn no_trace(play: &Play, plan: &Plan) {
    let text = plan.to_string();
    let words: BTreeSet<_> = text.split([' ', ',', '\n']).collect();
    for index in &play.peers_away {
        let peer = &play.world.nodes[index];
        let mut traces =
            vec![peer.addr.to_string(), format!("{:#x}", address::REPLY_MARK | u32::from(*index))];
        traces.extend(Version::BOTH.map(|version| address::label(version, *index).to_string()));
        traces.extend([0, 4096, 4097, 4098, 4099].map(|vni| address::vtep_mac(vni, *index).to_string()));
        traces.extend(peer.entry.iter().map(ToString::to_string));
        traces.iter().for_each(|trace| assert!(!words.contains(trace.as_str()), "{trace} of node {index}"));
    }
}

fn choice<'a>(table: Option<&'a Table>, map: &str, key: &[Value]) -> Option<&'a Choice> {
    let table = table?;
    let MapElements::Verdicts(all) = &table.maps.get(map)?.elements else { panic!("{map}") };
    let Verdict::Goto(chain) = all.get(key)? else { panic!("{key:?}") };
    let Chain { rules, .. } = &*table.chains[chain];
    let statement = rules.iter().flat_map(|rule| &rule.statements).find(|s| matches!(s, Statement::Dnat(_)));
    let Some(Statement::Dnat(choice)) = statement else { panic!("{chain}") };
    Some(choice)
}

fn table<'a>(ns: &'a Namespace, version: Version, name: &str) -> Option<&'a Table> {
    ns.tables.iter().find(|table| table.family == version.family() && table.name == name)
}

/// A virtual address leads to all serving tasks that can be reached, and to no other.
fn targets_are_right(set: &NetworkSet, plan: &Plan, facts: &Facts) {
    let own = set.own.as_ref().unwrap().node;
    for (id, entry) in set.networks.iter().filter(|(_, entry)| !entry.network.ingress) {
        for service in entry.services.values() {
            for vip in &service.vips {
                let version = Version::of(*vip);
                let serving = entry.serving(service.service);
                let serving = serving.filter(|task| bridge::reaches(entry.network.driver, own, task));
                let usable = version == Version::V4 || facts.ipv6;
                let usable = usable && service.mode == EndpointMode::Vip;
                let want: BTreeSet<_> =
                    serving.filter(|_| usable).filter_map(|task| version.first(&task.addrs)).collect();
                let ns = &plan.namespaces[&Place::Sandbox(*id)];
                let choice = choice(table(ns, version, "sw_net"), "svc", &[Value::Addr(*vip)]);
                let got: BTreeSet<_> =
                    choice.iter().flat_map(|choice| &choice.targets).map(|(addr, ..)| *addr).collect();
                assert_eq!(got, want, "{} on {id}", service.name);
            }
        }
    }
}

/// A published port leads to serving tasks of one service that wants it.
fn ports_are_right(play: &Play, set: &NetworkSet, plan: &Plan) {
    let host = &plan.namespaces[&Place::Host];
    let held = super::port::published(set, &play.local());
    for version in Version::BOTH {
        let table = table(host, version, "sw_host");
        let entry = set.own.as_ref().and_then(|own| version.first(&own.entry));
        for (key, holder) in &held {
            let mut words =
                vec![Value::Protocol(address::protocol_number(key.protocol)), Value::Port(key.port)];
            if let Some(addr) = key.host_ip {
                words.insert(0, Value::Addr(addr));
            }
            let map = if key.host_ip.is_some() { "pub_ip" } else { "pub" };
            let got = choice(table, map, &words).map(|choice| choice.targets.clone()).unwrap_or_default();
            let ingress = set.ingress().unwrap();
            let here = |task: TaskId| holder.mode == PublishMode::Ingress || play.local().contains_key(&task);
            let usable = entry.is_some() && (version == Version::V4 || play.facts.ipv6);
            let usable = usable && key.host_ip.is_none_or(|addr| Version::of(addr) == version);
            let want: BTreeSet<_> = ingress
                .serving(holder.service)
                .filter(|task| usable && here(task.task))
                .filter_map(|task| version.first(&task.addrs))
                .collect();
            assert_eq!(
                got.iter().map(|(addr, ..)| *addr).collect::<BTreeSet<_>>(),
                want,
                "{key} {version:?}"
            );
        }
    }
}

fn plan(planner: &mut Planner, play: &Play) -> Planned {
    planner.plan(&play.set(), &play.local(), &play.facts).expect("the node knows which it is")
}

proptest! {
    #[test]
    fn laws_hold_whatever_happens(events in prop::collection::vec(event(), 1..40)) {
        let (mut play, mut planner) = (Play::new(), Planner::new());
        for event in &events {
            play.happens(event);
            let planned = plan(&mut planner, &play);
            let set = play.set();
            names_are_right(&planned.plan);
            devices_are_right(&planned.plan);
            encrypted_is_encrypted(&set, &planned.plan);
            no_trace(&play, &planned.plan);
            targets_are_right(&set, &planned.plan, &play.facts);
            ports_are_right(&play, &set, &planned.plan);
            // One that saw everything plans as one that sees it for the first time.
            prop_assert_eq!(&planned, &plan(&mut Planner::new(), &play), "{:?}", event);
            // Nothing happened: the same values.
            let again = plan(&mut planner, &play);
            for (place, ns) in &again.plan.namespaces {
                prop_assert!(Arc::ptr_eq(ns, &planned.plan.namespaces[place]), "{}", place);
            }
        }
    }
}
