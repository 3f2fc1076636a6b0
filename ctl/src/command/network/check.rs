//! `swarmctl network check`: what is wanted on every node against what its kernel has.

use serde_json::json;
use swarm_proto::v1::{CheckNetworksRequest, NodeNetworkCheck};

use crate::client::Client;
use crate::error::{Failure, Outcome};
use crate::flags::network::predefined;
use crate::output;
use crate::output::listing::{Column, Format, Listing, Row};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every node compares. Shows each difference, what a node could not make so, and nodes that\n\
                  could not be asked. The exit code is 1 if there is a difference or a node could not be asked."
)]
pub(crate) struct Args {
    /// table, json, or a Go template of fields: Node, NodeID, Kind (difference, problem, error), Place, What, How
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only this network
    #[arg(value_name = "NETWORK")]
    network: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column { field: "NodeID", header: "" },
    Column { field: "Node", header: "NODE" },
    Column { field: "Kind", header: "" },
    Column { field: "Place", header: "PLACE" },
    Column { field: "What", header: "WHAT" },
    Column { field: "How", header: "HOW" },
];

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let network = args.network.unwrap_or_default();
    if predefined(&network).is_some() {
        return Err(Failure::Refused(format!("{network} is each node's own: there is nothing to compare")));
    }
    let mut stream = client.control().check_networks(CheckNetworksRequest { network }).await?.into_inner();
    let mut nodes = Vec::new();
    while let Some(node) = stream.message().await? {
        nodes.push(node);
    }
    let format = Format { format: args.format, quiet: false };
    let (text, agree) = report(nodes, &format)?;
    output::text(&text);
    if agree { Ok(()) } else { Err(Failure::Exit(1)) }
}

/// The text, and whether every node was asked and agrees.
fn report(mut nodes: Vec<NodeNetworkCheck>, format: &Format) -> Outcome<(String, bool)> {
    nodes.sort_by(|a, b| (&a.node_name, &a.node_id).cmp(&(&b.node_name, &b.node_id)));
    let rows: Vec<Row> = nodes.iter().flat_map(rows).collect();
    let agree = nodes.iter().all(|node| node.error.is_empty() && node.differences.is_empty());
    let for_people = matches!(format.format.as_deref(), None | Some("" | "table"));
    let empty = rows.is_empty();
    let listing = Listing { columns: COLUMNS, rows };
    let mut text = if empty && for_people { String::new() } else { listing.render(format)? };
    if agree && for_people {
        text += &match (nodes.len(), nodes.iter().map(|node| node.problems.len()).sum::<usize>()) {
            (1, 0) => "the only node agrees\n".to_owned(),
            (n, 0) => format!("all {n} nodes agree\n"),
            (_, 1) => "no node differs from what is wanted; 1 problem\n".to_owned(),
            (_, problems) => format!("no node differs from what is wanted; {problems} problems\n"),
        };
    }
    Ok((text, agree))
}

fn rows(node: &NodeNetworkCheck) -> Vec<Row> {
    let row = |kind: &str, place: &str, what: &str, how: &str| {
        let values = [node.node_id.as_str(), &node.node_name, kind, place, what, how];
        Row { shown: None, values: values.map(|text| json!(text)).to_vec() }
    };
    let error = (!node.error.is_empty()).then(|| row("error", "-", "cannot be asked", &node.error));
    let differences = node.differences.iter().map(|d| row("difference", &d.place, &d.what, &d.how));
    let problems = node.problems.iter().map(|p| row("problem", "-", &p.subject, &p.text));
    error.into_iter().chain(differences).chain(problems).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use swarm_proto::v1::{NetworkDifference, NetworkProblem};

    use super::*;

    fn node(name: &str) -> NodeNetworkCheck {
        NodeNetworkCheck {
            node_id: format!("id-{name}"),
            node_name: name.into(),
            ..NodeNetworkCheck::default()
        }
    }
    fn show(nodes: Vec<NodeNetworkCheck>, format: Option<&str>) -> (String, bool) {
        report(nodes, &Format { format: format.map(Into::into), quiet: false }).unwrap()
    }

    #[test]
    fn differences_problems_and_silence() {
        let mut differs = node("w1");
        differs.differences = vec![NetworkDifference {
            place: "front".into(),
            what: "route 10.0.1.13/32 via 10.200.0.3".into(),
            how: "missing".into(),
        }];
        let mut blocked = node("m1");
        blocked.problems =
            vec![NetworkProblem { subject: "port 8080/tcp".into(), text: "held by nginx (pid 12)".into() }];
        let mut silent = node("w2");
        silent.error = "no answer within 5s".into();
        let all = || vec![differs.clone(), silent.clone(), blocked.clone()];
        let (text, agree) = show(all(), None);
        assert!(!agree);
        expect![[r#"
            NODE      PLACE     WHAT                                HOW
            m1        -         port 8080/tcp                       held by nginx (pid 12)
            w1        front     route 10.0.1.13/32 via 10.200.0.3   missing
            w2        -         cannot be asked                     no answer within 5s
        "#]]
        .assert_eq(&text);
        expect![[r#"
            {"NodeID":"id-m1","Node":"m1","Kind":"problem","Place":"-","What":"port 8080/tcp","How":"held by nginx (pid 12)"}
            {"NodeID":"id-w1","Node":"w1","Kind":"difference","Place":"front","What":"route 10.0.1.13/32 via 10.200.0.3","How":"missing"}
            {"NodeID":"id-w2","Node":"w2","Kind":"error","Place":"-","What":"cannot be asked","How":"no answer within 5s"}
        "#]].assert_eq(&show(all(), Some("json")).0);
        let (text, agree) = show(vec![blocked.clone(), node("w1")], None);
        assert!(agree, "a problem is no difference");
        expect![[r#"
            NODE      PLACE     WHAT            HOW
            m1        -         port 8080/tcp   held by nginx (pid 12)
            no node differs from what is wanted; 1 problem
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn clean() {
        assert_eq!(show(vec![node("b"), node("a")], None), ("all 2 nodes agree\n".into(), true));
        assert_eq!(show(vec![node("b"), node("a")], Some("json")), (String::new(), true));
        assert!(!show(vec![NodeNetworkCheck { error: "x".into(), ..node("a") }], None).1);
    }
}
