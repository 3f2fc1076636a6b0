//! `cargo xtask WORD`: the one word for each habit. Kept small: it is what a newcomer compiles first.

mod bench;
mod check;
mod demo;
mod guest;
mod package;
mod program;
mod rings;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask WORD

  demo [--keep]          a cluster of five hosts runs, scales and heals a service; --keep leaves it up
  test [RING...]         runs the tests: units, sim, cluster, hosts (default: all), installs what they need
  check                  format, lints, documentation; writes nothing
  fix                    formats, and applies what the lints suggest
  sim [SEED] [--seeds N] runs the simulator: one seed, or N fresh ones
  bench [...]            measures; `cargo xtask bench --help` says what
  gen                    writes generated code and expected outputs anew";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    std::env::set_current_dir(program::repository())?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo"] => demo::run(false),
        ["demo", "--keep"] => demo::run(true),
        ["demo-show", keep] => demo::show(*keep == "keep"),
        ["demo-end", code, keep] => demo::end(code.parse()?, *keep == "keep"),
        ["test", rings @ ..] => rings::run(rings),
        ["check"] => check::check(),
        ["fix"] => check::fix(),
        ["sim", rest @ ..] => passed_on("sim", rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["gen"] => check::generate(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("no such word: {}\n\n{HELP}", words.join(" ")),
    }
}

/// Programs of the `tests` crate that have their own flags.
fn passed_on(bin: &str, rest: &[&str]) -> Result<()> {
    package::install(package::BUILD)?;
    let head = ["run", "--release", "-p", "swarm-tests", "--bin", bin, "--"];
    program::cargo(&[&head, rest].concat())
}
