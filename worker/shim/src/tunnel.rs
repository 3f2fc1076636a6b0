//! `swarmd-shim --tunnel`: the process that carries this node's encrypted tunnel. Started by `swarmd`.
//!
//! It leaves the daemon as a supervisor does, gives up all rights, and does what the daemon says over the
//! socket that it was given ([`swarm_worker_wireguard::helper`]). Device and socket come from there, open.

mod log;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use nix::sys::socket::{Backlog, listen};
use swarm_worker_wireguard::helper::{Ended, READY, serve};
use tracing::{error, info};

use crate::seccomp;
use crate::sys;

/// How this program is called for it.
pub const ARGUMENT: &str = "--tunnel";

/// What its threads call, and nothing else: no file is opened, no connection begun, no program run.
const CALLS: &[i64] = &[
    // packets and the daemon
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_eventfd2,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    // memory
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // threads, time, chance
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_geteuid,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // the end
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Entry. Standard input is the socket to listen on, standard output the pipe on which the daemon waits for
/// one word, and standard error the log.
pub fn main() -> ExitCode {
    sys::close_from(3);
    match sys::fork() {
        Ok(sys::Fork::Parent) => return ExitCode::SUCCESS,
        Ok(sys::Fork::Child) => {}
        Err(e) => {
            eprintln!("fork: {e}");
            return ExitCode::FAILURE;
        }
    }
    log::install();
    let listener = match begin() {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("start the tunnel's process: {e}");
            return ExitCode::FAILURE;
        }
    };
    match serve(&listener) {
        Ok(Ended::Told) => info!("told to end"),
        Ok(Ended::Tunnel) => info!("the tunnel has ended: its device is gone, or it failed"),
        Err(e) => {
            error!(error = %e, "cannot go on");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn begin() -> io::Result<UnixListener> {
    nix::unistd::setsid()?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let ready = io::stdout().as_fd().try_clone_to_owned()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    drop(null);
    // For those who look for it, and so that nobody takes it for a container's supervisor.
    let _named = fs::write("/proc/self/comm", "swarmd-tunnel");
    // Where this is not allowed the node is merely likelier to lose its tunnel for a moment.
    let _hardened = fs::write("/proc/self/oom_score_adj", "-999");
    // By this process, not by the daemon: whoever connects is told who listens.
    listen(&socket, Backlog::new(16)?)?;
    give_up_rights()?;
    info!(program = env!("CARGO_PKG_VERSION"), "started");
    tell(ready)?;
    Ok(UnixListener::from(socket))
}

fn tell(pipe: OwnedFd) -> io::Result<()> {
    File::from(pipe).write_all(READY.as_bytes())
}

/// From here on this process can do nothing but carry packets between what is open.
fn give_up_rights() -> io::Result<()> {
    let attempted = |what: &'static str| move |e: io::Error| io::Error::other(format!("{what}: {e}"));
    let whole = |option, value| sys::prctl(option, value);
    // Keys are in its memory.
    whole(libc::PR_SET_DUMPABLE, 0).map_err(attempted("forbid dumps of memory"))?;
    whole(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(attempted("forbid new rights"))?;
    sys::set_capabilities(0).map_err(attempted("give up capabilities"))?;
    sys::install_filter(&seccomp::only(CALLS)).map_err(attempted("filter system calls"))
}
