//! Containers of this machine: made, started, waited for, stopped, removed, found again.
//!
//! The daemon keeps nothing in memory that it could lose: what state a container is in is read from
//! its bundle (see [`swarm_worker_shim`]), so a restarted daemon knows as much as the old one.
//!
//! ```text
//! ROOT/ID/             a bundle; it comes into being by rename, complete
//! ROOT/.creating-ID/   a bundle that was being made    }  removed by `recover`
//! ROOT/.removing-ID/   a bundle that was being removed }
//! ```

mod create;
mod error;
mod log;
mod process;
mod recover;
mod remove;
mod start;
mod state;
mod stop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub use error::{CreateError, LogError, OpenError, RemoveError, SignalError, StartError, WaitError};
pub use log::{LogLine, LogOptions};
pub use recover::Found;
pub use state::State;
pub use swarm_worker_shim::config::{self, ContainerConfig};
pub use swarm_worker_shim::log::Stream as LogStream;
pub use swarm_worker_shim::record::{Exit, StartFailure, Started};

use swarm_types::time::Clock;
use swarm_worker_shim::bundle::Bundle;

use crate::cgroup::{Controllers, Stats};

/// Where containers live.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the bundles; on a file system that can hold an overlay's upper directory.
    pub root: PathBuf,
    /// Control group of this daemon, such as `/swarmd`. The containers' groups lie in the group
    /// `containers` below it; whatever else lies there is swept away by [`Containers::recover`].
    pub cgroup_parent: String,
    /// The `swarmd-shim` program.
    pub shim: PathBuf,
}

/// The containers of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Containers {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    controllers: Controllers,
    clock: Arc<dyn Clock>,
    /// Held while a container is started, settled or removed.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Containers").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Containers {
    /// Opens the place, making it if needed. Call [`Containers::recover`] next.
    ///
    /// # Errors
    /// If the directory or the parent control group cannot be made.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&settings.root)
            .map_err(|source| OpenError::Root { path: settings.root.clone(), source })?;
        let root = settings.root.canonicalize();
        let root = root.map_err(|source| OpenError::Root { path: settings.root.clone(), source })?;
        let controllers = Controllers::probe().map_err(OpenError::Probe)?;
        let cgroup_parent = format!("{}/containers", settings.cgroup_parent.trim_end_matches('/'));
        controllers.prepare_parent(&cgroup_parent)?;
        let settings = Settings { root, cgroup_parent, ..settings };
        let shared = Shared { settings, controllers, clock, turns: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What limits this machine can enforce.
    pub fn controllers(&self) -> &Controllers {
        &self.shared.controllers
    }

    /// The group that holds the containers' groups, in every hierarchy.
    pub fn cgroup_parent(&self) -> &str {
        &self.shared.settings.cgroup_parent
    }

    /// The containers that exist, by id.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> std::io::Result<Vec<(String, State)>> {
        let mut found = Vec::new();
        for id in self.ids()? {
            match self.state(&id) {
                Ok(Some(state)) => found.push((id, state)),
                Ok(None) => {} // removed meanwhile
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// The state of one container; `None` if there is no such container.
    ///
    /// # Errors
    /// If its records cannot be read.
    pub fn state(&self, id: &str) -> std::io::Result<Option<State>> {
        if create::check_id(id).is_err() {
            return Ok(None);
        }
        state::read(&self.bundle(id))
    }

    /// What the container was made from; `None` if there is no such container.
    pub fn config(&self, id: &str) -> Option<ContainerConfig> {
        create::check_id(id).ok()?;
        swarm_worker_shim::record::read(&self.bundle(id).config()).ok().flatten()
    }

    /// What a running container uses; zeros if it does not run.
    pub fn stats(&self, id: &str) -> Stats {
        if create::check_id(id).is_err() {
            return Stats::default();
        }
        self.shared.controllers.stats(self.cgroup_parent(), id)
    }

    fn ids(&self) -> std::io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.shared.settings.root)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if create::check_id(&name).is_ok() {
                ids.push(name);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn bundle(&self, id: &str) -> Bundle {
        Bundle::new(self.shared.settings.root.join(id))
    }

    /// One operation at a time on a container's files.
    async fn turn(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.shared.turns.lock().expect("nobody panics while holding it");
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(id.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
