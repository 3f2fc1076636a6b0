//! `bench`: builds what is measured as it ships, and measures it.

use std::process::Command;

use anyhow::Result;

use crate::package;
use crate::program::{built, cargo, show};

pub fn run(words: &[&str]) -> Result<()> {
    package::install(package::BUILD)?;
    package::install(package::DEMO)?;
    package::install(package::BENCH)?;
    cargo(&["build", "--release", "-p", "swarm-node", "-p", "swarm-worker-shim", "-p", "swarm-ctl"])?;
    cargo(&["build", "--release", "-p", "swarm-manager-core", "--example", "schedule_bench"])?;
    let names = ["-p", "swarm-worker-dns", "--features", "testing", "--example", "dns_bench"];
    cargo(&[["build", "--release"].as_slice(), &names].concat())?;
    cargo(&["build", "--release", "-p", "swarm-tests", "--bin", "bench"])?;
    let programs = built("release")?;
    show(Command::new(programs.join("bench")).args(words).env("SWARM_BIN_DIR", &programs))
}
