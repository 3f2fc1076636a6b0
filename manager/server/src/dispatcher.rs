//! The front of the dispatcher: agents call, the leader's core decides, and what it has to say goes
//! down each agent's session.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{Stream, StreamExt};
use swarm_manager_core::leader::{Input, NetworkReport, SessionInput};
use swarm_proto::{CHUNK_BYTES, v1};
use swarm_types::id::{NodeId, SessionId, TaskId};
use swarm_types::task::TaskStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use v1::session_message::Message;

use crate::commands::Answer;
use crate::forward::not_leader;
use crate::manager::Shared;
use crate::peer::Peer;
use crate::status::malformed;

/// The way to one agent.
pub(crate) type SessionSender = mpsc::UnboundedSender<v1::SessionMessage>;

/// The sessions that this manager holds, while it leads.
#[derive(Default)]
pub(crate) struct Sessions {
    by_node: Mutex<BTreeMap<NodeId, (SessionId, SessionSender)>>,
}

impl Sessions {
    fn open(&self, node: NodeId, session: SessionId, sender: SessionSender) {
        if let Some((_, old)) = self.lock().insert(node, (session, sender)) {
            send(&old, Message::Close("the node has registered anew".into()));
        }
    }

    fn is_current(&self, node: &NodeId, session: &SessionId) -> bool {
        self.lock().get(node).is_some_and(|(s, _)| s == session)
    }

    fn end(&self, node: &NodeId, session: &SessionId) {
        let mut sessions = self.lock();
        if sessions.get(node).is_some_and(|(s, _)| s == session) {
            sessions.remove(node);
        }
    }

    /// Says something to a node, if it still has this session.
    pub(crate) fn tell(&self, node: &NodeId, session: &SessionId, message: Message) {
        if let Some((_, sender)) = self.lock().get(node).filter(|(s, _)| s == session) {
            send(sender, message);
        }
    }

    /// Says something to every node.
    pub(crate) fn tell_all(&self, message: impl Fn(&NodeId) -> Message) {
        for (node, (_, sender)) in self.lock().iter() {
            send(sender, message(node));
        }
    }

    /// Says something to a node, whatever its session.
    pub(crate) fn tell_node(&self, node: &NodeId, message: Message) {
        if let Some((_, sender)) = self.lock().get(node) {
            send(sender, message);
        }
    }

    /// Ends the session with a node, saying why.
    pub(crate) fn close(&self, node: &NodeId, session: &SessionId, why: String) {
        self.tell(node, session, Message::Close(why));
        self.end(node, session);
    }

    /// Ends all of them: this manager does not lead any more.
    pub(crate) fn close_all(&self, why: &str) {
        for (_, sender) in std::mem::take(&mut *self.lock()).into_values() {
            send(&sender, Message::Close(why.into()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, (SessionId, SessionSender)>> {
        self.by_node.lock().expect("no code panics while it holds the sessions")
    }
}

/// A receiver that has gone is noticed where its stream ends; there is nobody to tell here.
fn send(sender: &SessionSender, message: Message) {
    let _gone = sender.send(v1::SessionMessage { message: Some(message) });
}

/// Answers [`v1::dispatcher_server::Dispatcher`].
#[derive(Clone)]
pub struct DispatcherApi {
    shared: Arc<Shared>,
}

impl DispatcherApi {
    /// Answers for `shared`.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        DispatcherApi { shared }
    }

    /// The node at the other end, and its session, which must be the current one.
    fn session_of<T>(&self, request: &Request<T>, session: &str) -> Result<(NodeId, SessionId), Status> {
        let node = caller(request)?;
        self.must_lead()?;
        let session: SessionId =
            session.parse().map_err(|_| Status::invalid_argument("session_id: malformed"))?;
        match self.shared.sessions.is_current(&node, &session) {
            true => Ok((node, session)),
            false => Err(Status::not_found("there is no such session: register anew")),
        }
    }

    /// The term in which this manager leads.
    fn must_lead(&self) -> Result<u64, Status> {
        let leader = || self.shared.leader_addr().unwrap_or_default();
        self.shared.leader.term().ok_or_else(|| not_leader(&leader()))
    }
}

/// The node that makes this call, by its certificate.
fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let peer = request.extensions().get::<Peer>().and_then(|p| p.identity.as_ref());
    peer.map(|p| p.node).ok_or_else(|| Status::unauthenticated("agents call with their certificate"))
}

/// Tells core when an agent's stream is dropped.
struct Registration {
    shared: Arc<Shared>,
    node: NodeId,
    session: SessionId,
    sender: SessionSender,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.commands.disconnect(self.node, &self.sender);
        self.shared.sessions.end(&self.node, &self.session);
        let ended = SessionInput::Ended { session: self.session, goodbye: false };
        self.shared.leader.tell(Input::Session(self.node, ended));
    }
}

type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SessionMessage, Status>> + Send>>;
type ArchiveStream = Pin<Box<dyn Stream<Item = Result<v1::ArchiveChunk, Status>> + Send>>;

#[tonic::async_trait]
impl v1::dispatcher_server::Dispatcher for DispatcherApi {
    type SessionStream = SessionStream;
    type FetchArchiveStream = ArchiveStream;

    async fn session(&self, request: Request<v1::SessionRequest>) -> Result<Response<SessionStream>, Status> {
        let node = caller(&request)?;
        self.must_lead()?;
        // A session begins with the whole set of the node's tasks, and what is not in it is stopped. One that led
        // yesterday and was asleep since must not say it: it has to be heard by a majority now.
        self.shared.barrier().await?;
        let term = self.must_lead()?;
        let remote = request.extensions().get::<Peer>().and_then(|p| p.remote);
        let description = request.into_inner().description;
        let description = description.ok_or_else(|| Status::invalid_argument("description: missing"))?;
        let description = description.try_into().map_err(malformed)?;
        let session = SessionId::new(self.shared.new_id());
        let (sender, messages) = mpsc::unbounded_channel();
        send(&sender, Message::Registered(self.shared.registered(&node, &session, term)));
        self.shared.sessions.open(node, session, sender.clone());
        self.shared.commands.connect(node, sender.clone());
        let registration = Registration { shared: self.shared.clone(), node, session, sender };
        let addr = remote.map(|a| a.ip().to_canonical().to_string()).unwrap_or_default();
        let description = Box::new(description);
        let registered = SessionInput::Registered { session, description, addr };
        self.shared.leader.tell(Input::Session(node, registered));
        tracing::debug!(node.id = %node, session.id = %session, "agent registered");
        let stream = UnboundedReceiverStream::new(messages);
        Ok(Response::new(Box::pin(async_stream::stream! {
            let _registration = registration;
            for await message in stream {
                let last = matches!(message.message, Some(Message::Close(_)));
                yield Ok(message);
                if last {
                    return;
                }
            }
        })))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let (node, session) = self.session_of(&request, &request.get_ref().session_id)?;
        self.shared.leader.tell(Input::Session(node, SessionInput::Heartbeat { session }));
        Ok(Response::new(v1::HeartbeatResponse { period_ms: self.shared.heartbeat_period_ms() }))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        let (node, session) = self.session_of(&request, &request.get_ref().session_id)?;
        let updates = request.into_inner().updates.into_iter().map(status_in);
        let statuses = updates.collect::<Result<Vec<_>, Status>>()?;
        self.shared.passing.note(&self.shared.state.view(), &node, &statuses);
        self.shared.leader.tell(Input::Statuses(node, session, statuses));
        Ok(Response::new(v1::UpdateTaskStatusResponse {}))
    }

    async fn update_network_status(
        &self,
        request: Request<v1::UpdateNetworkStatusRequest>,
    ) -> Result<Response<v1::UpdateNetworkStatusResponse>, Status> {
        let (node, session) = self.session_of(&request, &request.get_ref().session_id)?;
        let v1::UpdateNetworkStatusRequest { applied, problems, description, .. } = request.into_inner();
        let report = NetworkReport {
            applied,
            problems: problems.into_iter().map(Into::into).collect(),
            description: description.map(TryInto::try_into).transpose().map_err(malformed)?,
        };
        self.shared.leader.tell(Input::NetworkStatus(node, session, report));
        Ok(Response::new(v1::UpdateNetworkStatusResponse {}))
    }

    async fn goodbye(
        &self,
        request: Request<v1::GoodbyeRequest>,
    ) -> Result<Response<v1::GoodbyeResponse>, Status> {
        let (node, session) = self.session_of(&request, &request.get_ref().session_id)?;
        self.shared.leader.tell(Input::Session(node, SessionInput::Ended { session, goodbye: true }));
        Ok(Response::new(v1::GoodbyeResponse {}))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<v1::PublishLogsRequest>>,
    ) -> Result<Response<v1::PublishLogsResponse>, Status> {
        let node = caller(&request)?;
        self.must_lead()?;
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let Some(reader) = self.shared.commands.answers(node, &batch.command_id) else {
                return Err(Status::cancelled("nobody reads these logs any more"));
            };
            // A slow reader holds the agent back here.
            if reader.send(Answer::Logs(batch)).await.is_err() {
                return Err(Status::cancelled("nobody reads these logs any more"));
            }
        }
        Ok(Response::new(v1::PublishLogsResponse {}))
    }

    async fn report_command(
        &self,
        request: Request<v1::ReportCommandRequest>,
    ) -> Result<Response<v1::ReportCommandResponse>, Status> {
        let (node, _) = self.session_of(&request, &request.get_ref().session_id)?;
        let report = request.into_inner();
        if let Some(reader) = self.shared.commands.answers(node, &report.command_id) {
            // Who asked may have gone meanwhile; then nobody needs the answer.
            let _gone = reader.send(Answer::Report(report)).await;
        }
        Ok(Response::new(v1::ReportCommandResponse {}))
    }

    async fn fetch_archive(
        &self,
        request: Request<v1::FetchArchiveRequest>,
    ) -> Result<Response<ArchiveStream>, Status> {
        self.session_of(&request, &request.get_ref().session_id)?;
        let id = &request.get_ref().transfer_id;
        let path = self.shared.transfers.path(id);
        let path = path.ok_or_else(|| Status::not_found(format!("there is no transfer {id}")))?;
        let file = tokio::fs::File::open(&path).await;
        let file = file.map_err(|e| Status::internal(format!("open the archive {}: {e}", path.display())))?;
        let chunks = tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES);
        Ok(Response::new(Box::pin(chunks.map(|chunk| match chunk {
            Ok(data) => Ok(v1::ArchiveChunk { data }),
            Err(e) => Err(Status::internal(format!("read the archive: {e}"))),
        }))))
    }
}

fn status_in(update: v1::TaskStatusUpdate) -> Result<(TaskId, TaskStatus), Status> {
    let task = update.task_id.parse().map_err(|_| Status::invalid_argument("task_id: malformed"))?;
    let status = update.status.ok_or_else(|| Status::invalid_argument("status: missing"))?;
    Ok((task, status.try_into().map_err(malformed)?))
}
