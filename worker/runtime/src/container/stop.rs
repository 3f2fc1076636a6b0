//! Waiting for the end of a container, and bringing it about.

use std::time::Duration;

use swarm_worker_shim::record::{self, Durability, Exit};
use tokio::time::{sleep, timeout};

use super::{Containers, SignalError, State, WaitError, process, state};

/// How long to wait for something that has no event: a supervisor that is about to say its name, a
/// control group whose last process the kernel is about to forget.
const MOMENT: Duration = Duration::from_millis(2);
/// After so many moments what is left is left to `recover`.
const MOMENTS: u32 = 1000;
/// Docker's exit code for a container whose end nobody saw.
const UNKNOWN: i32 = 255;

impl Containers {
    /// Waits for the end of a container. Any number may wait; a wait may be given up at any time.
    ///
    /// # Errors
    /// If there is no such container, or it was not started.
    pub async fn wait(&self, id: &str) -> Result<Exit, WaitError> {
        let watch = |source| WaitError::Watch { id: id.to_owned(), source };
        loop {
            match self.state(id).map_err(watch)? {
                None => return Err(WaitError::NotFound(id.to_owned())),
                Some(State::Created) => return Err(WaitError::NotStarted(id.to_owned())),
                Some(State::Exited(exit)) => return Ok(exit),
                Some(State::Lost) => self.settle(id).await.map_err(watch)?,
                Some(State::Starting | State::Running(_)) => {
                    self.supervisor_ended(id).await.map_err(watch)?
                }
            }
        }
    }

    /// Waits until the supervisor is gone, or for a moment if it is not known or gone already.
    pub(super) async fn supervisor_ended(&self, id: &str) -> std::io::Result<()> {
        let seen = match state::supervisor(&self.bundle(id)) {
            Some(supervisor) => process::ended(supervisor).await?,
            None => false,
        };
        if !seen {
            sleep(MOMENT).await;
        }
        Ok(())
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), SignalError> {
        let failed = |source| SignalError::Send { id: id.to_owned(), signal, source };
        let sent = match self.state(id).map_err(failed)? {
            None => return Err(SignalError::NotFound(id.to_owned())),
            Some(State::Running(started)) => process::signal(started.init, signal).map_err(failed)?,
            Some(_) => false,
        };
        if sent { Ok(()) } else { Err(SignalError::NotRunning(id.to_owned())) }
    }

    /// Asks the container to end with `signal`; kills it if it still runs after `grace`.
    ///
    /// # Errors
    /// If it was never started.
    pub async fn stop(&self, id: &str, signal: i32, grace: Duration) -> Result<Exit, SignalError> {
        match self.signal(id, signal) {
            Ok(()) => {
                if let Ok(ended) = timeout(grace, self.wait(id)).await {
                    return Ok(ended?);
                }
            }
            Err(SignalError::NotRunning(_)) => {}
            Err(e) => return Err(e),
        }
        self.kill(id).await
    }

    /// Kills the container and waits for its end.
    ///
    /// # Errors
    /// If it was never started.
    pub async fn kill(&self, id: &str) -> Result<Exit, SignalError> {
        let failed = |source| SignalError::Send { id: id.to_owned(), signal: libc::SIGKILL, source };
        match self.state(id).map_err(failed)? {
            Some(State::Running(started)) => {
                process::signal(started.init, libc::SIGKILL).map_err(failed)?;
            }
            Some(State::Starting) => self.kill_supervisor(id).await.map_err(failed)?,
            _ => {}
        }
        Ok(self.wait(id).await?)
    }

    /// A start that does not come to an end: its supervisor takes what it has made with it.
    async fn kill_supervisor(&self, id: &str) -> std::io::Result<()> {
        loop {
            if let Some(supervisor) = state::supervisor(&self.bundle(id)) {
                process::signal(supervisor, libc::SIGKILL)?;
                return Ok(());
            }
            if self.state(id)? != Some(State::Starting) {
                return Ok(());
            }
            sleep(MOMENT).await;
        }
    }

    /// Cleans up after a supervisor that is gone without a word, and writes down that it is.
    pub(super) async fn settle(&self, id: &str) -> std::io::Result<()> {
        let _turn = self.turn(id).await;
        if self.state(id)? != Some(State::Lost) {
            return Ok(());
        }
        let bundle = self.bundle(id);
        let started: Option<record::Started> = record::read(&bundle.started())?;
        if let Some(started) = started {
            process::signal(started.init, libc::SIGKILL)?;
        }
        let oom_killed = self.config(id).is_some_and(|c| c.cgroup.oom_killed());
        self.clear_cgroups(id).await;
        let exit = Exit {
            code: UNKNOWN,
            signal: None,
            oom_killed,
            finished_at_ms: self.shared.clock.now().as_millis(),
            error: Some("supervisor lost".to_owned()),
        };
        record::write(&bundle.exit(), &exit, Durability::Synced)
    }

    /// Kills what is left in the container's groups and removes them; true if none is left.
    pub(super) async fn clear_cgroups(&self, id: &str) -> bool {
        let controllers = &self.shared.controllers;
        for _ in 0..MOMENTS {
            if controllers.remove(self.cgroup_parent(), id) {
                return true;
            }
            controllers.processes(self.cgroup_parent(), id).into_iter().for_each(process::kill);
            sleep(MOMENT).await;
        }
        false
    }
}
