//! The checker: what every node shows of networks, compared with what managers say; and what a host has
//! when nothing runs on it, to be compared with what it had before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;
use swarm_tests::hosts::{Hosts, poll};

use super::churn::PORTS;
use super::probe::{Probe, addr, page_from, until_all_agree};

/// What managers say of a service that runs as it is to.
#[derive(Debug, Default)]
struct Told {
    /// Network by id: its virtual addresses, and its tasks' addresses.
    vips: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    tasks: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// Its running tasks: the first half of the id.
    ids: BTreeSet<String>,
    /// Published on all nodes.
    ports: BTreeSet<u16>,
}

/// Every node names, leads to and refuses what managers say. `networks`: all of them, in the order in
/// which the names of a task on all of them are looked for.
pub(super) fn all_nodes(h: &Hosts, via: &str, services: &[String], networks: &[String], nodes: &[&str]) {
    let began = std::time::Instant::now();
    let stage = |what: &str| println!("compare: {what} after {:?}", began.elapsed());
    until_converged(h, via);
    stage("all services run");
    let on: String = networks.iter().map(|name| format!(" --network {name}")).collect();
    h.ok(
        via,
        &format!(
            "service create -d --name probe --mode global --stop-grace-period 200ms{on} demo:1 sleep 1000"
        ),
    );
    let probes = Probe::all(h, via, "probe", nodes.len());
    stage("the probes run");
    until_all_agree(h, via);
    stage("all nodes agree");
    let order: Vec<String> = networks.iter().map(|name| network_id(h, via, name)).collect();
    let told: BTreeMap<&String, Told> = services.iter().map(|name| (name, told(h, via, name))).collect();
    addresses_are_unique(&told);
    let mut wrong = Vec::new();
    // The last word may still be on its way to a node; one round of questions may take half a minute.
    poll(4 * swarm_tests::hosts::PATIENCE, || {
        wrong = probes.iter().flat_map(|probe| names(probe, &told, &order)).collect();
        wrong.extend(ports(h, &told, nodes));
        wrong.is_empty()
    });
    stage("all names, addresses and ports were tried");
    let tasks = || services.iter().map(|name| h.ctl(via, &format!("service ps {name}")).out);
    assert!(
        wrong.is_empty(),
        "nodes do not show what managers say: {wrong:#?}\n{told:#?}\n{}{}",
        tasks().collect::<String>(),
        h.ctl(via, "network check")
    );
    h.ok(via, "service rm probe");
}

fn until_converged(h: &Hosts, via: &str) {
    let mut seen = Vec::new();
    let ok = poll(3 * swarm_tests::hosts::PATIENCE, || {
        seen = h.try_rows(via, "service ls").unwrap_or_default();
        let whole = |row: &Value| {
            let text = row["Replicas"].as_str().unwrap_or_default().to_owned();
            let counts = text.split(' ').next().unwrap_or_default();
            let (running, wanted) = counts.split_once('/').unwrap_or_default();
            let name = row["Name"].as_str().unwrap_or_default();
            running == wanted
                && h.try_tasks(via, name)
                    .is_some_and(|all| all.iter().filter(|t| t.is_wanted()).all(|t| t.runs()))
        };
        !seen.is_empty() && seen.iter().all(whole)
    });
    let tasks = seen
        .iter()
        .map(|row| h.ctl(via, &format!("service ps {}", row["Name"].as_str().unwrap_or_default())).out);
    assert!(ok, "not all services run as they are to: {seen:#?}\n{}", tasks.collect::<String>());
}

fn network_id(h: &Hosts, via: &str, name: &str) -> String {
    h.inspect(via, &format!("network inspect {name}"))["Id"].as_str().unwrap().to_owned()
}

fn told(h: &Hosts, via: &str, service: &str) -> Told {
    let mut told = Told::default();
    let inspected = h.inspect(via, &format!("service inspect {service}"));
    for vip in list(&inspected["Endpoint"]["VirtualIPs"]) {
        told.vips.entry(text(&vip["NetworkID"])).or_default().extend(net(&vip["Addr"]));
    }
    let ports = list(&inspected["Endpoint"]["Ports"]);
    let ingress = ports.iter().filter(|port| port["PublishMode"] != "host");
    told.ports = ingress.filter_map(|port| u16::try_from(port["PublishedPort"].as_u64()?).ok()).collect();
    for task in h.running(via, service) {
        told.ids.insert(task.id[..12].to_owned());
        let inspected = h.inspect(via, &format!("task inspect {}", task.id));
        for on in list(&inspected["NetworksAttachments"]) {
            let addrs = list(&on["Addresses"]);
            told.tasks.entry(text(&on["Network"]["ID"])).or_default().extend(addrs.iter().filter_map(net));
        }
    }
    told
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn net(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.split('/').next()?.parse().ok()
}

fn addresses_are_unique(told: &BTreeMap<&String, Told>) {
    let mut seen = BTreeMap::new();
    for (name, service) in told {
        for (network, addrs) in service.vips.iter().chain(&service.tasks) {
            for addr in addrs {
                let other = seen.insert((network, addr), name);
                assert!(other.is_none(), "{addr} of {network} is of {name} and of {other:?}");
            }
        }
    }
}

/// What a node does not name, or leads to somebody else.
fn names(probe: &Probe, told: &BTreeMap<&String, Told>, order: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, service) in told {
        // A service without tasks has no place on a network but its virtual addresses.
        let on = |id: &&String| service.vips.contains_key(*id) || service.tasks.contains_key(*id);
        let first = order.iter().find(on);
        let of = |all: &BTreeMap<String, BTreeSet<Ipv4Addr>>| first.and_then(|id| all.get(id)).cloned();
        let (vips, tasks) = (of(&service.vips), of(&service.tasks).unwrap_or_default());
        for (asked, expected) in
            [(format!("tasks.{name}"), &tasks), ((*name).clone(), vips.as_ref().unwrap_or(&tasks))]
        {
            let said = probe.names(&asked);
            if said != *expected {
                wrong.push(format!("{} names {asked} {said:?}, not {expected:?}", probe.task.node));
            }
        }
        for addr in tasks.iter().chain(vips.iter().flatten()).filter(|_| !service.ids.is_empty()) {
            let page = probe.page(&addr.to_string());
            if page.as_ref().is_none_or(|id| !service.ids.contains(id)) {
                wrong.push(format!("{} calls {name} at {addr}: {page:?}", probe.task.node));
            }
        }
    }
    wrong
}

/// Ports that lead where they are not to, from outside, at every node.
fn ports(h: &Hosts, told: &BTreeMap<&String, Told>, nodes: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in nodes {
        for port in PORTS {
            let holder = told.iter().find(|(_, service)| service.ports.contains(&port));
            let page = page_from(h, "client", &format!("{}:{port}", addr(h, node)));
            let is_right = match (holder, &page) {
                (Some((_, service)), Some(id)) => service.ids.contains(id),
                (Some((_, service)), None) => service.ids.is_empty(),
                (None, page) => page.is_none(),
            };
            if !is_right {
                wrong.push(format!(
                    "port {port} of {node}: {page:?}, but it is of {:?}",
                    holder.map(|(n, _)| n)
                ));
            }
        }
    }
    wrong
}

/// A shell line that prints what a namespace has: devices, rules, routes, neighbours, listening sockets.
pub(super) const LOOK: &str = "ip -o link | sed 's/^[0-9]*: /link /; s/@[^:]*//; s/ mtu.*//'; \
                               nft list ruleset | sed 's/^[[:space:]]*/nft /'; \
                               (ip rule; ip -6 rule) | sed 's/^/rule /'; \
                               (ip route show table all; ip -6 route show table all) | sed 's/^/route /'; \
                               ip neigh show nud permanent | sed 's/^/neighbour /'; \
                               ss -lntuH | awk '{print \"listens\", $1, $5}'";

/// What [`LOOK`] printed, line by line; the elements of a set, which have no order, one by one.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = String> {
    let pieces = text.lines().flat_map(|line| line.split(','));
    let pieces = pieces.map(|piece| piece.replace("elements = {", "").replace("nft ", ""));
    pieces.map(|piece| piece.trim_matches([' ', '\t', '}']).to_owned()).filter(|piece| !piece.is_empty())
}

/// What a host has of networks, the namespaces of its networks and tasks too.
pub(super) fn ground(h: &Hosts, host: &str) -> BTreeSet<String> {
    let said = h.sh(host, LOOK);
    assert_eq!(said.code, 0, "{said}");
    let run = h.cluster.state_dir(host).parent().unwrap().join("run/netns");
    let namespaces = std::fs::read_dir(run).into_iter().flatten().flatten();
    let namespaces = namespaces.map(|entry| format!("namespace {}", entry.file_name().display()));
    pieces(&said.out).chain(namespaces).collect()
}

/// Open files of a host's daemon: sockets and namespaces that it keeps are among them.
pub(super) fn open_files(h: &Hosts, host: &str) -> usize {
    let pid = h.cluster.daemon_pid(host).unwrap();
    std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).unwrap().count()
}
