//! Trace: the way that a connection to a service takes from this node (`swarmctl network trace`).
//!
//! Reads:   the set, as the planner does; what it says is what the rules do.
//! Writes:  steps, in words, and the tasks that may be chosen with their shares.
//! Never:   looks at the kernel: that is `network check`.
//! Start:   [`trace`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::{Balance, EndpointMode, PublishMode};
use swarm_types::id::{NodeId, ServiceId, TaskId};
use swarm_types::network_set::{NetworkEntry, NetworkSet, ServiceEndpoint, TaskEndpoint};

use super::address::{self, Version};
use super::bridge;
use super::ground::{Facts, Ground};
use super::planner::LocalTask;
use super::port::{self, PortKey};

/// One way to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What is called: a published port, a virtual address, or a name.
    pub called: String,
    /// Where it is called: this node, or the network whose tasks call it.
    pub entry: String,
    /// The rule that chooses, as `nft list` would find it; empty if none does.
    pub rule: String,
    /// What that rule does.
    pub choice: String,
    /// The tasks that may be chosen, by id; none: nobody answers.
    pub backends: Vec<Backend>,
}

/// A task that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Which.
    pub task: TaskId,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: NodeId,
    /// Its address there; with the port if one was published.
    pub addr: String,
    /// Its share of new connections, of 1,000.
    pub share: u32,
    /// From device to device.
    pub path: Vec<String>,
}

/// The ways to a service: by its published ports (`port` alone, or all), and by its name on each network.
/// Empty if this node knows nothing of the service.
pub fn trace(
    set: &NetworkSet,
    tasks: &BTreeMap<TaskId, Arc<LocalTask>>,
    facts: &Facts,
    service: ServiceId,
    port: Option<u16>,
) -> Vec<Way> {
    let Some(own) = &set.own else { return Vec::new() };
    let ground = Ground { own: own.clone(), peers: set.peers.clone(), facts: facts.clone() };
    let mut ways = Vec::new();
    for entry in set.networks.values() {
        if entry.network.ingress {
            let of = Published { set, tasks, ground: &ground, entry };
            ways.extend(of.ways(service, port));
        } else if let Some(service) = entry.services.get(&service) {
            ways.extend(named(&ground, entry, service));
        }
    }
    ways
}

struct Published<'a> {
    set: &'a NetworkSet,
    tasks: &'a BTreeMap<TaskId, Arc<LocalTask>>,
    ground: &'a Ground,
    entry: &'a NetworkEntry,
}

impl Published<'_> {
    fn ways(&self, service: ServiceId, port: Option<u16>) -> Vec<Way> {
        let held = port::published(self.set, self.tasks);
        let balance = self.entry.services.get(&service).map_or(Balance::Random, |service| service.balance);
        let wanted = held.iter().filter(|(key, holder)| {
            holder.service == service && port.is_none_or(|port| key.port == port || holder.target == port)
        });
        let mut ways = Vec::new();
        for (key, holder) in wanted {
            let host = |task: &Arc<TaskEndpoint>| {
                let local = self.tasks.get(&task.task);
                holder.mode == PublishMode::Ingress
                    || local
                        .is_some_and(|task| task.ports.iter().any(|p| PortKey::of(p).as_ref() == Some(key)))
            };
            let serving: Vec<_> = self.entry.serving(service).filter(|task| host(task)).collect();
            for (version, _, _) in self.ground.subnets(&self.entry.network) {
                let open = key.host_ip.is_none_or(|ip| Version::of(ip) == version);
                if !open || self.ground.entry(version).is_none() {
                    continue;
                }
                let backends = backends(self.ground, self.entry, &serving, version, Some(holder.target));
                let family = version.family().word();
                let map = if key.only().is_some() { "pub_ip" } else { "pub" };
                let rule = format!("host: table {family} sw_host map {map} chain {}", key.chain());
                let rule = if backends.is_empty() { String::new() } else { rule };
                let called = format!("{key} ({})", word(version));
                let entry = format!("node {}", self.ground.own.node);
                ways.push(Way { called, entry, rule, choice: words(balance, &backends), backends });
            }
        }
        ways
    }
}

/// By its name on a network.
fn named(ground: &Ground, entry: &NetworkEntry, service: &ServiceEndpoint) -> Vec<Way> {
    let network = &entry.network;
    let reached = |task: &&Arc<TaskEndpoint>| bridge::reaches(network.driver, ground.own.node, task);
    let serving: Vec<_> = entry.serving(service.service).filter(reached).collect();
    let way = |version: Version| {
        let backends = backends(ground, entry, &serving, version, None);
        let vip = version.first(&service.vips).filter(|_| service.mode == EndpointMode::Vip);
        let entry = format!("tasks of network {}", network.name);
        let Some(vip) = vip else {
            let called = format!("{} ({})", service.name, word(version));
            let choice = "names of tasks: who calls chooses".into();
            return Way { called, entry, rule: String::new(), choice, backends };
        };
        let chain = address::service_chain(service.service);
        let rule = format!(
            "network {}: table {} sw_net map svc chain {chain}",
            network.name,
            version.family().word()
        );
        let rule = if backends.is_empty() { String::new() } else { rule };
        let called = format!("{} at {vip}", service.name);
        Way { called, entry, rule, choice: words(service.balance, &backends), backends }
    };
    ground.subnets(network).into_iter().map(|(version, ..)| way(version)).collect()
}

fn backends(
    ground: &Ground,
    entry: &NetworkEntry,
    serving: &[&Arc<TaskEndpoint>],
    version: Version,
    port: Option<u16>,
) -> Vec<Backend> {
    let usable: Vec<_> =
        serving.iter().filter_map(|task| Some((*task, version.first(&task.addrs)?))).collect();
    let sum: u64 = usable.iter().map(|(task, _)| u64::from(task.weight.max(1))).sum();
    let backend = |(task, addr): (&Arc<TaskEndpoint>, IpAddr)| Backend {
        task: task.task,
        name: task.name.clone(),
        node: task.node,
        addr: match (addr, port) {
            (addr, None) => addr.to_string(),
            (IpAddr::V4(addr), Some(port)) => format!("{addr}:{port}"),
            (IpAddr::V6(addr), Some(port)) => format!("[{addr}]:{port}"),
        },
        share: u32::try_from(u64::from(task.weight.max(1)) * 1000 / sum).unwrap_or(1000),
        path: path(ground, entry, task),
    };
    usable.into_iter().map(backend).collect()
}

/// From device to device, from the sandbox of this node to the task.
fn path(ground: &Ground, entry: &NetworkEntry, task: &TaskEndpoint) -> Vec<String> {
    let network = &entry.network;
    let mut path = Vec::new();
    if network.ingress {
        path.push(format!("node {}: sw-ing > up0 of network {}", ground.own.node, network.name));
    }
    if task.node != ground.own.node {
        let tunnel = if network.encrypted { "encrypted" } else { "in the clear" };
        let peer = ground.peers.get(&task.node);
        let remote = peer.and_then(|peer| ground.remote(network, peer));
        path.push(match remote {
            Some(to) => format!("node {}: vx0 (VXLAN {}) to {to}, {tunnel}", ground.own.node, network.vni),
            None => format!("node {}: no way to node {}", ground.own.node, task.node),
        });
    }
    path.push(format!("node {}: {} > task {}", task.node, address::veth(task.task), task.name));
    path
}

fn words(balance: Balance, backends: &[Backend]) -> String {
    match (backends.len(), balance) {
        (0, _) => "nobody serves: refused at once".into(),
        (1, _) => "always the one".into(),
        (_, Balance::Random) => "any, by share".into(),
        (_, Balance::Sticky) => "the same for each client address, by share".into(),
    }
}

fn word(version: Version) -> &'static str {
    match version {
        Version::V4 => "IPv4",
        Version::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::testing::{World, facts, port};
    use expect_test::expect;
    use swarm_types::endpoint::Protocol;

    fn text(ways: &[Way]) -> String {
        let mut text = String::new();
        for way in ways {
            text += &format!("{} from {}: {} [{}]\n", way.called, way.entry, way.choice, way.rule);
            for b in &way.backends {
                text +=
                    &format!("  {} {} on {} {}: {}\n", b.share, b.name, b.node, b.addr, b.path.join(" | "));
            }
        }
        text
    }

    #[test]
    fn every_way_to_a_service_is_told() {
        let mut world = World::new(&["192.168.7.1", "192.168.7.2"], &["10.255.0.0/16"]);
        world.network("ingress", 4096, &["10.255.0.0/16"], |n| (n.ingress, n.encrypted) = (true, true));
        world.network("app", 4097, &["10.0.1.0/24", "fd53:1::/64"], |_| {});
        world.service("web", "app", &["10.0.1.100", "fd53:1::100"], |_| {});
        world.service("web", "ingress", &[], |s| {
            s.ports = vec![port(Protocol::Tcp, 80, 8080, PublishMode::Ingress)];
        });
        world.service("names", "app", &[], |s| s.mode = EndpointMode::Dnsrr);
        world.task("web1", "web", 1, &[("app", "10.0.1.11,fd53:1::11"), ("ingress", "10.255.0.11")]);
        world.task("web2", "web", 2, &[("app", "10.0.1.12,fd53:1::12"), ("ingress", "10.255.0.12")]);
        world.endpoint("web2", "ingress", |task| task.weight = 3);
        world.endpoint("web1", "app", |task| task.serving = false);
        let say = |service: &str, port| {
            text(&trace(&world.set(1), &world.local(1), &facts(), ServiceId::new(service), port))
        };
        expect![[r#"
            web at 10.0.1.100 from tasks of network app: always the one [network app: table ip sw_net map svc chain s_web]
              1000 web2 on node2 10.0.1.12: node node1: vx0 (VXLAN 4097) to 192.168.7.2, in the clear | node node2: t-web2 > task web2
            web at fd53:1::100 from tasks of network app: always the one [network app: table ip6 sw_net map svc chain s_web]
              1000 web2 on node2 fd53:1::12: node node1: vx0 (VXLAN 4097) to 192.168.7.2, in the clear | node node2: t-web2 > task web2
            80/tcp (IPv4) from node node1: any, by share [host: table ip sw_host map pub chain p_tcp_80]
              250 web1 on node1 10.255.0.11:8080: node node1: sw-ing > up0 of network ingress | node node1: t-web1 > task web1
              750 web2 on node2 10.255.0.12:8080: node node1: sw-ing > up0 of network ingress | node node1: vx0 (VXLAN 4096) to 100.127.0.2, encrypted | node node2: t-web2 > task web2
        "#]].assert_eq(&say("web", Some(80)));
        expect![[r#"
            names (IPv4) from tasks of network app: names of tasks: who calls chooses []
            names (IPv6) from tasks of network app: names of tasks: who calls chooses []
        "#]]
        .assert_eq(&say("names", None));
        assert_eq!(say("nobody", None), "");
    }
}
