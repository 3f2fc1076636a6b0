//! `swarmctl network trace SERVICE:PORT[/proto]`: the way that a connection takes, as far as managers know it.

mod way;

use swarm_proto::convert::Malformed;
use swarm_proto::v1::{GetServiceRequest, ListNodesRequest, ListTasksRequest};
use swarm_types::endpoint::Protocol;
use swarm_types::id::NodeId;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;

use crate::client::Client;
use crate::error::{Failure, Outcome};
use crate::flags::publish;
use crate::output;
use way::{Way, World};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Shows which nodes may be called, which tasks get new connections and how many of them, and whom a\n\
                  task sees calling. It is what managers told the nodes; `network check` says whether they obey.\n\
                  \n\
                  Example: swarmctl network trace web:8080 --entry m1"
)]
pub(crate) struct Args {
    /// Only this node is called; `self` is the one we talk to [default: any]
    #[arg(long, value_name = "NODE")]
    entry: Option<String>,
    /// json; a table for people if absent
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "table"])]
    format: Option<String>,
    /// Service and published port
    #[arg(value_name = "SERVICE:PORT[/PROTO]", value_parser = target)]
    target: Target,
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: String,
    port: u16,
    protocol: Protocol,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut control = client.control();
    let reference = args.target.service.clone();
    let entry = control.get_service(GetServiceRequest { reference }).await?.into_inner().entry;
    let missing = |field: &str| Malformed { field: field.into(), problem: "missing".into() };
    let service = entry.and_then(|entry| entry.service).ok_or_else(|| missing("service"))?;
    let service = Service::try_from(service)?;
    let request = ListTasksRequest { services: vec![service.id.to_string()], nodes: Vec::new() };
    let tasks = control.list_tasks(request).await?.into_inner().tasks;
    let tasks = tasks.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
    let nodes = control.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let nodes = nodes.into_iter().filter_map(|entry| entry.node).map(Node::try_from);
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let networks = super::list(client).await?;
    let entry = match &args.entry {
        Some(entry) => Some(pick(&nodes, &client.node_reference(entry).await?)?),
        None => None,
    };
    let world = World { service: &service, tasks: &tasks, nodes: &nodes, networks: &networks };
    let way = Way::find(&world, args.target.port, args.target.protocol, entry).map_err(Failure::Refused)?;
    match args.format.as_deref() {
        Some("json") => output::line(&way.json().to_string()),
        _ => output::text(&way.text()),
    }
    Ok(())
}

/// A node by id, name or prefix of its id.
fn pick(nodes: &[Node], reference: &str) -> Outcome<NodeId> {
    let exact = nodes.iter().find(|n| n.id.as_str() == reference || n.display_name() == reference);
    let mut like = nodes.iter().filter(|n| n.id.as_str().starts_with(reference));
    match (exact, like.next(), like.next()) {
        (Some(node), ..) | (None, Some(node), None) => Ok(node.id),
        (None, Some(_), Some(_)) => Err(Failure::Refused(format!("several nodes are called {reference}…"))),
        (None, None, _) => Err(Failure::NotFound(format!("node {reference} not found"))),
    }
}

fn target(text: &str) -> Result<Target, String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let pair = rest.rsplit_once(':').filter(|(service, _)| !service.is_empty());
    let (service, port) = pair.ok_or("expected SERVICE:PORT[/tcp|udp|sctp]")?;
    let number = port.parse::<u16>().ok().filter(|port| *port > 0);
    let port = number.ok_or_else(|| format!("`{port}` is not a port"))?;
    Ok(Target { service: service.to_owned(), port, protocol: publish::protocol(protocol)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let good = target("web:53/udp").unwrap();
        assert_eq!((good.service.as_str(), good.port, good.protocol), ("web", 53, Protocol::Udp));
        assert_eq!(target("web:80").unwrap().protocol, Protocol::Tcp);
        for bad in ["web", ":80", "web:0", "web:x", "web:80/icmp", "web:65536"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_are_named_in_three_ways() {
        let nodes = [swarm_types::testing::node("abc"), swarm_types::testing::node("abd")];
        assert_eq!(pick(&nodes, "abc").unwrap().as_str(), "abc");
        assert!(pick(&nodes, "ab").unwrap_err().to_string().contains("several"));
        assert_eq!(pick(&nodes, "x").unwrap_err().to_string(), "node x not found");
    }
}
