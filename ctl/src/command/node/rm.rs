//! `swarmctl node rm`.

use swarm_proto::v1::RemoveNodeRequest;

use crate::client::Client;
use crate::error::{Failure, Outcome, Several};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove a node that is not down too; its certificate is refused from then on
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut several = Several::new();
    for node in args.nodes {
        let request = RemoveNodeRequest { reference: node.clone(), force: args.force };
        let removed = client.control().remove_node(request).await;
        if several.note(removed.map_err(Failure::from)).is_some() {
            output::line(&node);
        }
    }
    several.finish()
}
