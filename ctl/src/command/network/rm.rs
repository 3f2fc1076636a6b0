//! `swarmctl network rm`.

use swarm_proto::v1::RemoveNetworkRequest;

use super::confirm::confirmed;
use crate::client::Client;
use crate::error::{Failure, Outcome, Several};
use crate::flags::network::predefined;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not complain about networks that are not there, and do not ask before the ingress network goes
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

const WARNING: &str = "WARNING! This removes the routing mesh: no service can publish a port on all nodes until \
                       there is another ingress network (`network create --ingress`). All nodes should run the \
                       same version, so that each of them takes the old one away.";

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    run_asking(args, client, &confirmed).await
}

/// As [`run`]; `confirmed` asks.
pub(crate) async fn run_asking(
    args: Args,
    client: &Client,
    confirmed: &(dyn Fn(&str) -> Outcome<bool> + Sync),
) -> Outcome {
    let mut several = Several::new();
    for reference in &args.networks {
        if !args.force && is_ingress(client, reference).await && !confirmed(WARNING)? {
            output::note(&format!("Kept: network {reference}"));
            continue;
        }
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

/// What cannot be asked for is left to the removal to complain about.
async fn is_ingress(client: &Client, reference: &str) -> bool {
    predefined(reference).is_none()
        && super::get(client, reference).await.is_ok_and(|(network, _)| network.spec.ingress)
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
