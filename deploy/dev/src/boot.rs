//! Boots a host and starts its daemon.
//!
//! A host is held by one idle process with its own UTS and mount namespaces, in the host's network
//! namespace and cgroup. Daemons enter those, so a daemon that is killed and started again finds the
//! mounts it left, as on a real machine; only the end of the whole host drops them.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::SystemError;
use crate::network;
use crate::place::Place;
use crate::process::Process;
use crate::program;
use crate::record::{ClusterRecord, HostRecord, Role};

const LIMIT: Duration = Duration::from_secs(20);

/// Enters the cgroup, becomes the host's idle process. Arguments: cgroup, namespace, name, hosts file, pid file.
const IDLE: &str = r#"
echo $$ > "$1/cgroup.procs" || exit 1
exec nsenter --net="$2" unshare --uts --mount sh -c '
  echo "$1" > /proc/sys/kernel/hostname
  mount --bind "$2" /etc/hosts
  echo $$ > "$3.new" && mv "$3.new" "$3"
  exec sleep infinity' sh "$3" "$4" "$5"
"#;

/// Enters the cgroup and the host, becomes the daemon. Arguments: cgroup, pid of the idle process, pid file, command.
const DAEMON: &str = r#"
echo $$ > "$1/cgroup.procs" || exit 1
ulimit -n "$(ulimit -Hn)" 2>/dev/null
idle=$2; pid=$3; shift 3
echo $$ > "$pid.new" && mv "$pid.new" "$pid"
exec nsenter --target "$idle" --net --uts --mount "$@"
"#;

/// Enters the cgroup and the host and becomes a command. Arguments: cgroup, pid of the idle process, directory, command.
const EXEC: &str = r#"
echo $$ > "$1/cgroup.procs" || exit 125
idle=$2; dir=$3; shift 3
exec nsenter --target "$idle" --net --uts --mount sh -c 'cd "$0" 2>/dev/null || cd /; exec "$@"' "$dir" "$@"
"#;

/// The processes of a host that is up, as written to `HOST/boot.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) idle: Option<Process>,
    pub(crate) daemon: Option<Process>,
}

impl Boot {
    pub(crate) fn load(place: &Place, host: &str) -> Boot {
        let text = std::fs::read(place.host(host).join("boot.json")).unwrap_or_default();
        // a file that is missing or torn means that nothing is known to run; the cgroup is asked as well
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn save(&self, place: &Place, host: &str) -> Result<(), SystemError> {
        let path = place.host(host).join("boot.json");
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).expect("plain values become json");
        std::fs::write(&new, text).map_err(SystemError::file("write", &new))?;
        std::fs::rename(&new, &path).map_err(SystemError::file("write", path))
    }

    /// The idle process if the host is up.
    pub(crate) fn up(&self) -> Option<&Process> {
        self.idle.as_ref().filter(|process| process.is_alive())
    }

    /// The daemon if it runs.
    pub(crate) fn running(&self) -> Option<&Process> {
        self.daemon.as_ref().filter(|process| process.is_alive())
    }
}

/// Boots a host whose network namespace is there: its disk as it was.
pub(crate) fn boot(record: &ClusterRecord, place: &Place, host: &HostRecord) -> Result<(), SystemError> {
    let dir = place.host(&host.name);
    for part in ["state", "log"] {
        let part = dir.join(part);
        std::fs::create_dir_all(&part).map_err(SystemError::file("make", &part))?;
    }
    let pid_file = dir.join("idle.pid");
    let group = cgroup::make(&record.name, &host.name)?;
    let mut command = detached(IDLE, &dir.join("log/boot.log"))?;
    command.arg(group).arg(network::namespace_file(&record.name, &host.name)).arg(&host.name);
    command.arg(place.hosts_file()).arg(&pid_file);
    let idle = spawn(command, &pid_file, &dir.join("log/boot.log"))?;
    Boot { idle: Some(idle), daemon: None }.save(place, &host.name)
}

/// Starts the daemon of a host that is up; returns before it answers.
pub(crate) fn start_daemon(
    record: &ClusterRecord,
    place: &Place,
    host: &HostRecord,
) -> Result<(), SystemError> {
    let mut boot = Boot::load(place, &host.name);
    let Some(idle) = boot.up().map(|process| process.pid) else { return Ok(()) };
    let dir = place.host(&host.name);
    let socket = place.socket(&host.name);
    std::fs::remove_file(&socket).or_else(gone_is_fine).map_err(SystemError::file("remove", &socket))?;
    let log = place.log(&host.name);
    let mut command = detached(DAEMON, &log)?;
    let pid_file = dir.join("daemon.pid");
    command.arg(cgroup::make(&record.name, &host.name)?).arg(idle.to_string()).arg(&pid_file);
    command.arg(&record.swarmd).args(daemon_arguments(record, place, host)).args(&record.daemon_args);
    command.envs(record.daemon_env.iter().map(|(key, value)| (key, value)));
    boot.daemon = Some(spawn(command, &pid_file, &log)?);
    boot.save(place, &host.name)
}

fn daemon_arguments(record: &ClusterRecord, place: &Place, host: &HostRecord) -> Vec<std::ffi::OsString> {
    let dir = place.host(&host.name);
    let parent = format!("/{}/{}/{}/work", cgroup::PARENT, record.name, host.name);
    let pairs: [(&str, PathBuf); 5] = [
        ("--state-dir", dir.join("state")),
        // Hosts have mounts of their own, but not files: one that is removed takes others' mounts along.
        ("--run-dir", dir.join("run")),
        ("--socket", place.socket(&host.name)),
        ("--hostname", PathBuf::from(&host.name)),
        ("--cgroup-parent", PathBuf::from(parent)),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value.into_os_string()]).collect()
}

/// A command in the host: its namespaces, its cgroup, the caller's directory, standard streams and environment.
pub(crate) fn exec(group: &Path, idle: &Process, argv: &[std::ffi::OsString]) -> Command {
    let mut command = program::system("sh");
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    command.args(["-c", EXEC, "sh"]).arg(group).arg(idle.pid.to_string()).arg(here).args(argv);
    command
}

/// A shell script that leaves our process tree: its parent is init, and nobody here has to wait for it.
fn detached(script: &str, log: &Path) -> Result<Command, SystemError> {
    let file = File::options().create(true).append(true).open(log).map_err(SystemError::file("open", log))?;
    let twin = file.try_clone().map_err(SystemError::file("open", log))?;
    let mut command = program::system("setsid");
    command.args(["--fork", "sh", "-c", script, "sh"]);
    command.stdin(Stdio::null()).stdout(file).stderr(twin).current_dir("/");
    Ok(command)
}

fn spawn(mut command: Command, pid_file: &Path, log: &Path) -> Result<Process, SystemError> {
    std::fs::remove_file(pid_file).or_else(gone_is_fine).map_err(SystemError::file("remove", pid_file))?;
    let failed = |source| SystemError::Run { command: "setsid".to_owned(), source };
    command.status().map_err(failed)?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(pid) = std::fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok()) {
            // one that ended already is still worth a record: its log says why
            let process = Process::of(pid);
            return process.ok_or_else(|| SystemError::Failed {
                command: "nsenter".to_owned(),
                output: crate::place::tail(log, 10),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = crate::place::tail(log, 10);
    Err(SystemError::Failed { command: "nsenter".to_owned(), output })
}

fn gone_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// How a wait for a daemon's socket ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    Ended,
    Silent,
    Cancelled,
}

/// Waits until the daemon takes a connection on its socket, ends, or the limit is over.
pub(crate) fn await_answer(place: &Place, host: &HostRecord, limit: Duration, cancel: &AtomicBool) -> Answer {
    if host.role == Role::Client {
        return Answer::Yes;
    }
    let end = Instant::now() + limit;
    let socket = place.socket(&host.name);
    let boot = Boot::load(place, &host.name);
    while Instant::now() < end {
        if cancel.load(Ordering::Relaxed) {
            return Answer::Cancelled;
        }
        if UnixStream::connect(&socket).is_ok() {
            return Answer::Yes;
        }
        if boot.running().is_none() {
            return Answer::Ended;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Answer::Silent
}
