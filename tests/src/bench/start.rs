//! Create + start of one container: ours, bare crun and (with `--peers`) bare runc, turn by turn.
//!
//! All three make the same root (busybox), the namespaces of `crun spec`, and run `sleep`. Ours does
//! more in that time: an overlay, Docker's system call filter and capabilities, a log, a supervisor.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use swarm_types::time::{Clock, Timestamp};
use swarm_worker_runtime::container::{ContainerConfig, Containers, Settings};

use super::Order;
use super::program::Running;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};
use super::{place, program};

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(swarm_worker_shim::clock::now_ms())
    }
}

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let dir = place::directory()?;
    let root = dir.path().join("image");
    rootfs(&root)?;
    let ours = Ours::open(order, dir.path(), &root)?;
    let mut peers = Vec::new();
    for name in ["crun", "runc"] {
        if (name == "crun" || order.peers)
            && let Some(program) = program::find(name)
        {
            peers.push((name, Runtime::open(&program, &dir.path().join(name), &root)?, Vec::new()));
        }
    }
    let mut own = Vec::new();
    for n in 0..order.times(60, 20) {
        own.push(ours.start(&format!("b{n}")).await?);
        for (_, runtime, times) in &mut peers {
            times.push(runtime.start(&format!("swarm-bench-{n}"))?);
        }
    }
    drop(ours);
    let own = Sample::of(own);
    let mut rows = Vec::new();
    for (name, _, times) in peers {
        let row =
            Row::new(format!("create + start one container (bare {name})"), Unit::Milliseconds, own.clone());
        let row = row.peer(Peer::Now(name, Sample::of(times)));
        rows.push(if name == "crun" { row.target(Target::RatioAtMost(1.0)) } else { row });
    }
    if rows.is_empty() {
        let row = Row::new("create + start one container", Unit::Milliseconds, own);
        rows.push(row.target(Target::RatioAtMost(1.0)));
    }
    Ok(rows)
}

struct Ours {
    containers: Containers,
    parent: String,
    image: PathBuf,
}

impl Ours {
    fn open(order: &Order, dir: &Path, image: &Path) -> Result<Ours> {
        let parent = format!("/swarm-bench-{}", std::process::id());
        let settings = Settings {
            root: dir.join("containers"),
            cgroup_parent: parent.clone(),
            shim: order.programs.join("swarmd-shim"),
        };
        let containers = Containers::open(settings, Arc::new(SystemClock)).context("open the runtime")?;
        Ok(Ours { containers, parent, image: image.to_owned() })
    }

    /// Milliseconds until it runs; it is gone after.
    async fn start(&self, id: &str) -> Result<f64> {
        let config = ContainerConfig {
            layers: vec![self.image.clone()],
            args: ["sleep", "86400"].map(str::to_owned).to_vec(),
            ..ContainerConfig::default()
        };
        let began = Instant::now();
        self.containers.create(id, config).await.context("create")?;
        self.containers.start(id).await.context("start")?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        self.containers.kill(id).await.context("kill")?;
        self.containers.wait(id).await.context("wait")?;
        self.containers.remove(id).await.context("remove")?;
        Ok(took)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let controllers = self.containers.controllers();
        controllers.remove_parent(self.containers.cgroup_parent());
        controllers.remove_parent(&self.parent);
    }
}

pub(crate) const WORD: &str = "oci-starter";

/// crun refuses machines with both kinds of control groups: it gets a view without the second one.
const ALONE: &str = r#"
if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified || exit 1; fi
exec "$@""#;

/// A runtime of the OCI kind, run by a process of its own that has such a view.
struct Runtime {
    starter: Running,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Runtime {
    fn open(program: &Path, dir: &Path, image: &Path) -> Result<Runtime> {
        let bundle = dir.join("bundle");
        fs::create_dir_all(&bundle).context("make a bundle")?;
        program::run(Command::new(program).arg("spec").current_dir(&bundle))?;
        let file = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?).context("read config.json")?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sleep", "86400"]);
        config["root"] = json!({ "path": image, "readonly": false });
        fs::write(&file, config.to_string()).context("write config.json")?;
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ALONE, "sh"]).arg(own).arg(WORD).arg(program).arg(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut starter = Running(command.spawn().context("run unshare")?);
        let orders = starter.0.stdin.take().context("its input")?;
        let answers = BufReader::new(starter.0.stdout.take().context("its output")?).lines();
        Ok(Runtime { starter, orders, answers })
    }

    /// Milliseconds until it runs; it is gone after.
    fn start(&mut self, id: &str) -> Result<f64> {
        writeln!(self.orders, "{id}").context("ask for a container")?;
        let answer = self.answers.next().context("it ended")?.context("ask for a container")?;
        answer.parse().map_err(|_| anyhow!("process {}: {answer}", self.starter.0.id()))
    }
}

/// Starts a container for each line that comes in, removes it, and answers how long the start took.
pub(crate) fn serve(words: &[String]) -> Result<()> {
    let [program, dir] = words else { bail!("{WORD} PROGRAM DIRECTORY") };
    let dir = Path::new(dir);
    for id in std::io::stdin().lines() {
        match start_once(Path::new(program), dir, &id?) {
            Ok(ms) => println!("{ms}"),
            Err(error) => println!("{error:#}"),
        }
    }
    Ok(())
}

fn start_once(program: &Path, dir: &Path, id: &str) -> Result<f64> {
    let command = |word: &str| {
        let mut command = Command::new(program);
        command.arg("--root").arg(dir.join("state")).arg(word);
        // the container keeps these open: a pipe would never end
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let began = Instant::now();
    let status = command("run").args(["-d", "-b"]).arg(dir.join("bundle")).arg(id).status()?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    ensure!(status.success(), "{} run: {status}", program.display());
    let status = command("delete").args(["-f", id]).status()?;
    ensure!(status.success(), "{} delete: {status}", program.display());
    Ok(took)
}

/// A directory with busybox, as all three see it.
fn rootfs(dir: &Path) -> Result<()> {
    for sub in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(dir.join(sub)).context("make the image")?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).context("copy busybox (busybox-static is needed)")?;
    std::os::unix::fs::symlink("busybox", dir.join("bin/sleep")).context("make the image")
}
