//! A task dies: until the last of a hundred nodes leads nobody to it any more.
//!
//! The nodes are `nodes.rs`, in a process of their own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::nodes;
use crate::bench::sample::Sample;
use crate::bench::table::{Row, Target, Unit};
use crate::bench::{Order, place};

const NODES: usize = 100;
const MANAGERS: usize = 1;
/// Longer than a hundred nodes take to join, and longer than any death takes.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let deaths = order.times(250, 200);
    let disk = place::directory()?;
    let memory = tempfile::Builder::new().prefix("swarm-bench-").tempdir_in("/dev/shm");
    let memory = memory.context("make a directory in /dev/shm")?;
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.arg(nodes::WORD).arg(disk.path()).arg(memory.path());
    command.args([MANAGERS, NODES, deaths].map(|number| number.to_string()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("start a hundred nodes")?;
    let lines = BufReader::new(child.stdout.take().context("their output")?).lines();
    let took = read(lines, &mut child).await?;
    ensure!(took.len() == deaths, "{} of {deaths} deaths were measured", took.len());
    let row = Row::new("task dead -> the last of 100 nodes knows, p99", Unit::Milliseconds, Sample::of(took));
    Ok(vec![row.p99().target(Target::AtMost(500.0))])
}

/// Milliseconds, a line each.
async fn read(mut lines: Lines<BufReader<ChildStdout>>, child: &mut Child) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    while let Some(line) =
        tokio::time::timeout(LIMIT, lines.next_line()).await.context("a hundred nodes hang")??
    {
        took.push(line.parse().with_context(|| format!("read `{line}`"))?);
    }
    let status = child.wait().await.context("wait for a hundred nodes")?;
    ensure!(status.success(), "a hundred nodes: {status}");
    Ok(took)
}
