//! The container's first process, from the split to the moment it becomes the user's program.
//!
//! The order matters: the network is joined first of all, so that nothing of the container ever sees
//! another one; sources of binds are opened while the host is still in sight; the root is
//! entered before any path of the image is touched; limits are in force from the first step;
//! the filter goes in while the process may still do so without `no_new_privs`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};

use crate::bundle::Bundle;
use crate::capability::{COUNT, Set};
use crate::cgroup::Doors;
use crate::config::{ContainerConfig, Network, Rlimit};
use crate::exec::{self, reason};
use crate::record::StartFailure;
use crate::user::{self, User};
use crate::{mounts, rootfs, seccomp, sys};

/// The first process's ends of the pipes.
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Its end means that the supervisor is gone.
    pub(crate) orphaned: OwnedFd,
    /// Closed by the execution of the program; what is written to it is a [`StartFailure`].
    pub(crate) status: OwnedFd,
}

/// Becomes the container's program, or says why not and ends.
pub(crate) fn run(bundle: &Bundle, config: &ContainerConfig, doors: Doors, pipes: Pipes) -> ! {
    let Pipes { stdout, stderr, orphaned, status } = pipes;
    let mut status = File::from(status);
    let failure = match prepare(bundle, config, doors, &orphaned, [&stdout, &stderr]) {
        Ok((path, env)) => exec::become_program(&path, &config.args, &env),
        Err(failure) => failure,
    };
    let text = serde_json::to_vec(&failure).expect("plain data serializes");
    // If the supervisor is gone too there is nobody left to tell.
    let _told = status.write_all(&text);
    sys::leave(failure.code)
}

type Program = (String, Vec<String>);

fn prepare(
    bundle: &Bundle,
    config: &ContainerConfig,
    doors: Doors,
    orphaned: &OwnedFd,
    [stdout, stderr]: [&OwnedFd; 2],
) -> Result<Program, StartFailure> {
    sys::reset_signals();
    let step = |what: &str, done: io::Result<()>| {
        done.map_err(|e| StartFailure::setup(format!("{what}: {}", reason(&e))))
    };
    step("watch the supervisor", sys::prctl(libc::PR_SET_PDEATHSIG, KILL))?;
    leave_if_orphaned(orphaned);
    if let Network::Namespace(path) = &config.network {
        step("join the network namespace", join(path))?;
    }
    step("enter the cgroups", doors.enter())?;
    step("make a cgroup namespace", unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Into::into))?;
    step("begin a session", nix::unistd::setsid().map(drop).map_err(Into::into))?;
    step("set oom_score_adj", fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string()))?;
    umask(Mode::empty());
    let capabilities = Set::parse(&config.capabilities)
        .map_err(|name| StartFailure::setup(format!("unknown capability {name}")))?;
    let binds = mounts::prepare(config)?;
    rootfs::enter(bundle, &config.layers)?;
    mounts::kernel_file_systems(config.shm_bytes)?;
    mounts::attach(&binds)?;
    drop(binds);
    let hostname = hostname(config);
    step("set the host name", nix::unistd::sethostname(&hostname).map_err(Into::into))?;
    if config.network == Network::None {
        step("switch loopback on", sys::loopback_up())?;
    }
    let user = find_user(config)?;
    let cwd = if config.cwd.is_empty() { "/" } else { config.cwd.as_str() };
    make_working_directory(cwd)?;
    redirect(stdout, stderr, &user)?;
    mounts::mask(&config.masked_paths)?;
    mounts::protect(&config.read_only_paths)?;
    let filter = config.seccomp.then(|| seccomp::compile(capabilities));
    mounts::cgroup_views(&config.cgroup.views)?;
    if config.read_only {
        mounts::protect_root()?;
    }
    set_rlimits(&config.rlimits)?;
    step(&format!("change to working directory {cwd}"), nix::unistd::chdir(cwd).map_err(Into::into))?;
    umask(Mode::from_bits_truncate(0o022));
    let install = || filter.as_deref().map_or(Ok(()), sys::install_filter);
    if !config.no_new_privileges {
        step("install the system call filter", install())?;
    }
    step("become the user", become_user(&user, capabilities))?;
    step("watch the supervisor", sys::prctl(libc::PR_SET_PDEATHSIG, KILL))?;
    if config.no_new_privileges {
        step("set no_new_privs", sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1))?;
        step("install the system call filter", install())?;
    }
    leave_if_orphaned(orphaned);
    let env = exec::environment(&config.env, &hostname, &user.home);
    let program = config.args.first().ok_or_else(|| StartFailure::setup("no command specified"))?;
    Ok((exec::find(program, &env)?, env))
}

const KILL: libc::c_ulong = 9;

/// Nobody may mistake another file for a network: the kernel refuses all but a network namespace.
fn join(namespace: &std::path::Path) -> io::Result<()> {
    let file = File::open(namespace)?;
    nix::sched::setns(file, CloneFlags::CLONE_NEWNET).map_err(Into::into)
}

fn hostname(config: &ContainerConfig) -> String {
    if config.hostname.is_empty() { config.id.chars().take(12).collect() } else { config.hostname.clone() }
}

fn find_user(config: &ContainerConfig) -> Result<User, StartFailure> {
    let read = |path| fs::read_to_string(path).unwrap_or_default(); // an image may have neither
    user::resolve(&config.user, &config.groups, &read("/etc/passwd"), &read("/etc/group"))
        .map_err(StartFailure::setup)
}

fn make_working_directory(cwd: &str) -> Result<(), StartFailure> {
    if !cwd.starts_with('/') {
        return Err(StartFailure::setup(format!("working directory must be an absolute path: {cwd}")));
    }
    umask(Mode::from_bits_truncate(0o022));
    let made = fs::create_dir_all(cwd);
    umask(Mode::empty());
    made.map_err(|e| StartFailure::setup(format!("create working directory {cwd}: {}", reason(&e))))
}

/// Standard input reads nothing; output goes to the supervisor. The user owns the pipes, so that
/// `/dev/stdout` can be opened by who is not root.
fn redirect(stdout: &OwnedFd, stderr: &OwnedFd, user: &User) -> Result<(), StartFailure> {
    let connect = || -> io::Result<()> {
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        nix::unistd::dup2_stdout(stdout)?;
        nix::unistd::dup2_stderr(stderr)?;
        if user.uid != 0 {
            nix::unistd::fchown(stdout, Some(Uid::from_raw(user.uid)), None)?;
            nix::unistd::fchown(stderr, Some(Uid::from_raw(user.uid)), None)?;
        }
        Ok(())
    };
    connect().map_err(|e| StartFailure::setup(format!("connect the output: {}", reason(&e))))
}

/// The kernel tells of the supervisor's end only from the moment it is asked to, and forgets that it
/// was when the user changes.
fn leave_if_orphaned(orphaned: &OwnedFd) {
    let mut fds = [PollFd::new(orphaned.as_fd(), PollFlags::POLLIN)];
    let hung_up = poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP));
    if hung_up {
        sys::leave(1);
    }
}

fn set_rlimits(rlimits: &[Rlimit]) -> Result<(), StartFailure> {
    for limit in rlimits {
        let resource = rlimit_resource(&limit.name)
            .ok_or_else(|| StartFailure::setup(format!("unknown resource limit {}", limit.name)))?;
        sys::set_rlimit(resource, limit.soft, limit.hard)
            .map_err(|e| StartFailure::setup(format!("set resource limit {}: {}", limit.name, reason(&e))))?;
    }
    Ok(())
}

fn rlimit_resource(name: &str) -> Option<u32> {
    Some(match name {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

fn become_user(user: &User, capabilities: Set) -> io::Result<()> {
    for bit in 0..COUNT {
        let bit = libc::c_ulong::try_from(bit).map_err(io::Error::other)?;
        if capabilities.0 & (1 << bit) == 0 {
            match sys::prctl(libc::PR_CAPBSET_DROP, bit) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break, // this kernel has fewer
                other => other?,
            }
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1)?;
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0)?;
    sys::set_capabilities(capabilities.0)
}
