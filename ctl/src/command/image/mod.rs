//! `swarmctl image …`.

mod load;
mod ls;
mod pull;
mod report;
mod rm;

use clap::Subcommand;

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Put the images of an archive (`docker save`, OCI layout) on all nodes
    Load(load::Args),
    /// List the images on the nodes
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Have all nodes pull an image from its registry
    Pull(pull::Args),
    /// Remove images from all nodes
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
}

pub(crate) async fn run(command: ImageCommand, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    match command {
        ImageCommand::Load(args) => load::run(args, &client).await,
        ImageCommand::Ls(args) => ls::run(args, &client).await,
        ImageCommand::Pull(args) => pull::run(args, &client).await,
        ImageCommand::Rm(args) => rm::run(args, &client).await,
    }
}

/// Which nodes a command is for.
#[derive(Debug, clap::Args)]
pub(crate) struct Nodes {
    /// Only this node; `self` is the one we talk to [default: all that are ready]
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
}

impl Nodes {
    async fn references(&self, client: &Client) -> Outcome<Vec<String>> {
        let mut references = Vec::new();
        for node in &self.nodes {
            references.push(client.node_reference(node).await?);
        }
        Ok(references)
    }
}
