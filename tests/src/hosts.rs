//! Real hosts: a cluster of network namespaces, driven as a user drives it, with `swarmctl`.
//!
//! The programs are those in `SWARM_BIN_DIR`. A test ends with [`Hosts::end`], which fails on any WARN or
//! ERROR line that was not expected and on anything that is left on the machine.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // only tests use it: a failure is a panic

mod inside;
mod said;
mod server;
mod task;
mod traffic;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use swarm_deploy_dev::{Cluster, Programs, Settings, demo_image, leftovers};

pub use inside::Inside;
pub use said::{Said, words};
pub use task::TaskRow;
pub use traffic::{Load, Report, Traffic};

/// How long a condition may take to come true, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A cluster that a test owns.
pub struct Hosts {
    pub cluster: Cluster,
    settings: Settings,
    scratch: tempfile::TempDir,
    /// Parts of WARN and ERROR lines that this test provokes.
    expected: Vec<String>,
    ended: bool,
}

impl Hosts {
    /// One cluster of so many hosts, formed and Ready, with the demo image on every node.
    pub fn up(managers: usize, workers: usize) -> Hosts {
        Hosts::up_with(managers, workers, |_| {})
    }

    /// As [`Hosts::up`], with the heartbeat of Docker Swarm: a node of a machine that is busy is not taken for a
    /// dead one. For tests that are not about how soon a node is missed.
    pub fn patient(managers: usize, workers: usize) -> Hosts {
        let hosts = Hosts::up(managers, workers);
        hosts.ok("m1", "update --dispatcher-heartbeat 5s");
        hosts
    }

    /// As [`Hosts::up`], with other settings.
    pub fn up_with(managers: usize, workers: usize, change: impl FnOnce(&mut Settings)) -> Hosts {
        let hosts = Hosts::bare_with(managers, workers, change);
        hosts.cluster.form(Instant::now(), &mut |_| {}).unwrap_or_else(|e| panic!("form: {e:#}"));
        hosts.load();
        hosts
    }

    /// Hosts whose daemons know nothing of each other.
    pub fn bare(managers: usize, workers: usize) -> Hosts {
        Hosts::bare_with(managers, workers, |_| {})
    }

    /// As [`Hosts::bare`], with other settings.
    pub fn bare_with(managers: usize, workers: usize, change: impl FnOnce(&mut Settings)) -> Hosts {
        let mut settings = Settings::new(unique_name(), programs());
        (settings.managers, settings.workers) = (managers, workers);
        change(&mut settings);
        let cluster = Cluster::hosts_up(&settings, &mut |_| {}).unwrap_or_else(|e| panic!("up: {e:#}"));
        let scratch = tempfile::tempdir().unwrap();
        Hosts { cluster, settings, scratch, expected: Vec::new(), ended: false }
    }

    /// A directory of the test's own, seen by every host.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Writes the demo image and says where it is.
    pub fn image_file(&self, name: &str) -> PathBuf {
        let file = self.scratch().join(format!("{}.tar", name.replace([':', '/'], "-")));
        let busybox = std::env::var("SWARM_BUSYBOX").unwrap_or_else(|_| "/bin/busybox".into());
        demo_image(Path::new(&busybox), &file, name).unwrap_or_else(|e| panic!("demo image: {e}"));
        file
    }

    /// `image load` of `demo:1` on all nodes that are there.
    pub fn load(&self) {
        let file = self.image_file("demo:1");
        let load = format!("image load -q -i {}", file.display());
        // A node of a machine that is busy may just have lost its session: it is loaded again.
        let mut said = self.ctl("m1", &load);
        let loaded = poll(PATIENCE, || {
            said.code == 0 || {
                said = self.ctl("m1", &load);
                said.code == 0
            }
        });
        assert!(loaded, "m1$ swarmctl {load}\n{said}");
    }

    /// From here on, a WARN or ERROR line that contains this is no failure.
    pub fn expect_log(&mut self, parts: &[&str]) {
        self.expected.extend(parts.iter().map(ToString::to_string));
    }

    /// Runs `swarmctl` against one host's daemon; words are split as a shell splits them.
    pub fn ctl(&self, host: &str, line: &str) -> Said {
        said::run(self.ctl_command(host, line), Duration::from_secs(60))
    }

    /// The command that [`Hosts::ctl`] runs.
    pub fn ctl_command(&self, host: &str, line: &str) -> Command {
        let mut command = Command::new(&self.settings.programs.swarmctl);
        command.arg("--host").arg(format!("unix://{}", self.cluster.socket(host).display()));
        command.args(words(line)).env("SWARM_CONFIG_DIR", self.scratch()).env_remove("SWARM_CONTEXT");
        command.stdin(Stdio::null());
        command
    }

    /// As [`Hosts::ctl`]; it must work. Returns what it printed.
    pub fn ok(&self, host: &str, line: &str) -> String {
        let said = self.ctl(host, line);
        assert_eq!(said.code, 0, "{host}$ swarmctl {line}\n{said}");
        said.out
    }

    /// As [`Hosts::ctl`]; it must be refused with this part of a sentence.
    pub fn refused(&self, host: &str, line: &str, why: &str) {
        let said = self.ctl(host, line);
        assert!(
            said.code != 0 && said.err.contains(why),
            "{host}$ swarmctl {line}\nnot refused with `{why}`:\n{said}"
        );
    }

    /// What a listing prints with `--format json`: one object a line.
    pub fn rows(&self, host: &str, line: &str) -> Vec<Value> {
        json_lines(&self.ok(host, &format!("{line} --format json")))
    }

    /// As [`Hosts::rows`]; nothing if the command is refused, which a cluster in trouble may do.
    pub fn try_rows(&self, host: &str, line: &str) -> Option<Vec<Value>> {
        let said = self.ctl(host, &format!("{line} --format json"));
        (said.code == 0).then(|| json_lines(&said.out))
    }

    /// `service ls` of the first of these hosts that answers.
    pub fn rows_of_any(&self, hosts: &[&str]) -> Vec<Value> {
        hosts.iter().find_map(|host| self.try_rows(host, "service ls")).unwrap_or_default()
    }

    /// The first object of `... inspect`.
    pub fn inspect(&self, host: &str, line: &str) -> Value {
        let text = self.ok(host, line);
        let all: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"));
        all.get(0).cloned().unwrap_or_else(|| panic!("{line}: {text}"))
    }

    /// The `Swarm` part of `info`.
    pub fn info(&self, host: &str) -> Value {
        let text = self.ok(host, "info --format json");
        serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("info: {e}: {text}"))["Swarm"].clone()
    }

    /// `inactive`, `pending`, `active`, …
    pub fn state(&self, host: &str) -> String {
        self.info(host)["LocalNodeState"].as_str().unwrap_or_default().to_owned()
    }

    pub fn token(&self, host: &str, role: &str) -> String {
        self.ok(host, &format!("join-token -q {role}")).trim().to_owned()
    }

    /// Address and port of a host's manager.
    pub fn address(&self, host: &str) -> String {
        let found = self.cluster.hosts().iter().find(|h| h.name == host);
        format!("{}:2377", found.unwrap_or_else(|| panic!("no host {host}")).address)
    }

    /// Founds the cluster on `host`, which is otherwise [`Hosts::bare`].
    pub fn init(&self, host: &str, flags: &str) -> String {
        let address = self.address(host);
        self.ok(host, &format!("init --advertise-addr {} {flags}", address.trim_end_matches(":2377")))
    }

    /// The row of a host in `node ls`, as `via` answers it; of a host that joined again, the one that is
    /// not Down.
    pub fn node(&self, via: &str, host: &str) -> Option<Value> {
        let mut rows = self.try_rows(via, "node ls")?;
        rows.retain(|row| row["Hostname"] == host);
        rows.sort_by_key(|row| row["Status"] == "Down");
        rows.into_iter().next()
    }

    /// Removes the nodes that are Down.
    pub fn remove_down_nodes(&self, via: &str) {
        for row in self.rows(via, "node ls").iter().filter(|row| row["Status"] == "Down") {
            self.ok(via, &format!("node rm {}", row["ID"].as_str().unwrap_or_default()));
        }
    }

    /// Waits until `node ls` shows this word in a column of a host.
    pub fn until_node(&self, via: &str, host: &str, column: &str, word: &str) {
        until_in(PATIENCE, &format!("{host} is {word}"), || {
            self.node(via, host).is_some_and(|row| row[column] == word)
        });
    }

    /// The host that leads, if `via` knows one.
    pub fn leader(&self, via: &str) -> Option<String> {
        let rows = self.try_rows(via, "node ls")?;
        let leader = rows.iter().find(|row| row["ManagerStatus"] == "Leader")?;
        Some(leader["Hostname"].as_str()?.to_owned())
    }

    /// The host that leads; waits for one that is not `but`.
    pub fn until_leader(&self, via: &str, but: &str) -> String {
        let mut found = None;
        until(&format!("a leader other than `{but}`"), || {
            found = self.leader(via).filter(|leader| leader != but);
            found.is_some()
        });
        found.unwrap()
    }

    /// All tasks of a service that the cluster remembers.
    pub fn tasks(&self, via: &str, service: &str) -> Vec<TaskRow> {
        self.try_tasks(via, service).unwrap_or_else(|| panic!("service ps {service}"))
    }

    /// As [`Hosts::tasks`]; nothing if the command is refused.
    pub fn try_tasks(&self, via: &str, service: &str) -> Option<Vec<TaskRow>> {
        let rows = self.try_rows(via, &format!("service ps --no-trunc {service}"))?;
        Some(rows.iter().map(TaskRow::read).collect())
    }

    /// The tasks of a service that run and are to run.
    pub fn running(&self, via: &str, service: &str) -> Vec<TaskRow> {
        self.try_tasks(via, service).unwrap_or_default().into_iter().filter(TaskRow::runs).collect()
    }

    /// Waits until exactly so many tasks run and nothing else of the service is to run.
    pub fn until_running(&self, via: &str, service: &str, count: usize) -> Vec<TaskRow> {
        let mut seen = Vec::new();
        let ok = poll(PATIENCE, || {
            seen = self.try_tasks(via, service).unwrap_or_default();
            let wanted: Vec<_> = seen.iter().filter(|task| task.is_wanted()).collect();
            wanted.len() == count && wanted.iter().all(|task| task.runs())
        });
        assert!(ok, "{service}: not {count} running:\n{}", task::table(&seen));
        seen.retain(TaskRow::runs);
        seen
    }

    /// Waits until one of the tasks is in this state and its error holds this text.
    pub fn until_task(&self, via: &str, service: &str, state: &str, error: &str) -> TaskRow {
        let mut seen = Vec::new();
        let fits = |t: &TaskRow| t.state == state && t.error.contains(error);
        let ok = poll(PATIENCE, || {
            seen = self.try_tasks(via, service).unwrap_or_default();
            seen.iter().any(fits)
        });
        assert!(ok, "{service}: no task {state} with `{error}`:\n{}", task::table(&seen));
        seen.into_iter().find(fits).unwrap()
    }

    /// How many running tasks each host has.
    pub fn spread(&self, via: &str, service: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for task in self.running(via, service) {
            *counts.entry(task.node).or_default() += 1;
        }
        counts
    }

    /// Waits until the raw log of a service or task holds this, and returns it.
    pub fn until_log(&self, via: &str, subject: &str, part: &str) -> String {
        let mut said = None;
        let ok = poll(PATIENCE, || {
            let now = self.ctl(via, &format!("service logs --raw {subject}"));
            let found = now.code == 0 && now.out.contains(part);
            said = Some(now);
            found
        });
        let said = said.unwrap();
        assert!(ok, "log of {subject} without `{part}`:\n{said}");
        said.out
    }

    /// Runs a shell line in a host.
    pub fn sh(&self, host: &str, line: &str) -> Said {
        let argv = ["sh", "-c", line].map(OsString::from);
        let mut command = self.cluster.command(host, &argv).unwrap_or_else(|e| panic!("exec on {host}: {e}"));
        command.env("SWARM_CONFIG_DIR", self.scratch().join("config")).stdin(Stdio::null());
        said::run(command, Duration::from_secs(60))
    }

    /// The bundles of containers that a host has, by task id.
    pub fn containers(&self, host: &str) -> Vec<String> {
        let dir = self.cluster.state_dir(host).join("containers");
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The containers of a host that run, by task id. An ended one is kept as long as its task is.
    pub fn live_containers(&self, host: &str) -> Vec<String> {
        let mut live = self.containers(host);
        live.retain(|id| {
            let record = std::fs::read(self.bundle(host, id).join("started.json")).unwrap_or_default();
            let record: Value = serde_json::from_slice(&record).unwrap_or_default();
            let pid = record["init"]["pid"].as_u64().unwrap_or(0);
            let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            pid > 0 && group.contains(id.as_str())
        });
        live
    }

    /// A container's bundle.
    pub fn bundle(&self, host: &str, task: &str) -> PathBuf {
        self.cluster.state_dir(host).join("containers").join(task)
    }

    /// The process id of a task's container, as seen on this machine.
    pub fn pid_of(&self, via: &str, task: &str) -> i32 {
        let inspected = self.inspect(via, &format!("task inspect {task}"));
        let pid = inspected["Status"]["ContainerStatus"]["PID"].as_i64();
        i32::try_from(pid.unwrap_or_else(|| panic!("no pid: {inspected}"))).unwrap()
    }

    /// Waits until no host has a container, a container's mount or a container's control group.
    pub fn until_no_containers(&self) {
        let mut left = Vec::new();
        let ok = poll(PATIENCE, || {
            left = self.container_leftovers();
            left.is_empty()
        });
        assert!(ok, "containers are left: {left:?}");
    }

    fn container_leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for host in self.cluster.hosts() {
            left.extend(self.containers(&host.name).iter().map(|id| format!("{}: bundle {id}", host.name)));
            let group = format!("swarm-dev/{}/{}/work/containers", self.cluster.name(), host.name);
            for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
                let entries = std::fs::read_dir(Path::new(root).join(&group)).into_iter().flatten().flatten();
                let dirs = entries.filter(|e| e.path().is_dir());
                left.extend(dirs.map(|e| format!("cgroup {}", e.path().display())));
            }
        }
        left
    }

    /// All WARN and ERROR lines of the daemons.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        for host in self.cluster.hosts() {
            let text = std::fs::read(self.cluster.log(&host.name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let bad = |line: &&str| {
                line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked at")
            };
            found.extend(text.lines().filter(bad).map(|line| format!("{}: {line}", host.name)));
        }
        found
    }

    /// Removes the cluster; fails on a complaint that was not expected and on leftovers.
    pub fn end(mut self) {
        let mut complaints = self.complaints();
        complaints.retain(|line| !self.expected.iter().any(|part| line.contains(part.as_str())));
        assert!(complaints.is_empty(), "lines in the logs that nobody expected:\n{}", complaints.join("\n"));
        self.ended = true;
        let (places, name) = (&self.settings.places, &self.settings.name);
        Cluster::down(places, name).unwrap_or_else(|e| panic!("down: {e:#}"));
        assert_eq!(leftovers(places, name), [""; 0]);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        for host in self.cluster.hosts() {
            let text = std::fs::read(self.cluster.log(&host.name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("---- swarmd of {}, its last lines\n{}", host.name, tail.join("\n"));
        }
        // the machine is left as it was found; the failure itself is told by the panic
        Cluster::down(&self.settings.places, &self.settings.name).ok();
    }
}

/// Polls until the condition holds; false when the time is over.
pub fn poll(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a condition, [`PATIENCE`] at most.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_in(PATIENCE, what, condition);
}

/// Waits for a condition.
pub fn until_in(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    let began = Instant::now();
    assert!(poll(limit, condition), "{what}: not in {:?}", began.elapsed());
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn programs() -> Programs {
    let dir = std::env::var_os("SWARM_BIN_DIR").map(PathBuf::from);
    let dir =
        dir.expect("SWARM_BIN_DIR names the directory of swarmd and swarmctl (cargo xtask test sets it)");
    Programs { swarmd: dir.join("swarmd"), swarmctl: dir.join("swarmctl") }
}

/// No two tests that run at once have the same: the process id and a count, in base 36.
fn unique_name() -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) % 36;
    let mut number = std::process::id() * 36 + count;
    let mut name = String::new();
    while number > 0 {
        name.insert(0, char::from_digit(number % 36, 36).unwrap());
        number /= 36;
    }
    format!("t{name}")
}
