//! The way of a connection, from what managers know. Pure.

use std::fmt::Write;
use std::net::IpAddr;

use serde_json::{Value, json};
use swarm_types::endpoint::{EndpointMode, Port, Protocol, PublishMode};
use swarm_types::id::{NetworkId, NodeId};
use swarm_types::network::Network;
use swarm_types::node::{Node, NodeState};
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::output::{port, table};

/// What managers said.
pub(super) struct World<'a> {
    pub(super) service: &'a Service,
    /// Of the service.
    pub(super) tasks: &'a [Task],
    pub(super) nodes: &'a [Node],
    pub(super) networks: &'a [Network],
}

/// The answer.
pub(super) struct Way {
    service: String,
    mode: &'static str,
    balance: &'static str,
    port: Port,
    entries: Vec<Entry>,
    backends: Vec<Backend>,
    vips: Vec<(String, Vec<IpAddr>)>,
}

/// A node that may be called.
struct Entry {
    node: String,
    addr: String,
    /// Whom a task sees when the node itself calls 127.0.0.1, or a task on it calls the node.
    own: Vec<IpAddr>,
    outside: Vec<(&'static str, Outside)>,
    ready: bool,
}

/// Whom a task sees when somebody outside calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    /// The client itself.
    Client,
    /// The node: it carries the connection on (an ingress network without IPv6 has no way for the client's
    /// address).
    Node(IpAddr),
    /// Nobody: such a connection leads nowhere.
    Nobody,
}

/// A task that gets connections.
struct Backend {
    task: String,
    node: String,
    addrs: Vec<IpAddr>,
    /// Its port, and in host mode the one that its node opened.
    target: u16,
    published: u16,
    /// Of new connections, in thousandths of those that enter where it can be reached.
    share: u64,
}

impl Way {
    /// Fails if there is no such way, and says why.
    pub(super) fn find(
        world: &World<'_>,
        number: u16,
        protocol: Protocol,
        entry: Option<NodeId>,
    ) -> Result<Way, String> {
        let spec = &world.service.spec;
        let port = world.port(number, protocol)?;
        let serving: Vec<&Task> = world.tasks.iter().filter(|task| serves(task)).collect();
        let serving: Vec<&Task> = match port.mode {
            PublishMode::Ingress => serving,
            PublishMode::Host => serving
                .into_iter()
                .filter(|task| opened(task, number, protocol).is_some())
                .filter(|task| entry.is_none_or(|entry| task.node == entry))
                .collect(),
        };
        let is_entry = |node: &&Node| match port.mode {
            _ if entry.is_some() => entry == Some(node.id),
            PublishMode::Ingress => true,
            PublishMode::Host => serving.iter().any(|task| task.node == node.id),
        };
        let networks = world.networks;
        let name = |id: &NetworkId| {
            let known = networks.iter().find(|network| network.id == *id);
            known.map_or_else(|| id.to_string(), |network| network.spec.annotations.name.clone())
        };
        let enter = |node: &Node| world.enter(node, &port);
        let mut entries: Vec<Entry> = world.nodes.iter().filter(is_entry).map(enter).collect();
        entries.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(Way {
            service: spec.annotations.name.clone(),
            mode: spec.endpoint.mode.as_str(),
            balance: spec.endpoint.balance.as_str(),
            port,
            entries,
            backends: world.backends(&serving, &port),
            vips: match spec.endpoint.mode {
                EndpointMode::Dnsrr => Vec::new(),
                EndpointMode::Vip => {
                    world.service.endpoint.vips.iter().map(|(id, addrs)| (name(id), addrs.clone())).collect()
                }
            },
        })
    }

    pub(super) fn json(&self) -> Value {
        let texts = |addrs: &[IpAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let entry = |e: &Entry| {
            json!({
                "Node": e.node, "Addr": e.addr, "Ready": e.ready,
                "Sources": e.sources(),
            })
        };
        let backend = |b: &Backend| {
            json!({
                "Task": b.task, "Node": b.node, "Addrs": texts(&b.addrs), "TargetPort": b.target,
                "PublishedPort": b.published, "SharePermille": b.share,
            })
        };
        let vip =
            |(network, addrs): &(String, Vec<IpAddr>)| json!({"Network": network, "Addrs": texts(addrs)});
        json!({
            "Service": self.service, "EndpointMode": self.mode, "Balance": self.balance,
            "Protocol": self.port.protocol.as_str(), "PublishedPort": self.port.published,
            "TargetPort": self.port.target, "PublishMode": self.port.mode.as_str(),
            "Entries": self.entries.iter().map(entry).collect::<Vec<_>>(),
            "Backends": self.backends.iter().map(backend).collect::<Vec<_>>(),
            "VirtualIPs": self.vips.iter().map(vip).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(out, "{key:<18}{value}").expect("memory can be written to");
        };
        let (mode, number) = (self.port.mode.as_str(), port::one(&self.port));
        line("Service:", &format!("{} ({}, {})", self.service, self.mode, self.balance));
        line("Published port:", &format!("{number} ({mode})"));
        for (network, addrs) in &self.vips {
            line("Virtual address:", &format!("{} on {network}, any port, for tasks there", list(addrs)));
        }
        if self.vips.is_empty() {
            line("Virtual address:", &"none");
        }
        out + "\n" + &self.entry_table() + "\n" + &self.backend_table()
    }

    fn entry_table(&self) -> String {
        let head = ["ENTRY", "ADDRESS", "CLIENT SEEN AS", "LOOPBACK AND OWN TASKS SEEN AS"];
        let mut rows = vec![head.map(String::from).to_vec()];
        for entry in &self.entries {
            let node = if entry.ready { entry.node.clone() } else { format!("{} (not ready)", entry.node) };
            let own = if entry.own.is_empty() { "-".into() } else { list(&entry.own) };
            rows.push(vec![node, entry.addr.clone(), entry.outside_in_words(), own]);
        }
        match self.entries.is_empty() {
            true => "Nothing can be entered: no node has such a port.\n".into(),
            false => {
                table::render(&rows)
                    + "Other nodes, and tasks on them, are seen under their node's address.\n"
            }
        }
    }

    fn backend_table(&self) -> String {
        if self.backends.is_empty() {
            return "No task is serving: connections are refused.\n".into();
        }
        let mut rows = vec![["TASK", "NODE", "BACKEND", "SHARE"].map(String::from).to_vec()];
        for b in &self.backends {
            let addr = |ip: &IpAddr| std::net::SocketAddr::new(*ip, b.target).to_string();
            let addrs: Vec<_> = b.addrs.iter().map(addr).collect();
            let share = format!("{}.{}%", b.share / 10, b.share % 10);
            rows.push(vec![b.task.clone(), b.node.clone(), addrs.join(" "), share]);
        }
        table::render(&rows)
    }
}

impl Entry {
    fn outside_in_words(&self) -> String {
        let words = |outside: Outside| match outside {
            Outside::Client => "its own address".to_owned(),
            Outside::Node(addr) => addr.to_string(),
            Outside::Nobody => "refused".to_owned(),
        };
        match self.outside.as_slice() {
            [(_, one), rest @ ..] if rest.iter().all(|(_, other)| other == one) => words(*one),
            several => {
                several.iter().map(|(v, o)| format!("{v}: {}", words(*o))).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// For each version of IP: `client`, the node's address, or null.
    fn sources(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (version, outside) in &self.outside {
            let value = match outside {
                Outside::Client => json!("client"),
                Outside::Node(addr) => json!(addr.to_string()),
                Outside::Nobody => Value::Null,
            };
            out.insert(format!("Outside{version}"), value);
        }
        out.insert("Own".into(), json!(self.own.iter().map(ToString::to_string).collect::<Vec<_>>()));
        Value::Object(out)
    }
}

impl World<'_> {
    fn enter(&self, node: &Node, port: &Port) -> Entry {
        Entry {
            node: node.display_name().to_owned(),
            addr: port.host_ip.map_or_else(|| node.status.addr.clone(), |ip| ip.to_string()),
            own: node.entry.clone(),
            outside: [("IPv4", true), ("IPv6", false)]
                .into_iter()
                .filter(|(_, v4)| port.host_ip.is_none_or(|ip| ip.is_ipv4() == *v4))
                .map(|(version, v4)| (version, self.outside(node, port, v4)))
                .collect(),
            ready: node.status.state == NodeState::Ready,
        }
    }

    /// The rules of the firewall keep the client's address where the ingress network has the client's version
    /// of IP; else a node carries TCP and UDP that come to all of its addresses to its own 127.0.0.1.
    fn outside(&self, node: &Node, port: &Port, v4: bool) -> Outside {
        let ingress = self.networks.iter().find(|network| network.spec.ingress);
        let has = |v4: bool| ingress.is_some_and(|n| n.subnets.iter().any(|s| s.net.addr().is_ipv4() == v4));
        let carried = !v4 && port.host_ip.is_none() && port.protocol != Protocol::Sctp;
        match node.entry.iter().find(|addr| addr.is_ipv4()) {
            _ if has(v4) => Outside::Client,
            Some(entry) if carried => Outside::Node(*entry),
            Some(_) | None => Outside::Nobody,
        }
    }

    /// The published port of this number: as the managers chose it, or as a node opened it for a task.
    fn port(&self, number: u16, protocol: Protocol) -> Result<Port, String> {
        let fits = |port: &&Port| port.published == number && port.protocol == protocol;
        let chosen = &self.service.endpoint.ports;
        let opened = self.tasks.iter().find_map(|task| opened(task, number, protocol));
        if let Some(port) = chosen.iter().find(fits).copied().or(opened) {
            return Ok(port);
        }
        let name = &self.service.spec.annotations.name;
        let published: Vec<_> = chosen.iter().map(port::one).collect();
        let protocol = protocol.as_str();
        Err(match published.is_empty() {
            true => format!("service {name} publishes no ports"),
            false => {
                format!("service {name} does not publish {number}/{protocol}, but {}", published.join(", "))
            }
        })
    }

    fn backends(&self, serving: &[&Task], port: &Port) -> Vec<Backend> {
        let weights: Vec<u64> = serving.iter().map(|task| self.weight(task)).collect();
        // In host mode the way in has chosen the node: each of its tasks stands alone.
        let total: u64 = weights.iter().sum();
        let ingress = self.networks.iter().find(|network| network.spec.ingress).map(|network| network.id);
        let backend = |(task, weight): (&&Task, &u64)| {
            let opened = opened(task, port.published, port.protocol);
            let on_ingress = task.attachments.iter().find(|a| Some(a.network) == ingress);
            Backend {
                task: task.name(),
                node: self.node_name(task.node),
                addrs: on_ingress.or(task.attachments.first()).map(|a| a.addrs.clone()).unwrap_or_default(),
                target: port.target,
                published: opened.map_or(port.published, |port| port.published),
                share: match port.mode {
                    PublishMode::Ingress => weight * 1000 / total.max(1),
                    PublishMode::Host => 1000,
                },
            }
        };
        let mut backends: Vec<Backend> = serving.iter().zip(&weights).map(backend).collect();
        backends.sort_by(|a, b| a.task.cmp(&b.task));
        backends
    }

    /// As the managers count: 1 to 100, 1 where the label is missing or no number.
    fn weight(&self, task: &Task) -> u64 {
        let label = &self.service.spec.endpoint.weight_label;
        let node = self.nodes.iter().find(|node| node.id == task.node);
        let text = node.and_then(|node| node.spec.annotations.labels.get(label));
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(1).clamp(1, 100)
    }

    fn node_name(&self, id: NodeId) -> String {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| id.to_string(), |node| node.display_name().to_owned())
    }
}

/// New connections lead to it.
fn serves(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.is_wanted()
}

/// The host-mode port of this number that a task's node opened for it.
fn opened(task: &Task, number: u16, protocol: Protocol) -> Option<Port> {
    let container = task.status.container.as_ref()?;
    let fits = |p: &&Port| p.published == number && p.protocol == protocol && p.mode == PublishMode::Host;
    container.ports.iter().find(fits).copied()
}

fn list(addrs: &[IpAddr]) -> String {
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use swarm_types::network::{Attachment, Subnet};
    use swarm_types::task::ContainerStatus;
    use swarm_types::testing;

    use super::*;

    fn node(name: &str, last: u8, weight: &str) -> Node {
        let mut node = testing::node(name);
        node.status.addr = format!("10.200.0.{last}");
        node.entry = vec![IpAddr::from([10, 255, 0, last])];
        node.spec.annotations.labels.insert("speed".into(), weight.into());
        node
    }
    fn network(id: &str, name: &str, ingress: bool) -> Network {
        let mut network = Network { id: id.into(), ..Network::default() };
        network.spec.annotations.name = name.into();
        network.spec.ingress = ingress;
        network
    }
    fn subnet(net: &str) -> Subnet {
        let net: ipnet::IpNet = net.parse().unwrap();
        Subnet { net, gateway: net.addr(), range: net, reserved: Vec::new() }
    }
    fn task(slot: u64, node: &str, state: TaskState) -> Task {
        let mut task = Task { id: format!("t{slot}").into(), slot, node: node.into(), ..Task::default() };
        task.service_annotations = Arc::new(testing::service("web").build().annotations);
        (task.status.state, task.desired_state) = (state, TaskState::Running);
        let on = |network: &str, third: u8| Attachment {
            network: network.into(),
            addrs: vec![IpAddr::from([10, third, 1, u8::try_from(slot).unwrap()])],
            aliases: vec![],
        };
        task.attachments = vec![on("front", 0), on("ingress", 255)];
        task
    }
    fn service(text: &str) -> Service {
        let mut service =
            Service { id: "s1".into(), spec: testing::service("web").build(), ..Service::default() };
        service.endpoint.ports = crate::flags::publish::parse(text).unwrap().0;
        service.endpoint.vips.insert("front".into(), vec![IpAddr::from([10, 0, 1, 100])]);
        service
    }
    fn way(service: &Service, tasks: &[Task], number: u16, entry: Option<&str>) -> Result<Way, String> {
        let nodes = [node("m1", 1, "3"), node("w1", 2, "fast"), node("w2", 3, "1")];
        let mut networks = [network("front", "front", false), network("ingress", "ingress", true)];
        networks[1].subnets = vec![subnet("10.255.0.0/16"), subnet("fd53:255::/64")];
        let world = World { service, tasks, nodes: &nodes, networks: &networks };
        Way::find(&world, number, Protocol::Tcp, entry.map(Into::into))
    }

    #[test]
    fn ingress_leads_from_every_node_to_every_task() {
        let tasks = [
            task(1, "m1", TaskState::Running),
            task(2, "w1", TaskState::Running),
            task(3, "w2", TaskState::Starting),
        ];
        let mut service = service("8080:80");
        expect![[r#"
            Service:          web (vip, random)
            Published port:   *:8080->80/tcp (ingress)
            Virtual address:  10.0.1.100 on front, any port, for tasks there

            ENTRY     ADDRESS      CLIENT SEEN AS    LOOPBACK AND OWN TASKS SEEN AS
            m1        10.200.0.1   its own address   10.255.0.1
            w1        10.200.0.2   its own address   10.255.0.2
            w2        10.200.0.3   its own address   10.255.0.3
            Other nodes, and tasks on them, are seen under their node's address.

            TASK      NODE      BACKEND         SHARE
            web.1     m1        10.255.1.1:80   50.0%
            web.2     w1        10.255.1.2:80   50.0%
        "#]]
        .assert_eq(&way(&service, &tasks, 8080, None).unwrap().text());
        service.spec.endpoint.weight_label = "speed".into();
        let one = way(&service, &tasks, 8080, Some("w1")).unwrap();
        assert_eq!(one.entries.len(), 1);
        assert_eq!(one.backends.iter().map(|b| b.share).collect::<Vec<_>>(), [750, 250]);
        expect![[r#"{"Service":"web","EndpointMode":"vip","Balance":"random","Protocol":"tcp","PublishedPort":8080,"TargetPort":80,"PublishMode":"ingress","Entries":[{"Node":"w1","Addr":"10.200.0.2","Ready":true,"Sources":{"OutsideIPv4":"client","OutsideIPv6":"client","Own":["10.255.0.2"]}}],"Backends":[{"Task":"web.1","Node":"m1","Addrs":["10.255.1.1"],"TargetPort":80,"PublishedPort":8080,"SharePermille":750},{"Task":"web.2","Node":"w1","Addrs":["10.255.1.2"],"TargetPort":80,"PublishedPort":8080,"SharePermille":250}],"VirtualIPs":[{"Network":"front","Addrs":["10.0.1.100"]}]}"#]].assert_eq(&one.json().to_string());
    }

    #[test]
    fn without_ipv6_on_the_ingress_network_its_clients_are_seen_as_the_node() {
        let (nodes, mut ingress) = ([node("m1", 1, "1")], network("ingress", "ingress", true));
        ingress.subnets = vec![subnet("10.255.0.0/16")];
        let networks = [ingress];
        let seen = |text: &str, protocol: Protocol| {
            let service = service(text);
            let world = World { service: &service, tasks: &[], nodes: &nodes, networks: &networks };
            let way = Way::find(&world, 8080, protocol, None).unwrap();
            (way.entries[0].outside_in_words(), way.json()["Entries"][0]["Sources"].to_string())
        };
        let (words, json) = seen("8080:80", Protocol::Tcp);
        assert_eq!(words, "IPv4: its own address, IPv6: 10.255.0.1");
        assert_eq!(json, r#"{"OutsideIPv4":"client","OutsideIPv6":"10.255.0.1","Own":["10.255.0.1"]}"#);
        assert_eq!(seen("8080:80/sctp", Protocol::Sctp).0, "IPv4: its own address, IPv6: refused");
        assert_eq!(seen("192.0.2.1:8080:80", Protocol::Tcp).0, "its own address");
        assert_eq!(seen("[2001:db8::1]:8080:80", Protocol::Tcp).0, "refused");
    }

    #[test]
    fn host_mode_leads_to_the_task_there() {
        let mut tasks = [task(1, "m1", TaskState::Running), task(2, "w1", TaskState::Running)];
        let ports = crate::flags::publish::parse("published=8081,target=80,mode=host").unwrap().0;
        tasks[0].status.container = Some(ContainerStatus { ports, ..ContainerStatus::default() });
        // The number was left to the nodes: only the task's status has it.
        let service = service("target=80,mode=host");
        expect![[r#"
            Service:          web (vip, random)
            Published port:   *:8081->80/tcp (host)
            Virtual address:  10.0.1.100 on front, any port, for tasks there

            ENTRY     ADDRESS      CLIENT SEEN AS    LOOPBACK AND OWN TASKS SEEN AS
            m1        10.200.0.1   its own address   10.255.0.1
            Other nodes, and tasks on them, are seen under their node's address.

            TASK      NODE      BACKEND         SHARE
            web.1     m1        10.255.1.1:80   100.0%
        "#]]
        .assert_eq(&way(&service, &tasks, 8081, None).unwrap().text());
        let other = way(&service, &tasks, 8081, Some("w1")).unwrap();
        assert!(other.text().contains("No task is serving"));
    }

    #[test]
    fn ways_that_are_not_there() {
        let refused = |service: &Service, number| way(service, &[], number, None).err().unwrap();
        assert_eq!(
            refused(&service("8080:80"), 81),
            "service web does not publish 81/tcp, but *:8080->80/tcp"
        );
        let mut none = service("8080:80");
        none.endpoint.ports.clear();
        assert_eq!(refused(&none, 81), "service web publishes no ports");
        let way = way(&service("8080:80"), &[], 8080, None).unwrap();
        assert!(way.text().contains("No task is serving: connections are refused."));
    }
}
