//! The engine: takes what is wanted, and makes one pass after the other until all of it is so.

mod attach;
mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::{NetworkDifference, NetworkProblem, NetworkSet};
use swarm_types::node::NetworkDescription;
use swarm_types::site::SitePrefix;
use swarm_worker_agent::executor::{ExecError, NetworkStatus};
use swarm_worker_core::network::ground::Facts;
use swarm_worker_core::network::kernel::{Place, Plan};
use swarm_worker_core::network::planner::{LocalTask, Planner};
use swarm_worker_core::network::port;
use swarm_worker_dns::Settings as NameSettings;
use swarm_worker_network::Kernel;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::facts;
use crate::hold::Holds;
use crate::keys::Keys;
use crate::names::Names;
use crate::plane::Settings;
use crate::record::Records;
use crate::site;
use crate::tunnel::{Keeper, chain};

/// How often the host is looked at for what nobody tells: other addresses and packet sizes, a port that
/// was given back, a step of a change of keys.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For how long a task may have a network that no manager tells of before that is called a problem, and
/// before a task that starts is refused. Of a task that has ended, managers take the place away before
/// this node has put away its links; of one that starts, the network may just be on its way, again.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) type Tasks = BTreeMap<TaskId, Arc<LocalTask>>;
type Done<T> = oneshot::Sender<Result<T, ExecError>>;

/// A wish.
pub(crate) enum Command {
    UseAddress(Option<IpAddr>),
    Apply(Arc<NetworkSet>, oneshot::Sender<()>),
    Attach(LocalTask, Done<()>),
    Detach(TaskId, Done<()>),
    KeepOnly(BTreeSet<TaskId>, Done<()>),
    Check(Option<NetworkId>, Done<Vec<NetworkDifference>>),
}

/// What waits for the pass.
enum Waiting {
    Applied(oneshot::Sender<()>),
    Attached(TaskId, Done<()>),
    Detached(TaskId, Done<()>),
    Kept(Vec<TaskId>, Done<()>),
    Check(Option<NetworkId>, Done<Vec<NetworkDifference>>),
}

pub(crate) type Watched =
    (watch::Sender<Arc<Tasks>>, watch::Sender<Arc<NetworkSet>>, Arc<watch::Sender<NetworkStatus>>);

/// All that a node has of networks.
pub(crate) struct Engine {
    data_addr: Option<IpAddr>,
    kernel: Arc<Kernel>,
    planner: Planner,
    plan: Plan,
    records: Records,
    tunnel: Keeper,
    names: Names,
    holds: Holds,
    facts: Facts,
    /// The file that names the host's resolvers.
    resolv_conf: PathBuf,
    site: Vec<SitePrefix>,
    tasks: Arc<Tasks>,
    set: Arc<NetworkSet>,
    /// A set was told: before that nothing is touched.
    told: bool,
    /// Addresses that are nobody's any more since the last pass, whose connections are to end.
    left: BTreeSet<(NetworkId, IpAddr)>,
    planned: Vec<NetworkProblem>,
    /// Networks of tasks that no manager tells of, and since when.
    unknown: BTreeMap<(TaskId, NetworkId), Instant>,
    /// Tasks whose start waits for one of their networks.
    late: Vec<(TaskId, Done<()>)>,
    broken: Option<NetworkProblem>,
    tasks_out: watch::Sender<Arc<Tasks>>,
    set_out: watch::Sender<Arc<NetworkSet>>,
    status: Arc<watch::Sender<NetworkStatus>>,
}

impl Engine {
    pub(crate) fn new(
        settings: &Settings,
        kernel: Arc<Kernel>,
        records: Records,
        keys: Keys,
        names: NameSettings,
        (tasks_out, set_out, status): Watched,
    ) -> Self {
        let tasks = Arc::clone(&tasks_out.borrow());
        let engine = Self {
            tunnel: Keeper::new(keys, settings.tunnel_port, settings.tunnel()),
            data_addr: None,
            kernel,
            planner: Planner::new(),
            plan: Plan::default(),
            records,
            names: Names::new(names),
            holds: Holds::default(),
            facts: Facts::default(),
            site: site::look(&settings.resolv_conf),
            resolv_conf: settings.resolv_conf.clone(),
            tasks,
            set: Arc::default(),
            told: false,
            left: BTreeSet::new(),
            planned: Vec::new(),
            unknown: BTreeMap::new(),
            late: Vec::new(),
            broken: None,
            tasks_out,
            set_out,
            status,
        };
        // The keys, and what the host uses, are to be known when the node registers.
        engine.publish();
        engine
    }

    /// Until nobody can command any more.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (mut problems, mut repairs) = (self.kernel.problems(), self.kernel.repairs());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(first) = command else { return };
                    let mut waiting = Vec::new();
                    self.take(first, &mut waiting);
                    while let Ok(next) = commands.try_recv() {
                        self.take(next, &mut waiting);
                    }
                    if waiting.iter().any(|w| !matches!(w, Waiting::Check(..))) {
                        self.pass().await;
                    }
                    let late = std::mem::take(&mut self.late);
                    for one in late.into_iter().map(|(id, done)| Waiting::Attached(id, done)).chain(waiting) {
                        self.finish(one).await;
                    }
                }
                Ok(()) = problems.changed() => {}
                Ok(()) = repairs.changed() => {
                    // Namespaces may have been made anew.
                    self.names.listen(&self.set, &self.plan, &self.kernel).await;
                }
                () = self.tunnel.news() => {
                    if self.tunnel.look() {
                        self.pass().await;
                    }
                }
                _ = look.tick() => self.look().await,
            }
            self.publish();
        }
    }

    fn take(&mut self, command: Command, waiting: &mut Vec<Waiting>) {
        match command {
            // What follows from it is seen at the next look.
            Command::UseAddress(addr) => self.data_addr = addr,
            Command::Apply(set, done) => {
                self.leave_behind(&set);
                self.set = set;
                self.told = true;
                waiting.push(Waiting::Applied(done));
            }
            Command::Attach(task, done) => {
                let id = task.id;
                match self.begin(task) {
                    Ok(()) => waiting.push(Waiting::Attached(id, done)),
                    // Who asked may have gone.
                    Err(e) => drop(done.send(Err(e))),
                }
            }
            Command::Detach(id, done) => {
                // Who waited for its links is answered nothing, and does not wait any more.
                self.late.retain(|(late, _)| *late != id);
                self.drop_tasks(&[id]);
                waiting.push(Waiting::Detached(id, done));
            }
            Command::KeepOnly(tasks, done) => {
                let gone: Vec<_> = self.tasks.keys().filter(|id| !tasks.contains(id)).copied().collect();
                self.drop_tasks(&gone);
                waiting.push(Waiting::Kept(gone, done));
            }
            Command::Check(network, done) => waiting.push(Waiting::Check(network, done)),
        }
    }

    /// Addresses that the new set does not have any more: their tasks have ended.
    fn leave_behind(&mut self, new: &NetworkSet) {
        for (id, entry) in &self.set.networks {
            let Some(now) = new.networks.get(id) else { continue };
            let gone = entry.endpoints.iter().filter(|(task, _)| !now.endpoints.contains_key(task));
            let addrs = gone.flat_map(|(_, task)| task.addrs.iter());
            let taken = |addr: &IpAddr| now.endpoints.values().any(|task| task.addrs.contains(addr));
            self.left.extend(addrs.filter(|addr| !taken(addr)).map(|addr| (*id, *addr)));
        }
    }

    /// Makes everything as it is wanted, as far as it can be.
    async fn pass(&mut self) {
        if !self.told {
            return;
        }
        if self.set.own.is_none() {
            return self.clear().await;
        }
        self.look_at_host();
        self.tunnel.update(&self.set, self.underlay(), self.facts.underlay_mtu);
        self.look_at_host();
        let Some(planned) = self.planner.plan(&self.set, &self.tasks, &self.facts) else { return };
        self.planned = planned.problems;
        self.miss(&planned.unknown);
        self.plan = planned.plan;
        // A socket keeps its namespace alive.
        self.names.close_others(&self.set, &self.plan);
        self.apply().await;
        self.tunnel.leave(&self.set);
        self.names.tell(&self.set, &self.tasks);
        self.names.listen(&self.set, &self.plan, &self.kernel).await;
        self.holds.update(&port::published(&self.set, &self.tasks));
        self.end_connections().await;
        self.set_out.send_replace(Arc::clone(&self.set));
    }

    /// The node has left: nothing of ours is to stay.
    async fn clear(&mut self) {
        info!("the networks of this node are removed");
        self.planner = Planner::new();
        self.planned.clear();
        self.unknown.clear();
        self.plan = Plan::default();
        self.plan.namespaces.insert(Place::Host, Arc::default());
        self.names.tell(&self.set, &self.tasks);
        self.names.listen(&self.set, &self.plan, &self.kernel).await;
        self.holds.update(&BTreeMap::new());
        self.left.clear();
        self.apply().await;
        self.tunnel.clear();
        self.set_out.send_replace(Arc::clone(&self.set));
    }

    /// Takes over which networks are missing; those that were missing before are so since then.
    fn miss(&mut self, unknown: &BTreeMap<TaskId, Vec<NetworkId>>) {
        let now = Instant::now();
        let missing = unknown.iter().flat_map(|(task, networks)| networks.iter().map(|n| (*task, *n)));
        self.unknown = missing.map(|key| (key, *self.unknown.get(&key).unwrap_or(&now))).collect();
    }

    /// Of tasks and networks that no manager tells of, those for which it is too late.
    fn overdue(&self) -> impl Iterator<Item = &(TaskId, NetworkId)> {
        let long = self.unknown.iter().filter(|(_, since)| since.elapsed() >= UNKNOWN_PATIENCE);
        long.map(|(key, _)| key)
    }

    /// Tasks that have been without one of their networks for too long.
    fn missed(&self) -> impl Iterator<Item = NetworkProblem> {
        self.overdue().map(|(task, network)| NetworkProblem {
            subject: format!("task {}", task.short()),
            text: format!("no manager has told this node of its network {} for 5 s", network.short()),
        })
    }

    async fn apply(&mut self) {
        let applied = self.kernel.apply(self.plan.clone()).await;
        self.broken = applied.err().map(|e| {
            let text = chain(&e);
            warn!(error = text, "the kernel's networks cannot be driven");
            NetworkProblem { subject: "kernel".into(), text }
        });
    }

    /// Connections to tasks that have ended are reset at their next packet instead of hanging.
    async fn end_connections(&mut self) {
        let ingress = self.set.ingress().map(|entry| entry.network.id);
        for (network, addr) in std::mem::take(&mut self.left) {
            let host = (Some(network) == ingress).then_some(Place::Host);
            for place in [Some(Place::Sandbox(network)), host].into_iter().flatten() {
                if !self.plan.namespaces.contains_key(&place) {
                    continue;
                }
                match self.kernel.reset_connections(place, addr).await {
                    Ok(0) => {}
                    Ok(count) => debug!(%addr, count, "connections of a task that has ended are reset"),
                    Err(e) => {
                        warn!(%addr, error = chain(&e), "connections of a task that has ended may hang")
                    }
                }
            }
        }
    }

    fn underlay(&self) -> Option<IpAddr> {
        self.data_addr.or_else(|| self.set.own.as_ref()?.addr)
    }

    fn look_at_host(&mut self) {
        let seen = self.set.own.as_ref().and_then(|own| own.addr);
        self.facts = facts::look(self.data_addr, seen, self.tunnel.mtu());
    }

    async fn look(&mut self) {
        for (id, done) in std::mem::take(&mut self.late) {
            self.finish(Waiting::Attached(id, done)).await;
        }
        // Also of a node that is in no cluster yet: it may found one.
        self.site = site::look(&self.resolv_conf);
        if self.set.own.is_none() {
            return;
        }
        let before = self.facts.clone();
        self.look_at_host();
        if self.facts != before || self.tunnel.is_due() {
            self.pass().await;
            return;
        }
        if self.holds.has_failed() {
            self.holds.update(&port::published(&self.set, &self.tasks));
        }
        if self.names.has_failed() {
            self.names.listen(&self.set, &self.plan, &self.kernel).await;
        }
    }

    async fn finish(&mut self, waiting: Waiting) {
        // Whoever does not wait any more has been told to stop, and will detach.
        match waiting {
            Waiting::Applied(done) => drop(done.send(())),
            Waiting::Attached(id, done) if self.is_early(id) => self.late.push((id, done)),
            Waiting::Attached(id, done) => {
                let attached = self.is_attached(id).await;
                if attached.is_err() {
                    self.drop_tasks(&[id]);
                    self.pass().await;
                    self.forget(&[id])
                        .err()
                        .into_iter()
                        .for_each(|e| warn!(task.id = %id, error = %e, "record"));
                }
                drop(done.send(attached));
            }
            Waiting::Detached(id, done) => drop(done.send(self.forget(&[id]))),
            Waiting::Kept(gone, done) => drop(done.send(self.forget(&gone))),
            Waiting::Check(network, done) => drop(done.send(self.check(network).await)),
        }
    }

    /// What is wrong, and this node's end of the networks.
    fn publish(&self) {
        let mut problems = self.planned.clone();
        problems.extend(self.broken.clone());
        problems.extend(self.missed());
        problems.extend(self.kernel.problems().borrow().iter().cloned());
        problems.extend(self.tunnel.problems().chain(self.names.problems()).chain(self.holds.problems()));
        problems.sort();
        problems.dedup();
        let description = NetworkDescription {
            keys: self.tunnel.keys.published(),
            tunnel_port: self.tunnel.port(),
            encryption: self.tunnel.encryption.into(),
            data_addr: self.data_addr,
            site: self.site.clone(),
        };
        let now = NetworkStatus { problems, description };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }
}
