//! [`DataPlane`]: the edge of this crate. One task of the runtime ([`crate::engine`]) does the work.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use swarm_types::defaults;
use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::{NetworkDifference, NetworkSet};
use swarm_types::task::Task;
use swarm_worker_agent::executor::{ExecError, NetworkService, NetworkStatus, TaskLinks, TaskNetworks};
use swarm_worker_core::network::kernel::Place as KernelPlace;
use swarm_worker_core::network::planner::LocalTask;
use swarm_worker_dns::Settings as NameSettings;
use swarm_worker_network::{Kernel, KernelError, Settings as KernelSettings};
use swarm_worker_wireguard::helper::Place;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::engine::{Command, Engine};
use crate::keys::{Keys, Random};
use crate::record::Records;

/// How long a task waits until this node is told of its networks.
const TOLD_PATIENCE: Duration = Duration::from_secs(30);

/// Where and how the networks of a node are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of what is gone after a reboot: network namespaces (`netns`), and the socket of the tunnel's
    /// process (`tunnel`). One for each daemon.
    pub run_dir: PathBuf,
    /// Folder for keys and for what is known of tasks.
    pub state_dir: PathBuf,
    /// `swarmd-shim`, which carries the encrypted tunnel.
    pub shim: PathBuf,
    /// UDP port of the encrypted tunnel.
    pub tunnel_port: u16,
    /// The file that names the host's resolvers.
    pub resolv_conf: PathBuf,
    /// Where random octets for keys come from.
    pub random: Random,
}

impl Settings {
    /// The usual ones.
    pub fn new(
        run_dir: impl Into<PathBuf>,
        state_dir: impl Into<PathBuf>,
        shim: impl Into<PathBuf>,
        random: Random,
    ) -> Self {
        Self {
            run_dir: run_dir.into(),
            state_dir: state_dir.into(),
            shim: shim.into(),
            tunnel_port: defaults::TUNNEL_PORT,
            resolv_conf: "/etc/resolv.conf".into(),
            random,
        }
    }

    /// The tunnel's process of this node.
    pub(crate) fn tunnel(&self) -> Place {
        // The word of `swarm_worker_shim::tunnel::ARGUMENT`.
        let arguments = vec!["--tunnel".into()];
        Place { dir: self.run_dir.join("tunnel"), program: self.shim.clone(), arguments }
    }
}

/// This node cannot have networks.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("use the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    #[error("make the tunnel's key")]
    Keys(#[source] io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The networks of this node. Dropping it touches nothing.
pub struct DataPlane {
    kernel: Arc<Kernel>,
    commands: mpsc::UnboundedSender<Command>,
    tasks: watch::Receiver<Arc<BTreeMap<TaskId, Arc<LocalTask>>>>,
    /// Tasks for which links were asked: the engine may not have got to it, and who asked may have gone.
    asked: Mutex<BTreeSet<TaskId>>,
    set: watch::Receiver<Arc<NetworkSet>>,
    status: Arc<watch::Sender<NetworkStatus>>,
    /// Ends with this.
    _engine: JoinSet<()>,
}

impl DataPlane {
    /// Looks at what is there; changes nothing before it is told of a set.
    ///
    /// # Errors
    /// If its folders or the kernel's networks cannot be used (mostly: the daemon is not root).
    ///
    /// # Panics
    /// If there is no runtime.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let dir = settings.state_dir.clone();
        let folder = |source| OpenError::Folder(dir.clone(), source);
        private_folder(&settings.state_dir).map_err(folder)?;
        let keys = Keys::open(settings.state_dir.join("keys"), settings.random).map_err(OpenError::Keys)?;
        let (records, tasks) = Records::open(settings.state_dir.join("tasks")).map_err(folder)?;
        let kernel = Arc::new(Kernel::open(KernelSettings::new(settings.run_dir.join("netns")))?);
        let (commands, orders) = mpsc::unbounded_channel();
        let tasks = watch::Sender::new(Arc::new(tasks));
        let set = watch::Sender::new(Arc::default());
        let status = Arc::new(watch::Sender::default());
        let watched = (tasks.subscribe(), set.subscribe(), Arc::clone(&status));
        let names = NameSettings { resolv_conf: settings.resolv_conf.clone(), ..NameSettings::default() };
        let engine = Engine::new(&settings, Arc::clone(&kernel), records, keys, names, (tasks, set, status));
        let mut running = JoinSet::new();
        running.spawn(engine.run(orders));
        let (tasks, set, status) = watched;
        Ok(Self { kernel, commands, tasks, asked: Mutex::default(), set, status, _engine: running })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ExecError> {
        let ended = || ExecError::Temporary("the data plane has ended".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    fn asked(&self) -> MutexGuard<'_, BTreeSet<TaskId>> {
        self.asked.lock().expect("no code panics while it holds the ids")
    }

    /// Waits until managers have said what the task's networks are.
    async fn told(&self, task: &Task) -> Result<(), ExecError> {
        let mut set = self.set.clone();
        // Not only of its networks: those may be left from a task before it, and about to go.
        let knows = |set: &Arc<NetworkSet>| task.attachments.iter().all(|a| has(set, a.network, task.id));
        match tokio::time::timeout(TOLD_PATIENCE, set.wait_for(knows)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ExecError::Temporary("the data plane has ended".into())),
            Err(_) => {
                let missing = task.attachments.iter().map(|a| a.network);
                let set = self.set.borrow();
                let missing: Vec<_> = missing.filter(|n| !has(&set, *n, task.id)).collect();
                let missing = missing.iter().map(|n| n.short()).collect::<Vec<_>>().join(", ");
                Err(ExecError::Temporary(format!(
                    "no manager has told this node of the task on network {missing} yet"
                )))
            }
        }
    }
}

impl NetworkService for DataPlane {
    fn apply(&self, set: Arc<NetworkSet>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // It ends with the daemon only: then nobody is told anything any more.
            if self.ask(|reply| Command::Apply(set, reply)).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn check(&self, network: Option<NetworkId>) -> BoxFuture<'_, Result<Vec<NetworkDifference>, ExecError>> {
        Box::pin(async move { self.ask(|reply| Command::Check(network, reply)).await? })
    }

    fn status(&self) -> watch::Receiver<NetworkStatus> {
        self.status.subscribe()
    }

    fn set_data_addr(&self, addr: Option<IpAddr>) {
        self.status.send_modify(|status| status.description.data_addr = addr);
        // It ends with the daemon only.
        drop(self.commands.send(Command::UseAddress(addr)));
    }
}

impl TaskNetworks for DataPlane {
    fn attach<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<TaskLinks, ExecError>> {
        Box::pin(async move {
            if task.attachments.is_empty() {
                return Ok(TaskLinks::default());
            }
            self.told(task).await?;
            let local = LocalTask {
                id: task.id,
                attachments: task.attachments.clone(),
                ports: task.spec.host_ports.clone(),
            };
            self.asked().insert(task.id);
            self.ask(|reply| Command::Attach(local, reply)).await??;
            Ok(self.links(task.id))
        })
    }

    fn detach(&self, task: TaskId) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            if !self.asked().contains(&task) && !self.tasks.borrow().contains_key(&task) {
                return Ok(());
            }
            self.ask(|reply| Command::Detach(task, reply)).await??;
            self.asked().remove(&task);
            Ok(())
        })
    }

    fn links(&self, task: TaskId) -> TaskLinks {
        let tasks = self.tasks.borrow();
        let Some(local) = tasks.get(&task) else { return TaskLinks::default() };
        TaskLinks { namespace: self.kernel.path(KernelPlace::Task(task)), ports: local.ports.clone() }
    }

    fn keep_only<'a>(&'a self, tasks: &'a BTreeSet<TaskId>) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move { self.ask(|reply| Command::KeepOnly(tasks.clone(), reply)).await? })
    }
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("kernel", &self.kernel).finish_non_exhaustive()
    }
}

/// A task's place on a network was told. On the ingress network, which every node has, only those are
/// told that have published ports.
fn has(set: &NetworkSet, network: NetworkId, task: TaskId) -> bool {
    let entry = set.networks.get(&network);
    entry.is_some_and(|entry| entry.network.ingress || entry.endpoints.contains_key(&task))
}

/// Keys lie in it.
fn private_folder(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
