//! `swarmctl image rm`.

use swarm_proto::v1::RemoveImageRequest;

use super::{Nodes, report};
use crate::client::Client;
use crate::error::{Failure, Outcome, Several};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove images that stopped containers use too
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    nodes: Nodes,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let nodes = args.nodes.references(client).await?;
    let mut several = Several::new();
    for image in args.images {
        let request = RemoveImageRequest { image, force: args.force, nodes: nodes.clone() };
        let stream = client.control().remove_image(request).await.map_err(Failure::from);
        if let Some(stream) = several.note(stream) {
            several.note(report::follow(stream.into_inner(), "", true).await);
        }
    }
    several.finish()
}
