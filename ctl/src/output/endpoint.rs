//! How services, tasks and nodes are reached, as `inspect` prints it: parts of their objects.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use swarm_types::container::ContainerNetwork;
use swarm_types::endpoint::{Balance, EndpointSpec, Port};
use swarm_types::id::NetworkId;
use swarm_types::network::{Attachment, AttachmentSpec, Network};
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::{Task, TaskSpec};

use super::inspect::{labels, list, number, text};

/// What is wanted.
pub(super) fn spec(spec: &EndpointSpec) -> Value {
    let mut out = Map::new();
    out.insert("Mode".into(), spec.mode.as_str().into());
    if spec.balance != Balance::default() {
        out.insert("Balance".into(), spec.balance.as_str().into());
    }
    text(&mut out, "WeightLabel", &spec.weight_label);
    if !spec.ports.is_empty() {
        out.insert("Ports".into(), spec.ports.iter().map(port).collect());
    }
    Value::Object(out)
}

/// What the service got; `networks` are those that it has addresses on, as far as they are known.
pub(super) fn service(service: &Service, networks: &[Network]) -> Value {
    let mut out = Map::new();
    out.insert("Spec".into(), spec(&service.spec.endpoint));
    let vips: Vec<Value> = service
        .endpoint
        .vips
        .iter()
        .flat_map(|(id, addrs)| addrs.iter().map(|addr| (*id, *addr)))
        .map(|(id, addr)| json!({"NetworkID": id.as_str(), "Addr": cidr(networks, id, addr)}))
        .collect();
    if !service.endpoint.ports.is_empty() {
        out.insert("Ports".into(), service.endpoint.ports.iter().map(port).collect());
    }
    if !vips.is_empty() {
        out.insert("VirtualIPs".into(), vips.into());
    }
    Value::Object(out)
}

/// A published port.
pub(super) fn port(port: &Port) -> Value {
    let mut out = Map::new();
    out.insert("Protocol".into(), port.protocol.as_str().into());
    out.insert("TargetPort".into(), port.target.into());
    number(&mut out, "PublishedPort", port.published.into());
    out.insert("PublishMode".into(), port.mode.as_str().into());
    out.extend(port.host_ip.map(|ip| ("HostIP".to_owned(), ip.to_string().into())));
    Value::Object(out)
}

/// The address with the prefix of its subnet, as Docker prints it; alone if the subnet is not known.
fn cidr(networks: &[Network], id: NetworkId, addr: IpAddr) -> String {
    let network = networks.iter().find(|network| network.id == id);
    let subnet = network.and_then(|n| n.subnets.iter().find(|subnet| subnet.net.contains(&addr)));
    match subnet.and_then(|subnet| IpNet::new(addr, subnet.net.prefix_len()).ok()) {
        Some(net) => net.to_string(),
        None => addr.to_string(),
    }
}

/// A task's place on its networks.
pub(super) fn attachments(task: &Task, networks: &[Network]) -> Value {
    let one = |a: &Attachment| {
        let network = networks.iter().find(|network| network.id == a.network);
        let mut about = Map::new();
        about.insert("ID".into(), a.network.as_str().into());
        if let Some(network) = network {
            let annotations = &network.spec.annotations;
            let driver = json!({"Name": network.spec.driver.as_str()});
            let spec = json!({
                "Name": annotations.name, "Labels": labels(&annotations.labels),
                "DriverConfiguration": driver, "Ingress": network.spec.ingress,
            });
            about.insert("Spec".into(), spec);
        }
        let addrs = a.addrs.iter().map(|addr| cidr(networks, a.network, *addr));
        let mut out = json!({"Network": about, "Addresses": addrs.collect::<Vec<_>>()});
        if !a.aliases.is_empty() {
            out["Aliases"] = json!(a.aliases);
        }
        out
    };
    task.attachments.iter().map(one).collect()
}

/// Those of the cluster by id, those of each node by name, as in Docker.
pub(super) fn networks(task: &TaskSpec) -> Vec<Value> {
    let own = match task.container.network {
        ContainerNetwork::Loopback => None,
        ContainerNetwork::Bridge => Some(json!({"Target": "bridge"})),
        ContainerNetwork::Host => Some(json!({"Target": "host"})),
    };
    let one = |attachment: &AttachmentSpec| {
        let mut out = Map::new();
        out.insert("Target".into(), attachment.network.as_str().into());
        list(&mut out, "Aliases", &attachment.aliases);
        if !attachment.options.is_empty() {
            out.insert("DriverOpts".into(), labels(&attachment.options));
        }
        Value::Object(out)
    };
    own.into_iter().chain(task.networks.iter().map(one)).collect()
}

/// Its end of the networks. Docker has no such part.
pub(super) fn node(node: &Node) -> Value {
    let about = &node.description.network;
    let mut out = Map::new();
    number(&mut out, "Index", node.index.into());
    list(&mut out, "EntryAddrs", &node.entry.iter().map(ToString::to_string).collect::<Vec<_>>());
    let addr = about.data_addr.map_or_else(|| node.status.addr.clone(), |addr| addr.to_string());
    text(&mut out, "DataPathAddr", &addr);
    let encryption = if about.encryption.is_empty() { "none" } else { &about.encryption };
    out.insert("Encryption".into(), encryption.into());
    out.insert("TunnelKeys".into(), about.keys.len().into());
    number(&mut out, "TunnelPort", about.tunnel_port.into());
    Value::Object(out)
}
