//! A node as a manager: its part in the group, and the door through which others reach it.

use std::sync::Arc;
use std::time::Duration;

use swarm_identity::key_store::KeyStore;
use swarm_identity::tls::TlsIdentity;
use swarm_manager_server::{Manager, Peers, Settings, Start};
use swarm_proto::v1;
use swarm_types::node::Role;
use swarm_worker_agent::Status;
use tokio::sync::watch;
use tonic::Code;
use v1::raft_client::RaftClient;

use crate::active::{ActiveError, Machine};
use crate::connect::Connector;
use crate::entropy;
use crate::listen::Door;
use crate::state_dir::NodeRecord;

/// How long a new manager looks for a leader that lets it in.
const JOIN_GROUP_PATIENCE: Duration = Duration::from_secs(20);
/// How long the leader may take to say whether a manager is a member.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(300);

/// A manager and its door.
pub(crate) struct ManagerRole {
    pub(crate) manager: Manager,
    door: Door,
}

impl ManagerRole {
    /// The group goes on without this manager, which waits for a leader in vain. Whoever leads is asked:
    /// the one with which the node's agent has a session.
    pub(crate) async fn is_outside(
        &self,
        record: &NodeRecord,
        connector: &Connector,
        leader: Option<String>,
    ) -> bool {
        let status = self.manager.raft().status();
        if status.removed {
            return true;
        }
        let Some(addr) = leader.filter(|a| *a != record.advertise_addr) else { return false };
        if status.leader.is_some() || status.stopped {
            return false;
        }
        let request = join_request(record, status.id);
        let channel = Peers::channel(connector, &addr, None);
        let mut client = RaftClient::new(channel);
        match tokio::time::timeout(ASK_PATIENCE, client.join_group(request)).await {
            Ok(Err(status)) => status.code() == Code::NotFound,
            Ok(Ok(_)) | Err(_) => false,
        }
    }

    pub(crate) async fn stop(self) {
        self.manager.stop().await;
        self.door.close().await;
    }
}

/// A node that has a manager's certificate.
pub(crate) struct Candidate<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) keys: &'a KeyStore,
    pub(crate) identity: &'a Arc<TlsIdentity>,
    pub(crate) connector: &'a Arc<Connector>,
    /// What the node's agent hears, if it runs already.
    pub(crate) agent: Option<watch::Receiver<Status>>,
}

impl Candidate<'_> {
    /// Starts the manager; `start` as in [`crate::active::Active::start`].
    pub(crate) async fn start(
        &self,
        record: &NodeRecord,
        start: Option<Start>,
    ) -> Result<ManagerRole, ActiveError> {
        let (machine, identity) = (self.machine, self.identity.clone());
        // Open before the others are told: they send at once.
        let door = Door::open(&record.listen_addr, identity, machine.remote_calls.clone()).await;
        let door = door.map_err(|e| ActiveError::Listen(record.listen_addr.clone(), e))?;
        match self.run(record, start).await {
            Ok(manager) => {
                machine.manager_calls.set(Some(manager.calls()));
                manager.wait_for_vote().await;
                Ok(ManagerRole { manager, door })
            }
            Err(e) => {
                door.close().await;
                Err(e)
            }
        }
    }

    async fn run(&self, record: &NodeRecord, start: Option<Start>) -> Result<Manager, ActiveError> {
        let dir = self.machine.state.join("manager");
        let start = match start {
            Some(start) => start,
            None if Manager::knows_its_group(&dir)? => Start::Restart,
            None => Start::Join(self.join_group(record).await?),
        };
        let settings = Settings {
            node: record.node(),
            cluster: record.cluster(),
            dir,
            addr: record.advertise_addr.clone(),
            data_key: self.keys.load_or_create_secret::<32>("raft.key")?,
            seed: entropy::seed()?,
            clock: self.machine.clock.clone(),
            peers: self.connector.clone(),
        };
        Ok(Manager::start(settings, start).await?)
    }

    /// Asks the leader, through any manager, to be taken into the group.
    async fn join_group(&self, record: &NodeRecord) -> Result<v1::JoinGroupResponse, ActiveError> {
        let request = join_request(record, 0);
        let mut last = "no manager is known".to_owned();
        let asked = tokio::time::timeout(JOIN_GROUP_PATIENCE, async {
            loop {
                for addr in record.managers.iter().filter(|a| **a != record.advertise_addr) {
                    let channel = Peers::channel(self.connector.as_ref(), addr, None);
                    match RaftClient::new(channel).join_group(request.clone()).await {
                        Ok(answer) => return answer.into_inner(),
                        Err(e) => last = format!("{addr}: {}", e.message()),
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        });
        tokio::select! {
            // An answer that is there already counts first: it was given to a manager.
            biased;
            answer = asked => answer.map_err(|_| ActiveError::JoinGroup(last)),
            () = demoted(self.agent.clone()) => Err(ActiveError::Demoted),
        }
    }
}

/// `raft_id`: the number that it has in the group; 0 if it has none.
fn join_request(record: &NodeRecord, raft_id: u64) -> v1::JoinGroupRequest {
    let (node_id, addr) = (record.node().to_string(), record.advertise_addr.clone());
    v1::JoinGroupRequest { node_id, addr, raft_id }
}

/// Returns when the agent hears that this node is to be a worker; never, if there is no agent yet.
async fn demoted(agent: Option<watch::Receiver<Status>>) {
    let is_worker = |s: &Status| s.node.as_ref().is_some_and(|n| n.role == Role::Worker);
    if let Some(mut agent) = agent
        && agent.wait_for(is_worker).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
