//! `swarmctl node inspect`.

use crate::client::Client;
use crate::command::inspect::{self, InspectFlags};
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: InspectFlags,
    /// For people
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    /// Nodes; `self` is the one we talk to
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut found = inspect::Found::new("node");
    for reference in &args.nodes {
        let entry = found.note(reference, super::get_entry(client, reference).await)?;
        let Some(mut entry) = entry else { continue };
        let problems = std::mem::take(&mut entry.network_problems);
        let (node, manager) = super::entry(entry)?;
        match args.pretty {
            true => {
                found.sheet(output::pretty::node(&node, manager.as_ref(), &problems, crate::system::now()));
            }
            false => found.object(output::inspect::node(&node, manager.as_ref(), &problems)),
        }
    }
    found.print(&args.flags, args.pretty)
}
