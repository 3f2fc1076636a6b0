//! [`Kernel`]: the edge of this crate. It hands every wish to the one thread that does the work
//! ([`crate::thread`]), because entering a network namespace is a matter of threads.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use swarm_types::network_set::{NetworkDifference, NetworkProblem};
use swarm_worker_core::network::kernel::{Place, Plan};
use tokio::sync::{oneshot, watch};

use crate::namespace::Folder;
use crate::thread::{self, Command, Handle};

/// Where and how the kernel is driven.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the named namespaces that are ours (e.g. `/run/swarmd/netns/<cluster>`): one file each,
    /// `n-<network>` and `t-<task>`. Everything in it that no plan names is removed.
    pub folder: PathBuf,
    /// The namespace that is [`Place::Host`]; none: the one that the caller of [`Kernel::open`] is in.
    pub host: Option<PathBuf>,
    /// Everything is compared at least this often, in case news of changes were lost.
    pub audit: Duration,
    /// After news of a foreign change, more of them are waited for this long before it is repaired.
    pub settle: Duration,
    /// Settings of this node and of its networks are compared this often: of most of them nobody tells.
    pub settings: Duration,
    /// Firewalls of others, and connections for which there is no room, are looked for this often.
    pub look: Duration,
}

impl Settings {
    /// The usual: this namespace, an audit every 30 s, repair after 100 ms, settings every second, a look
    /// around every 5 s.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let (audit, settle) = (Duration::from_secs(30), Duration::from_millis(100));
        let (settings, look) = (Duration::from_secs(1), Duration::from_secs(5));
        Self { folder: folder.into(), host: None, audit, settle, settings, look }
    }
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// What could not be done; everything else is done. Sorted. It is tried again by and by.
    pub problems: Vec<NetworkProblem>,
    /// Time that the changes took inside the kernel.
    pub in_kernel: Duration,
}

/// Something in the kernel is not as the plan wants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// In which namespace.
    pub place: Place,
    /// What, as `ip` or `nft` would print it.
    pub what: String,
    /// `missing`, `unexpected`, or how it differs.
    pub how: String,
}

impl Difference {
    /// For the managers, with the name that people know the namespace by.
    pub fn named(self, place: impl Into<String>) -> NetworkDifference {
        NetworkDifference { place: place.into(), what: self.what, how: self.how }
    }
}

/// Tracked connections of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// TCP connections that are established, and flows of other protocols that were answered.
    pub established: u64,
    /// All that are tracked.
    pub all: u64,
}

/// Why nothing at all could be done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KernelError {
    #[error("make the folder of namespaces {0}")]
    Folder(PathBuf, #[source] io::Error),
    #[error("open the network namespace {0}")]
    Open(PathBuf, #[source] io::Error),
    #[error("start the thread that drives the kernel")]
    Thread(#[source] io::Error),
    #[error("enter the network namespace of {0}")]
    Enter(String, #[source] io::Error),
    #[error("{0}")]
    Ask(String, #[source] io::Error),
    #[error("the thread that drives the kernel has ended")]
    Stopped,
}

/// Makes the kernel agree with plans, and keeps it so. Dropping it ends the watch and touches nothing.
#[derive(Debug)]
pub struct Kernel {
    folder: Folder,
    handle: Handle,
    problems: watch::Receiver<Vec<NetworkProblem>>,
    repairs: watch::Receiver<u64>,
}

impl Kernel {
    /// Looks at what is there and starts to watch. Changes nothing until the first plan.
    pub fn open(settings: Settings) -> Result<Self, KernelError> {
        let folder =
            Folder::new(&settings.folder).map_err(|err| KernelError::Folder(settings.folder.clone(), err))?;
        let (problems_tx, problems) = watch::channel(Vec::new());
        let (repairs_tx, repairs) = watch::channel(0);
        let handle = thread::start(settings, folder.clone(), problems_tx, repairs_tx)?;
        Ok(Self { folder, handle, problems, repairs })
    }

    /// From now on the kernel is to agree with `plan`, which is everything: what is ours and not in it
    /// goes. Resolves when it does, as far as it can.
    pub async fn apply(&self, plan: Plan) -> Result<Applied, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Command::Apply(Box::new(plan), reply))?;
        answer.await.map_err(|_| KernelError::Stopped)
    }

    /// Compares what is wanted with what is there, in one namespace or all. Looks; repairs nothing.
    pub async fn check(&self, place: Option<Place>) -> Result<Vec<Difference>, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Command::Check(place, reply))?;
        answer.await.map_err(|_| KernelError::Stopped)?
    }

    /// What cannot be made so, or is wrong (a full table of connections, a firewall in the way); sorted.
    /// Changes as repairs go.
    pub fn problems(&self) -> watch::Receiver<Vec<NetworkProblem>> {
        self.problems.clone()
    }

    /// How many times something that others had changed was put right.
    pub fn repairs(&self) -> watch::Receiver<u64> {
        self.repairs.clone()
    }

    /// Where a namespace is mounted: what a container joins, and what `nsenter --net=` takes. None for
    /// the host's.
    pub fn path(&self, place: Place) -> Option<PathBuf> {
        self.folder.path(place)
    }

    /// Does something on a thread of its own that is in a namespace of the last plan: open sockets, which
    /// then belong to it. It may block.
    pub async fn enter<T: Send + 'static>(
        &self,
        place: Place,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Command::Namespace(place, reply))?;
        let namespace = answer.await.map_err(|_| KernelError::Stopped)?;
        let name = crate::words::place(place);
        let namespace = namespace.map_err(|err| KernelError::Enter(name.clone(), err))?;
        let (done, result) = oneshot::channel();
        let run = move || {
            let acted = crate::namespace::enter(&namespace).map(|()| act());
            // nobody may wait any more
            drop(done.send(acted));
        };
        std::thread::Builder::new().name("sw-netns".into()).spawn(run).map_err(KernelError::Thread)?;
        result.await.map_err(|_| KernelError::Stopped)?.map_err(|err| KernelError::Enter(name, err))
    }

    /// Forgets all tracked connections of a namespace whose answers come from `addr`, a task that is
    /// dead: TCP clients are reset at their next packet, UDP flows move on. Returns how many there were.
    pub async fn reset_connections(&self, place: Place, addr: IpAddr) -> Result<u64, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Command::Reset(place, addr, reply))?;
        let answer = answer.await.map_err(|_| KernelError::Stopped)?;
        answer.map_err(|err| KernelError::Ask(format!("forget the connections of {addr}"), err))
    }

    /// Counts the tracked connections of a namespace whose answers come from `addr`.
    pub async fn connections(&self, place: Place, addr: IpAddr) -> Result<Connections, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Command::Count(place, addr, reply))?;
        let answer = answer.await.map_err(|_| KernelError::Stopped)?;
        answer.map_err(|err| KernelError::Ask(format!("count the connections of {addr}"), err))
    }
}
