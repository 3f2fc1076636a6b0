//! The commands, a directory for each noun and a file for each verb.

mod admin_cert;
mod context;
mod dev;
mod image;
mod info;
mod inspect;
mod network;
mod node;
mod service;
mod swarm;
mod task;
mod version;

use clap::{CommandFactory, Parser, Subcommand};

use crate::endpoint::Globals;
use crate::error::{Failure, Outcome, chain};

/// Runs containers on a cluster of machines
#[derive(Debug, Parser)]
#[command(name = "swarmctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster: this node is its first manager
    Init(Box<swarm::init::Args>),
    /// Make this node part of a cluster
    Join(swarm::join::Args),
    /// Show what a new node has to run to join
    JoinToken(swarm::join_token::Args),
    /// Take this node out of its cluster
    Leave(swarm::leave::Args),
    /// Change the cluster's settings
    Update(swarm::update::Args),
    /// Show this node's place in the cluster
    Info(info::Args),
    /// Show the versions of swarmctl and swarmd
    Version(version::Args),
    /// The same commands under Docker's name
    #[command(subcommand, hide = true)]
    Swarm(swarm::SwarmCommand),
    /// Machines of the cluster
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Services: what the cluster is to run
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Tasks: single runs of a service's container
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Networks: what tasks reach each other over
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Images on the nodes
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Clusters that this command knows
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// A local cluster of five hosts on this machine, to try things on
    #[command(subcommand)]
    Dev(dev::DevCommand),
    /// Issue a certificate for controlling this cluster from another machine
    AdminCert(admin_cert::Args),
    /// Print a completion script for a shell
    Completion {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// Runs one command line.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let globals = &cli.globals;
    match cli.command {
        Command::Init(args) => swarm::init::run(*args, globals).await,
        Command::Join(args) => swarm::join::run(args, globals).await,
        Command::JoinToken(args) => swarm::join_token::run(args, globals).await,
        Command::Leave(args) => swarm::leave::run(args, globals).await,
        Command::Update(args) => swarm::update::run(args, globals).await,
        Command::Info(args) => info::run(args, globals).await,
        Command::Version(args) => version::run(args, globals).await,
        Command::Swarm(command) => swarm::run(command, globals).await,
        Command::Node(command) => node::run(command, globals).await,
        Command::Service(command) => Box::pin(service::run(command, globals)).await,
        Command::Task(command) => task::run(command, globals).await,
        Command::Network(command) => Box::pin(network::run(command, globals)).await,
        Command::Image(command) => Box::pin(image::run(command, globals)).await,
        Command::Context(command) => context::run(command, globals),
        Command::Dev(command) => develop(command).await,
        Command::AdminCert(args) => admin_cert::run(args, globals).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "swarmctl", &mut script);
            crate::output::bytes(&script);
            Ok(())
        }
    }
}

/// `exec` ends with its command's exit code.
async fn develop(command: dev::DevCommand) -> Outcome {
    let code = Box::pin(command.run(&mut std::io::stdout())).await;
    match code.map_err(|e| Failure::Refused(chain(&e)))? {
        0 => Ok(()),
        code => Err(Failure::Exit(u8::try_from(code).unwrap_or(1))),
    }
}

#[cfg(test)]
mod tests;
