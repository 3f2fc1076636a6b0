//! The cluster itself: `init`, `join`, `join-token`, `leave`, `update`.

pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod join_token;
pub(crate) mod leave;
pub(crate) mod settings;
pub(crate) mod update;

use clap::Subcommand;

use crate::endpoint::Globals;
use crate::error::Outcome;

/// `swarmctl swarm …`: as without `swarm`.
#[derive(Debug, Subcommand)]
pub(crate) enum SwarmCommand {
    /// Start a cluster: this node is its first manager
    Init(Box<init::Args>),
    /// Make this node part of a cluster
    Join(join::Args),
    /// Show what a new node has to run to join
    JoinToken(join_token::Args),
    /// Take this node out of its cluster
    Leave(leave::Args),
    /// Change the cluster's settings
    Update(update::Args),
}

pub(crate) async fn run(command: SwarmCommand, globals: &Globals) -> Outcome {
    match command {
        SwarmCommand::Init(args) => init::run(*args, globals).await,
        SwarmCommand::Join(args) => join::run(args, globals).await,
        SwarmCommand::JoinToken(args) => join_token::run(args, globals).await,
        SwarmCommand::Leave(args) => leave::run(args, globals).await,
        SwarmCommand::Update(args) => update::run(args, globals).await,
    }
}

/// Reads an availability.
pub(crate) fn availability(text: &str) -> Result<swarm_types::node::Availability, String> {
    use swarm_types::node::Availability;
    let all = [Availability::Active, Availability::Pause, Availability::Drain];
    all.into_iter().find(|a| a.as_str() == text).ok_or_else(|| "expected active, pause or drain".into())
}
