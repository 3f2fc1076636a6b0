//! `swarmctl node update`, `promote`, `demote`.

use swarm_proto::v1::UpdateNodeRequest;
use swarm_types::node::{Availability, Node, NodeSpec, Role};

use crate::client::{Client, UPDATE_TRIES};
use crate::error::{Failure, Outcome, Several};
use crate::flags::label;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// active, pause or drain
    #[arg(long, value_name = "WORD", value_parser = crate::command::swarm::availability)]
    availability: Option<Availability>,
    /// worker or manager
    #[arg(long, value_name = "ROLE", value_parser = role_word)]
    role: Option<Role>,
    /// Add or change a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    label_add: Vec<(String, String)>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// The node; `self` is the one we talk to
    node: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Nodes {
    /// Nodes; `self` is the one we talk to
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    change(client, &args.node, |spec| {
        spec.availability = args.availability.unwrap_or(spec.availability);
        spec.role = args.role.unwrap_or(spec.role);
        label::change(&mut spec.annotations.labels, &args.label_add, &args.label_rm);
        true
    })
    .await?;
    output::line(&args.node);
    Ok(())
}

pub(crate) async fn role(nodes: Nodes, role: Role, client: &Client) -> Outcome {
    let mut several = Several::new();
    for reference in &nodes.nodes {
        let changed = change(client, reference, |spec| std::mem::replace(&mut spec.role, role) != role).await;
        let Some(changed) = several.note(changed) else { continue };
        output::line(&match (changed.is_some(), role) {
            (true, Role::Manager) => format!("Node {reference} promoted to a manager in the swarm."),
            (true, Role::Worker) => format!("Manager {reference} demoted in the swarm."),
            (false, role) => format!("Node {reference} is already a {}.", role.as_str()),
        });
    }
    several.finish()
}

/// Changes a node's spec; nothing is sent if `f` says that nothing changed.
async fn change(
    client: &Client,
    reference: &str,
    f: impl Fn(&mut NodeSpec) -> bool,
) -> Outcome<Option<Node>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (mut node, _) = super::get(client, reference).await?;
        if !f(&mut node.spec) {
            return Ok(None);
        }
        let request = UpdateNodeRequest {
            node_id: node.id.to_string(),
            version: node.meta.version,
            spec: Some((&node.spec).into()),
        };
        match client.control().update_node(request).await.map_err(Failure::from) {
            Ok(_) => return Ok(Some(node)),
            Err(Failure::Stale(_)) if tries < UPDATE_TRIES => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn role_word(text: &str) -> Result<Role, String> {
    match text {
        "worker" => Ok(Role::Worker),
        "manager" => Ok(Role::Manager),
        _ => Err("expected worker or manager".into()),
    }
}
