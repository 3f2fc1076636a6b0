//! `swarmctl service inspect`.

use crate::client::Client;
use crate::command::inspect::{Found, InspectFlags};
use crate::command::network;
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: InspectFlags,
    /// For people
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut found = Found::new("service");
    for reference in &args.services {
        let Some(service) = found.note(reference, super::get(client, reference).await)? else { continue };
        // For their names, and the prefixes of addresses.
        let networks = match service.endpoint.vips.is_empty() && service.spec.task.networks.is_empty() {
            true => Vec::new(),
            false => network::list(client).await?,
        };
        match args.pretty {
            true => found.sheet(output::pretty::service(&service, &networks, crate::system::now())),
            false => found.object(output::inspect::service(&service, &networks)),
        }
    }
    found.print(&args.flags, args.pretty)
}
