//! `swarmctl leave`.

use swarm_proto::v1::LeaveRequest;

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave even as a manager, or while joining
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    Client::connect(globals).await?.local().leave(LeaveRequest { force: args.force }).await?;
    output::line("Node left the swarm.");
    Ok(())
}
