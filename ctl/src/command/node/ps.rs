//! `swarmctl node ps`.

use swarm_proto::v1::ListTasksRequest;

use crate::client::Client;
use crate::command::task::listing::{self, TaskFlags};
use crate::error::{Outcome, Several};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: TaskFlags,
    /// Nodes; `self` is the one we talk to
    #[arg(default_value = "self", value_name = "NODE")]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut several = Several::new();
    let mut nodes = Vec::new();
    for reference in &args.nodes {
        let found = super::get(client, reference).await;
        nodes.extend(several.note(found).map(|(node, _)| node.id.to_string()));
    }
    if !nodes.is_empty() {
        let request = ListTasksRequest { services: Vec::new(), nodes };
        let answer = client.control().list_tasks(request).await?.into_inner();
        listing::print(answer, &args.flags)?;
    }
    several.finish()
}
