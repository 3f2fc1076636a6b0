//! `swarmctl service rm`.

use swarm_proto::v1::RemoveServiceRequest;

use crate::client::Client;
use crate::error::{Failure, Outcome, Several};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut several = Several::new();
    for service in args.services {
        let removed =
            client.control().remove_service(RemoveServiceRequest { reference: service.clone() }).await;
        if several.note(removed.map_err(Failure::from)).is_some() {
            output::line(&service);
        }
    }
    several.finish()
}
