//! Session: one registration with one manager, from dialling to its end.
//!
//! Registers, sends heartbeats as often as the manager wants, hands on assignments and the networks'
//! set, carries statuses up and commands out. Everything that it starts ends with it.

mod call;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_proto::{MAX_MESSAGE_BYTES, v1};
use swarm_types::assignment::AssignmentsMessage;
use swarm_types::id::{NodeId, SessionId, TaskId};
use swarm_types::network_set::NetworksMessage;
use swarm_types::node::Node;
use swarm_types::task::TaskStatus;
use swarm_types::task_state::TaskState;
use swarm_worker_core::networks::NetworkReport;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};
use v1::command::Command;
use v1::dispatcher_client::DispatcherClient;
use v1::session_message::Message;

use self::call::{heart, period, refused, report, report_networks};
use crate::commands;
use crate::dial::{DialError, Dialer};
use crate::executor::Executor;
use crate::task_states::TaskStates;

/// How long a manager may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to register a node, or to take statuses: both wait for a commit.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session needs.
pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) states: Arc<TaskStates>,
    /// Manager to dial, `host:port`.
    pub(crate) addr: String,
    /// What happens in it.
    pub(crate) events: mpsc::Sender<Event>,
    /// What is to be sent.
    pub(crate) orders: mpsc::Receiver<Order>,
}

/// What happens in a session.
#[derive(Debug)]
pub(crate) enum Event {
    Connected { session: SessionId, term: u64, addr: String },
    Cluster(Box<ClusterView>),
    Assigned(SessionId, AssignmentsMessage),
    Networks(SessionId, NetworksMessage),
    Reported(Vec<(TaskId, TaskState)>),
    NetworksReported,
    SaidGoodbye,
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) enum Order {
    Report(Vec<(TaskId, TaskStatus)>),
    ReportNetworks(NetworkReport),
    Goodbye,
}

/// What a manager tells of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterView {
    pub(crate) node: Option<Node>,
    pub(crate) managers: Vec<String>,
    pub(crate) root_cert_pem: String,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("dial manager {addr}: {source}")]
    Dial { addr: String, source: DialError },
    #[error("dial manager {0}: no answer within {DIAL_TIMEOUT:?}")]
    DialTimeout(String),
    #[error("{call} at manager {addr}: {} ({:?})", .status.message(), .status.code())]
    Call { call: &'static str, addr: String, status: Box<Status> },
    #[error("{call} at manager {addr}: no answer in time")]
    CallTimeout { call: &'static str, addr: String },
    #[error("manager {addr} is not the leader, {leader} is")]
    Redirected { addr: String, leader: String },
    #[error("manager {addr} ended the session: {reason}")]
    Closed { addr: String, reason: String, leader: Option<String> },
    #[error("message from manager {addr}: {problem}")]
    Malformed { addr: String, problem: String },
    #[error("the agent ended the session")]
    Ended,
}

impl SessionError {
    /// Who the leader is, if that is why the session ended.
    pub(crate) fn leader(&self) -> Option<&str> {
        match self {
            SessionError::Redirected { leader, .. } => Some(leader),
            SessionError::Closed { leader, .. } => leader.as_deref(),
            SessionError::Dial { source: DialError::Elsewhere(leader), .. } => Some(leader),
            SessionError::Dial { source: DialError::Failed(_), .. }
            | SessionError::DialTimeout(_)
            | SessionError::Call { .. }
            | SessionError::CallTimeout { .. }
            | SessionError::Malformed { .. }
            | SessionError::Ended => None,
        }
    }
}

/// What the parts of a session say when they end.
enum Part {
    Heart(SessionError),
    Report(Result<Vec<(TaskId, TaskState)>, SessionError>),
    ReportNetworks(Result<(), SessionError>),
    Goodbye,
    Command,
}

impl Session {
    /// Runs the session until it ends; why it did.
    pub(crate) async fn run(self) -> SessionError {
        match self.try_run().await {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }

    async fn try_run(mut self) -> Result<std::convert::Infallible, SessionError> {
        let channel = self.dial().await?;
        let client = DispatcherClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (registered, stream) = self.register(client.clone()).await?;
        let session: SessionId =
            registered.session_id.parse().map_err(|e| self.malformed(format!("session_id: {e}")))?;
        info!(manager.addr = self.addr, session.id = %session, "connected to a manager");
        let term = registered.term;
        self.tell(Event::Connected { session, term, addr: self.addr.clone() }).await?;
        let (beat, period) = watch::channel(period(registered.heartbeat_period_ms));
        let mut live =
            Live { client, session, parts: JoinSet::new(), commands: BTreeMap::new(), beat, leader: None };
        if let Some(cluster) = registered.cluster {
            self.cluster_changed(&mut live, cluster).await?;
        }
        let heart = heart(live.client.clone(), session, self.addr.clone(), period);
        live.parts.spawn(async move { Part::Heart(heart.await) });
        self.serve(live, stream).await
    }

    async fn dial(&self) -> Result<Channel, SessionError> {
        match timeout(DIAL_TIMEOUT, self.dialer.dial(self.addr.clone())).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(source)) => Err(SessionError::Dial { addr: self.addr.clone(), source }),
            Err(_) => Err(SessionError::DialTimeout(self.addr.clone())),
        }
    }

    async fn register(
        &self,
        mut client: DispatcherClient<Channel>,
    ) -> Result<(v1::Registered, Streaming<v1::SessionMessage>), SessionError> {
        let description = self.executor.describe().await;
        let request = v1::SessionRequest { description: Some((&description).into()) };
        let opened = async {
            let mut stream = client.session(request).await?.into_inner();
            let first = stream.message().await?;
            Ok((first, stream))
        };
        let call = "register";
        let (first, stream) = match timeout(CALL_TIMEOUT, opened).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return Err(self.refused(call, status)),
            Err(_) => return Err(SessionError::CallTimeout { call, addr: self.addr.clone() }),
        };
        match first.and_then(|m| m.message) {
            Some(Message::Registered(registered)) => Ok((registered, stream)),
            Some(Message::Close(reason)) => Err(self.closed(reason, None)),
            _ => Err(self.malformed("the first one does not say that the node is registered".into())),
        }
    }

    /// Everything after registration.
    async fn serve(
        &mut self,
        mut live: Live,
        mut stream: Streaming<v1::SessionMessage>,
    ) -> Result<std::convert::Infallible, SessionError> {
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => self.message(&mut live, message).await?,
                    Ok(None) => return Err(self.closed("it hung up".into(), live.leader)),
                    Err(status) => return Err(self.refused("session", status)),
                },
                order = self.orders.recv() => match order {
                    Some(order) => self.order(&mut live, order),
                    None => return Err(SessionError::Ended),
                },
                Some(part) = live.parts.join_next() => match part {
                    Ok(Part::Heart(e)) => return Err(e),
                    Ok(Part::Report(states)) => self.tell(Event::Reported(states?)).await?,
                    Ok(Part::ReportNetworks(taken)) => {
                        taken?;
                        self.tell(Event::NetworksReported).await?;
                    }
                    Ok(Part::Goodbye) => self.tell(Event::SaidGoodbye).await?,
                    Ok(Part::Command) => live.commands.retain(|_, handle| !handle.is_finished()),
                    // A command that was cancelled.
                    Err(e) if e.is_cancelled() => {}
                    Err(e) => warn!(error = %e, "a part of the session panicked"),
                },
            }
        }
    }

    async fn message(&self, live: &mut Live, message: v1::SessionMessage) -> Result<(), SessionError> {
        match message.message {
            Some(Message::Assignments(wire)) => {
                let message =
                    AssignmentsMessage::try_from(wire).map_err(|e| self.malformed(e.to_string()))?;
                self.tell(Event::Assigned(live.session, message)).await
            }
            Some(Message::Networks(wire)) => {
                let message = NetworksMessage::try_from(wire).map_err(|e| self.malformed(e.to_string()))?;
                self.tell(Event::Networks(live.session, message)).await
            }
            Some(Message::Command(command)) => {
                self.command(live, command);
                Ok(())
            }
            Some(Message::ClusterChanged(cluster)) => self.cluster_changed(live, cluster).await,
            Some(Message::Close(reason)) => Err(self.closed(reason, live.leader.take())),
            Some(Message::Registered(_)) => Err(self.malformed("registered twice".into())),
            // Of a newer manager; what cannot be understood cannot be obeyed.
            None => Ok(()),
        }
    }

    fn command(&self, live: &mut Live, command: v1::Command) {
        let Some(what) = command.command else { return };
        if let Command::Cancel(id) = what {
            if let Some(handle) = live.commands.remove(&id) {
                handle.abort();
            }
            return;
        }
        debug!(command.id, "command");
        let context = commands::Context {
            client: live.client.clone(),
            session: live.session,
            node: self.node,
            executor: Arc::clone(&self.executor),
            states: Arc::clone(&self.states),
        };
        let id = command.id.clone();
        let handle = live.parts.spawn(async move {
            commands::perform(context, id, what).await;
            Part::Command
        });
        live.commands.insert(command.id, handle);
    }

    async fn cluster_changed(&self, live: &mut Live, wire: v1::ClusterChanged) -> Result<(), SessionError> {
        if wire.heartbeat_period_ms > 0 {
            live.beat.send_replace(period(wire.heartbeat_period_ms));
        }
        let node = wire.node.map(Node::try_from).transpose();
        let node = node.map_err(|e| self.malformed(e.within("node").to_string()))?;
        live.leader = wire.manager_addrs.first().filter(|leader| **leader != self.addr).cloned();
        let view = ClusterView { node, managers: wire.manager_addrs, root_cert_pem: wire.root_cert_pem };
        self.tell(Event::Cluster(Box::new(view))).await
    }

    fn order(&self, live: &mut Live, order: Order) {
        let mut client = live.client.clone();
        let (session_id, addr) = (live.session.to_string(), self.addr.clone());
        match order {
            Order::Report(statuses) => {
                live.parts
                    .spawn(async move { Part::Report(report(client, session_id, addr, statuses).await) });
            }
            Order::ReportNetworks(networks) => {
                live.parts.spawn(async move {
                    Part::ReportNetworks(report_networks(client, session_id, addr, networks).await)
                });
            }
            Order::Goodbye => {
                live.parts.spawn(async move {
                    let said = timeout(CALL_TIMEOUT, client.goodbye(v1::GoodbyeRequest { session_id })).await;
                    debug!(?said, "said good-bye");
                    Part::Goodbye
                });
            }
        }
    }

    async fn tell(&self, event: Event) -> Result<(), SessionError> {
        self.events.send(event).await.map_err(|_| SessionError::Ended)
    }

    fn malformed(&self, problem: String) -> SessionError {
        SessionError::Malformed { addr: self.addr.clone(), problem }
    }

    fn closed(&self, reason: String, leader: Option<String>) -> SessionError {
        SessionError::Closed { addr: self.addr.clone(), reason, leader }
    }

    fn refused(&self, call: &'static str, status: Status) -> SessionError {
        refused(call, &self.addr, status)
    }
}

/// A session that is registered.
struct Live {
    client: DispatcherClient<Channel>,
    session: SessionId,
    parts: JoinSet<Part>,
    commands: BTreeMap<String, AbortHandle>,
    beat: watch::Sender<Duration>,
    /// Another manager that was named as the leader.
    leader: Option<String>,
}
