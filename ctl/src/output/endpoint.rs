//! How services, tasks and nodes are reached, as `inspect` prints it: parts of their objects.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use swarm_proto::v1;
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

/// How a task is connected, in a word or two. Docker has no such field: its tasks are at least on `bridge`.
pub(crate) fn connected(task: &TaskSpec) -> String {
    match (task.container.network, task.networks.len()) {
        (ContainerNetwork::Host, _) => "host".into(),
        // A published port or `bridge` gives a way out.
        (ContainerNetwork::Loopback, 0) if !task.gateway => "loopback only".into(),
        (ContainerNetwork::Loopback, 0) => "ingress".into(),
        (ContainerNetwork::Bridge, 0) => "bridge".into(),
        (ContainerNetwork::Loopback | ContainerNetwork::Bridge, 1) => "1 network".into(),
        (ContainerNetwork::Loopback | ContainerNetwork::Bridge, n) => format!("{n} networks"),
    }
}

/// Its end of the networks. Docker has no such part.
pub(super) fn node(node: &Node, problems: &[v1::NetworkProblem]) -> Value {
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
    list(&mut out, "Site", &about.site.iter().map(ToString::to_string).collect::<Vec<_>>());
    if !problems.is_empty() {
        let problem = |p: &v1::NetworkProblem| json!({"Subject": p.subject, "Text": p.text});
        out.insert("Problems".into(), problems.iter().map(problem).collect());
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use swarm_types::network::Subnet;
    use swarm_types::site::{SiteKind, SitePrefix};
    use swarm_types::testing;
    use swarm_types::time::Timestamp;

    use super::*;
    use crate::output::{inspect, json, pretty};

    fn network() -> Network {
        let mut network = Network { id: "net1".into(), ..Network::default() };
        network.spec.annotations.name = "front".into();
        let (net, gateway) = ("10.0.1.0/24".parse().unwrap(), IpAddr::from([10, 0, 1, 1]));
        network.subnets = vec![Subnet { net, gateway, range: net, reserved: Vec::new() }];
        network
    }
    fn web() -> Service {
        let attachment = AttachmentSpec { network: "net1".into(), ..AttachmentSpec::default() };
        let spec = testing::service("web").with(|spec, task| {
            task.networks = vec![attachment];
            task.container.network = ContainerNetwork::Bridge;
            spec.endpoint.ports = crate::flags::publish::parse("10.0.0.9::80").unwrap().0;
        });
        let mut service = Service { id: "s1".into(), spec: spec.build(), ..Service::default() };
        service.endpoint.ports = crate::flags::publish::parse("10.0.0.9:30000:80").unwrap().0;
        service.endpoint.vips.insert("net1".into(), vec![IpAddr::from([10, 0, 1, 2])]);
        service.endpoint.vips.insert("net2".into(), vec![IpAddr::from([10, 0, 2, 2])]);
        service
    }

    #[test]
    fn services() {
        let object = inspect::service(&web(), &[network()]);
        let sheet = pretty::service(&web(), &[network()], Timestamp(0));
        let from = sheet.find("Networks:").unwrap();
        expect![[r#"
            {
                "Spec": {
                    "Mode": "vip",
                    "Ports": [
                        {
                            "Protocol": "tcp",
                            "TargetPort": 80,
                            "PublishMode": "ingress",
                            "HostIP": "10.0.0.9"
                        }
                    ]
                },
                "Ports": [
                    {
                        "Protocol": "tcp",
                        "TargetPort": 80,
                        "PublishedPort": 30000,
                        "PublishMode": "ingress",
                        "HostIP": "10.0.0.9"
                    }
                ],
                "VirtualIPs": [
                    {
                        "NetworkID": "net1",
                        "Addr": "10.0.1.2/24"
                    },
                    {
                        "NetworkID": "net2",
                        "Addr": "10.0.2.2"
                    }
                ]
            }"#]]
        .assert_eq(&json::pretty(&object["Endpoint"]));
        expect![[r#"
            Networks:               bridge front
            Endpoint Mode:          vip
             Virtual IP:            10.0.1.2 on front
             Virtual IP:            10.0.2.2 on net2
            Ports:
             PublishedPort =        30000
              Protocol =            tcp
              TargetPort =          80
              PublishMode =         ingress
              HostIP =              10.0.0.9
        "#]]
        .assert_eq(&sheet[from..]);
        assert_eq!(
            object["Spec"]["TaskTemplate"]["Networks"],
            json!([{"Target": "bridge"}, {"Target": "net1"}])
        );
    }

    #[test]
    fn tasks() {
        let mut task = Task { id: "t1".into(), ..Task::default() };
        let addrs = vec![IpAddr::from([10, 0, 1, 3])];
        task.attachments = vec![Attachment { network: "net1".into(), addrs, aliases: vec!["db".into()] }];
        let ports = crate::flags::publish::parse("published=8081,target=80,mode=host").unwrap().0;
        task.status.container = Some(swarm_types::task::ContainerStatus { ports, ..Default::default() });
        let object = inspect::task(&task, &[], &[network()]);
        expect![[r#"[{"Network":{"ID":"net1","Spec":{"Name":"front","Labels":{},"DriverConfiguration":{"Name":"overlay"},"Ingress":false}},"Addresses":["10.0.1.3/24"],"Aliases":["db"]}]"#]].assert_eq(&object["NetworksAttachments"].to_string());
        expect![[
            r#"{"Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8081,"PublishMode":"host"}]}"#
        ]]
        .assert_eq(&object["Status"]["PortStatus"].to_string());
    }

    #[test]
    fn a_task_without_networks_has_loopback_only() {
        let mut task = TaskSpec::default();
        assert_eq!(connected(&task), "loopback only");
        task.gateway = true;
        assert_eq!(connected(&task), "ingress");
        task.container.network = ContainerNetwork::Bridge;
        assert_eq!(connected(&task), "bridge");
        task.networks = vec![AttachmentSpec::default()];
        assert_eq!(connected(&task), "1 network");
        task.networks.push(AttachmentSpec::default());
        assert_eq!(connected(&task), "2 networks");
        task.container.network = ContainerNetwork::Host;
        assert_eq!(connected(&task), "host");
    }

    #[test]
    fn nodes() {
        let mut node = testing::node("m1");
        node.status.addr = "192.168.0.1".into();
        (node.index, node.entry) = (3, vec![IpAddr::from([10, 255, 0, 3])]);
        node.description.network.keys = vec!["a".into(), "b".into()];
        (node.description.network.encryption, node.description.network.tunnel_port) =
            ("user space".into(), 4790);
        let site = |kind, net: &str| SitePrefix { kind, net: net.parse().unwrap() };
        node.description.network.site =
            vec![site(SiteKind::Address, "192.168.0.1/24"), site(SiteKind::Resolver, "192.168.0.53/32")];
        let problem = v1::NetworkProblem { subject: "port 8080/tcp".into(), text: "held by nginx".into() };
        let object = inspect::node(&node, None, std::slice::from_ref(&problem));
        let sheet = pretty::node(&node, None, &[problem], Timestamp(0));
        let (from, to) = (sheet.find("Network:").unwrap(), sheet.find("Platform:").unwrap());
        expect![[r#"{"Index":3,"EntryAddrs":["10.255.0.3"],"DataPathAddr":"192.168.0.1","Encryption":"user space","TunnelKeys":2,"TunnelPort":4790,"Site":["address 192.168.0.1/24","resolver 192.168.0.53"],"Problems":[{"Subject":"port 8080/tcp","Text":"held by nginx"}]}"#]].assert_eq(&object["Network"].to_string());
        expect![[r#"
            Network:
             Index:                 3
             Data Path Address:     192.168.0.1
             Entry Address:         10.255.0.3
             Encryption:            user space
             Tunnel Keys:           2
             Problem:               port 8080/tcp: held by nginx
        "#]]
        .assert_eq(&sheet[from..to]);
        let mut plain = testing::node("m2");
        plain.description.network = swarm_types::node::NetworkDescription::default();
        let plain = inspect::node(&plain, None, &[]);
        assert_eq!(plain["Network"]["Encryption"], "none");
    }
}
