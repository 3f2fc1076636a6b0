//! Supervisor: makes one container, keeps its log, and writes down how it ended.
//!
//! Leaves the daemon's session and process group first, so nothing that happens to the daemon
//! reaches the container. Holds the bundle's lock from before its first step to after its last.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use crate::bundle::Bundle;
use crate::cgroup::CgroupPlan;
use crate::clock;
use crate::config::{CONFIG_VERSION, ContainerConfig, Network, OLDEST_VERSION};
use crate::init;
use crate::log::{Cutter, Stream, Writer};
use crate::record::{self, Durability, Exit, Process, StartFailure, Started};
use crate::sys;

/// Entry of `swarmd-shim`. Standard input is the locked lock file and standard output the pipe on
/// which the daemon waits for one record: [`Started`] or [`StartFailure`].
pub fn main(bundle: &Path) -> ExitCode {
    sys::close_from(3);
    match sys::fork() {
        Ok(sys::Fork::Parent) => return ExitCode::SUCCESS,
        Ok(sys::Fork::Child) => {}
        Err(e) => {
            eprintln!("fork: {e}");
            return ExitCode::FAILURE;
        }
    }
    match supervise(&Bundle::new(bundle)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("supervise {}: {e}", bundle.display());
            ExitCode::FAILURE
        }
    }
}

fn supervise(bundle: &Bundle) -> io::Result<()> {
    nix::unistd::setsid()?;
    sys::block_signals();
    let acknowledge = io::stdout().as_fd().try_clone_to_owned()?;
    let lock = take_lock(bundle)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    drop(null);
    let myself = Process::find(i32::try_from(std::process::id()).map_err(io::Error::other)?)?;
    lock.write_all_at(myself.to_line().as_bytes(), 0)?;
    // Where this is not allowed the container is merely likelier to lose its supervisor.
    let _hardened = fs::write("/proc/self/oom_score_adj", "-999");

    match start(bundle, myself) {
        Ok(running) => {
            tell(acknowledge, &serde_json::to_vec(&Ok::<_, ()>(running.started))?);
            running.keep(bundle)
        }
        Err(failure) => {
            let failure = StartFailure { failed_at_ms: clock::now_ms(), ..failure };
            let written = record::write(&bundle.error(), &failure, Durability::Synced);
            tell(acknowledge, &serde_json::to_vec(&Err::<(), _>(failure))?);
            written
        }
    }
}

/// The daemon may be gone; the record on disk is what counts.
fn tell(pipe: OwnedFd, record: &[u8]) {
    let _told = File::from(pipe).write_all(record);
}

/// The daemon hands the lock over as standard input, so that there is no moment at which a starting
/// container is held by nobody. Started by hand, the supervisor takes it itself.
fn take_lock(bundle: &Bundle) -> io::Result<File> {
    let given = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (a, b) = (given.metadata()?, fs::metadata(bundle.lock()));
    if b.is_ok_and(|b| (a.dev(), a.ino()) == (b.dev(), b.ino())) {
        return Ok(given);
    }
    let own = File::options().create(true).truncate(false).read(true).write(true).open(bundle.lock())?;
    own.try_lock().map_err(|e| io::Error::other(format!("bundle is in use: {e}")))?;
    Ok(own)
}

struct Running {
    started: Started,
    child: sys::Child,
    stdout: OwnedFd,
    stderr: OwnedFd,
    log: Writer,
    cgroup: CgroupPlan,
}

fn read_config(bundle: &Bundle) -> Result<ContainerConfig, StartFailure> {
    let text = fs::read(bundle.config())
        .map_err(|e| StartFailure::setup(format!("read {}: {e}", bundle.config().display())))?;
    let config: ContainerConfig = serde_json::from_slice(&text)
        .map_err(|e| StartFailure::setup(format!("read {}: {e}", bundle.config().display())))?;
    if !(OLDEST_VERSION..=CONFIG_VERSION).contains(&config.version) {
        let message = format!("container was made by another version ({})", config.version);
        return Err(StartFailure::setup(message));
    }
    Ok(config)
}

fn namespaces(network: &Network) -> libc::c_int {
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    match network {
        Network::None => own | libc::CLONE_NEWNET,
        Network::Host | Network::Namespace(_) => own,
    }
}

fn start(bundle: &Bundle, myself: Process) -> Result<Running, StartFailure> {
    let config = read_config(bundle)?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| StartFailure::setup(format!("make a pipe: {e}")));
    let (stdout, stdout_in) = pipe()?;
    let (stderr, stderr_in) = pipe()?;
    let (orphaned, alive) = pipe()?;
    let (status, status_in) = pipe()?;
    let doors = config.cgroup.make().map_err(|failure| {
        clean(&config.cgroup);
        StartFailure::setup(failure)
    })?;
    let child = match sys::clone(namespaces(&config.network), doors.born_into.as_ref().map(AsFd::as_fd)) {
        Err(e) => {
            clean(&config.cgroup);
            return Err(StartFailure::setup(format!("make namespaces: {e}")));
        }
        Ok(None) => {
            drop((stdout, stderr, alive, status));
            let pipes = init::Pipes { stdout: stdout_in, stderr: stderr_in, orphaned, status: status_in };
            init::run(bundle, &config, doors, pipes)
        }
        Ok(Some(child)) => child,
    };
    drop((stdout_in, stderr_in, orphaned, status_in, doors));
    let begun = begin(bundle, &config, &child, status, myself);
    drop(alive); // not before: its end would tell the child that we are gone
    match begun {
        Ok((started, log)) => Ok(Running { started, child, stdout, stderr, log, cgroup: config.cgroup }),
        Err(failure) => {
            sys::kill(child.pid);
            let _ended = waitpid(Pid::from_raw(child.pid), None);
            clean(&config.cgroup);
            Err(failure)
        }
    }
}

fn begin(
    bundle: &Bundle,
    config: &ContainerConfig,
    child: &sys::Child,
    status: OwnedFd,
    myself: Process,
) -> Result<(Started, Writer), StartFailure> {
    let log = fs::create_dir_all(bundle.log())
        .and_then(|()| Writer::open(&bundle.log(), config.log))
        .map_err(|e| StartFailure::setup(format!("open the log: {e}")))?;
    let init = Process::find(child.pid)
        .map_err(|e| StartFailure::setup(format!("look at the first process: {e}")))?;
    let mut failure = Vec::new();
    File::from(status)
        .read_to_end(&mut failure)
        .map_err(|e| StartFailure::setup(format!("wait for the first process: {e}")))?;
    if !failure.is_empty() {
        return Err(serde_json::from_slice(&failure)
            .unwrap_or_else(|_| StartFailure::setup(String::from_utf8_lossy(&failure).into_owned())));
    }
    let started = Started { init, supervisor: myself, started_at_ms: clock::now_ms() };
    record::write(&bundle.started(), &started, Durability::ThisBoot)
        .map_err(|e| StartFailure::setup(format!("write {}: {e}", bundle.started().display())))?;
    Ok((started, log))
}

impl Running {
    /// Carries output to the log until the first process has ended, then writes down how.
    fn keep(mut self, bundle: &Bundle) -> io::Result<()> {
        for pipe in [&self.stdout, &self.stderr] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let mut outputs = [
            Output { pipe: Some(self.stdout), cutter: Cutter::new(Stream::Stdout) },
            Output { pipe: Some(self.stderr), cutter: Cutter::new(Stream::Stderr) },
        ];
        let mut buffer = vec![0u8; 16 << 10];
        loop {
            let ended = wait(&self.child.pidfd, &outputs)?;
            for output in &mut outputs {
                output.carry(&mut buffer, &mut self.log, ended);
            }
            if ended {
                break;
            }
        }
        let status = waitpid(Pid::from_raw(self.child.pid), None)?;
        let (code, signal) = match status {
            WaitStatus::Exited(_, code) => (code, None),
            WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal as i32)),
            other => return Err(io::Error::other(format!("unexpected end: {other:?}"))),
        };
        // Output written between the last look and the end; nobody is left to write more.
        for output in &mut outputs {
            output.carry(&mut buffer, &mut self.log, true);
            output.finish(&mut self.log);
        }
        let oom_killed = self.cgroup.oom_killed();
        clean(&self.cgroup);
        let exit = Exit { code, signal, oom_killed, finished_at_ms: clock::now_ms(), error: None };
        record::write(&bundle.exit(), &exit, Durability::Synced)
    }
}

/// Waits until there is output or the first process has ended; true if it has.
fn wait(pidfd: &OwnedFd, outputs: &[Output; 2]) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let open = outputs.iter().filter_map(|o| o.pipe.as_ref());
    fds.extend(open.map(|p| PollFd::new(p.as_fd(), PollFlags::POLLIN)));
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(fds[0].revents().is_some_and(|r| !r.is_empty()))
}

struct Output {
    pipe: Option<OwnedFd>,
    cutter: Cutter,
}

impl Output {
    /// Moves what is there into the log: one piece, or all of it.
    fn carry(&mut self, buffer: &mut [u8], log: &mut Writer, all: bool) {
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe, buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    let mut lines = Vec::with_capacity(n + 64);
                    self.cutter.push(&buffer[..n], clock::now_ns(), &mut lines);
                    // A full disk must not stop the container: the lines are lost.
                    let _kept = log.append(&lines);
                    if !all {
                        return;
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return, // nothing there
            }
        }
    }

    fn finish(&mut self, log: &mut Writer) {
        let mut lines = Vec::new();
        self.cutter.finish(clock::now_ns(), &mut lines);
        let _kept = log.append(&lines);
    }
}

/// Kills whatever is left in the groups and removes them. The kernel takes a moment to forget the
/// dead, so this tries again for a while; what then remains the runtime removes later.
fn clean(cgroup: &CgroupPlan) {
    const ATTEMPTS: u16 = 60;
    for attempt in 0..ATTEMPTS {
        if cgroup.remove() {
            return;
        }
        cgroup.processes().into_iter().for_each(sys::kill);
        let pause = PollTimeout::from((1 + attempt).min(50));
        let _paused = poll(&mut [], pause);
    }
}
