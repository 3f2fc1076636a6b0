//! A node that belongs to a cluster: its agent, its manager if it is one, and the upkeep of its
//! certificate and role.

use std::sync::Arc;

use swarm_identity::credentials::Credentials;
use swarm_identity::key_store::KeyStore;
use swarm_identity::role::Role as CertRole;
use swarm_identity::tls::TlsIdentity;
use swarm_manager_server::{ManagerError, Peers, Start};
use swarm_types::node::Role;
use swarm_types::time::Clock;
use swarm_worker_agent::executor::Executor;
use swarm_worker_agent::{Agent, Handle as AgentHandle, Settings as AgentSettings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connect::{self, Connector};
use crate::entropy::{self, NoEntropy};
use crate::join;
use crate::listen::{Door, SharedCalls};
use crate::manager_role::{Candidate, ManagerRole};
use crate::state_dir::{NodeRecord, StateDir, StateDirError};
use crate::switch::{ManagerCalls, Place};

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
    #[error("this node is to be no manager any more")]
    Demoted,
    #[error("renew the certificate: {0}")]
    Renew(String),
    #[error("make the folder {0}")]
    Folder(std::path::PathBuf, #[source] std::io::Error),
}

/// A node in its cluster.
pub(crate) struct Active {
    pub(crate) record: NodeRecord,
    pub(crate) identity: Arc<TlsIdentity>,
    pub(crate) agent: AgentHandle,
    pub(crate) manager: Option<ManagerRole>,
    /// Open while it is none any more: tells those who call who the managers are.
    signpost: Option<Door>,
    connector: Arc<Connector>,
    keys: KeyStore,
    agent_task: JoinHandle<()>,
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
        machine.executor.networks().set_data_addr(record.data_path_addr);
        let identity = Arc::new(TlsIdentity::new(credentials, machine.clock.clone())?);
        let connector = Connector::new(identity.clone());
        let candidate =
            Candidate { machine, keys: &keys, identity: &identity, connector: &connector, agent: None };
        let manager = match identity.own().role {
            CertRole::Manager => match candidate.start(&record, start).await {
                Ok(role) => Some(role),
                // Its agent hears whether it is to be one still; upkeep tries again, or makes it a worker.
                Err(ActiveError::JoinGroup(why)) => {
                    tracing::warn!(error = why, "cannot join the managers yet");
                    None
                }
                Err(e) => return Err(e),
            },
            CertRole::Worker | CertRole::Admin => None,
        };
        let stop = CancellationToken::new();
        // A manager that is outside its group knows from its log whom its agent can ask.
        let group = manager.as_ref().map(|role| role.manager.manager_addrs()).unwrap_or_default();
        let (agent, agent_task) = start_agent(machine, &connector, &record, group, &stop)?;
        let place = Place { agent: agent.status(), addr: record.advertise_addr.clone() };
        machine.manager_calls.set_place(Some(place));
        let signpost = None;
        let mut active =
            Active { record, identity, agent, manager, signpost, connector, keys, agent_task, stop };
        active.put_up_signpost(machine).await;
        Ok(active)
    }

    /// A node that was a manager keeps its port open, and says there who the managers are.
    async fn put_up_signpost(&mut self, machine: &Machine) {
        if !self.record.was_manager || self.manager.is_some() || self.signpost.is_some() {
            return;
        }
        let (addr, identity) = (&self.record.listen_addr, self.identity.clone());
        match Door::open(addr, identity, machine.remote_calls.clone()).await {
            Ok(door) => self.signpost = Some(door),
            // Whoever took the port meanwhile may have it: a worker works without.
            Err(e) => tracing::info!(addr, error = %e, "nodes that were away cannot ask here who manages"),
        }
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
        for addr in self.authorities() {
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
        let learned = self.agent.status().borrow().managers.clone();
        match &self.manager {
            Some(role) => role.manager.manager_addrs(),
            None if learned.is_empty() => self.record.managers.clone(),
            None => learned,
        }
    }

    /// Whom to ask for a certificate. A manager that was taken out of the group while it was away
    /// knows only who was in it then; its agent may know better.
    fn authorities(&self) -> Vec<String> {
        let mut all = self.managers();
        let agent = self.agent.status().borrow().managers.clone();
        all.extend(agent.into_iter().filter(|addr| !all.contains(addr)).collect::<Vec<_>>());
        all
    }

    /// Becomes what the certificate says by now.
    pub(crate) async fn follow_role(&mut self, machine: &Machine) -> Result<(), ActiveError> {
        match (self.role(), self.manager.is_some()) {
            (Role::Manager, false) => {
                self.close_signpost().await;
                let mut record = self.record.clone();
                record.managers = self.managers();
                match self.candidate(machine).start(&record, None).await {
                    Ok(role) => {
                        self.manager = Some(role);
                        tracing::info!("this node is a manager now");
                    }
                    Err(ActiveError::Demoted) => tracing::info!("this node is to be a worker again"),
                    Err(e) => return Err(e),
                }
            }
            (Role::Worker, true) => {
                self.record.managers = self.managers();
                self.record.was_manager = true;
                machine.state.save(&self.record)?;
                self.stop_manager(machine).await;
                remove_folder(machine.state.join("manager"))?;
                tracing::info!("this node is a worker now");
            }
            (Role::Manager, true) | (Role::Worker, false) => {}
        }
        self.put_up_signpost(machine).await;
        Ok(())
    }

    /// Brings a manager back that was taken out of the group while it was away, and made a manager again
    /// before it heard of that. Its log is of no use: it joins anew.
    pub(crate) async fn rejoin(&mut self, machine: &Machine) -> Result<(), ActiveError> {
        let Some(role) = &self.manager else { return Ok(()) };
        let agent = self.agent.status().borrow().clone();
        let stays = agent.node.is_some_and(|n| n.role == Role::Manager && n.spec.role == Role::Manager);
        if !stays || !role.is_outside(&self.record, &self.connector, agent.manager).await {
            return Ok(());
        }
        tracing::info!("this manager was taken out of the group: it joins anew");
        self.record.managers = agent.managers;
        machine.state.save(&self.record)?;
        self.stop_manager(machine).await;
        remove_folder(machine.state.join("manager"))?;
        self.follow_role(machine).await
    }

    fn candidate<'a>(&'a self, machine: &'a Machine) -> Candidate<'a> {
        Candidate {
            machine,
            keys: &self.keys,
            identity: &self.identity,
            connector: &self.connector,
            agent: Some(self.agent.status()),
        }
    }

    /// Starts a manager anew whose log failed (a full disk, mostly).
    pub(crate) async fn restart_manager(&mut self, machine: &Machine) -> Result<(), ActiveError> {
        self.stop_manager(machine).await;
        let started = self.candidate(machine).start(&self.record, Some(Start::Restart)).await?;
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
        self.close_signpost().await;
        ended(self.agent_task.await);
    }

    async fn close_signpost(&mut self) {
        if let Some(door) = self.signpost.take() {
            door.close().await;
        }
    }

    /// Leaves the cluster: containers are stopped, good-bye is said, all is forgotten.
    pub(crate) async fn leave(mut self, machine: &Machine) -> Result<(), ActiveError> {
        self.agent.leave();
        ended((&mut self.agent_task).await);
        self.stop_manager(machine).await;
        self.close_signpost().await;
        machine.manager_calls.set_place(None);
        self.keys.clear()?;
        machine.state.clear()?;
        Ok(())
    }
}

fn ended(agent: Result<(), tokio::task::JoinError>) {
    if let Err(e) = agent {
        tracing::error!(error = %e, "the agent ended badly");
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
    group: Vec<String>,
    stop: &CancellationToken,
) -> Result<(AgentHandle, JoinHandle<()>), ActiveError> {
    let state_dir = machine.state.join("worker");
    std::fs::create_dir_all(&state_dir).map_err(|e| ActiveError::Folder(state_dir.clone(), e))?;
    let mut managers = record.managers.clone();
    managers.extend(group.into_iter().filter(|addr| !record.managers.contains(addr)));
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
