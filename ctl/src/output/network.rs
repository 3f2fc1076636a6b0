//! Networks as `network inspect` prints them: Docker's field names.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use swarm_types::container::ContainerNetwork;
use swarm_types::endpoint::Port;
use swarm_types::network::{Network, NetworkDriver};
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;

use super::inspect::labels;

/// A network.
pub(crate) fn network(network: &Network, scope: &str) -> Value {
    let spec = &network.spec;
    // Until the managers have chosen, what was asked for is all there is.
    let wanted = |family: bool| spec.subnets.iter().find(|s| s.subnet.addr().is_ipv6() == family);
    let ipam: Vec<Value> = match network.subnets.is_empty() {
        true => spec.subnets.iter().map(wish).collect(),
        false => network
            .subnets
            .iter()
            .map(|subnet| {
                let aux = wanted(subnet.net.addr().is_ipv6()).map(|s| &s.reserved);
                let range = (subnet.range != subnet.net).then(|| subnet.range.to_string());
                config(&subnet.net.to_string(), range, Some(subnet.gateway.to_string()), aux)
            })
            .collect(),
    };
    let nets = network.subnets.iter().map(|s| s.net).chain(spec.subnets.iter().map(|s| s.subnet));
    let (v4, v6) = nets
        .fold((false, spec.ipv6), |(v4, v6), net| (v4 || net.addr().is_ipv4(), v6 || net.addr().is_ipv6()));
    json!({
        "Name": spec.annotations.name,
        "Id": network.id.as_str(),
        "Created": network.meta.created_at.to_string(),
        "Scope": scope,
        "Driver": spec.driver.as_str(),
        "EnableIPv4": v4 || !v6,
        "EnableIPv6": v6,
        "IPAM": {"Driver": "default", "Options": null, "Config": ipam},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": {},
        "Options": options(network),
        "Labels": labels(&spec.annotations.labels),
    })
}

/// A network that every node has by itself.
pub(crate) fn predefined(name: &str, own: ContainerNetwork) -> Value {
    json!({
        "Name": name, "Id": name, "Scope": "local", "Driver": local_driver(own),
        "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": []},
        "Internal": false, "Attachable": false, "Ingress": false,
        "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": {}, "Options": {}, "Labels": {},
    })
}

/// Docker's word.
pub(crate) fn local_driver(network: ContainerNetwork) -> &'static str {
    match network {
        ContainerNetwork::Loopback => "null",
        ContainerNetwork::Bridge => "bridge",
        ContainerNetwork::Host => "host",
    }
}

fn wish(subnet: &swarm_types::network::SubnetSpec) -> Value {
    let range = subnet.range.map(|r| r.to_string());
    let gateway = subnet.gateway.map(|g| g.to_string());
    config(&subnet.subnet.to_string(), range, gateway, Some(&subnet.reserved))
}

fn config(
    subnet: &str,
    range: Option<String>,
    gateway: Option<String>,
    aux: Option<&BTreeMap<String, std::net::IpAddr>>,
) -> Value {
    let mut out = Map::new();
    out.insert("Subnet".into(), subnet.into());
    out.extend(range.map(|range| ("IPRange".to_owned(), range.into())));
    out.extend(gateway.map(|gateway| ("Gateway".to_owned(), gateway.into())));
    if let Some(aux) = aux.filter(|aux| !aux.is_empty()) {
        let aux: Map<_, Value> = aux.iter().map(|(n, a)| (n.clone(), a.to_string().into())).collect();
        out.insert("AuxiliaryAddresses".into(), aux.into());
    }
    Value::Object(out)
}

fn options(network: &Network) -> Value {
    let spec = &network.spec;
    let mut out: BTreeMap<String, String> = spec.options.clone();
    if network.vni > 0 {
        out.insert("com.docker.network.driver.overlay.vxlanid_list".into(), network.vni.to_string());
    }
    if spec.driver == NetworkDriver::Overlay {
        // Docker shows an empty value where it encrypts, and nothing where it does not; here that it
        // does not is the exception, and said.
        out.insert("encrypted".into(), if spec.encrypted { "" } else { "false" }.into());
    }
    if spec.mtu > 0 {
        out.insert("com.docker.network.driver.mtu".into(), spec.mtu.to_string());
    }
    labels(&out)
}

/// The nodes that take part.
pub(crate) fn peers(nodes: &[Node]) -> Value {
    let peer = |node: &Node| {
        let addr = node.description.network.data_addr.map(|addr| addr.to_string());
        json!({"Name": node.display_name(), "IP": addr.unwrap_or_else(|| node.status.addr.clone())})
    };
    nodes.iter().map(peer).collect()
}

/// What `--verbose` adds: services with their virtual addresses and tasks.
pub(crate) fn services(network: &Network, services: &[Service], tasks: &[Task], nodes: &[Node]) -> Value {
    let mut out = Map::new();
    for service in services {
        let of = tasks.iter().filter(|task| task.service == service.id);
        let tasks: Vec<Value> = of.filter_map(|task| endpoint(network, task, nodes)).collect();
        let vips = service.endpoint.vips.get(&network.id);
        let vip: Vec<String> = vips.into_iter().flatten().map(ToString::to_string).collect();
        let ports: Vec<String> = service.endpoint.ports.iter().map(port).collect();
        let entry = json!({"VIP": vip.join(","), "Ports": ports, "LocalLBIndex": 0, "Tasks": tasks});
        out.insert(service.spec.annotations.name.clone(), entry);
    }
    Value::Object(out)
}

fn endpoint(network: &Network, task: &Task, nodes: &[Node]) -> Option<Value> {
    let attachment = task.attachments.iter().find(|a| a.network == network.id)?;
    let addrs: Vec<String> = attachment.addrs.iter().map(ToString::to_string).collect();
    let node = nodes.iter().find(|node| node.id == task.node);
    let host = node.map_or("", |node| node.status.addr.as_str());
    Some(json!({
        "Name": task.full_name(), "EndpointID": task.id.as_str(), "EndpointIP": addrs.join(","),
        "Info": {"Host IP": host},
    }))
}

fn port(port: &Port) -> String {
    format!("Target: {}, Publish: {}", port.target, port.published)
}
