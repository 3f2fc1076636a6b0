//! The peer: Debian's haproxy in tcp mode, one thread, as it comes.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::spot::Spot;
use crate::bench::place;
use crate::bench::program::{self, Running};

/// Where it listens.
pub(crate) const PORT: u16 = 8888;

/// One that runs as long as the value lives.
pub(crate) struct Proxy {
    running: Running,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// Leads connections to [`PORT`] in a namespace to a server.
    pub(crate) fn start(spot: &Spot, to: SocketAddrV4) -> Result<Proxy> {
        let dir = place::directory()?;
        let file = dir.path().join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 30s\n  timeout server 30s\nlisten bench\n  bind :{PORT}\n  server task {to}\n"
        );
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        // whoever ends the bench in whatever way, it goes too
        let mut command: Command = spot.command(Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "haproxy", "-db", "-f"]).arg(&file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Proxy { running: Running(command.spawn().context("start haproxy")?), _dir: dir })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.0.id()
    }
}

/// Sees to it that haproxy is on the machine.
pub(crate) fn install() -> Result<()> {
    program::install(&[("haproxy", "haproxy")])
}
