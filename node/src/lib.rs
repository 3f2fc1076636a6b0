//! The daemon of a node: puts the agent and, on managers, the manager together in one process.
//!
//! Reading order: [`run`] (from start to end), `node` (what users ask of this machine), `active` (a
//! node in its cluster), `manager_role` (as a manager), `join` and `connect` (identity on the wire), `listen` and `switch` (doors).

mod active;
mod addr;
mod args;
mod clock;
mod connect;
mod crowd;
mod entropy;
mod executor;
mod info;
mod join;
mod listen;
mod local_api;
mod manager_role;
mod node;
pub mod run;
mod state_dir;
mod switch;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

pub use clock::SystemClock;

/// The program.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    if let Err(e) = telemetry::start(&args) {
        eprintln!("swarmd: read --log: {e}");
        return ExitCode::from(2);
    }
    match run::main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line, with its causes: what the service manager shows.
            tracing::error!(error = format!("{e:#}"), "swarmd ends");
            ExitCode::FAILURE
        }
    }
}
