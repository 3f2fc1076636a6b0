//! [`Node`]: this machine, in a cluster or not; what users ask of it, and its upkeep.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use swarm_identity::ca::{Grant, RootCa};
use swarm_identity::csr::NodeKey;
use swarm_identity::key_store::KeyStore;
use swarm_identity::renewal;
use swarm_identity::role::Role as CertRole;
use swarm_identity::token::JoinToken;
use swarm_manager_server::{Founding, Start};
use swarm_proto::v1;
use swarm_types::cluster::{ClusterSpec, JoinTokens, RootCa as StoredCa};
use swarm_types::id::{ClusterId, IdSource, NodeId};
use swarm_types::node::{ManagerMembership, NodeDescription, Role};
use swarm_types::time::Timestamp;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::active::{Active, ActiveError, Machine};
use crate::addr::{self, AddrError};
use crate::connect::chain;
use crate::entropy;
use crate::join::{self, Application, JoinError, Joined};
use crate::state_dir::NodeRecord;

/// A join that takes longer goes on in the background.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_SLEEP: Duration = Duration::from_secs(2);

/// Where this machine stands.
#[derive(Default)]
enum Phase {
    /// In no cluster.
    #[default]
    Inactive,
    /// On its way into one.
    Pending(CancellationToken),
    /// In one.
    Active(Box<Active>),
    /// It was in one and cannot go on; why.
    Failed(String),
}

/// Nobody else is served while it is held.
pub(crate) struct FirstTurn(OwnedMutexGuard<Phase>);

/// This machine.
pub(crate) struct Node {
    machine: Machine,
    phase: Arc<Mutex<Phase>>,
    /// This machine came into a cluster or left one.
    moved: Notify,
    stop: CancellationToken,
}

impl Node {
    pub(crate) fn new(machine: Machine, stop: CancellationToken) -> Arc<Node> {
        Arc::new(Node { machine, phase: Arc::default(), moved: Notify::new(), stop })
    }

    /// The first turn, for [`Node::resume`]. Taken before anybody can call: an `init` that came first
    /// would take a node that has not yet read its folder for one that is in no cluster, and clear it.
    pub(crate) async fn first_turn(&self) -> FirstTurn {
        FirstTurn(self.phase.clone().lock_owned().await)
    }

    /// Goes on where the process before this one stopped.
    pub(crate) async fn resume(self: &Arc<Self>, turn: FirstTurn) {
        let FirstTurn(mut phase) = turn;
        *phase = match self.try_resume().await {
            Ok(Some(active)) => Phase::Active(Box::new(active)),
            Ok(None) => {
                self.remove_leftovers().await;
                Phase::Inactive
            }
            Err(e) => {
                tracing::error!(error = %chain(&e), "this node cannot take up its role again");
                Phase::Failed(chain(&e))
            }
        };
    }

    async fn try_resume(&self) -> Result<Option<Active>, ActiveError> {
        let Some(record) = self.machine.state.load()? else { return Ok(None) };
        let keys = KeyStore::open(self.machine.state.join("certs"))?;
        let Some(credentials) = keys.load_credentials()? else { return Ok(None) };
        tracing::info!(node.id = %record.node(), cluster.id = %record.cluster(), "this node belongs to a cluster");
        Active::start(&self.machine, keys, credentials, record, None).await.map(Some)
    }

    /// A node of no cluster has no containers and no networks: those of a leave that was cut short are
    /// removed.
    async fn remove_leftovers(&self) {
        match self.machine.executor.recover().await {
            Ok(found) => {
                for (task, _) in found {
                    if let Err(e) = self.machine.executor.remove(task).await {
                        tracing::warn!(task.id = %task, error = %e, "leftover container cannot be removed");
                    }
                }
            }
            Err(e) => tracing::warn!(error = %e, "leftover containers cannot be listed"),
        }
        self.machine.executor.networks().apply(Arc::default()).await;
    }

    /// Makes a new cluster with this node as its first manager.
    pub(crate) async fn init(&self, request: v1::InitRequest) -> Result<v1::InitResponse, Status> {
        let mut phase = self.phase.lock().await;
        must_be_free(&phase)?;
        let known = addr::candidates().map_err(|e| bad_addr(&e))?;
        let listen = addr::listen(&request.listen_addr, &known).map_err(|e| bad_addr(&e))?;
        let advertise =
            addr::advertise(&request.advertise_addr, listen, None, &known).map_err(|e| bad_addr(&e))?;
        let data_path = addr::data_path(&request.data_path_addr, &known).map_err(|e| bad_addr(&e))?;
        let spec = request.spec.clone().map(ClusterSpec::try_from).transpose();
        let spec = spec.map_err(|e| Status::invalid_argument(e.to_string()))?.unwrap_or_default();
        swarm_types::valid::cluster(&spec).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let availability = v1::Availability::try_from(request.availability)
            .map_err(|e| Status::invalid_argument(format!("availability: {e}")))?;
        let listen = listen_for(listen, advertise);
        let warnings = addr::pools(&spec, &self.describe().await.network.site);
        let founded = self.found(spec, availability, advertise, listen, data_path).await;
        let (active, worker_token) = match founded {
            Ok(founded) => founded,
            Err(e) => {
                self.forget();
                return Err(Status::internal(format!("make a new cluster: {}", chain(e.as_ref()))));
            }
        };
        let node_id = active.record.node().to_string();
        *phase = Phase::Active(Box::new(active));
        self.moved.notify_one();
        tracing::info!(node.id = node_id, addr = %advertise, "new cluster");
        Ok(v1::InitResponse { node_id, worker_token, manager_addr: advertise.to_string(), warnings })
    }

    async fn found(
        &self,
        spec: ClusterSpec,
        availability: v1::Availability,
        advertise: SocketAddr,
        listen: SocketAddr,
        data_path: Option<IpAddr>,
    ) -> Result<(Active, String), Box<dyn std::error::Error + Send + Sync>> {
        // What a founding that was cut short has left is of no use.
        self.machine.state.clear()?;
        let mut ids = IdSource::new(entropy::seed()?);
        let (node, cluster) = (NodeId::new(ids.next_id()), ClusterId::new(ids.next_id()));
        let now = self.machine.clock.now();
        let ca = RootCa::create(now)?;
        let grant = Grant { node, role: CertRole::Manager, cluster, ttl: spec.cert_expiry };
        let credentials = ca.credentials(NodeKey::generate()?, &grant, now)?;
        let token = || JoinToken::generate(ca.digest()).map(|t| t.to_string());
        let tokens = JoinTokens { worker: token()?, manager: token()? };
        let worker_token = tokens.worker.clone();
        let keys = KeyStore::open(self.machine.state.join("certs"))?;
        keys.save_credentials(&credentials)?;
        let mut record = NodeRecord::new(node, cluster, advertise.to_string(), listen.to_string());
        record.data_path_addr = data_path;
        let founding = Founding {
            cluster,
            spec,
            root_ca: StoredCa { cert_pem: ca.cert_pem(), key_pem: ca.key_pem() },
            join_tokens: tokens,
            node,
            description: NodeDescription { hostname: self.machine.hostname.clone(), ..self.describe().await },
            availability: availability.into(),
            membership: ManagerMembership { raft_id: 1, addr: advertise.to_string() },
        };
        let start = Some(Start::Found(Box::new(founding)));
        let active = Active::start(&self.machine, keys, credentials, record.clone(), start).await?;
        // Last: from here on a restart finds the cluster.
        self.machine.state.save(&record)?;
        Ok((active, worker_token))
    }

    async fn describe(&self) -> NodeDescription {
        self.machine.executor.describe().await
    }

    /// Joins a cluster.
    pub(crate) async fn join(self: &Arc<Self>, request: v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
        let mut phase = self.phase.lock().await;
        must_be_free(&phase)?;
        join::token(&request.token).map_err(|e| Status::invalid_argument(chain(&e)))?;
        if request.remote_addrs.is_empty() {
            return Err(Status::invalid_argument("the address of a manager is necessary to join a swarm"));
        }
        let availability = v1::Availability::try_from(request.availability)
            .map_err(|e| Status::invalid_argument(format!("availability: {e}")))?;
        let known = addr::candidates().map_err(|e| bad_addr(&e))?;
        addr::data_path(&request.data_path_addr, &known).map_err(|e| bad_addr(&e))?;
        let stop = CancellationToken::new();
        let wish = Application {
            token: request.token.clone(),
            availability,
            hostname: self.machine.hostname.clone(),
        };
        *phase = Phase::Pending(stop.clone());
        drop(phase);
        let node = self.clone();
        // Goes on when the caller gives up; `leave` or the daemon's end stop it.
        #[allow(clippy::disallowed_methods)]
        let joining = tokio::spawn(async move { node.join_until_stopped(request, wish, stop).await });
        match tokio::time::timeout(JOIN_PATIENCE, joining).await {
            Ok(Ok(result)) => result,
            Ok(Err(e)) => Err(Status::internal(format!("joining ended badly: {e}"))),
            Err(_) => Ok(v1::JoinResponse { node_id: String::new(), is_manager: false, joined: false }),
        }
    }

    async fn join_until_stopped(
        self: Arc<Self>,
        request: v1::JoinRequest,
        wish: Application,
        stop: CancellationToken,
    ) -> Result<v1::JoinResponse, Status> {
        let joined = tokio::select! {
            joined = self.find_manager(&request.remote_addrs, &wish) => joined,
            () = stop.cancelled() => return Err(Status::cancelled("joining was given up by `leave`")),
            () = self.stop.cancelled() => return Err(Status::unavailable("swarmd stops")),
        };
        let started = match joined {
            Ok((addr, joined)) => self.take_up(&request, &addr, joined).await,
            Err(e) => Err(Status::failed_precondition(format!("join the swarm: {}", chain(&e)))),
        };
        let mut phase = self.phase.lock().await;
        match started {
            Ok(active) => {
                let (node_id, is_manager) =
                    (active.record.node().to_string(), active.role() == Role::Manager);
                *phase = Phase::Active(Box::new(active));
                self.moved.notify_one();
                tracing::info!(node.id = node_id, manager = is_manager, "this node joined a cluster");
                Ok(v1::JoinResponse { node_id, is_manager, joined: true })
            }
            Err(e) => {
                self.forget();
                *phase = Phase::Inactive;
                Err(e)
            }
        }
    }

    /// Tries all addresses until one lets this machine in, or one says that it never will.
    async fn find_manager(
        &self,
        addrs: &[String],
        wish: &Application,
    ) -> Result<(String, Joined), JoinError> {
        loop {
            for addr in addrs {
                match join::join(addr, wish, &self.machine.clock).await {
                    Ok(joined) => return Ok((addr.clone(), joined)),
                    Err(e) if e.is_temporary() => {
                        tracing::info!(addr, error = %chain(&e), "cannot join yet");
                    }
                    Err(e) => return Err(e),
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn take_up(&self, request: &v1::JoinRequest, via: &str, joined: Joined) -> Result<Active, Status> {
        let known = addr::candidates().map_err(|e| bad_addr(&e))?;
        let listen = addr::listen(&request.listen_addr, &known).map_err(|e| bad_addr(&e))?;
        let route = route_to(via).await;
        let advertise =
            addr::advertise(&request.advertise_addr, listen, route, &known).map_err(|e| bad_addr(&e))?;
        let listen = listen_for(listen, advertise);
        let mut record =
            NodeRecord::new(joined.node, joined.cluster, advertise.to_string(), listen.to_string());
        record.managers = joined.managers;
        record.data_path_addr = addr::data_path(&request.data_path_addr, &known).map_err(|e| bad_addr(&e))?;
        if !record.managers.iter().any(|m| m == via) {
            record.managers.push(via.to_owned());
        }
        let started = async {
            self.machine.state.clear()?;
            let keys = KeyStore::open(self.machine.state.join("certs"))?;
            keys.save_credentials(&joined.credentials)?;
            self.machine.state.save(&record)?;
            Active::start(&self.machine, keys, joined.credentials, record, None).await
        };
        started.await.map_err(|e: ActiveError| Status::internal(format!("join the swarm: {}", chain(&e))))
    }

    /// Leaves the cluster.
    pub(crate) async fn leave(&self, request: v1::LeaveRequest) -> Result<v1::LeaveResponse, Status> {
        let mut phase = self.phase.lock().await;
        match &*phase {
            Phase::Inactive => return Err(Status::failed_precondition("This node is not part of a swarm")),
            Phase::Active(active) if !request.force => may_leave(active)?,
            Phase::Pending(_) | Phase::Failed(_) | Phase::Active(_) => {}
        }
        match std::mem::replace(&mut *phase, Phase::Inactive) {
            Phase::Active(active) => {
                if let Err(e) = active.leave(&self.machine).await {
                    *phase = Phase::Failed(chain(&e));
                    return Err(Status::internal(format!("leave the swarm: {}", chain(&e))));
                }
            }
            Phase::Pending(stop) => stop.cancel(),
            Phase::Failed(_) | Phase::Inactive => {
                self.remove_leftovers().await;
                self.forget();
            }
        }
        tracing::info!("this node left its cluster");
        Ok(v1::LeaveResponse {})
    }

    fn forget(&self) {
        self.machine.manager_calls.set(None);
        self.machine.manager_calls.set_place(None);
        if let Err(e) = self.machine.state.clear() {
            tracing::error!(error = %chain(&e), "the node's folder cannot be cleared");
        }
    }

    /// Stops; containers go on.
    pub(crate) async fn pause(&self) {
        let phase = std::mem::replace(&mut *self.phase.lock().await, Phase::Inactive);
        match phase {
            Phase::Active(active) => active.pause(&self.machine).await,
            Phase::Pending(stop) => stop.cancel(),
            Phase::Inactive | Phase::Failed(_) => {}
        }
    }

    /// What is known of this machine and its place in the cluster.
    pub(crate) async fn info(&self) -> v1::InfoResponse {
        let description = self.describe().await;
        let mut info = crate::info::of_machine(&self.machine, &description);
        match &*self.phase.lock().await {
            Phase::Inactive => info.state = "inactive".into(),
            Phase::Pending(_) => info.state = "pending".into(),
            Phase::Failed(why) => {
                info.state = "error".into();
                info.error.clone_from(why);
            }
            Phase::Active(active) => crate::info::of_active(&mut info, active),
        }
        info
    }

    /// Renews the certificate in time, follows the role that the managers give, and revives a
    /// manager whose log failed. Runs until the daemon stops.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        let mut failures = 0;
        let jitter = entropy::seed().map(|s| s.0).unwrap_or_default();
        loop {
            // Taken before the look: what changes while it looks is seen by the wait.
            let news = self.news().await;
            match self.upkeep(jitter).await {
                Ok(()) => failures = 0,
                Err(e) => {
                    failures += 1;
                    tracing::warn!(error = %chain(&e), failures, "upkeep of this node did not work yet");
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.something_to_do(news, jitter, failures) => {}
            }
        }
    }

    /// Is done when the agent or the manager says something new, from now on.
    async fn news(&self) -> BoxFuture<'static, ()> {
        let Phase::Active(active) = &*self.phase.lock().await else {
            return Box::pin(std::future::pending());
        };
        let mut agent = Some(active.agent.status());
        let mut raft = active.manager.as_ref().map(|m| m.manager.raft().watch());
        // A copy of a receiver has seen nothing: it would call what is old a change, again and again.
        agent.iter_mut().for_each(watch::Receiver::mark_unchanged);
        raft.iter_mut().for_each(watch::Receiver::mark_unchanged);
        Box::pin(async move {
            tokio::select! {
                () = changed(agent) => {}
                () = changed(raft) => {}
            }
        })
    }

    /// Returns when the certificate is due, or what the agent or the manager knows has changed; after
    /// failures, after a while.
    async fn something_to_do(&self, news: BoxFuture<'static, ()>, jitter: u64, failures: u32) {
        if failures > 0 {
            return tokio::time::sleep(RETRY * failures.min(10)).await;
        }
        let now = self.machine.clock.now();
        let due = match &*self.phase.lock().await {
            Phase::Active(active) => renewal_due(active, now, jitter),
            Phase::Inactive | Phase::Pending(_) | Phase::Failed(_) => Timestamp::MAX,
        };
        // Looked at anew now and then, because clocks are set.
        let wait = due.since(now).min(LONGEST_SLEEP);
        tokio::select! {
            () = self.moved.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = news => {}
        }
    }

    async fn upkeep(&self, jitter: u64) -> Result<(), ActiveError> {
        let mut phase = self.phase.lock().await;
        let Phase::Active(active) = &mut *phase else { return Ok(()) };
        let wanted = active.agent.status().borrow().node.as_ref().map(|n| n.role);
        let now = self.machine.clock.now();
        if wanted.is_some_and(|role| role != active.role()) || renewal_due(active, now, jitter) <= now {
            active.renew().await?;
            tracing::info!(role = active.role().as_str(), "certificate renewed");
        }
        active.follow_role(&self.machine).await?;
        active.rejoin(&self.machine).await?;
        let status = active.manager.as_ref().map(|m| m.manager.raft().status());
        if let Some(status) = status.filter(|s| s.stopped && !s.removed) {
            let why = status.failure.unwrap_or_default();
            tracing::error!(error = why, "the manager's log failed: starting the manager anew");
            active.restart_manager(&self.machine).await?;
        }
        Ok(())
    }
}

/// Returns when the value changes; never, if there is none or nobody changes it any more.
async fn changed<T>(watched: Option<watch::Receiver<T>>) {
    let Some(mut watched) = watched else { return std::future::pending().await };
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

fn renewal_due(active: &Active, now: Timestamp, jitter: u64) -> Timestamp {
    let own = active.identity.own();
    renewal::renew_at(own.not_before, own.expires, now, jitter)
}

fn must_be_free(phase: &Phase) -> Result<(), Status> {
    match phase {
        Phase::Inactive => Ok(()),
        Phase::Pending(_) => Err(Status::failed_precondition(
            "This node is already on its way into a swarm. Use \"swarmctl leave --force\" to give that up.",
        )),
        Phase::Active(_) | Phase::Failed(_) => Err(Status::failed_precondition(
            "This node is already part of a swarm. Use \"swarmctl leave\" to leave this swarm and join another one.",
        )),
    }
}

/// What a manager loses by leaving (Docker's words).
fn may_leave(active: &Active) -> Result<(), Status> {
    let Some(role) = &active.manager else { return Ok(()) };
    let status = role.manager.raft().status();
    let quorum = status.quorum();
    let start = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let text = if quorum.total <= 1 {
        "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.".to_owned()
    } else if quorum.reachable.saturating_sub(1) <= (quorum.total - 1) / 2 {
        format!(
            "Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm will be inaccessible. \
             Use `--force` to suppress this message.",
            quorum.total - 1,
            quorum.total
        )
    } else {
        "Demote it first with `swarmctl node demote`, or use `--force` to leave all the same.".to_owned()
    };
    Err(Status::failed_precondition(format!("{start}{text}")))
}

fn bad_addr(error: &AddrError) -> Status {
    Status::invalid_argument(chain(error))
}

/// All IPv4 addresses do not hear an IPv6 one: then all of both.
fn listen_for(listen: SocketAddr, advertise: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() && listen.is_ipv4() && advertise.is_ipv6() {
        true => SocketAddr::new(IpAddr::from([0u16; 8]), listen.port()),
        false => listen,
    }
}

/// The own address from which `addr` is reached. Sends nothing.
async fn route_to(addr: &str) -> Option<IpAddr> {
    let any = |v4: bool| if v4 { "0.0.0.0:0" } else { "[::]:0" };
    let target = tokio::net::lookup_host(addr).await.ok()?.next()?;
    let socket = tokio::net::UdpSocket::bind(any(target.is_ipv4())).await.ok()?;
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}
