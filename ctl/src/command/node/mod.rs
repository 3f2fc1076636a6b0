//! `swarmctl node …`.

mod change;
mod inspect;
mod ls;
mod ps;
mod rm;

use clap::Subcommand;
use swarm_proto::convert::Malformed;
use swarm_proto::v1;
use swarm_types::node::{Node, Role};

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// List the tasks of nodes
    Ps(ps::Args),
    /// Show all that is known of nodes
    Inspect(inspect::Args),
    /// Change availability, role or labels of a node
    Update(change::Args),
    /// Make nodes managers
    Promote(change::Nodes),
    /// Make managers workers
    Demote(change::Nodes),
    /// Remove nodes that are down
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
}

pub(crate) async fn run(command: NodeCommand, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    match command {
        NodeCommand::Ls(args) => ls::run(args, &client).await,
        NodeCommand::Ps(args) => ps::run(args, &client).await,
        NodeCommand::Inspect(args) => inspect::run(args, &client).await,
        NodeCommand::Update(args) => change::run(args, &client).await,
        NodeCommand::Promote(nodes) => change::role(nodes, Role::Manager, &client).await,
        NodeCommand::Demote(nodes) => change::role(nodes, Role::Worker, &client).await,
        NodeCommand::Rm(args) => rm::run(args, &client).await,
    }
}

/// One node by id, name or `self`.
async fn get(client: &Client, reference: &str) -> Outcome<(Node, Option<v1::ManagerStatus>)> {
    entry(get_entry(client, reference).await?)
}

/// As [`get`], with all that managers say of it.
async fn get_entry(client: &Client, reference: &str) -> Outcome<v1::NodeEntry> {
    let reference = client.node_reference(reference).await?;
    let answer = client.control().get_node(v1::GetNodeRequest { reference }).await?.into_inner();
    Ok(answer.entry.unwrap_or_default())
}

fn entry(entry: v1::NodeEntry) -> Outcome<(Node, Option<v1::ManagerStatus>)> {
    let missing = Malformed { field: "node".into(), problem: "missing".into() };
    Ok((Node::try_from(entry.node.ok_or(missing)?)?, entry.manager))
}
