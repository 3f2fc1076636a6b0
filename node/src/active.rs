//! A node that belongs to a cluster: its agent, its manager if it is one, and the upkeep of its
//! certificate and role.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_identity::credentials::Credentials;
use swarm_identity::key_store::KeyStore;
use swarm_identity::role::Role as CertRole;
use swarm_identity::tls::TlsIdentity;
use swarm_manager_server::{Manager, ManagerError, Peers, Settings as ManagerSettings, Start};
use swarm_proto::v1;
use swarm_types::node::Role;
use swarm_types::time::Clock;
use swarm_worker_agent::executor::Executor;
use swarm_worker_agent::{Agent, Handle as AgentHandle, Settings as AgentSettings};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use v1::raft_client::RaftClient;

use crate::connect::{self, Connector};
use crate::entropy::{self, NoEntropy};
use crate::join;
use crate::listen::{SharedCalls, serve_remote};
use crate::state_dir::{NodeRecord, StateDir, StateDirError};
use crate::switch::ManagerCalls;

/// What every node has, whatever it is in the cluster.
pub(crate) struct Machine {
    pub(crate) state: StateDir,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) hostname: String,
    pub(crate) manager_calls: ManagerCalls,
    pub(crate) remote_calls: SharedCalls,
}

/// A node could not take up its role.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActiveError {
    #[error("use the node's keys")]
    Keys(#[from] swarm_identity::key_store::KeyStoreError),
    #[error("use the node's certificate")]
    Tls(#[from] swarm_identity::tls::TlsError),
    #[error("listen on {0}")]
    Listen(String, #[source] std::io::Error),
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error(transparent)]
    State(#[from] StateDirError),
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error("join the managers: {0}")]
    JoinGroup(String),
    #[error("renew the certificate: {0}")]
    Renew(String),
    #[error("make the folder {0}")]
    Folder(std::path::PathBuf, #[source] std::io::Error),
}

/// How long a new manager looks for a leader that lets it in.
const JOIN_GROUP_PATIENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(300);

/// A node in its cluster.
pub(crate) struct Active {
    pub(crate) record: NodeRecord,
    pub(crate) identity: Arc<TlsIdentity>,
    pub(crate) agent: AgentHandle,
    pub(crate) manager: Option<ManagerRole>,
    connector: Arc<Connector>,
    keys: KeyStore,
    agent_task: JoinHandle<()>,
    stop: CancellationToken,
}

/// A manager and its door.
pub(crate) struct ManagerRole {
    pub(crate) manager: Manager,
    door: JoinHandle<()>,
    stop: CancellationToken,
}

impl Active {
    /// Takes up the role that the certificate gives. `start` says how a manager begins; none: as
    /// what it was, or, if it was none yet, by joining the others.
    pub(crate) async fn start(
        machine: &Machine,
        keys: KeyStore,
        credentials: Credentials,
        record: NodeRecord,
        start: Option<Start>,
    ) -> Result<Active, ActiveError> {
        machine.executor.set_node(record.node());
        let identity = Arc::new(TlsIdentity::new(credentials, machine.clock.clone())?);
        let connector = Connector::new(identity.clone());
        let manager = match identity.own().role {
            CertRole::Manager => {
                Some(start_manager(machine, &keys, &identity, &connector, &record, start).await?)
            }
            CertRole::Worker | CertRole::Admin => None,
        };
        let stop = CancellationToken::new();
        let (agent, agent_task) = start_agent(machine, &connector, &record, manager.is_some(), &stop)?;
        machine.manager_calls.set_in_swarm(true);
        Ok(Active { record, identity, agent, manager, connector, keys, agent_task, stop })
    }

    /// The role in the certificate.
    pub(crate) fn role(&self) -> Role {
        match self.identity.own().role {
            CertRole::Manager => Role::Manager,
            CertRole::Worker | CertRole::Admin => Role::Worker,
        }
    }

    /// Gets a new certificate, with the role that the managers say this node has.
    pub(crate) async fn renew(&self) -> Result<(), ActiveError> {
        let mut failures = Vec::new();
        for addr in self.managers() {
            let channel = Peers::channel(self.connector.as_ref(), &addr, None);
            match join::renew(channel, &self.identity.credentials()).await {
                Ok(credentials) => {
                    // On disk before in use: after a crash the old one would be refused for a new role.
                    self.keys.save_credentials(&credentials)?;
                    self.identity.update(credentials)?;
                    self.connector.forget();
                    return Ok(());
                }
                Err(e) => failures.push(format!("{addr}: {}", connect::chain(&e))),
            }
        }
        Err(ActiveError::Renew(match failures.is_empty() {
            true => "no manager is known".to_owned(),
            false => failures.join("; "),
        }))
    }

    /// `host:port` of the managers, as far as this node knows.
    pub(crate) fn managers(&self) -> Vec<String> {
        if let Some(role) = &self.manager {
            return role.manager.manager_addrs();
        }
        let learned = self.agent.status().borrow().managers.clone();
        if learned.is_empty() { self.record.managers.clone() } else { learned }
    }

    /// Becomes what the certificate says by now.
    pub(crate) async fn follow_role(&mut self, machine: &Machine) -> Result<(), ActiveError> {
        match (self.role(), self.manager.is_some()) {
            (Role::Manager, false) => {
                let mut record = self.record.clone();
                record.managers = self.managers();
                let started =
                    start_manager(machine, &self.keys, &self.identity, &self.connector, &record, None)
                        .await?;
                self.manager = Some(started);
                tracing::info!("this node is a manager now");
            }
            (Role::Worker, true) => {
                self.record.managers = self.managers();
                machine.state.save(&self.record)?;
                self.stop_manager(machine).await;
                remove_folder(machine.state.join("manager"))?;
                tracing::info!("this node is a worker now");
            }
            (Role::Manager, true) | (Role::Worker, false) => {}
        }
        Ok(())
    }

    /// Starts a manager anew whose log failed (a full disk, mostly).
    pub(crate) async fn restart_manager(&mut self, machine: &Machine) -> Result<(), ActiveError> {
        self.stop_manager(machine).await;
        let start = Some(Start::Restart);
        let started =
            start_manager(machine, &self.keys, &self.identity, &self.connector, &self.record, start).await?;
        self.manager = Some(started);
        Ok(())
    }

    async fn stop_manager(&mut self, machine: &Machine) {
        if let Some(role) = self.manager.take() {
            machine.manager_calls.set(None);
            role.stop().await;
        }
    }

    /// Stops for a while: containers go on, the cluster is told nothing.
    pub(crate) async fn pause(mut self, machine: &Machine) {
        self.stop.cancel();
        self.stop_manager(machine).await;
        ended("agent", self.agent_task.await);
    }

    /// Leaves the cluster: containers are stopped, good-bye is said, all is forgotten.
    pub(crate) async fn leave(mut self, machine: &Machine) -> Result<(), ActiveError> {
        self.agent.leave();
        ended("agent", (&mut self.agent_task).await);
        self.stop_manager(machine).await;
        machine.manager_calls.set_in_swarm(false);
        self.keys.clear()?;
        machine.state.clear()?;
        Ok(())
    }
}

impl ManagerRole {
    async fn stop(self) {
        self.manager.stop().await;
        self.stop.cancel();
        ended("door", self.door.await);
    }
}

fn ended(what: &str, result: Result<(), tokio::task::JoinError>) {
    if let Err(e) = result {
        tracing::error!(what, error = %e, "a part of the node ended badly");
    }
}

fn remove_folder(path: std::path::PathBuf) -> Result<(), StateDirError> {
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StateDirError::Write(path, e)),
        _ => Ok(()),
    }
}

fn start_agent(
    machine: &Machine,
    connector: &Arc<Connector>,
    record: &NodeRecord,
    is_manager: bool,
    stop: &CancellationToken,
) -> Result<(AgentHandle, JoinHandle<()>), ActiveError> {
    let state_dir = machine.state.join("worker");
    std::fs::create_dir_all(&state_dir).map_err(|e| ActiveError::Folder(state_dir.clone(), e))?;
    let mut managers = record.managers.clone();
    if is_manager {
        managers.push(record.advertise_addr.clone());
    }
    let settings = AgentSettings { node: record.node(), state_dir, managers };
    let seed = entropy::seed()?;
    let (agent, handle) =
        Agent::new(settings, connector.clone(), machine.executor.clone(), machine.clock.clone(), seed);
    let stop = stop.clone();
    // Owned by `Active`, which waits for it.
    #[allow(clippy::disallowed_methods)]
    let task = tokio::spawn(async move {
        if let Err(e) = agent.run(stop).await {
            tracing::error!(error = %connect::chain(&e), "the agent cannot run");
        }
    });
    Ok((handle, task))
}

async fn start_manager(
    machine: &Machine,
    keys: &KeyStore,
    identity: &Arc<TlsIdentity>,
    connector: &Arc<Connector>,
    record: &NodeRecord,
    start: Option<Start>,
) -> Result<ManagerRole, ActiveError> {
    let listen = |e| ActiveError::Listen(record.listen_addr.clone(), e);
    let addr: SocketAddr = record.listen_addr.parse().map_err(|e| listen(std::io::Error::other(e)))?;
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let stop = CancellationToken::new();
    // Open before the others are told: they send at once.
    #[allow(clippy::disallowed_methods)]
    let door =
        tokio::spawn(serve_remote(listener, identity.clone(), machine.remote_calls.clone(), stop.clone()));
    match run_manager(machine, keys, connector, record, start).await {
        Ok(manager) => {
            machine.manager_calls.set(Some(manager.calls()));
            manager.wait_for_vote().await;
            Ok(ManagerRole { manager, door, stop })
        }
        Err(e) => {
            stop.cancel();
            ended("door", door.await);
            Err(e)
        }
    }
}

async fn run_manager(
    machine: &Machine,
    keys: &KeyStore,
    connector: &Arc<Connector>,
    record: &NodeRecord,
    start: Option<Start>,
) -> Result<Manager, ActiveError> {
    let dir = machine.state.join("manager");
    let start = match start {
        Some(start) => start,
        None if Manager::knows_its_group(&dir)? => Start::Restart,
        None => Start::Join(join_group(connector, record).await?),
    };
    let settings = ManagerSettings {
        node: record.node(),
        cluster: record.cluster(),
        dir,
        addr: record.advertise_addr.clone(),
        data_key: keys.load_or_create_secret::<32>("raft.key")?,
        seed: entropy::seed()?,
        clock: machine.clock.clone(),
        peers: connector.clone(),
    };
    Ok(Manager::start(settings, start).await?)
}

/// Asks the leader, through any manager, to be taken into the group.
async fn join_group(
    connector: &Connector,
    record: &NodeRecord,
) -> Result<v1::JoinGroupResponse, ActiveError> {
    let request = v1::JoinGroupRequest {
        node_id: record.node().to_string(),
        addr: record.advertise_addr.clone(),
        raft_id: 0,
    };
    let mut last = "no manager is known".to_owned();
    let asked = tokio::time::timeout(JOIN_GROUP_PATIENCE, async {
        loop {
            for addr in record.managers.iter().filter(|a| **a != record.advertise_addr) {
                let channel = Peers::channel(connector, addr, None);
                match RaftClient::new(channel).join_group(request.clone()).await {
                    Ok(answer) => return answer.into_inner(),
                    Err(e) => last = format!("{addr}: {}", e.message()),
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    });
    asked.await.map_err(|_| ActiveError::JoinGroup(last))
}
