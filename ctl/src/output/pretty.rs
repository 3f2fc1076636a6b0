//! `inspect --pretty`: objects for people.

use std::fmt::Write;

use swarm_proto::v1;
use swarm_types::container::ContainerNetwork;
use swarm_types::meta::Labels;
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::{Mode, Service};
use swarm_types::time::Timestamp;

use super::{human, inspect};

struct Sheet(String);

impl Sheet {
    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{key:<24}{value}").expect("memory can be written to");
    }
    fn some(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.line(key, value);
        }
    }
    fn title(&mut self, title: &str) {
        self.0.push_str(title);
        self.0.push('\n');
    }
    fn labels(&mut self, labels: &Labels) {
        if !labels.is_empty() {
            self.title("Labels:");
        }
        for (key, value) in labels {
            self.title(&format!(" - {key}={value}"));
        }
    }
}

/// A service; `networks` give names to ids.
pub(crate) fn service(service: &Service, networks: &[Network], now: Timestamp) -> String {
    let mut out = Sheet(String::new());
    let spec = &service.spec;
    out.line("ID:", service.id);
    out.line("Name:", &spec.annotations.name);
    out.labels(&spec.annotations.labels);
    out.line("Service Mode:", human::capital(spec.mode.as_str()));
    if let Mode::Replicated { replicas } = spec.mode {
        out.line(" Replicas:", replicas);
    }
    if let Some(status) = &service.update_status {
        out.title("UpdateStatus:");
        out.line(" State:", status.state.as_str());
        out.line(" Started:", format!("{} ago", human::duration(now.since(status.started_at))));
        if !status.completed_at.is_zero() {
            out.line(" Completed:", format!("{} ago", human::duration(now.since(status.completed_at))));
        }
        out.line(" Message:", &status.message);
    }
    placement(&mut out, service);
    out.title("UpdateConfig:");
    out.line(" Parallelism:", spec.update.parallelism);
    out.line(" Delay:", human::go_duration(spec.update.delay));
    out.line(" On failure:", inspect::action(spec.update.failure_action));
    out.line(" Monitoring Period:", human::go_duration(spec.update.monitor));
    out.line(" Max failure ratio:", f64::from(spec.update.max_failure_permille) / 1000.0);
    out.line(" Update order:", inspect::order(spec.update.order));
    container(&mut out, service);
    resources(&mut out, service);
    reached(&mut out, service, networks);
    out.0
}

/// Networks, mode and ports, in Docker's words; virtual addresses are ours.
fn reached(out: &mut Sheet, service: &Service, networks: &[Network]) {
    let name = |id: &swarm_types::id::NetworkId| {
        let known = networks.iter().find(|network| network.id == *id);
        known.map_or_else(|| id.to_string(), |network| network.spec.annotations.name.clone())
    };
    let own = match service.spec.task.container.network {
        ContainerNetwork::Loopback => None,
        ContainerNetwork::Bridge => Some("bridge".to_owned()),
        ContainerNetwork::Host => Some("host".to_owned()),
    };
    let attached = service.spec.task.networks.iter().map(|attachment| name(&attachment.network));
    out.some("Networks:", &own.into_iter().chain(attached).collect::<Vec<_>>().join(" "));
    let spec = &service.spec.endpoint;
    out.line("Endpoint Mode:", spec.mode.as_str());
    if spec.balance != swarm_types::endpoint::Balance::default() {
        out.line(" Balance:", spec.balance.as_str());
    }
    if !spec.weight_label.is_empty() {
        out.line(" Weight:", format!("node.labels.{}", spec.weight_label));
    }
    for (id, addrs) in &service.endpoint.vips {
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        out.line(" Virtual IP:", format!("{} on {}", addrs.join(" "), name(id)));
    }
    let ports = &service.endpoint.ports;
    let ports = if ports.is_empty() { &spec.ports } else { ports };
    if !ports.is_empty() {
        out.title("Ports:");
    }
    for one in ports {
        // 0: not chosen yet, or by each node.
        let published = if one.published == 0 { "-".to_owned() } else { one.published.to_string() };
        out.line(" PublishedPort =", published);
        out.line("  Protocol =", one.protocol.as_str());
        out.line("  TargetPort =", one.target);
        out.line("  PublishMode =", one.mode.as_str());
        if let Some(ip) = one.host_ip {
            out.line("  HostIP =", ip);
        }
    }
}

fn placement(out: &mut Sheet, service: &Service) {
    let placement = &service.spec.task.placement;
    if placement.constraints.is_empty() && placement.max_replicas_per_node == 0 {
        return;
    }
    out.title("Placement:");
    let constraints: Vec<_> = placement.constraints.iter().map(ToString::to_string).collect();
    if !constraints.is_empty() {
        out.line(" Constraints:", format!("[{}]", constraints.join(" ")));
    }
    if placement.max_replicas_per_node > 0 {
        out.line(" Max Replicas Per Node:", placement.max_replicas_per_node);
    }
}

fn container(out: &mut Sheet, service: &Service) {
    let container = &service.spec.task.container;
    out.title("ContainerSpec:");
    out.line(" Image:", &container.image);
    out.some(" Entrypoint:", &container.entrypoint.join(" "));
    out.some(" Args:", &container.args.join(" "));
    out.some(" Env:", &container.env.join(" "));
    out.some(" Dir:", &container.dir);
    out.some(" User:", &container.user);
    out.some(" Hostname:", &container.hostname);
    for mount in &container.mounts {
        out.line(
            " Mount:",
            format!("{} <- {}", mount.target, if mount.source.is_empty() { "tmpfs" } else { &mount.source }),
        );
    }
    let restart = &service.spec.task.restart;
    out.title("RestartPolicy:");
    out.line(" Condition:", restart.condition.as_str());
    out.line(" Delay:", human::go_duration(restart.delay));
    out.line(" Max attempts:", restart.max_attempts);
}

fn resources(out: &mut Sheet, service: &Service) {
    let r = &service.spec.task.resources;
    let mut part = |title: &str, nano: u64, memory: u64| {
        if nano > 0 || memory > 0 {
            out.title(title);
        }
        if nano > 0 {
            out.line("  CPU:", human::cpus(nano));
        }
        if memory > 0 {
            out.line("  Memory:", human::binary(memory));
        }
    };
    part(" Reservations:", r.reservations.nano_cpus, r.reservations.memory_bytes);
    part(" Limits:", r.limits.nano_cpus, r.limits.memory_bytes);
}

/// A node, and what it could not do of its networks.
pub(crate) fn node(
    node: &Node,
    manager: Option<&v1::ManagerStatus>,
    problems: &[v1::NetworkProblem],
    now: Timestamp,
) -> String {
    let mut out = Sheet(String::new());
    out.line("ID:", node.id);
    out.some("Name:", &node.spec.annotations.name);
    out.labels(&node.spec.annotations.labels);
    out.line("Hostname:", &node.description.hostname);
    out.line(
        "Joined at:",
        format!("{} ({} ago)", node.meta.created_at, human::duration(now.since(node.meta.created_at))),
    );
    out.title("Status:");
    out.line(" State:", human::capital(node.status.state.as_str()));
    out.some(" Message:", &node.status.message);
    out.line(" Availability:", human::capital(node.spec.availability.as_str()));
    out.line(" Address:", &node.status.addr);
    if let Some(manager) = manager {
        out.title("Manager Status:");
        out.line(" Address:", &manager.addr);
        out.line(" Raft Status:", if manager.reachable { "Reachable" } else { "Unreachable" });
        out.line(" Leader:", if manager.leader { "Yes" } else { "No" });
    }
    let network = &node.description.network;
    out.title("Network:");
    if node.index > 0 {
        out.line(" Index:", node.index);
    }
    let addr = network.data_addr.map_or_else(|| node.status.addr.clone(), |addr| addr.to_string());
    out.some(" Data Path Address:", &addr);
    out.some(" Entry Address:", &node.entry.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    out.line(" Encryption:", if network.encryption.is_empty() { "none" } else { &network.encryption });
    out.line(" Tunnel Keys:", network.keys.len());
    for problem in problems {
        out.line(" Problem:", format!("{}: {}", problem.subject, problem.text));
    }
    out.title("Platform:");
    out.line(" Operating System:", &node.description.platform.os);
    out.line(" Architecture:", &node.description.platform.architecture);
    out.title("Resources:");
    out.line(" CPUs:", human::cpus(node.description.resources.nano_cpus));
    out.line(" Memory:", human::binary(node.description.resources.memory_bytes));
    out.line("Engine Version:", &node.description.engine_version);
    out.0
}
