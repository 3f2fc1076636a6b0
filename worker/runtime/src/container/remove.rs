//! Removing: the bundle is renamed out of sight first, so what a crash leaves is recognised.

use std::fs;
use std::io;
use std::path::Path;

use super::create::{REMOVING, check_id};
use super::{Containers, RemoveError, SignalError, State, WaitError};

impl Containers {
    /// Removes a container with all that belongs to it, killing it if it runs. Removing what is not
    /// there succeeds.
    ///
    /// # Errors
    /// If something of it cannot be removed; it may be tried again.
    pub async fn remove(&self, id: &str) -> Result<(), RemoveError> {
        if check_id(id).is_err() {
            return Ok(());
        }
        self.end(id).await?;
        let _turn = self.turn(id).await;
        if !self.clear_cgroups(id).await {
            return Err(RemoveError::Cgroups(id.to_owned()));
        }
        let (place, away) = (self.bundle(id), self.shared.settings.root.join(format!("{REMOVING}{id}")));
        let done = tokio::task::spawn_blocking(move || {
            put_away(place.dir(), &away)
                .map_err(|source| RemoveError::Bundle { path: place.dir().to_owned(), source })
        });
        done.await.expect("removing does not panic and is not aborted")
    }

    /// Makes sure that neither the container nor its supervisor lives.
    async fn end(&self, id: &str) -> Result<(), RemoveError> {
        let failed = |source| RemoveError::End { id: id.to_owned(), source };
        match self.kill(id).await {
            Ok(_) | Err(SignalError::Wait(WaitError::NotFound(_) | WaitError::NotStarted(_))) => {}
            Err(SignalError::Wait(e)) => return Err(failed(e)),
            Err(e) => {
                let source = io::Error::other(e.to_string());
                return Err(failed(WaitError::Watch { id: id.to_owned(), source }));
            }
        }
        if let Some(supervisor) = super::state::supervisor(&self.bundle(id)) {
            let gone = super::process::ended(supervisor).await;
            gone.map_err(|source| failed(WaitError::Watch { id: id.to_owned(), source }))?;
        }
        debug_assert!(!matches!(self.state(id), Ok(Some(State::Running(_)))));
        Ok(())
    }
}

fn put_away(place: &Path, away: &Path) -> io::Result<()> {
    remove_all(away)?;
    match fs::rename(place, away) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    remove_all(away)
}

/// Removes a directory with all in it; it may be gone already.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
