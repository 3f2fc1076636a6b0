//! [`Manager`]: everything that a manager runs, started and stopped as one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use swarm_manager_core::context::Context;
use swarm_manager_core::control::cluster::Founding;
use swarm_manager_core::control::{self, Denied};
use swarm_manager_core::pace::Pace;
use swarm_manager_core::store::Draft;
use swarm_manager_raft::node::{ProposeError, SnapshotPolicy, StartError};
use swarm_manager_raft::{DataKey, RaftHandle, RaftNode, Settings as RaftSettings};
use swarm_proto::{MAX_MESSAGE_BYTES, v1};
use swarm_types::cluster::Cluster;
use swarm_types::id::{ClusterId, IdSource, NodeId, Seed, SessionId};
use swarm_types::node::Role;
use swarm_types::time::{Clock, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tower::ServiceBuilder;

use crate::authorize::{Authorize, Membership};
use crate::ca::CaApi;
use crate::codec;
use crate::commands::CommandHub;
use crate::control_api::ControlApi;
use crate::dispatcher::{DispatcherApi, Sessions};
use crate::forward::{Forward, Leadership, Target};
use crate::gate::GateLayer;
use crate::images::Transfers;
use crate::leader::LeaderLine;
use crate::network_problems::NetworkProblems;
use crate::passing::Passing;
use crate::raft_api::RaftApi;
use crate::serve::{Calls, calls};
use crate::state::{ClusterState, Rejected, Verdict};
use crate::status;
use crate::transport::{GrpcTransport, Peers};

/// What a manager needs to know of itself.
pub struct Settings {
    /// Its node.
    pub node: NodeId,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Folder for the log, snapshots and archives on their way.
    pub dir: PathBuf,
    /// `host:port` under which other nodes reach it.
    pub addr: String,
    /// Key of the log and snapshots on disk.
    pub data_key: [u8; 32],
    /// For ids and jitter.
    pub seed: Seed,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Connections to other managers.
    pub peers: Arc<dyn Peers>,
}

/// How a manager begins.
pub enum Start {
    /// As the first of a new cluster.
    Found(Box<Founding>),
    /// As one more: what the leader answered to `JoinGroup`.
    Join(v1::JoinGroupResponse),
    /// As what it was before.
    Restart,
}

/// A manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Its folder cannot be used.
    #[error("make the folder {0}")]
    Folder(PathBuf, #[source] std::io::Error),
    /// Its log cannot be read.
    #[error("start consensus")]
    Raft(#[from] StartError),
    /// It was never one, and is told to go on.
    #[error("there is no log in {0}")]
    NoLog(PathBuf),
    /// The first entries of a new cluster were not written.
    #[error("found the cluster")]
    Found(#[source] ProposeError),
    /// The first objects of a new cluster are not valid.
    #[error("found the cluster: {0}")]
    Refused(String),
    /// What the leader sent makes no sense.
    #[error("read the leader's answer: {0}")]
    Answer(String),
}

/// What all parts of a manager share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) addr: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) state: Arc<ClusterState>,
    pub(crate) raft: RaftHandle,
    pub(crate) sessions: Sessions,
    pub(crate) commands: CommandHub,
    pub(crate) transfers: Transfers,
    pub(crate) passing: Passing,
    pub(crate) network_problems: NetworkProblems,
    pub(crate) leader: LeaderLine,
    ids: Mutex<IdSource>,
    pace: Mutex<Pace>,
}

/// A certificate request and a token are a fraction of this.
const MAX_CA_MESSAGE_BYTES: usize = 64 << 10;
/// How long a manager that joins waits until it may vote.
const VOTE_PATIENCE: Duration = Duration::from_secs(10);
/// A write is decided anew so often when others were faster.
const WRITE_ATTEMPTS: usize = 50;

impl Shared {
    /// The cluster's time; never before the store's newest.
    pub(crate) fn now(&self) -> Timestamp {
        let mut pace = self.pace.lock().expect("no code panics while it reads the time");
        pace.read(self.clock.now(), self.state.view().newest_time())
    }

    pub(crate) fn new_id(&self) -> String {
        self.ids.lock().expect("no code panics while it draws an id").next_id()
    }

    pub(crate) fn new_seed(&self) -> Seed {
        Seed(self.ids.lock().expect("no code panics while it draws a seed").next_u64())
    }

    /// Decides on the newest view and writes; decides again if the view had changed meanwhile.
    pub(crate) async fn write<T>(
        &self,
        decide: impl Fn(&mut Draft, &mut Context<'_>) -> Result<T, Denied>,
    ) -> Result<T, Status> {
        for _ in 0..WRITE_ATTEMPTS {
            let mut draft = Draft::new(self.state.view(), self.now());
            let mut ids = IdSource::new(self.new_seed());
            let mut context = Context { now: draft.now(), ids: &mut ids };
            let answer = decide(&mut draft, &mut context).map_err(|e| status::denied(&e))?;
            if draft.is_empty() {
                return Ok(answer);
            }
            match self
                .propose(codec::encode(&draft.into_transaction()))
                .await
                .map_err(|e| status::propose(&e))?
            {
                Ok(()) => return Ok(answer),
                Err(Rejected::Refused(_)) => {}
                Err(e @ Rejected::Unreadable(_)) => return Err(Status::internal(e.to_string())),
            }
        }
        Err(Status::aborted("the cluster changes too fast for this command: try it again"))
    }

    /// Puts an entry into the log; what applying it gave.
    pub(crate) async fn propose(&self, entry: Vec<u8>) -> Result<Verdict, ProposeError> {
        self.raft.propose(entry).await.map(verdict)
    }

    /// Waits until all that was committed before is in the view.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        self.raft.read_barrier().await.map(|_| ()).map_err(|e| Status::unavailable(e.to_string()))
    }

    /// `host:port` of the leader, if there is one.
    pub(crate) fn leader_addr(&self) -> Option<String> {
        self.raft.status().leader.map(|l| l.address)
    }

    /// `host:port` of all managers, the leader first.
    pub(crate) fn manager_addrs(&self) -> Vec<String> {
        let status = self.raft.status();
        let leader = status.leader.as_ref().map(|l| l.raft_id);
        let mut members: Vec<_> = status.members.iter().map(|m| &m.member).collect();
        members.sort_by_key(|m| (Some(m.raft_id) != leader, m.raft_id));
        members.into_iter().map(|m| m.address.clone()).collect()
    }

    pub(crate) fn heartbeat_period_ms(&self) -> u64 {
        let view = self.state.view();
        let period = view.cluster().map(|c| c.spec.heartbeat_period);
        let period = period.unwrap_or(swarm_types::defaults::HEARTBEAT_PERIOD);
        u64::try_from(period.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn registered(&self, node: &NodeId, session: &SessionId, term: u64) -> v1::Registered {
        v1::Registered {
            session_id: session.to_string(),
            heartbeat_period_ms: self.heartbeat_period_ms(),
            cluster: Some(self.cluster_changed(node)),
            term,
        }
    }

    pub(crate) fn cluster_changed(&self, node: &NodeId) -> v1::ClusterChanged {
        let view = self.state.view();
        v1::ClusterChanged {
            node: view.node(node).map(|n| n.as_ref().into()),
            manager_addrs: self.manager_addrs(),
            heartbeat_period_ms: self.heartbeat_period_ms(),
            root_cert_pem: view.cluster().map(|c| c.root_ca.cert_pem.clone()).unwrap_or_default(),
        }
    }

    /// Takes a manager into the group, or notes its new address.
    pub(crate) async fn add_member(&self, node: NodeId, addr: String, raft_id: u64) -> Result<u64, Status> {
        let known = self.raft.status().members.into_iter().find(|m| m.member.node_id == node);
        if let Some(known) = known {
            if known.member.address != addr {
                let changed = self.raft.update_address(known.member.raft_id, addr).await;
                changed.map_err(|e| status::propose(&e))?;
            }
            return Ok(known.member.raft_id);
        }
        if raft_id != 0 {
            // It will throw its log away: that must not be because a leader of yesterday does not know it.
            self.barrier().await?;
            if self.raft.status().members.iter().all(|m| m.member.node_id != node) {
                return Err(Status::not_found("this manager was removed from the group: join it anew"));
            }
            return Err(Status::unavailable("the group changes"));
        }
        let member = self.raft.add_member(node, addr).await.map_err(|e| status::propose(&e))?;
        tracing::info!(node.id = %node, raft.id = member.raft_id, addr = member.address, "manager joined the group");
        Ok(member.raft_id)
    }

    /// Takes a manager out of the group.
    pub(crate) async fn remove_member(&self, raft_id: u64) -> Result<(), Status> {
        self.raft.remove_member(raft_id).await.map_err(|e| match e {
            ProposeError::Change(refused) => Status::failed_precondition(refused.to_string()),
            other => status::propose(&other),
        })
    }

    /// Takes in a snapshot that another manager sends.
    pub(crate) async fn receive_snapshot(
        &self,
        header: v1::SnapshotHeader,
        chunks: &mut Streaming<v1::SnapshotRequest>,
    ) -> Result<(), Status> {
        let refused = |e: &dyn std::error::Error| Status::internal(format!("take in the snapshot: {e}"));
        let mut incoming = self.raft.receive_snapshot(header.message).map_err(|e| refused(&e))?;
        while let Some(message) = chunks.message().await? {
            let Some(v1::snapshot_request::Message::Chunk(bytes)) = message.message else {
                return Err(Status::invalid_argument("a snapshot has one header"));
            };
            // Buffered writes of 256 KiB: short enough for this thread.
            std::io::Write::write_all(&mut incoming, &bytes).map_err(|e| refused(&e))?;
        }
        let finished = tokio::task::spawn_blocking(move || incoming.finish()).await;
        finished.map_err(|e| refused(&e))?.map_err(|e| refused(&e))
    }
}

impl Membership for Shared {
    fn cluster(&self) -> ClusterId {
        self.cluster
    }
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn is_removed(&self, node: &NodeId) -> bool {
        self.state.view().cluster().is_some_and(|c| c.removed_nodes.contains_key(node))
    }
    fn role(&self, node: &NodeId) -> Option<Role> {
        self.state.view().node(node).map(|n| n.role)
    }
}

impl Leadership for Shared {
    fn target(&self, patience: Duration) -> BoxFuture<'_, Target> {
        Box::pin(async move {
            let mut status = self.raft.watch();
            let led = status.wait_for(|s| s.leader.is_some() || s.stopped);
            let found = match tokio::time::timeout(patience, led).await {
                Ok(Ok(status)) => status.leader.clone().map(|l| (l.node_id == self.node, l.address)),
                Ok(Err(_)) | Err(_) => None,
            };
            match found {
                Some((true, _)) => self.leader.ready(patience).await,
                Some((false, addr)) => Target::There(addr),
                None => {
                    let quorum = self.raft.status().quorum();
                    Target::Nowhere(format!("the cluster has no leader: {quorum}"))
                }
            }
        })
    }

    fn moved_from<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut status = self.raft.watch();
            // An error means that this manager stops; then all its calls end.
            drop(status.wait_for(|s| s.leader.as_ref().is_some_and(|l| l.address != addr)).await);
        })
    }

    fn channel(&self, addr: &str) -> Channel {
        self.peers.channel(addr, None)
    }
}

/// A manager that runs.
pub struct Manager {
    shared: Arc<Shared>,
    transport: Arc<GrpcTransport>,
    driver: JoinHandle<()>,
    stop: CancellationToken,
}

impl Manager {
    /// Starts a manager; for a new cluster, returns when its first entries are written.
    ///
    /// # Errors
    /// If its folder or log cannot be used.
    pub async fn start(settings: Settings, start: Start) -> Result<Manager, ManagerError> {
        let raft_dir = settings.dir.join("raft");
        std::fs::create_dir_all(&raft_dir).map_err(|e| ManagerError::Folder(raft_dir.clone(), e))?;
        let spool = settings.dir.join("spool");
        let transfers = Transfers::new(spool.clone()).map_err(|e| ManagerError::Folder(spool, e))?;
        let raft_settings = raft_settings(&settings, &start, &raft_dir)?;
        let transport = GrpcTransport::new(settings.peers.clone(), raft_settings.core.id);
        let (state, machine) = ClusterState::new();
        let key = DataKey::new(settings.data_key);
        let (line, t) = (LeaderLine::default(), transport.clone());
        let started = tokio::task::spawn_blocking(move || {
            RaftNode::start(raft_settings, &raft_dir, key, Box::new(machine), t)
        });
        let raft = started.await.map_err(|e| ManagerError::Answer(e.to_string()))??;
        transport.attach(&raft);
        let policy_of = raft.downgrade();
        state.on_settings(Box::new(move |cluster| {
            if let Some(raft) = policy_of.upgrade() {
                raft.set_snapshot_policy(snapshot_policy(cluster));
            }
        }));
        let shared = Arc::new(Shared {
            node: settings.node,
            cluster: settings.cluster,
            addr: settings.addr,
            clock: settings.clock,
            peers: settings.peers,
            passing: Passing::new(state.clone()),
            network_problems: NetworkProblems::default(),
            state,
            raft,
            sessions: Sessions::default(),
            commands: CommandHub::default(),
            transfers,
            leader: line,
            ids: Mutex::new(IdSource::new(settings.seed)),
            pace: Mutex::default(),
        });
        if let Start::Found(founding) = start {
            found(&shared, *founding).await?;
        }
        let stop = CancellationToken::new();
        // The one task of this room that nobody else owns: `stop` waits for it.
        #[allow(clippy::disallowed_methods)]
        let driver = tokio::spawn(crate::leader::run(shared.clone(), stop.clone()));
        Ok(Manager { shared, transport, driver, stop })
    }

    /// True if `dir` is the folder of a manager that knows its group. One that was killed before its
    /// first snapshot came does not: it cannot even answer the leader, and has to ask to join again
    /// (it is given the same place).
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn knows_its_group(dir: &std::path::Path) -> Result<bool, ManagerError> {
        let raft = dir.join("raft");
        let snapshots = raft.join("snapshots");
        let any = match std::fs::read_dir(&snapshots) {
            Ok(files) => files.flatten().any(|f| f.path().extension().is_some_and(|e| e == "snap")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(ManagerError::Folder(snapshots, e)),
        };
        Ok(any && RaftNode::stored_id(&raft)?.is_some())
    }

    /// Waits until this manager votes: before that the others cannot lose one more. Its calls must be
    /// answered meanwhile, for the others send it the log. Gives up after a while: it goes on.
    pub async fn wait_for_vote(&self) {
        let mut status = self.shared.raft.watch();
        let votes = |s: &swarm_manager_raft::node::Status| {
            s.stopped || s.me().is_some_and(|m| m.role == swarm_manager_raft::MemberRole::Voter)
        };
        if tokio::time::timeout(VOTE_PATIENCE, status.wait_for(votes)).await.is_err() {
            tracing::warn!("this manager does not vote yet: it is still catching up");
        }
    }

    /// What answers the calls to this manager.
    pub fn calls(&self) -> Calls {
        let shared = &self.shared;
        let control = v1::control_server::ControlServer::new(ControlApi::new(shared.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        let dispatcher = v1::dispatcher_server::DispatcherServer::new(DispatcherApi::new(shared.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        // Strangers may call: what they send is short.
        let ca = v1::ca_server::CaServer::new(CaApi::new(shared.clone()))
            .max_decoding_message_size(MAX_CA_MESSAGE_BYTES);
        let raft = v1::raft_server::RaftServer::new(RaftApi::new(shared.clone()))
            .max_decoding_message_size(64 << 20);
        let routes = Routes::new(control).add_service(dispatcher).add_service(ca).add_service(raft).prepare();
        let membership: Arc<dyn Membership> = shared.clone();
        let leadership: Arc<dyn Leadership> = shared.clone();
        let layered = ServiceBuilder::new()
            .layer(GateLayer(Authorize { members: membership }))
            .layer(GateLayer(Forward { leadership }))
            .service(routes);
        calls(layered)
    }

    /// The state of the cluster as this manager has it.
    pub fn state(&self) -> &Arc<ClusterState> {
        &self.shared.state
    }

    /// The consensus group as this manager sees it.
    pub fn raft(&self) -> &RaftHandle {
        &self.shared.raft
    }

    /// `host:port` of all managers, the leader first.
    pub fn manager_addrs(&self) -> Vec<String> {
        self.shared.manager_addrs()
    }

    /// `host:port` under which other nodes reach this manager.
    pub fn addr(&self) -> &str {
        &self.shared.addr
    }

    /// Stops: hands leadership over first, if it has it.
    pub async fn stop(self) {
        self.shared.raft.stop().await;
        self.stop.cancel();
        self.transport.stop();
        if let Err(e) = self.driver.await {
            tracing::error!(error = %e, "the leader's driver ended badly");
        }
    }
}

fn raft_settings(
    settings: &Settings,
    start: &Start,
    dir: &std::path::Path,
) -> Result<RaftSettings, ManagerError> {
    Ok(match start {
        Start::Found(_) => RaftSettings::found(settings.node, settings.addr.clone(), settings.seed),
        Start::Restart => {
            let id = RaftNode::stored_id(dir)?.ok_or_else(|| ManagerError::NoLog(dir.to_owned()))?;
            RaftSettings::new(id, settings.seed)
        }
        Start::Join(answer) => RaftSettings {
            known: answer.members.iter().map(member_in).collect::<Result<_, _>>()?,
            ..RaftSettings::new(answer.raft_id, settings.seed)
        },
    })
}

fn member_in(member: &v1::Member) -> Result<swarm_manager_raft::Member, ManagerError> {
    use swarm_manager_raft::MemberRole;
    Ok(swarm_manager_raft::Member {
        raft_id: member.raft_id,
        node_id: member.node_id.parse().map_err(|_| ManagerError::Answer(member.node_id.clone()))?,
        address: member.addr.clone(),
        role: if member.learner { MemberRole::Learner } else { MemberRole::Voter },
    })
}

/// Writes the first objects of a new cluster.
async fn found(shared: &Shared, founding: Founding) -> Result<(), ManagerError> {
    let mut status = shared.raft.watch();
    // An error means that consensus ended: the proposal will say so.
    drop(status.wait_for(|s| s.is_leader() || s.stopped).await);
    let mut draft = Draft::new(shared.state.view(), shared.now());
    control::cluster::found(&mut draft, founding).map_err(|e| ManagerError::Refused(e.to_string()))?;
    let verdict =
        shared.propose(codec::encode(&draft.into_transaction())).await.map_err(ManagerError::Found)?;
    verdict.map_err(|e| ManagerError::Refused(e.to_string()))
}

/// What the state machine said of an entry.
pub(crate) fn verdict(applied: swarm_manager_raft::node::Applied) -> Verdict {
    *applied.response.downcast::<Verdict>().expect("the state machine answers every entry with a verdict")
}

/// The snapshot policy that a cluster's settings ask for.
fn snapshot_policy(cluster: &Cluster) -> SnapshotPolicy {
    SnapshotPolicy {
        every_entries: cluster.spec.snapshot_interval,
        keep_old: usize::try_from(cluster.spec.max_snapshots).unwrap_or(usize::MAX),
        ..SnapshotPolicy::default()
    }
}
