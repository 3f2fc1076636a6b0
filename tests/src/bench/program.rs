//! Programs that are measured or needed, and where they are.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Debian packages of the peers, and a program of each.
const PEERS: &[(&str, &str)] = &[
    ("docker.io", "dockerd"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("etcd-server", "etcd"),
    ("etcd-client", "etcdctl"),
    ("iptables", "iptables"),
];

/// Where swarmd, swarmd-shim and swarmctl are: `SWARM_BIN_DIR`, or beside this program.
pub(crate) fn directory() -> Result<PathBuf> {
    let set = std::env::var_os("SWARM_BIN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let own = std::env::current_exe().context("find this program")?;
    let dir = set.or_else(|| own.parent().map(PathBuf::from)).context("find this program")?;
    for name in ["swarmd", "swarmd-shim", "swarmctl"] {
        if !dir.join(name).exists() {
            bail!("{} is missing: `cargo xtask bench` builds it", dir.join(name).display());
        }
    }
    Ok(dir)
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.exists())
}

/// Installs the peers that are missing, and says so.
pub(crate) fn install_peers() -> Result<()> {
    install(PEERS)
}

/// Installs what is missing of packages, each with a program of it, and says so.
pub(crate) fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, program)| find(program).is_none()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing, to measure against: {}", missing.join(" "));
    let install = || {
        let mut command = Command::new("apt-get");
        // installed for their programs alone: the services that come with them shall not start
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command.args(["install", "-qq", "-y", "--no-install-recommends"]).args(&missing);
        run(command.stdout(Stdio::null()))
    };
    install().or_else(|_| {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        install()
    })
}

/// Runs to the end; what it wrote on standard error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs to the end; what it wrote.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process that ends with the value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended already, and then there is nothing to do
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
