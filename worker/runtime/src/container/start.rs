//! Starting: the lock is taken first and handed to the supervisor, so that from here until the
//! container's end there is no moment at which nobody holds it.

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use swarm_worker_shim::bundle::Bundle;
use swarm_worker_shim::record::{StartFailure, Started};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{Containers, StartError, State};

impl Containers {
    /// Starts a container and returns once its program runs.
    ///
    /// If the caller stops waiting, the start goes on; [`Containers::state`] tells how it went.
    ///
    /// # Errors
    /// `Failed` with Docker's code and words if the container cannot be set up or its program cannot
    /// be run. The container has then [`State::Exited`].
    pub async fn start(&self, id: &str) -> Result<Started, StartError> {
        let _turn = self.turn(id).await;
        let supervisor = |source| StartError::Supervisor { id: id.to_owned(), source };
        match self.state(id).map_err(supervisor)? {
            None => return Err(StartError::NotFound(id.to_owned())),
            Some(State::Created) => {}
            Some(_) => return Err(StartError::AlreadyStarted(id.to_owned())),
        }
        let (bundle, shim) = (self.bundle(id), self.shared.settings.shim.clone());
        let spawned = tokio::task::spawn_blocking(move || spawn(&shim, &bundle));
        let reply = spawned.await.expect("spawning does not panic and is not aborted").map_err(supervisor)?;
        let mut text = Vec::new();
        let mut reply = pipe::Receiver::from_owned_fd(OwnedFd::from(reply)).map_err(supervisor)?;
        reply.read_to_end(&mut text).await.map_err(supervisor)?;
        match serde_json::from_slice::<Result<Started, StartFailure>>(&text) {
            Ok(Ok(started)) => Ok(started),
            Ok(Err(failure)) => Err(StartError::Failed { code: failure.code, message: failure.message }),
            Err(_) => Err(StartError::SupervisorDied { id: id.to_owned(), last_words: self.last_words(id) }),
        }
    }

    pub(super) fn last_words(&self, id: &str) -> String {
        let text = std::fs::read_to_string(self.bundle(id).supervisor_log()).unwrap_or_default();
        text.trim().lines().next_back().unwrap_or("no last words").to_owned()
    }
}

/// Runs the supervisor; it leaves us at once and answers on the pipe.
fn spawn(shim: &std::path::Path, bundle: &Bundle) -> io::Result<PipeReader> {
    let lock = File::options().create(true).truncate(false).read(true).write(true).open(bundle.lock())?;
    let spawned = lock.lock().and_then(|()| {
        let (reply, answer) = io::pipe()?;
        let log = File::options().create(true).append(true).open(bundle.supervisor_log())?;
        let mut command = Command::new(shim);
        command.arg(bundle.dir()).env_clear().current_dir("/");
        command.stdin(Stdio::from(lock)).stdout(Stdio::from(answer)).stderr(Stdio::from(log));
        let mut child = command.spawn()?;
        drop(command); // it holds our copies of the lock and of the pipe's other end
        child.wait()?; // the supervisor has left its parent, which is done
        Ok(reply)
    });
    if spawned.is_err() {
        // Not started, so it may be tried again.
        std::fs::remove_file(bundle.lock())?;
    }
    spawned
}
