//! `swarmctl network rm`.

use swarm_proto::v1::RemoveNetworkRequest;

use crate::client::Client;
use crate::error::{Failure, Outcome, Several};
use crate::flags::network::predefined;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not complain about networks that are not there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut several = Several::new();
    for reference in &args.networks {
        match remove(client, reference).await {
            Err(Failure::NotFound(_)) if args.force => {}
            removed => {
                if several.note(removed).is_some() {
                    output::line(reference);
                }
            }
        }
    }
    several.finish()
}

/// Removes one.
pub(super) async fn remove(client: &Client, reference: &str) -> Outcome {
    if predefined(reference).is_some() {
        // Docker's words.
        return Err(Failure::Refused(format!("{reference} is a pre-defined network and cannot be removed")));
    }
    let request = RemoveNetworkRequest { reference: reference.to_owned() };
    match client.control().remove_network(request).await.map_err(Failure::from) {
        Ok(_) => Ok(()),
        Err(Failure::NotFound(_)) => Err(Failure::NotFound(format!("network {reference} not found"))),
        Err(failure) => Err(failure),
    }
}
