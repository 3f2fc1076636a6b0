//! `swarmctl network inspect`.

use serde_json::Value;
use swarm_proto::v1::GetNetworkResponse;
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;

use crate::client::Client;
use crate::command::inspect::{Found, InspectFlags};
use crate::error::Outcome;
use crate::flags::network::predefined;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: InspectFlags,
    /// Show the services on it too, with their virtual addresses and tasks
    #[arg(short, long)]
    verbose: bool,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut found = Found::new("network");
    for reference in &args.networks {
        if let Some(own) = predefined(reference) {
            found.object(output::network::predefined(reference, own));
            continue;
        }
        let answer = found.note(reference, super::get(client, reference).await)?;
        let Some((network, answer)) = answer else { continue };
        found.object(object(&network, answer, args.verbose)?);
    }
    found.print(&args.flags, false)
}

fn object(network: &Network, answer: GetNetworkResponse, verbose: bool) -> Outcome<Value> {
    let nodes = answer.nodes.into_iter().map(Node::try_from).collect::<Result<Vec<_>, _>>()?;
    let mut object = output::network::network(network, super::scope(network.spec.driver));
    object["Peers"] = output::network::peers(&nodes);
    if verbose {
        let services = answer.services.into_iter().map(Service::try_from).collect::<Result<Vec<_>, _>>()?;
        let tasks = answer.tasks.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
        object["Services"] = output::network::services(network, &services, &tasks, &nodes);
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use expect_test::expect;
    use swarm_types::endpoint::Port;
    use swarm_types::network::{Attachment, Subnet};
    use swarm_types::testing;

    use super::*;

    #[test]
    fn peers_and_services() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut network = Network { id: "net1".into(), vni: 4097, ..Network::default() };
        network.spec.annotations.name = "front".into();
        network.subnets = vec![Subnet {
            net: "10.0.1.0/24".parse().unwrap(),
            gateway: addr("10.0.1.1"),
            range: "10.0.1.0/24".parse().unwrap(),
            reserved: vec![],
        }];
        let mut service =
            Service { id: "s1".into(), spec: testing::service("web").build(), ..Service::default() };
        service.endpoint.vips.insert("net1".into(), vec![addr("10.0.1.2")]);
        service.endpoint.ports = vec![Port { published: 8080, target: 80, ..Port::default() }];
        let mut task =
            Task { id: "t1".into(), slot: 1, service: "s1".into(), node: "m1".into(), ..Task::default() };
        task.service_annotations = Arc::new(service.spec.annotations.clone());
        task.attachments =
            vec![Attachment { network: "net1".into(), addrs: vec![addr("10.0.1.3")], aliases: vec![] }];
        let mut node = testing::node("m1");
        node.status.addr = "192.168.0.1".into();
        let answer = || GetNetworkResponse {
            network: None,
            services: vec![(&service).into()],
            tasks: vec![(&task).into()],
            nodes: vec![(&node).into()],
        };
        let verbose = object(&network, answer(), true).unwrap();
        expect![[r#"
            {
                "Name": "front",
                "Id": "net1",
                "Created": "1970-01-01T00:00:00.000Z",
                "Scope": "swarm",
                "Driver": "overlay",
                "EnableIPv4": true,
                "EnableIPv6": false,
                "IPAM": {
                    "Driver": "default",
                    "Options": null,
                    "Config": [
                        {
                            "Subnet": "10.0.1.0/24",
                            "Gateway": "10.0.1.1"
                        }
                    ]
                },
                "Internal": false,
                "Attachable": false,
                "Ingress": false,
                "ConfigFrom": {
                    "Network": ""
                },
                "ConfigOnly": false,
                "Containers": {},
                "Options": {
                    "com.docker.network.driver.overlay.vxlanid_list": "4097",
                    "encrypted": ""
                },
                "Labels": {},
                "Peers": [
                    {
                        "Name": "m1",
                        "IP": "192.168.0.1"
                    }
                ],
                "Services": {
                    "web": {
                        "VIP": "10.0.1.2",
                        "Ports": [
                            "Target: 80, Publish: 8080"
                        ],
                        "LocalLBIndex": 0,
                        "Tasks": [
                            {
                                "Name": "web.1.t1",
                                "EndpointID": "t1",
                                "EndpointIP": "10.0.1.3",
                                "Info": {
                                    "Host IP": "192.168.0.1"
                                }
                            }
                        ]
                    }
                }
            }"#]]
        .assert_eq(&output::json::pretty(&verbose));
        assert!(object(&network, answer(), false).unwrap().get("Services").is_none());
    }
}
