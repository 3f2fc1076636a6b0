//! A network namespace to run things in: who calls, who is called, who stands between.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::{client, server};
use crate::bench::program::{self, Running};

/// The last part of a call that hangs.
const GRACE: Duration = Duration::from_secs(10);

/// A benchmark that sent connections as fast as it can for a minute would run out of ports, and of
/// tracked connections: the kernel keeps both for minutes after a connection's end. All namespaces on
/// the way are told to forget sooner, for ours and for the peers.
const SOON: &[(&str, &str)] = &[
    ("ipv4/ip_local_port_range", "1024 65535"),
    ("ipv4/tcp_max_tw_buckets", "0"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "2"),
    ("netfilter/nf_conntrack_tcp_timeout_close", "2"),
];

/// A network namespace, as `nsenter` is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Spot(Vec<String>);

/// Whether requests share connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kept,
    New,
}

/// What a load came to.
pub(crate) struct Calls {
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
    /// Of who called.
    pub(crate) cpu: f64,
}

impl Spot {
    pub(crate) fn file(path: &Path) -> Spot {
        Spot(vec![format!("--net={}", path.display())])
    }

    pub(crate) fn of_process(pid: u32) -> Spot {
        Spot(vec!["-t".to_owned(), pid.to_string(), "-n".to_owned()])
    }

    /// A command in there.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(&self.0).arg(program).stdin(Stdio::null());
        command
    }

    /// A shell line in there; what it printed.
    pub(crate) fn shell(&self, line: &str) -> Result<String> {
        program::output(self.command(Path::new("sh")).args(["-c", line]))
    }

    /// Makes it forget connections soon.
    pub(crate) fn forget_soon(&self) -> Result<()> {
        let lines = SOON.iter().map(|(key, value)| {
            let file = format!("/proc/sys/net/{key}");
            // without tracked connections there is nothing to forget
            format!("[ ! -e {file} ] || echo {value} > {file} || exit 1\n")
        });
        self.shell(&lines.collect::<String>()).map(drop)
    }

    /// Starts a server; it listens when this returns.
    pub(crate) fn serve(&self, page: u16, sink: u16) -> Result<Running> {
        let mut command = self.own(&[server::WORD, &page.to_string(), &sink.to_string()])?;
        let mut running = Running(command.stdout(Stdio::piped()).spawn().context("start a server")?);
        let mut line = String::new();
        let output = running.0.stdout.take().context("the server's output")?;
        BufReader::new(output).read_line(&mut line).context("wait for a server")?;
        ensure!(line.trim() == "ready", "a server on port {page} does not start");
        Ok(running)
    }

    /// Calls a server for so long.
    pub(crate) async fn call(&self, to: SocketAddrV4, kind: Kind, lasts: Duration) -> Result<Calls> {
        let word = if kind == Kind::Kept { "kept" } else { "new" };
        let said = self.run(&[client::WORD, &to.to_string(), word], lasts).await?;
        let [requests, failed, seconds, cpu] = said[..] else { bail!("a client says {said:?}") };
        ensure!(requests > 0.0, "nobody answers at {to}");
        ensure!(failed <= requests / 100.0, "calls of {to}: {failed} failed, {requests} were answered");
        Ok(Calls { requests, seconds, cpu })
    }

    /// Waits until a server answers.
    pub(crate) async fn reach(&self, to: SocketAddrV4) -> Result<()> {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            match self.call(to, Kind::New, Duration::from_millis(50)).await {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Gbit/s into a sink, by one connection.
    pub(crate) async fn pour(&self, to: SocketAddrV4, lasts: Duration) -> Result<f64> {
        let said = self.run(&[client::SOURCE, &to.to_string()], lasts).await?;
        let [bytes, seconds] = said[..] else { bail!("a source says {said:?}") };
        Ok(bytes * 8.0 / 1e9 / seconds)
    }

    /// This program in there, with a time to last; the numbers it printed.
    async fn run(&self, words: &[&str], lasts: Duration) -> Result<Vec<f64>> {
        let command = self.own(&[words, &[&lasts.as_millis().to_string()]].concat())?;
        let mut command = tokio::process::Command::from(command);
        let running = command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = tokio::time::timeout(lasts + GRACE, running).await;
        let output =
            output.with_context(|| format!("{}: it hangs", words.join(" ")))?.context("run a client")?;
        if !output.status.success() {
            bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().map(|word| word.parse().with_context(|| format!("read {text}"))).collect()
    }

    fn own(&self, words: &[&str]) -> Result<Command> {
        let own = std::env::current_exe().context("find this program")?;
        let mut command = self.command(&own);
        command.args(words);
        Ok(command)
    }
}

/// The processes of a bench end with it, however it ends.
pub(crate) fn end_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask to end with the bench")
}

/// An address and a port.
pub(crate) fn at(addr: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(addr, port)
}
