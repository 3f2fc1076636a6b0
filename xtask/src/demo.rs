//! `demo`: a cluster of five hosts runs a service, scales it, loses a worker and its leader, and heals.
//!
//! The show runs in a session of its own under a small shell that catches Ctrl-C, so that whatever
//! happens to it, `demo-end` removes the cluster and looks whether anything is left.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::package;
use crate::program::{built, cargo, output, show as show_output};

const NAME: &str = "demo";
const ANSWER: Duration = Duration::from_secs(10);
const HEAL: Duration = Duration::from_secs(60);

/// Arguments: this program, `keep` or `remove`.
const SUPERVISOR: &str = r#"
setsid "$1" demo-show "$2" & show=$!
trap 'kill -s TERM -- -"$show" 2>/dev/null' INT TERM HUP
wait "$show"; code=$?
while kill -0 "$show" 2>/dev/null; do wait "$show"; code=$?; done
trap '' INT TERM HUP
exec "$1" demo-end "$code" "$2"
"#;

/// Installs, builds, and hands over to the supervised show.
pub fn run(keep: bool) -> Result<()> {
    let uid = output(Command::new("id").arg("-u"), ANSWER)?;
    if uid.trim() != "0" {
        bail!("the demo makes network namespaces and containers: run it as root");
    }
    package::install(package::BUILD)?;
    package::install(package::DEMO)?;
    println!("building swarmd, swarmd-shim and swarmctl (release; some minutes the first time)");
    cargo(&["build", "--release", "-p", "swarm-node", "-p", "swarm-worker-shim", "-p", "swarm-ctl"])?;
    let left = leftovers();
    if !left.is_empty() {
        bail!("an earlier demo is still up: `{} dev down --name {NAME}` removes it", ctl_path()?.display());
    }
    let own = std::env::current_exe().context("find xtask")?;
    let mut supervisor = Command::new("sh");
    supervisor.args(["-c", SUPERVISOR, "sh"]).arg(own).arg(if keep { "keep" } else { "remove" });
    if !keep {
        // the contexts of the user are none of a demo's business
        supervisor.env("SWARM_CONFIG_DIR", scratch());
    }
    Err(supervisor.exec()).context("run sh")
}

/// The last act: what is up goes, unless it is to stay, and the user is told.
pub fn end(code: i32, keep: bool) -> Result<()> {
    if keep && code == 0 {
        return say_how_to_talk();
    }
    let down = show_output(Command::new(ctl_path()?).args(["dev", "down", "--name", NAME]));
    std::fs::remove_dir_all(scratch()).ok();
    let left = leftovers();
    if !left.is_empty() {
        bail!("still on this machine: {}", left.join(", "));
    }
    println!("left on this machine: no process, namespace, mount, cgroup or file");
    if code != 0 {
        bail!("the demo did not finish (exit code {code})");
    }
    down
}

fn say_how_to_talk() -> Result<()> {
    let ctl = ctl_path()?;
    let ctl = ctl.display();
    println!("\nThe cluster stays up. Talk to it:");
    println!("  {ctl} node ls");
    println!("  {ctl} service ps web");
    println!("  {ctl} --context dev-{NAME}@m2 info");
    println!("  {ctl} dev ls --name {NAME}");
    println!("  {ctl} dev exec --name {NAME} client -- sh");
    println!("and remove it:\n  {ctl} dev down --name {NAME}");
    Ok(())
}

fn ctl_path() -> Result<PathBuf> {
    Ok(built("release")?.join("swarmctl"))
}

fn scratch() -> PathBuf {
    PathBuf::from("/run/swarm-demo")
}

pub fn show(keep: bool) -> Result<()> {
    let mut show = Show { ctl: ctl_path()?, times: Vec::new() };
    show.up()?;
    show.serve()?;
    let dead = show.lose_worker()?;
    show.lose_leader(&dead)?;
    show.print_times();
    if !keep {
        println!();
    }
    Ok(())
}

struct Show {
    ctl: PathBuf,
    times: Vec<(&'static str, Duration)>,
}

impl Show {
    fn up(&mut self) -> Result<()> {
        let began = Instant::now();
        self.say(&["dev", "up", "--name", NAME])?;
        self.times.push(("five hosts up, one cluster", began.elapsed()));
        std::fs::create_dir_all(scratch()).with_context(|| format!("make {}", scratch().display()))?;
        let image = scratch().join("demo.tar");
        let file = image.to_string_lossy();
        self.say(&["dev", "image", "--out", &file])?;
        let began = Instant::now();
        self.say(&["image", "load", "-i", &file])?;
        self.times.push(("image on every node", began.elapsed()));
        std::fs::remove_file(&image).with_context(|| format!("remove {}", image.display()))?;
        // with --keep nobody comes back for an empty directory
        std::fs::remove_dir(scratch()).ok();
        self.say(&["node", "ls"])
    }

    fn serve(&mut self) -> Result<()> {
        let began = Instant::now();
        self.say(&["service", "create", "--name", "web", "--replicas", "5", "demo:1"])?;
        self.await_running(None, 5, &[])?;
        self.times.push(("create -> 5/5 running", began.elapsed()));
        self.say(&["service", "ls"])?;
        self.say(&["service", "ps", "web"])?;
        let began = Instant::now();
        self.say(&["service", "scale", "web=12"])?;
        self.await_running(None, 12, &[])?;
        self.times.push(("scale to 12 -> 12/12 running", began.elapsed()));
        Ok(())
    }

    /// Returns the host that is dead now.
    fn lose_worker(&mut self) -> Result<String> {
        let dead = "w1".to_owned();
        let began = Instant::now();
        self.say(&["dev", "kill", "--name", NAME, &dead])?;
        self.await_running(None, 12, &[&dead])?;
        self.times.push(("worker killed -> 12/12 running elsewhere", began.elapsed()));
        self.say(&["service", "ps", "web"])?;
        Ok(dead)
    }

    fn lose_leader(&mut self, dead: &str) -> Result<()> {
        let nodes = self.rows(None, &["node", "ls", "--format", "json"])?;
        let leader = nodes.iter().find(|node| node["ManagerStatus"] == "Leader");
        let leader =
            leader.and_then(|node| node["Hostname"].as_str()).context("no leader in `node ls`")?.to_owned();
        let other =
            ["m1", "m2", "m3"].into_iter().find(|host| *host != leader).context("no other manager")?;
        let other = format!("dev-{NAME}@{other}");
        let began = Instant::now();
        self.say(&["dev", "kill", "--name", NAME, &leader])?;
        until("a write after the leader's death", || {
            self.quiet(Some(&other), &["service", "scale", "-d", "web=13"], Duration::from_secs(2))
                .map(|_| true)
        })?;
        self.times.push(("leader killed -> next write accepted", began.elapsed()));
        self.await_running(Some(&other), 13, &[dead, &leader])?;
        self.times.push(("leader killed -> 13/13 running elsewhere", began.elapsed()));
        self.say(&["--context", &other, "node", "ls"])?;
        self.say(&["--context", &other, "service", "ps", "web"])
    }

    fn await_running(&self, context: Option<&str>, count: usize, dead: &[&str]) -> Result<()> {
        until(&format!("{count} tasks running"), || {
            let tasks = self.rows(context, &["service", "ps", "web", "--format", "json"])?;
            let runs = |task: &&Value| {
                let current = task["CurrentState"].as_str().unwrap_or_default();
                let node = task["Node"].as_str().unwrap_or_default();
                task["DesiredState"] == "Running" && current.starts_with("Running") && !dead.contains(&node)
            };
            Ok(tasks.iter().filter(runs).count() == count)
        })
    }

    /// Types a command for the user to see.
    fn say(&self, args: &[&str]) -> Result<()> {
        println!("\n$ swarmctl {}", args.join(" "));
        show_output(Command::new(&self.ctl).args(args))
    }

    fn quiet(&self, context: Option<&str>, args: &[&str], limit: Duration) -> Result<String> {
        let mut command = Command::new(&self.ctl);
        if let Some(context) = context {
            command.args(["--context", context]);
        }
        output(command.args(args), limit)
    }

    fn rows(&self, context: Option<&str>, args: &[&str]) -> Result<Vec<Value>> {
        let text = self.quiet(context, args, ANSWER)?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("read `{line}`")))
            .collect()
    }

    fn print_times(&self) {
        println!("\nhow long it took");
        for (what, time) in &self.times {
            println!("  {what:<44} {:>7.2} s", time.as_secs_f64());
        }
    }
}

/// Polls until the condition holds; the last error is told if it never does.
fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + HEAL;
    loop {
        let seen = condition();
        match seen {
            Ok(true) => return Ok(()),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("wait for {what}"));
            }
            Ok(false) if Instant::now() >= end => bail!("wait for {what}: not in {} s", HEAL.as_secs()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// What a demo may have left: looked for without the programs that should have removed it.
fn leftovers() -> Vec<String> {
    let mut left = Vec::new();
    let disk = std::env::var("SWARM_DEV_ROOT").unwrap_or_else(|_| "/var/lib/swarm-dev".to_owned());
    for path in [format!("{disk}/{NAME}"), format!("/run/swarm-dev/{NAME}"), scratch().display().to_string()]
    {
        if Path::new(&path).exists() {
            left.push(format!("file {path}"));
        }
    }
    let entries = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries("/run/netns") {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("swarm-{NAME}-")) {
            left.push(format!("namespace {name}"));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if point.starts_with(&format!("{disk}/{NAME}")) {
            left.push(format!("mount {point}"));
        }
        let group = format!("{point}/swarm-dev/{NAME}");
        if point.starts_with("/sys/fs/cgroup") && Path::new(&group).exists() {
            left.push(format!("cgroup {group}"));
        }
    }
    for entry in entries("/proc") {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&format!("{disk}/{NAME}/")) || line.contains(&format!("/run/swarm-dev/{NAME}/")) {
            left.push(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    left
}
