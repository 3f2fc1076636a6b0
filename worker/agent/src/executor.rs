//! [`Executor`]: the edge between the agent and whatever makes containers real.
//!
//! Every operation is idempotent: the agent repeats the one it was in when the daemon died. All of
//! them may be dropped before they are done (the task was told to stop meanwhile); a dropped
//! operation leaves nothing that a later `remove` of the same task would not clean up.
//! Operations of one task never overlap; those of different tasks run side by side.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use swarm_types::endpoint::Port;
use swarm_types::id::{NetworkId, NodeId, TaskId};
use swarm_types::network_set::{NetworkDifference, NetworkSet};
use swarm_types::node::NodeDescription;
use swarm_types::placement::Platform;
use swarm_types::task::{ContainerStatus, Task};
use swarm_types::time::Timestamp;
use tokio::sync::watch;

pub use swarm_worker_core::networks::NetworkStatus;
pub use swarm_worker_core::observed::{Exit, Found, FoundState};

/// Makes containers real.
pub trait Executor: Send + Sync + 'static {
    /// The machine: host name, platform, resources, limits that it cannot enforce.
    fn describe(&self) -> BoxFuture<'_, NodeDescription>;

    /// Says which node of the cluster this machine is: for placeholders and labels.
    fn set_node(&self, node: NodeId);

    /// Containers of tasks that exist on this node, running or not. Called once, before any other
    /// operation, when the daemon starts.
    fn recover(&self) -> BoxFuture<'_, Result<Vec<(TaskId, Found)>, ExecError>>;

    /// Pulls the image if need be and creates the container, so that `start` is quick and sure.
    /// What `shutdown` needs to know (signal, grace period) is kept with the container.
    fn prepare<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Starts the prepared container; if it runs already or has ended already, says so as if it had
    /// just been started (`pid` 0 if it has ended: `wait` tells how).
    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ContainerStatus, ExecError>>;

    /// Waits until a started container has ended; at once if it has. `Fatal` if there is no such
    /// container any more (someone removed it behind our back).
    fn wait(&self, task: TaskId) -> BoxFuture<'_, Result<Exit, ExecError>>;

    /// Stop signal, grace period, SIGKILL; returns when the container has ended. Fine, and a default
    /// [`Exit`], for one that was never started or does not exist.
    fn shutdown(&self, task: TaskId) -> BoxFuture<'_, Result<Exit, ExecError>>;

    /// Removes the container, its root file system and its logs; kills it first if it still runs.
    /// Fine if there is none.
    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), ExecError>>;

    /// What the container wrote, oldest first. An empty stream if there is nothing; ends at the end of
    /// what there is, or, with `follow`, when the container has ended or is removed.
    fn logs(&self, task: TaskId, options: LogOptions) -> BoxStream<'static, Result<LogLine, ExecError>>;

    /// The images of this node.
    fn images(&self) -> &dyn ImageService;

    /// The networks of this node. A task's own links are made by `prepare` and removed by `remove`.
    fn networks(&self) -> &dyn NetworkService;
}

/// The networks of this node.
pub trait NetworkService: Send + Sync {
    /// From now on the kernel is to agree with `set`, and is kept so. Resolves when it does, as far as
    /// it can: [`NetworkService::status`] says what it cannot. A later call overtakes an earlier one,
    /// which then resolves with it. Nothing is torn down when the daemon stops.
    fn apply(&self, set: Arc<NetworkSet>) -> BoxFuture<'_, ()>;
    /// Differences between what is wanted and what the kernel has, on one network or all of them and
    /// the host. Looks; repairs nothing.
    fn check(&self, network: Option<NetworkId>) -> BoxFuture<'_, Result<Vec<NetworkDifference>, ExecError>>;
    /// The host's address for the traffic of networks (`--data-path-addr`); none: the one that managers
    /// see it under. Said before the node registers.
    fn set_data_addr(&self, _addr: Option<IpAddr>) {}
    /// What cannot be made so, and this node's end of the networks (its keys); changes are to be
    /// reported.
    fn status(&self) -> watch::Receiver<NetworkStatus>;
}

/// The networks of this node, and its tasks' ends of them.
pub trait TaskNetworks: NetworkService {
    /// Makes the task's network namespace with its links and host-mode ports, before its container is
    /// created. Waits until the node was told of the task's networks. Idempotent. An attachment that
    /// cannot be made leaves nothing; one that is dropped, nothing that `detach` does not remove.
    fn attach<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<TaskLinks, ExecError>>;
    /// Removes them again. Fine if there are none.
    fn detach(&self, task: TaskId) -> BoxFuture<'_, Result<(), ExecError>>;
    /// What [`TaskNetworks::attach`] made for a task, if it did.
    fn links(&self, task: TaskId) -> TaskLinks;
    /// Removes those of all tasks but these. Called once, before any other operation on tasks.
    fn keep_only<'a>(&'a self, tasks: &'a BTreeSet<TaskId>) -> BoxFuture<'a, Result<(), ExecError>>;
}

/// A task's end of the networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskLinks {
    /// The network namespace that its container joins; none: it gets one with nothing but loopback.
    pub namespace: Option<PathBuf>,
    /// Its host-mode ports, each with the port that the node gave it.
    pub ports: Vec<Port>,
}

/// For nodes without networks: everything is always as wanted, but no task can be attached.
#[derive(Debug, Default)]
pub struct NoNetworks(watch::Sender<NetworkStatus>);

impl NoNetworks {
    /// With what is wrong.
    pub fn because(status: NetworkStatus) -> Self {
        Self(watch::Sender::new(status))
    }
}

impl NetworkService for NoNetworks {
    fn apply(&self, _set: Arc<NetworkSet>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    fn check(&self, _network: Option<NetworkId>) -> BoxFuture<'_, Result<Vec<NetworkDifference>, ExecError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn status(&self) -> watch::Receiver<NetworkStatus> {
        self.0.subscribe()
    }
}

impl TaskNetworks for NoNetworks {
    fn attach<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<TaskLinks, ExecError>> {
        let attached = match task.attachments.is_empty() {
            true => Ok(TaskLinks::default()),
            false => {
                let status = self.0.borrow();
                let why = status.problems.first().map_or("it has none", |p| p.text.as_str());
                Err(ExecError::Fatal(format!("attach to networks: not possible on this node: {why}")))
            }
        };
        Box::pin(std::future::ready(attached))
    }
    fn detach(&self, _: TaskId) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn links(&self, _: TaskId) -> TaskLinks {
        TaskLinks::default()
    }
    fn keep_only<'a>(&'a self, _: &'a BTreeSet<TaskId>) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Why an operation failed: as much as core must know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// It may work if it is tried again soon.
    #[error("{0}")]
    Temporary(String),
    /// Trying again is no use. The text is what the user sees as the task's error.
    #[error("{0}")]
    Fatal(String),
}

/// Which log lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many of the lines that are there; none means all.
    pub tail: Option<u64>,
    /// Only lines of this time and after it; zero means all.
    pub since: Timestamp,
    /// Go on with new lines.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { tail: None, since: Timestamp::ZERO, follow: false, stdout: true, stderr: true }
    }
}

/// One line that a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When, by the node's clock.
    pub at: Timestamp,
    /// To which stream.
    pub stream: LogStream,
    /// The text, without its end of line. Any bytes.
    pub data: Bytes,
    /// The line was too long: it goes on in the next one of this stream.
    pub partial: bool,
}

/// Where a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// Bytes of an image archive on their way.
pub type ArchiveStream = BoxStream<'static, std::io::Result<Bytes>>;

/// The images of this node.
pub trait ImageService: Send + Sync {
    /// Reads a `docker save` archive or an OCI layout tar, plain or compressed; what was loaded, with
    /// the names that the archive gave it.
    fn load(&self, archive: ArchiveStream) -> BoxFuture<'_, Result<Vec<ImageInfo>, ExecError>>;
    /// All images, by first tag.
    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, ExecError>>;
    /// Fetches an image from its registry.
    fn pull(&self, reference: String) -> BoxFuture<'_, Result<ImageInfo, ExecError>>;
    /// As [`ImageService::pull`], with a name and password for the registry.
    fn pull_as(&self, reference: String, auth: RegistryAuth) -> BoxFuture<'_, Result<ImageInfo, ExecError>> {
        let RegistryAuth { username, .. } = auth;
        let err = format!("pull `{reference}` as `{username}`: registry credentials are not supported here");
        Box::pin(std::future::ready(Err(ExecError::Fatal(err))))
    }
    /// Removes a tag, and the image with its last tag. `reference` may be an id or a prefix of one;
    /// `force` removes an image that a container uses or that has several tags. Returns what was
    /// done, in Docker's words (`Untagged: …`, `Deleted: …`).
    fn remove(&self, reference: String, force: bool) -> BoxFuture<'_, Result<Vec<String>, ExecError>>;
    /// The image as an OCI layout tar that [`ImageService::load`] reads.
    fn export(&self, reference: String) -> BoxFuture<'_, Result<ArchiveStream, ExecError>>;
}

/// Who pulls from a registry. The password is a secret: it is never printed.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// An image of this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageInfo {
    /// `sha256:` and the digest of its configuration.
    pub id: String,
    /// `name:tag` of each tag, in the short form that users write.
    pub tags: Vec<String>,
    /// `name@sha256:…` of each name that it was pulled under.
    pub digests: Vec<String>,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// When it was built; zero if it does not say.
    pub created: Timestamp,
    /// What it runs on.
    pub platform: Platform,
}
