//! Recovering: what a daemon that starts finds, and what it tidies up.

use std::io;

use super::create::{CREATING, REMOVING};
use super::remove::remove_all;
use super::{Containers, State};

/// A container that outlived the daemon: created, running or exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Never `Starting` or `Lost`.
    pub state: State,
}

impl Containers {
    /// Finds what an earlier daemon left. Running containers go on untouched; one whose supervisor
    /// was lost becomes an exit with the error "supervisor lost"; half-made and half-removed ones,
    /// and control groups that belong to none, are removed.
    ///
    /// # Errors
    /// If the directory cannot be read or tidied.
    pub async fn recover(&self) -> io::Result<Vec<Found>> {
        self.sweep_half_done()?;
        let mut found = Vec::new();
        for id in self.ids()? {
            if let Some(state) = self.settled(&id).await? {
                found.push(Found { id, state });
            } else {
                // A directory without a configuration: nothing of ours was ever complete in it.
                remove_all(self.bundle(&id).dir())?;
            }
        }
        self.sweep_cgroups(&found).await;
        Ok(found)
    }

    /// The state once it is one that lasts.
    async fn settled(&self, id: &str) -> io::Result<Option<State>> {
        loop {
            match self.state(id)? {
                Some(State::Lost) => self.settle(id).await?,
                Some(State::Starting) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
                other => return Ok(other),
            }
        }
    }

    fn sweep_half_done(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.shared.settings.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(CREATING) || name.starts_with(REMOVING) {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    async fn sweep_cgroups(&self, found: &[Found]) {
        for id in self.shared.controllers.ids(self.cgroup_parent()) {
            let runs = found.iter().any(|f| f.id == id && matches!(f.state, State::Running(_)));
            if !runs && !self.clear_cgroups(&id).await {
                tracing::warn!(container.id = %id, "cgroup of an ended container cannot be removed");
            }
        }
    }
}
