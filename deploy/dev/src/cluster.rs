//! A local cluster: made, opened, listed, and its hosts killed, started, paused, cut.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::boot::{self, Answer, Boot};
use crate::cgroup;
use crate::down;
use crate::error::{DownError, HostError, OpenError, SystemError, UpError};
use crate::form::Forming;
use crate::network;
use crate::place::{Place, Places, is_name, tail};
use crate::program;
use crate::record::{self, ClusterRecord, HostRecord, HostRow, HostState, Role};

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const LOG_LINES: usize = 20;

/// The programs a cluster runs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub swarmd: PathBuf,
    pub swarmctl: PathBuf,
}

/// What cluster to make.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One to eight of a-z and 0-9.
    pub name: String,
    pub managers: usize,
    pub workers: usize,
    pub programs: Programs,
    pub places: Places,
    /// Added to every daemon's command line, also when it is started again.
    pub daemon_args: Vec<String>,
    /// Added to every daemon's environment.
    pub daemon_env: Vec<(String, String)>,
    /// Leave what was made when something fails, to look at.
    pub keep_failed: bool,
    /// Set from outside to give up; what was made is then removed.
    pub cancel: Arc<AtomicBool>,
}

impl Settings {
    /// Three managers and two workers.
    pub fn new(name: impl Into<String>, programs: Programs) -> Settings {
        Settings {
            name: name.into(),
            managers: 3,
            workers: 2,
            programs,
            places: Places::from_env(),
            daemon_args: Vec::new(),
            daemon_env: Vec::new(),
            keep_failed: false,
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// A step of `up` that is done, and the time since its beginning.
#[derive(Clone, Debug)]
pub struct Step {
    pub elapsed: Duration,
    pub text: String,
}

/// A cluster that is up (at least in part).
#[derive(Clone, Debug)]
pub struct Cluster {
    record: ClusterRecord,
    place: Place,
    cancel: Arc<AtomicBool>,
}

impl Cluster {
    /// Makes the hosts, starts a daemon on each, and forms one cluster of them. Needs root.
    ///
    /// # Errors
    /// What failed, with the end of the daemon's log; what was made is removed unless `keep_failed`.
    pub fn up(settings: &Settings, progress: &mut dyn FnMut(&Step)) -> Result<Cluster, UpError> {
        let began = Instant::now();
        let (place, _lock) = claim(settings)?;
        let made = prepare(settings, &place, progress)
            .and_then(|cluster| cluster.form(began, progress).map(|()| cluster));
        made.map_err(|error| undo(settings, error))
    }

    /// Makes the hosts and starts their daemons, which then know nothing of each other.
    ///
    /// # Errors
    /// As [`Cluster::up`].
    pub fn hosts_up(settings: &Settings, progress: &mut dyn FnMut(&Step)) -> Result<Cluster, UpError> {
        let (place, _lock) = claim(settings)?;
        prepare(settings, &place, progress).map_err(|error| undo(settings, error))
    }

    /// `init`, `join`, wait until every node is Ready. `began` is what the steps' times count from.
    ///
    /// # Errors
    /// The command that failed, with the end of the daemon's log. Nothing is removed.
    pub fn form(&self, began: Instant, progress: &mut dyn FnMut(&Step)) -> Result<(), UpError> {
        let forming = Forming { record: &self.record, place: &self.place, cancel: &self.cancel };
        let mut say = |text: String| progress(&Step { elapsed: began.elapsed(), text });
        forming.init()?;
        say(format!("init on {}", forming.first().name));
        forming.join()?;
        let nodes = self.record.nodes().count();
        say(format!("joined: {} more", nodes - 1));
        forming.await_ready()?;
        say(format!("ready: {nodes} nodes"));
        Ok(())
    }

    /// Opens a cluster by name, or else the newest.
    ///
    /// # Errors
    /// [`OpenError::Unknown`], [`OpenError::None`], or a record that cannot be read.
    pub fn open(places: &Places, name: Option<&str>) -> Result<Cluster, OpenError> {
        let newest = || Cluster::names(places).into_iter().next().ok_or(OpenError::None);
        let name = name.map_or_else(newest, |name| Ok(name.to_owned()))?;
        if !is_name(&name) {
            return Err(OpenError::Unknown(name));
        }
        let place = places.of(&name);
        let path = place.record();
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(OpenError::Unknown(name));
            }
            other => other.map_err(SystemError::file("read", &path))?,
        };
        let record = serde_json::from_slice(&text).map_err(|source| SystemError::Record { path, source })?;
        Ok(Cluster { record, place, cancel: Arc::default() })
    }

    /// The names of the clusters of this machine, newest first.
    pub fn names(places: &Places) -> Vec<String> {
        let dirs = [&places.run, &places.disk];
        let entries = dirs.into_iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.dedup();
        let made =
            |name: &String| std::fs::metadata(places.of(name).record()).and_then(|meta| meta.modified()).ok();
        names.retain(|name| is_name(name) && made(name).is_some());
        names.sort_by_key(|name| std::cmp::Reverse(made(name)));
        names
    }

    /// Removes a cluster with its processes, namespaces, mounts, cgroups and files; also one half made.
    /// Says whether there was anything. An `up` that is still going on is waited for, a minute at most.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn down(places: &Places, name: &str) -> Result<bool, DownError> {
        if is_name(name) {
            await_up(&places.of(name));
        }
        down::down(places, name)
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Every host, `client` last.
    pub fn hosts(&self) -> &[HostRecord] {
        &self.record.hosts
    }

    /// Where the daemon of a host listens.
    pub fn socket(&self, host: &str) -> PathBuf {
        self.place.socket(host)
    }

    /// What the daemon of a host wrote, over all its starts.
    pub fn log(&self, host: &str) -> PathBuf {
        self.place.log(host)
    }

    /// The `state` directory of a host's daemon: its disk.
    pub fn state_dir(&self, host: &str) -> PathBuf {
        self.place.host(host).join("state")
    }

    /// Process id of the daemon of a host, if it runs.
    pub fn daemon_pid(&self, host: &str) -> Option<i32> {
        Boot::load(&self.place, host).running().map(|process| process.pid)
    }

    /// Every host and what it is doing.
    pub fn list(&self) -> Vec<HostRow> {
        self.record.hosts.iter().map(|host| HostRow { host: host.clone(), state: self.state(host) }).collect()
    }

    fn state(&self, host: &HostRecord) -> HostState {
        let boot = Boot::load(&self.place, &host.name);
        let main = if host.role == Role::Client { boot.up() } else { boot.running() };
        match main {
            None => HostState::Stopped,
            Some(process) if process.is_stopped() => HostState::Paused,
            Some(_) if self.cut_mark(host).exists() => HostState::Cut,
            Some(_) => HostState::Running,
        }
    }

    /// A command that runs in a host: its network, its name, its mounts; streams are the caller's.
    ///
    /// # Errors
    /// No such host, or it is not up.
    pub fn command(&self, host: &str, argv: &[OsString]) -> Result<Command, HostError> {
        let host = self.host(host)?;
        let boot = Boot::load(&self.place, &host.name);
        let stopped = || HostError::Stopped { action: "run a command on", host: host.name.clone() };
        let idle = boot.up().ok_or_else(stopped)?;
        Ok(boot::exec(&cgroup::make(&self.record.name, &host.name)?, idle, argv))
    }

    /// Runs a command in a host to its end; its exit code, 128 + N if a signal N ended it.
    ///
    /// # Errors
    /// As [`Cluster::command`].
    pub fn exec(&self, host: &str, argv: &[OsString]) -> Result<i32, HostError> {
        use std::os::unix::process::ExitStatusExt;
        let program = argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |source| HostError::Exec { program, host: host.to_owned(), source };
        let status = self.command(host, argv)?.status().map_err(failed)?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Power loss: daemon, containers, links and all that is not on disk are gone at once.
    ///
    /// # Errors
    /// No such host, or something of it did not end.
    pub fn kill(&self, host: &str) -> Result<(), HostError> {
        let host = self.host(host)?;
        cgroup::end(&format!("{}/{}", self.record.name, host.name))?;
        network::unplug(&self.record, host)?;
        std::fs::remove_file(self.place.socket(&host.name)).ok();
        Ok(())
    }

    /// `kill -9` of the daemon alone; its containers go on.
    ///
    /// # Errors
    /// No such host, or its daemon is not running.
    pub fn kill_daemon(&self, host: &str) -> Result<(), HostError> {
        let process = self.daemon(host, "kill the daemon of")?;
        process.signal(Signal::SIGKILL);
        let end = Instant::now() + ANSWER_LIMIT;
        while process.is_alive() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Boots a host that was killed, with its disk; or only its daemon, if the host itself is up.
    /// Returns when the daemon answers.
    ///
    /// # Errors
    /// It is running, or its daemon does not answer.
    pub fn start(&self, host: &str) -> Result<(), HostError> {
        let host = self.host(host)?;
        let boot = Boot::load(&self.place, &host.name);
        if boot.running().is_some() || (host.role == Role::Client && boot.up().is_some()) {
            return Err(HostError::Running { host: host.name.clone() });
        }
        if boot.up().is_none() {
            // what a host that ended by itself left behind
            self.kill(&host.name)?;
            network::plug(&self.record, host)?;
            if self.cut_mark(host).exists() {
                network::set_link(&self.record, host, false)?;
            }
            boot::boot(&self.record, &self.place, host)?;
        }
        if host.role != Role::Client {
            boot::start_daemon(&self.record, &self.place, host)?;
        }
        let name = host.name.clone();
        match boot::await_answer(&self.place, host, ANSWER_LIMIT, &self.cancel) {
            Answer::Yes => Ok(()),
            Answer::Ended => Err(HostError::Ended { log: self.tail(&name), host: name }),
            Answer::Silent | Answer::Cancelled => {
                Err(HostError::Silent { log: self.tail(&name), host: name, waited: ANSWER_LIMIT })
            }
        }
    }

    /// SIGSTOP to the daemon; its containers go on.
    ///
    /// # Errors
    /// No such host, or its daemon is not running.
    pub fn pause(&self, host: &str) -> Result<(), HostError> {
        self.signal(host, "pause", Signal::SIGSTOP)
    }

    /// SIGCONT to the daemon.
    ///
    /// # Errors
    /// No such host, or its daemon is not running.
    pub fn resume(&self, host: &str) -> Result<(), HostError> {
        self.signal(host, "resume", Signal::SIGCONT)
    }

    /// Pulls the host's cable, for both directions; it stays pulled over a `kill` and `start`.
    ///
    /// # Errors
    /// No such host.
    pub fn cut(&self, host: &str) -> Result<(), HostError> {
        self.set_cable(host, false)
    }

    /// Plugs the host's cable in again.
    ///
    /// # Errors
    /// No such host.
    pub fn heal(&self, host: &str) -> Result<(), HostError> {
        self.set_cable(host, true)
    }

    fn signal(&self, host: &str, action: &'static str, signal: Signal) -> Result<(), HostError> {
        let delivered = self.daemon(host, action)?.signal(signal);
        if delivered { Ok(()) } else { Err(HostError::Stopped { action, host: host.to_owned() }) }
    }

    fn set_cable(&self, host: &str, up: bool) -> Result<(), HostError> {
        let host = self.host(host)?;
        let mark = self.cut_mark(host);
        if up {
            std::fs::remove_file(&mark).ok();
        } else {
            std::fs::write(&mark, "").map_err(SystemError::file("write", &mark))?;
        }
        if network::namespace_file(&self.record.name, &host.name).exists() {
            network::set_link(&self.record, host, up)?;
        }
        Ok(())
    }

    fn cut_mark(&self, host: &HostRecord) -> PathBuf {
        self.place.host(&host.name).join("cut")
    }

    fn tail(&self, host: &str) -> String {
        tail(&self.place.log(host), LOG_LINES)
    }

    fn host(&self, name: &str) -> Result<&HostRecord, HostError> {
        let known = || self.record.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" ");
        let unknown = || HostError::Unknown {
            host: name.to_owned(),
            cluster: self.record.name.clone(),
            known: known(),
        };
        self.record.hosts.iter().find(|host| host.name == name).ok_or_else(unknown)
    }

    fn daemon(&self, host: &str, action: &'static str) -> Result<crate::process::Process, HostError> {
        let host = self.host(host)?;
        if host.role == Role::Client {
            return Err(HostError::NoDaemon { action, host: host.name.clone() });
        }
        let daemon = Boot::load(&self.place, &host.name).daemon.filter(crate::process::Process::is_alive);
        daemon.ok_or_else(|| HostError::Stopped { action, host: host.name.clone() })
    }
}

fn check(settings: &Settings) -> Result<(), UpError> {
    let Settings { managers, workers, .. } = *settings;
    if !is_name(&settings.name) {
        return Err(UpError::Name(settings.name.clone()));
    }
    if !(1..=7).contains(&managers) || workers > 100 {
        return Err(UpError::Size { managers, workers });
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(UpError::NotRoot);
    }
    for (program, package) in [("ip", "iproute2"), ("nsenter", "util-linux"), ("setsid", "util-linux")] {
        program::find(program).ok_or(UpError::Missing { program, package })?;
    }
    if !cgroup::has_v2() {
        return Err(UpError::NoCgroup);
    }
    Ok(())
}

/// Takes the name, for the whole machine, and removes what may carry it without an owner. The lock is
/// held until the cluster is up, so that a `down` waits for it.
fn claim(settings: &Settings) -> Result<(Place, File), UpError> {
    check(settings)?;
    let Settings { name, places, .. } = settings;
    let run = places.run.join(name);
    let disk = places.disk.join(name);
    if disk.exists() {
        return Err(UpError::Exists(name.clone()));
    }
    std::fs::create_dir_all(&places.run).map_err(SystemError::file("make", &places.run))?;
    match std::fs::create_dir(&run) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(UpError::Exists(name.clone()));
        }
        other => other.map_err(SystemError::file("make", &run))?,
    }
    let made = cgroup::end(name)
        .and_then(|()| network::namespaces(name).iter().try_for_each(|namespace| network::remove(namespace)))
        .and_then(|()| std::fs::create_dir_all(&disk).map_err(SystemError::file("make", &disk)))
        .and_then(|()| {
            let link = run.join("disk");
            std::os::unix::fs::symlink(&disk, &link).map_err(SystemError::file("make", link))
        });
    made.map_err(|error| undo(settings, error.into()))?;
    let lock = File::open(&disk).map_err(SystemError::file("open", &disk))?;
    lock.lock().map_err(SystemError::file("lock", &disk))?;
    Ok((Place { disk, run }, lock))
}

fn prepare(settings: &Settings, place: &Place, progress: &mut dyn FnMut(&Step)) -> Result<Cluster, UpError> {
    let began = Instant::now();
    let record = write_record(settings, place)?;
    let mut say = |text: String| progress(&Step { elapsed: began.elapsed(), text });
    network::make(&record)?;
    say(format!("network: {} hosts, 172.28.{}.0/24", record.hosts.len(), record.block));
    for_all(&record.hosts, |host| {
        boot::boot(&record, place, host)?;
        if host.role != Role::Client {
            boot::start_daemon(&record, place, host)?;
        }
        answer(&record, place, host, &settings.cancel)
    })?;
    say(format!("daemons answer: {}", record.nodes().map(|h| h.name.as_str()).collect::<Vec<_>>().join(" ")));
    Ok(Cluster { record, place: place.clone(), cancel: settings.cancel.clone() })
}

fn for_all(
    hosts: &[HostRecord],
    work: impl Fn(&HostRecord) -> Result<(), UpError> + Sync,
) -> Result<(), UpError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = hosts.iter().map(|host| scope.spawn(|| work(host))).collect();
        // every thread is waited for, so that nothing is started after an undo began
        let ends: Vec<_> = threads.into_iter().map(|t| t.join().expect("a boot does not panic")).collect();
        ends.into_iter().collect()
    })
}

fn answer(
    record: &ClusterRecord,
    place: &Place,
    host: &HostRecord,
    cancel: &AtomicBool,
) -> Result<(), UpError> {
    let log = || tail(&place.log(&host.name), LOG_LINES);
    let name = host.name.clone();
    match boot::await_answer(place, host, ANSWER_LIMIT, cancel) {
        Answer::Yes => Ok(()),
        Answer::Ended => Err(UpError::Ended { host: name, log: log() }),
        Answer::Silent => Err(UpError::Silent { host: name, waited: ANSWER_LIMIT, log: log() }),
        Answer::Cancelled => Err(UpError::Cancelled(record.name.clone())),
    }
}

fn write_record(settings: &Settings, place: &Place) -> Result<ClusterRecord, UpError> {
    let taken: Vec<u8> = Cluster::names(&settings.places)
        .iter()
        .filter_map(|name| Cluster::open(&settings.places, Some(name)).ok())
        .map(|cluster| cluster.record.block)
        .collect();
    let block = (1..=250).find(|block| !taken.contains(block)).ok_or(UpError::NoBlock)?;
    let record = ClusterRecord {
        name: settings.name.clone(),
        block,
        hosts: record::hosts(settings.managers, settings.workers, block),
        swarmd: settings.programs.swarmd.clone(),
        swarmctl: settings.programs.swarmctl.clone(),
        daemon_args: settings.daemon_args.clone(),
        daemon_env: settings.daemon_env.clone(),
    };
    let lines = record.hosts.iter().map(|h| format!("{} {}\n{} {}\n", h.address, h.name, h.address6, h.name));
    let names: String =
        std::iter::once("127.0.0.1 localhost\n::1 localhost\n".to_owned()).chain(lines).collect();
    let text = serde_json::to_string_pretty(&record).expect("plain values become json");
    for (path, text) in [(place.hosts_file(), names), (place.record(), text)] {
        std::fs::write(&path, text).map_err(SystemError::file("write", path))?;
    }
    Ok(record)
}

fn undo(settings: &Settings, error: UpError) -> UpError {
    if settings.keep_failed {
        return error;
    }
    match down::down(&settings.places, &settings.name) {
        Ok(_) => error,
        Err(undo) => UpError::Undo { undo, source: Box::new(error) },
    }
}

fn await_up(place: &Place) {
    let Ok(lock) = File::open(&place.disk) else { return };
    let end = Instant::now() + Duration::from_secs(60);
    while lock.try_lock().is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}
