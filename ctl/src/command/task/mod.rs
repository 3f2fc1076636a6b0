//! `swarmctl task …`.

mod inspect;
pub(crate) mod listing;
mod ls;

use clap::Subcommand;

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Show all that is known of tasks; of one that waits, why each node is unfit
    Inspect(inspect::Args),
    /// List all tasks of the cluster
    #[command(visible_alias = "list")]
    Ls(ls::Args),
}

pub(crate) async fn run(command: TaskCommand, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    match command {
        TaskCommand::Inspect(args) => inspect::run(args, &client).await,
        TaskCommand::Ls(args) => ls::run(args, &client).await,
    }
}
