//! `cargo xtask bench`: measures, and prints a table of ratios with their targets.
//!
//! What is measured and how is in [`bench`]; how to repeat it, and what came out, in `docs/benchmarks.md`.
#![allow(clippy::print_stdout, reason = "prints a table for people")]

#[path = "../bench/mod.rs"]
mod bench;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match bench::run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
