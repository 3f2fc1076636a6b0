//! A process of the host, by a handle that can never mean another one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use swarm_worker_shim::record::Process;

use crate::sys;

/// Opens the handle; `None` if the process is gone.
fn open(process: Process) -> io::Result<Option<OwnedFd>> {
    match sys::pidfd_open(process.pid) {
        // Only now is it certain that the number is not given away between check and use.
        Ok(handle) => Ok(process.is_present().then_some(handle)),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Waits until the process has ended. True if it was still there when we looked.
pub(super) async fn ended(process: Process) -> io::Result<bool> {
    let Some(handle) = open(process)? else { return Ok(false) };
    let handle = sys::watch_readable(handle)?;
    let _ready = handle.readable().await?;
    Ok(true)
}

/// Sends a signal; false if the process is gone.
pub(super) fn signal(process: Process, signal: i32) -> io::Result<bool> {
    let Some(handle) = open(process)? else { return Ok(false) };
    match sys::pidfd_send_signal(handle.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Kills a process known only by its number, as found in a control group of ours.
pub(super) fn kill(pid: i32) {
    if let Ok(process) = Process::find(pid) {
        // It may have ended by itself.
        let _killed = signal(process, libc::SIGKILL);
    }
}
