//! `swarmctl`: turns flags into specs and answers into text. Knows nothing that the API does not say.

mod client;
mod command;
mod endpoint;
mod error;
mod flags;
mod output;
mod progress;
mod system;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = command::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            output::error(&format!("start: {e}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, error::Failure::Exit(_)) {
                output::error(&failure.to_string());
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
