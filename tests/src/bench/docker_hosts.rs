//! Four hosts of namespaces, each with its own `dockerd`: three managers and a worker, one swarm.
//!
//! Everything carries the name `swarm-bench-docker` and is gone with the value. No traffic leaves: the
//! hosts hang on a bridge in a network namespace without a way out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Connection;
use super::program::{self, Running};
use super::{cluster, cpu, place};

const NAME: &str = "swarm-bench-docker";
const COUNT: usize = 4;
const MANAGERS: usize = 3;
const HOST: &str = include_str!("docker_host.sh");
const LIMIT: Duration = Duration::from_secs(90);

/// Up as long as the value lives.
pub(crate) struct Hosts {
    hosts: Vec<Running>,
    dir: TempDir,
}

impl Hosts {
    pub(crate) fn up() -> Result<Hosts> {
        let mut all = Hosts { hosts: Vec::new(), dir: place::directory()? };
        all.network().context("make the hosts' network")?;
        fs::write(all.dir.path().join("host.sh"), HOST)?;
        for n in 0..COUNT {
            let host = all.boot(n)?;
            all.hosts.push(host);
        }
        let archive = all.dir.path().join("image.tar");
        cluster::image(&archive)?;
        let image = fs::read(&archive)?;
        for n in 0..COUNT {
            all.await_daemon(n)?;
            all.api(n)?.call("POST", "/images/load?quiet=1", "application/x-tar", &image)?;
        }
        all.form().context("form a swarm")?;
        Ok(all)
    }

    pub(crate) fn socket(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("h{n}/docker.sock"))
    }

    pub(crate) fn api(&self, n: usize) -> Result<Connection> {
        Connection::open(&self.socket(n))
    }

    pub(crate) fn count(&self) -> usize {
        self.hosts.len()
    }

    /// Power loss of the last host, a worker.
    pub(crate) fn kill_last(&mut self) {
        // its processes are a pid namespace's, and that namespace's first process dies with this one
        drop(self.hosts.pop());
    }

    /// CPU seconds that all hosts used so far, containers and what ended included.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let file = Path::new("/sys/fs/cgroup/cpuacct").join(NAME).join("cpuacct.usage");
        if let Ok(text) = fs::read_to_string(&file) {
            let nanos: f64 = text.trim().parse().context("a number in cpuacct.usage")?;
            return Ok(nanos / 1e9);
        }
        cpu::of_group(NAME)
    }

    /// Process ids of dockerd and containerd of the first host.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let groups = groups();
        let procs = groups.first().map(|group| group.join("h0/daemon/cgroup.procs"));
        let text = procs.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
        pids.filter(|pid| ["dockerd", "containerd"].contains(&cpu::program(*pid).as_str())).collect()
    }

    fn network(&self) -> Result<()> {
        remove_network();
        let ip = |words: &str| program::run(Command::new("ip").args(words.split(' ')));
        ip(&format!("netns add {NAME}"))?;
        ip(&format!("-n {NAME} link add br0 type bridge"))?;
        ip(&format!("-n {NAME} link set br0 up"))?;
        for n in 0..COUNT {
            let ns = namespace(n);
            ip(&format!("netns add {ns}"))?;
            ip(&format!("-n {ns} link set lo up"))?;
            ip(&format!("-n {NAME} link add v{n} type veth peer name eth0 netns {ns}"))?;
            ip(&format!("-n {NAME} link set v{n} master br0 up"))?;
            ip(&format!("-n {ns} addr add {}/24 dev eth0", address(n)))?;
            ip(&format!("-n {ns} link set eth0 up"))?;
        }
        Ok(())
    }

    fn boot(&self, n: usize) -> Result<Running> {
        let dir = self.dir.path().join(format!("h{n}"));
        fs::create_dir_all(dir.join("data")).context("make a host's directory")?;
        let mut entries = Vec::new();
        for group in groups() {
            let daemon = group.join(format!("h{n}/daemon"));
            fs::create_dir_all(&daemon).with_context(|| format!("make {}", daemon.display()))?;
            entries.push(daemon.join("cgroup.procs"));
        }
        let enter = r#"for file in $1; do echo $$ > "$file" || exit 1; done; shift; exec "$@""#;
        let files: Vec<String> = entries.iter().map(|file| file.display().to_string()).collect();
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).arg(files.join(" "));
        command.args(["nsenter", &format!("--net=/run/netns/{}", namespace(n))]);
        command.args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "sh"]).arg(self.dir.path().join("host.sh"));
        command.arg(format!("d{n}")).arg(&dir).arg(format!("/{NAME}/h{n}/work"));
        let log = fs::File::create(dir.join("boot.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Running(command.spawn().context("start a host")?))
    }

    fn await_daemon(&self, n: usize) -> Result<()> {
        until("dockerd to answer", || Ok(self.api(n).and_then(|mut api| api.get("/info")).is_ok())).map_err(
            |error| {
                let dir = self.dir.path().join(format!("h{n}"));
                let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
                error.context(format!("{}{}", read("boot.log"), read("dockerd.log")))
            },
        )
    }

    fn form(&self) -> Result<()> {
        let listen =
            |n: usize| json!({ "ListenAddr": format!("{}:2377", address(n)), "AdvertiseAddr": address(n) });
        let mut first = self.api(0)?;
        first.post("/swarm/init", &listen(0))?;
        let tokens = first.get("/swarm")?["JoinTokens"].clone();
        for n in 1..COUNT {
            let mut body = listen(n);
            body["RemoteAddrs"] = json!([format!("{}:2377", address(0))]);
            body["JoinToken"] = tokens[if n < MANAGERS { "Manager" } else { "Worker" }].clone();
            self.api(n)?.post("/swarm/join", &body)?;
        }
        until("all nodes to be ready", || {
            let nodes = first.get("/nodes")?;
            let ready = |node: &&Value| node["Status"]["State"] == "ready";
            Ok(nodes.as_array().is_some_and(|nodes| nodes.iter().filter(ready).count() == COUNT))
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.hosts.clear();
        let end = Instant::now() + Duration::from_secs(20);
        for group in groups() {
            while !remove_group(&group) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        remove_network();
    }
}

/// Polls until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !so()? {
        if Instant::now() >= end {
            bail!("wait for {what}: not in {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn namespace(n: usize) -> String {
    format!("{NAME}-{n}")
}

fn address(n: usize) -> String {
    format!("10.213.0.{}", n + 1)
}

/// The hosts' group in the hierarchies that count, limit and list: those of v1 where they exist, or
/// else the one of v2.
fn groups() -> Vec<PathBuf> {
    let v1 = ["cpuacct", "memory", "pids"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let mut found: Vec<PathBuf> = v1.into_iter().filter(|dir| dir.exists()).collect();
    if found.is_empty() {
        found.push(cpu::unified());
    }
    found.into_iter().map(|dir| dir.join(NAME)).collect()
}

/// Removes a group and all below it, in every hierarchy: the daemon made more of the same name.
fn remove_group(group: &Path) -> bool {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = hierarchies.map(|entry| entry.path().join(NAME)).collect();
    dirs.push(group.to_owned());
    dirs.iter().filter(|dir| dir.is_dir()).all(|dir| remove_tree(dir))
}

fn remove_tree(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    // every branch is tried, also after one that is still busy
    below.iter().filter(|path| !remove_tree(path)).count() == 0 && fs::remove_dir(dir).is_ok()
}

fn remove_network() {
    let names = (0..COUNT).map(namespace).chain([NAME.to_owned()]);
    for name in names.filter(|name| Path::new("/run/netns").join(name).exists()) {
        if let Err(error) = program::run(Command::new("ip").args(["netns", "del", &name])) {
            eprintln!("remove the namespace {name}: {error}");
        }
    }
}
