//! Runs programs: cargo and what it built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the repository").to_owned()
}

/// The directory of a build: this program itself lies in `TARGET/debug`.
pub fn built(profile: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the target directory")?;
    let target = own.ancestors().nth(2).context("find the target directory")?;
    Ok(target.join(profile))
}

pub fn cargo(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    show(Command::new(cargo).args(args))
}

/// Runs a command, its output as it comes.
pub fn show(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a command to its end and returns its output; it is killed when the limit is over.
pub fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let line = line(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run `{line}`"))?;
    let end = Instant::now() + limit;
    // what these commands say fits into a pipe's buffer (64 KiB), so waiting before reading is safe
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("`{line}`: no answer in {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
