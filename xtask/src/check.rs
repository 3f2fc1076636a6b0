//! `check` reads, `fix` and `gen` write.

use std::process::Command;

use anyhow::Result;

use crate::package;
use crate::program::{cargo, show};

pub fn check() -> Result<()> {
    package::install(package::BUILD)?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    let mut doc = Command::new("cargo");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    show(doc.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]))?;
    println!("check: nothing to say");
    Ok(())
}

pub fn fix() -> Result<()> {
    package::install(package::BUILD)?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
        "--quiet",
    ])?;
    cargo(&["fmt", "--all"])
}

/// Writes anew what is committed and made by a program: the wire code, then what tests expect.
pub fn generate() -> Result<()> {
    package::install(package::BUILD)?;
    let test = |name, args: &[&str]| {
        let mut command = Command::new("cargo");
        show(command.env(name, "1").args(["test", "--quiet"]).args(args))
    };
    test("UPDATE_GENERATED", &["-p", "swarm-proto", "--test", "generated"])?;
    test("UPDATE_EXPECT", &["-p", "swarm-manager-core", "--lib", "-p", "swarm-ctl", "--bins"])?;
    test("UPDATE_EXPECT", &["-p", "swarm-tests", "--test", "scenarios"])
}
