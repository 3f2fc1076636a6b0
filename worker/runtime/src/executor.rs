//! [`RuntimeExecutor`]: what the agent asks for, done with this machine's images and containers.

mod config;
mod describe;
mod files;
mod images;
mod logs;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use swarm_types::container::{ContainerNetwork, MountKind};
use swarm_types::defaults;
use swarm_types::id::{NodeId, TaskId};
use swarm_types::meta::Labels;
use swarm_types::node::NodeDescription;
use swarm_types::task::{ContainerStatus, Task};
use swarm_types::time::{Clock, Timestamp};
use swarm_worker_agent::executor::{
    ExecError, Executor, Exit, Found, FoundState, ImageService, LogLine, LogOptions, NetworkService,
    NoNetworks, TaskLinks, TaskNetworks,
};
use swarm_worker_core::container::{ContainerPlan, plan};
use swarm_worker_core::image_config::merge;
use swarm_worker_core::template::NodeFacts;
use swarm_worker_shim::config::ContainerConfig;

use crate::container::{Containers, OpenError, SignalError, StartError, State, WaitError};
use crate::image::{
    Image, ImageStore, OpenError as ImageOpenError, RegistrySettings, Settings as ImageSettings,
};
use config::{config, image_config};
use files::Files;

/// A container's own label for its grace period, in milliseconds: a daemon that finds the container
/// again must know it without the task.
const GRACE_LABEL: &str = "swarmd.stop-grace-ms";

/// Where and how a node runs containers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder for images, containers and their files.
    pub dir: PathBuf,
    /// Control group below which the containers' groups lie.
    pub cgroup_parent: String,
    /// The supervisor program.
    pub shim: PathBuf,
    /// The name that other nodes see.
    pub hostname: String,
    /// Labels from the daemon's settings.
    pub engine_labels: Labels,
    /// Version of the daemon.
    pub version: String,
    /// Registries that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
}

/// The runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Its containers.
    #[error("open the containers")]
    Containers(#[from] OpenError),
    /// Its images.
    #[error("open the images")]
    Images(#[from] ImageOpenError),
    /// A folder.
    #[error("make the folder {0}")]
    Folder(PathBuf, #[source] std::io::Error),
}

/// Makes containers real on this machine.
pub struct RuntimeExecutor {
    settings: Settings,
    containers: Containers,
    images: ImageStore,
    files: Files,
    /// Set by the daemon once the node has an id: for templates and labels.
    node: std::sync::RwLock<NodeId>,
    description: NodeDescription,
    networks: Arc<dyn TaskNetworks>,
}

impl RuntimeExecutor {
    /// Opens the images and containers of this machine. Blocks while it reads the disk.
    ///
    /// # Errors
    /// If its folders or control groups cannot be used.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, ExecutorError> {
        let images = settings.dir.join("images");
        let registry = RegistrySettings {
            insecure_registries: settings.insecure_registries.clone(),
            ..Default::default()
        };
        let images = ImageStore::open_with(images, ImageSettings { registry, ..Default::default() })?;
        let place = crate::container::Settings {
            root: settings.dir.join("containers"),
            cgroup_parent: settings.cgroup_parent.clone(),
            shim: settings.shim.clone(),
        };
        let containers = Containers::open(place, clock)?;
        let dir = settings.dir.join("files");
        let files = Files::open(dir.clone()).map_err(|e| ExecutorError::Folder(dir, e))?;
        let description = describe::describe(&settings, containers.controllers());
        let node = std::sync::RwLock::new(NodeId::default());
        let networks = Arc::new(NoNetworks::default());
        Ok(RuntimeExecutor { settings, containers, images, files, node, description, networks })
    }

    /// With what makes the networks of containers; before anything else is done.
    #[must_use]
    pub fn with_networks(self, networks: Arc<dyn TaskNetworks>) -> Self {
        Self { networks, ..self }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            id: *self.node.read().expect("no code panics while it holds the id"),
            hostname: self.settings.hostname.clone(),
            platform: self.description.platform.clone(),
        }
    }

    async fn make(&self, task: &Task) -> Result<(), ExecError> {
        let id = task.id.to_string();
        if self.containers.state(&id).map_err(temporary)?.is_some() {
            return Ok(());
        }
        let reference = &task.spec.container.image;
        let image = match self.images.resolve(reference) {
            Some(image) => image,
            None => self.fetch(reference).await?,
        };
        let plan = plan(task, &self.facts()).map_err(fatal)?;
        check_sources(&plan)?;
        let process = merge(&plan, &image_config(&image)).map_err(fatal)?;
        let links = match plan.network {
            ContainerNetwork::Host => TaskLinks::default(),
            ContainerNetwork::Loopback | ContainerNetwork::Bridge => self.networks.attach(task).await?,
        };
        // From here on the image stays until `remove` gives it back.
        let image = self.images.lease(&id, &image.id.to_string()).map_err(temporary)?;
        let files = self.files.make(&id, &plan).map_err(temporary)?;
        let config = config(&plan, process, &image, files, links);
        let warnings = self.containers.create(&id, config).await.map_err(temporary)?;
        for warning in warnings {
            tracing::warn!(task.id = id, warning, "a limit is not enforced on this machine");
        }
        Ok(())
    }

    async fn fetch(&self, reference: &str) -> Result<Image, ExecError> {
        images::pull(&self.images, reference, None).await?;
        let missing = || ExecError::Fatal(format!("No such image: {reference}"));
        self.images.resolve(reference).ok_or_else(missing)
    }

    async fn run(&self, task: &Task) -> Result<ContainerStatus, ExecError> {
        let id = task.id.to_string();
        let pid = match self.containers.start(&id).await {
            Ok(started) => started.init.pid,
            Err(StartError::AlreadyStarted(_)) => match self.containers.state(&id).map_err(temporary)? {
                Some(State::Running(started)) => started.init.pid,
                Some(_) | None => 0,
            },
            Err(StartError::Failed { message, .. }) => return Err(ExecError::Fatal(message)),
            Err(e @ StartError::NotFound(_)) => return Err(fatal(e)),
            Err(e @ (StartError::Supervisor { .. } | StartError::SupervisorDied { .. })) => {
                return Err(temporary(e));
            }
        };
        Ok(ContainerStatus { ports: self.networks.links(task.id).ports, ..status(&id, pid) })
    }

    /// What has ended needs no network: its addresses may soon be another task's. What cannot be removed
    /// now is removed with the container, or when a daemon starts.
    async fn unplug(&self, task: TaskId) {
        if let Err(e) = self.networks.detach(task).await {
            tracing::warn!(task.id = %task, error = %e, "the links of a task that has ended cannot be removed yet");
        }
    }

    async fn begin(&self, task: &Task) -> Result<ContainerStatus, ExecError> {
        let started = self.run(task).await;
        if let Err(ExecError::Fatal(_)) = &started {
            self.unplug(task.id).await;
        }
        started
    }

    async fn ended(&self, task: TaskId) -> Result<Exit, ExecError> {
        let ended = match self.containers.wait(task.as_str()).await {
            Ok(exit) => Ok(exit_out(exit)),
            Err(e @ (WaitError::NotFound(_) | WaitError::NotStarted(_))) => Err(fatal(e)),
            Err(e @ WaitError::Watch { .. }) => return Err(temporary(e)),
        };
        self.unplug(task).await;
        ended
    }

    async fn stop(&self, task: TaskId) -> Result<Exit, ExecError> {
        let exit = self.end(task).await?;
        self.unplug(task).await;
        Ok(exit)
    }

    async fn end(&self, task: TaskId) -> Result<Exit, ExecError> {
        let id = task.to_string();
        let (signal, grace) = match self.containers.config(&id) {
            Some(config) => (config.stop_signal, grace(&config)),
            None => return Ok(Exit::default()),
        };
        match self.containers.stop(&id, signal, grace).await {
            Ok(exit) => Ok(exit_out(exit)),
            Err(SignalError::NotFound(_)) => Ok(Exit::default()),
            Err(SignalError::NotRunning(_)) => match self.containers.state(&id).map_err(temporary)? {
                Some(State::Exited(exit)) => Ok(exit_out(exit)),
                Some(_) | None => Ok(Exit::default()),
            },
            Err(SignalError::Wait(WaitError::NotFound(_) | WaitError::NotStarted(_))) => Ok(Exit::default()),
            Err(e) => Err(temporary(e)),
        }
    }

    async fn wipe(&self, task: TaskId) -> Result<(), ExecError> {
        let id = task.to_string();
        self.containers.remove(&id).await.map_err(temporary)?;
        self.networks.detach(task).await?;
        self.files.remove(&id).map_err(temporary)?;
        self.images.release(&id).map_err(temporary)?;
        Ok(())
    }

    async fn find(&self) -> Result<Vec<(TaskId, Found)>, ExecError> {
        let found = self.containers.recover().await.map_err(temporary)?;
        let ids: BTreeSet<String> = found.iter().map(|f| f.id.clone()).collect();
        self.files.keep_only(&ids).map_err(temporary)?;
        for owner in self.images.leases().into_keys().filter(|o| !ids.contains(o)) {
            self.images.release(&owner).map_err(temporary)?;
        }
        let found: Vec<_> = found.into_iter().map(found_out).collect();
        let alive = |(id, f): &(TaskId, Found)| (!matches!(f.state, FoundState::Exited(_))).then_some(*id);
        let alive: BTreeSet<TaskId> = found.iter().filter_map(alive).collect();
        self.networks.keep_only(&alive).await?;
        let with_ports = |(id, mut f): (TaskId, Found)| {
            f.container.ports = self.networks.links(id).ports;
            (id, f)
        };
        Ok(found.into_iter().map(with_ports).collect())
    }
}

impl Executor for RuntimeExecutor {
    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        Box::pin(async {
            let network = self.networks.status().borrow().description.clone();
            NodeDescription { network, ..self.description.clone() }
        })
    }
    fn set_node(&self, node: NodeId) {
        *self.node.write().expect("no code panics while it holds the id") = node;
    }
    fn recover(&self) -> BoxFuture<'_, Result<Vec<(TaskId, Found)>, ExecError>> {
        Box::pin(self.find())
    }
    fn prepare<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(self.make(task))
    }
    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ContainerStatus, ExecError>> {
        Box::pin(self.begin(task))
    }
    fn wait(&self, task: TaskId) -> BoxFuture<'_, Result<Exit, ExecError>> {
        Box::pin(self.ended(task))
    }
    fn shutdown(&self, task: TaskId) -> BoxFuture<'_, Result<Exit, ExecError>> {
        Box::pin(self.stop(task))
    }
    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(self.wipe(task))
    }
    fn logs(&self, task: TaskId, options: LogOptions) -> BoxStream<'static, Result<LogLine, ExecError>> {
        logs::stream(self.containers.clone(), task, options)
    }
    fn networks(&self) -> &dyn NetworkService {
        self.networks.as_ref()
    }
    fn images(&self) -> &dyn ImageService {
        &self.images
    }
}

/// An error with its causes, in one line: what the user sees as the task's error.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn temporary(error: impl std::error::Error) -> ExecError {
    ExecError::Temporary(words(&error))
}

fn fatal(error: impl std::error::Error) -> ExecError {
    ExecError::Fatal(words(&error))
}

/// A missing source is told before anything is made (Docker's words).
fn check_sources(plan: &ContainerPlan) -> Result<(), ExecError> {
    for mount in &plan.mounts {
        let bind = matches!(mount.kind, MountKind::Bind { .. });
        if bind && !std::path::Path::new(&mount.source).exists() {
            return Err(ExecError::Fatal(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                mount.source
            )));
        }
    }
    Ok(())
}

fn status(id: &str, pid: i32) -> ContainerStatus {
    ContainerStatus {
        container_id: id.to_owned(),
        pid: u32::try_from(pid).unwrap_or(0),
        ..ContainerStatus::default()
    }
}

fn exit_out(exit: crate::container::Exit) -> Exit {
    Exit { code: exit.code, oom_killed: exit.oom_killed, at: Timestamp(exit.finished_at_ms) }
}

fn found_out(found: crate::container::Found) -> (TaskId, Found) {
    let (pid, state) = match found.state {
        State::Running(started) => (started.init.pid, FoundState::Running),
        State::Exited(exit) => (0, FoundState::Exited(exit_out(exit))),
        State::Created | State::Starting | State::Lost => (0, FoundState::Created),
    };
    (TaskId::new(&found.id), Found { container: status(&found.id, pid), state })
}

fn grace(config: &ContainerConfig) -> Duration {
    let kept = config.labels.get(GRACE_LABEL).and_then(|ms| ms.parse().ok());
    kept.map_or(defaults::STOP_GRACE_PERIOD, Duration::from_millis)
}
