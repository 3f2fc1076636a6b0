//! `swarmctl service ps`.

use swarm_proto::v1::ListTasksRequest;

use crate::client::Client;
use crate::command::task::listing::{self, TaskFlags};
use crate::error::{Outcome, Several};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: TaskFlags,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut several = Several::new();
    let mut services = Vec::new();
    for reference in &args.services {
        let found = super::get(client, reference).await;
        services.extend(several.note(found).map(|service| service.id.to_string()));
    }
    if !services.is_empty() {
        let request = ListTasksRequest { services, nodes: Vec::new() };
        let answer = client.control().list_tasks(request).await?.into_inner();
        listing::print(answer, &args.flags)?;
    }
    several.finish()
}
