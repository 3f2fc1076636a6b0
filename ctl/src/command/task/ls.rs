//! `swarmctl task ls`.

use swarm_proto::v1::ListTasksRequest;

use super::listing::{self, TaskFlags};
use crate::client::Client;
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: TaskFlags,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let answer = client.control().list_tasks(ListTasksRequest::default()).await?.into_inner();
    listing::print(answer, &args.flags)
}
