//! State of a container, as its bundle tells it.

use std::fs::{File, TryLockError};
use std::io;

use swarm_worker_shim::bundle::Bundle;
use swarm_worker_shim::record::{self, Exit, Process, StartFailure, Started};

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Created,
    /// Its supervisor is at work; the program does not run yet.
    Starting,
    /// The program runs.
    Running(Started),
    /// It has ended, or never ran: then `error` says why.
    Exited(Exit),
    /// Its supervisor is gone without a word (power was lost, or it was killed).
    /// [`super::Containers::recover`] and [`super::Containers::wait`] settle it.
    Lost,
}

/// Reads the state; `None` if there is no bundle.
pub(super) fn read(bundle: &Bundle) -> io::Result<Option<State>> {
    if let Some(exit) = exit(bundle)? {
        return Ok(Some(State::Exited(exit)));
    }
    let lock = match File::open(bundle.lock()) {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(bundle.config().exists().then_some(State::Created));
        }
        Err(e) => return Err(e),
    };
    if is_held(&lock)? {
        return Ok(Some(match record::read(&bundle.started())? {
            Some(started) => State::Running(started),
            None => State::Starting,
        }));
    }
    // The last thing a supervisor does before it lets go is to write this.
    match exit(bundle)? {
        Some(exit) => Ok(Some(State::Exited(exit))),
        None => Ok(bundle.config().exists().then_some(State::Lost)),
    }
}

fn exit(bundle: &Bundle) -> io::Result<Option<Exit>> {
    if let Some(exit) = record::read(&bundle.exit())? {
        return Ok(Some(exit));
    }
    let failure: Option<StartFailure> = record::read(&bundle.error())?;
    Ok(failure.map(|f| Exit {
        code: f.code,
        signal: None,
        oom_killed: false,
        finished_at_ms: f.failed_at_ms,
        error: Some(f.message),
    }))
}

fn is_held(lock: &File) -> io::Result<bool> {
    match lock.try_lock_shared() {
        Ok(()) => Ok(false), // given back when the file is closed
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// The supervisor that holds the bundle; `None` if none does, or it has not said its name yet.
pub(super) fn supervisor(bundle: &Bundle) -> Option<Process> {
    let line = std::fs::read_to_string(bundle.lock()).ok()?;
    Process::from_line(&line)
}
