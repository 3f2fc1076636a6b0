//! `swarmctl node ls`.

use serde_json::json;
use swarm_proto::v1::{ListNodesRequest, ManagerStatus};
use swarm_types::node::Node;

use crate::client::Client;
use crate::error::Outcome;
use crate::flags::filter::Filters;
use crate::output::listing::{Column, Format, Listing, Row};
use crate::output::{self, human};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only nodes that fit: id, name, label (of the engine), node.label, membership or role
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    format: Format,
}

const KEYS: &[&str] = &["id", "label", "membership", "name", "node.label", "role"];
const COLUMNS: &[Column] = &[
    Column { field: "ID", header: "ID" },
    Column { field: "Hostname", header: "HOSTNAME" },
    Column { field: "Status", header: "STATUS" },
    Column { field: "Availability", header: "AVAILABILITY" },
    Column { field: "ManagerStatus", header: "MANAGER STATUS" },
    Column { field: "EngineVersion", header: "ENGINE VERSION" },
    Column { field: "Self", header: "" },
];

type Entry = (Node, Option<ManagerStatus>);

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let filters = Filters::parse(&args.filter, KEYS)?;
    let nodes = client.control().list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let nodes = nodes.into_iter().map(super::entry).collect::<Outcome<Vec<_>>>()?;
    let own = client.own_node().await;
    output::text(&listing(nodes, &filters, own.as_deref()).render(&args.format)?);
    Ok(())
}

fn listing(mut nodes: Vec<Entry>, filters: &Filters, own: Option<&str>) -> Listing {
    nodes.retain(|(node, _)| fits(node, filters));
    nodes.sort_by(|(a, _), (b, _)| a.description.hostname.cmp(&b.description.hostname).then(a.id.cmp(&b.id)));
    let rows = nodes.iter().map(|(node, manager)| row(node, manager.as_ref(), own)).collect();
    Listing { columns: COLUMNS, rows }
}

fn fits(node: &Node, filters: &Filters) -> bool {
    let name = |v: &str| node.display_name().starts_with(v) || node.description.hostname.starts_with(v);
    filters.id("id", node.id.as_str())
        && filters.any("name", name)
        && filters.word("role", node.role.as_str())
        && filters.word("membership", "accepted")
        && filters.labels("label", &node.description.engine_labels)
        && filters.labels("node.label", &node.spec.annotations.labels)
}

fn row(node: &Node, manager: Option<&ManagerStatus>, own: Option<&str>) -> Row {
    let is_self = own == Some(node.id.as_str());
    let manager = match manager {
        Some(m) if m.leader => "Leader",
        Some(m) if m.reachable => "Reachable",
        Some(_) => "Unreachable",
        None => "",
    };
    Row {
        values: vec![
            json!(node.id.as_str()),
            json!(node.description.hostname),
            json!(human::capital(node.status.state.as_str())),
            json!(human::capital(node.spec.availability.as_str())),
            json!(manager),
            json!(node.description.engine_version),
            json!(is_self),
        ],
        shown: is_self.then(|| (0, format!("{} *", node.id))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use swarm_types::testing;

    use super::*;

    #[test]
    fn managers_and_workers() {
        let leader = ManagerStatus { leader: true, reachable: true, addr: "10.0.0.1:2377".into() };
        let nodes = || vec![(testing::node("w1"), None), (testing::manager("m1"), Some(leader.clone()))];
        let table = listing(nodes(), &Filters::default(), Some("m1"));
        let json = Format { format: Some("json".into()), quiet: false };
        let text = table.render(&Format::default()).unwrap() + &table.render(&json).unwrap();
        expect![[r#"
            ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
            m1 *      m1         Ready     Active         Leader
            w1        w1         Ready     Active
            {"ID":"m1","Hostname":"m1","Status":"Ready","Availability":"Active","ManagerStatus":"Leader","EngineVersion":"","Self":true}
            {"ID":"w1","Hostname":"w1","Status":"Ready","Availability":"Active","ManagerStatus":"","EngineVersion":"","Self":false}
        "#]].assert_eq(&text);
        let workers = Filters::parse(&["role=worker".into()], KEYS).unwrap();
        let quiet = Format { format: None, quiet: true };
        assert_eq!(listing(nodes(), &workers, None).render(&quiet).unwrap(), "w1\n");
    }
}
