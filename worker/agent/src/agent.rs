//! [`Agent`]: how the daemon starts an agent, and what it may ask of one that runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::id::{IdSource, NodeId, Seed, TaskId};
use swarm_types::time::Clock;
use swarm_worker_core::observed::Found;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::dial::Dialer;
use crate::driver::Driver;
use crate::executor::Executor;
use crate::journal::{Journal, JournalError};
use crate::managers::Managers;
use crate::network_file;
use crate::status::Status;

/// The file of the networks' set, in the agent's directory.
pub(crate) const NETWORKS: &str = "networks";
const RECOVER_RETRY: Duration = Duration::from_secs(1);

/// What an agent is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Directory that is the agent's alone; must exist.
    pub state_dir: PathBuf,
    /// `host:port` of managers; those learned from the cluster are kept in `state_dir` and come first.
    pub managers: Vec<String>,
}

/// An agent that can be run.
pub struct Agent {
    pub(crate) settings: Settings,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    seed: Seed,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) leave: CancellationToken,
}

/// What others may ask of an agent that runs.
#[derive(Debug, Clone)]
pub struct Handle {
    status: watch::Receiver<Status>,
    leave: CancellationToken,
}

impl Handle {
    /// What the agent knows, now and as it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// This node leaves the cluster: says good-bye, stops and removes every container. [`Agent::run`]
    /// returns when that is done.
    pub fn leave(&self) {
        self.leave.cancel();
    }
}

/// The agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Agent {
    /// An agent for this node, and what others may ask of it. `seed` is for ids and jitter.
    pub fn new(
        settings: Settings,
        dialer: Arc<dyn Dialer>,
        executor: Arc<dyn Executor>,
        clock: Arc<dyn Clock>,
        seed: Seed,
    ) -> (Self, Handle) {
        let (status, watcher) = watch::channel(Status::default());
        let leave = CancellationToken::new();
        let handle = Handle { status: watcher, leave: leave.clone() };
        (Self { settings, dialer, executor, clock, seed, status, leave }, handle)
    }

    /// Runs until `shutdown` (containers are left as they are, managers are told nothing: the daemon
    /// will be back) or until the node has left.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let span = info_span!("agent", node.id = %self.settings.node);
        async move {
            let (journal, tasks) = Journal::open(&self.settings.state_dir.join("tasks"))?;
            let Some(found) = recover(self.executor.as_ref(), &shutdown).await else { return Ok(()) };
            info!(tasks = tasks.len(), containers = found.len(), "agent started");
            let networks = network_file::read(&self.settings.state_dir.join(NETWORKS));
            let mut dice = IdSource::new(self.seed);
            let file = self.settings.state_dir.join("managers");
            let managers = Managers::load(file, self.settings.managers.clone(), &mut dice);
            let mut driver = Driver::new(self, journal, managers, Seed(dice.next_u64()));
            driver.restore(tasks, found, networks);
            driver.run(shutdown).await;
            Ok(())
        }
        .instrument(span)
        .await
    }
}

/// The containers that exist; none if the agent is to stop before they are known.
async fn recover(executor: &dyn Executor, shutdown: &CancellationToken) -> Option<BTreeMap<TaskId, Found>> {
    loop {
        tokio::select! {
            found = executor.recover() => match found {
                Ok(found) => return Some(found.into_iter().collect()),
                // Without this knowledge a container could be started twice: nothing goes on.
                Err(e) => warn!(error = %e, "cannot find the containers of this node, trying again"),
            },
            () = shutdown.cancelled() => return None,
        }
        tokio::time::sleep(RECOVER_RETRY).await;
    }
}
