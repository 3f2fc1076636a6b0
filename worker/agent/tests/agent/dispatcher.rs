//! A manager that is none: serves the dispatcher's RPCs on loopback and remembers what it was told.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{Stream, StreamExt};
use swarm_proto::{LEADER_METADATA, v1};
use swarm_types::id::TaskId;
use swarm_types::task::{Task, TaskStatus};
use swarm_types::task_state::TaskState;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use v1::dispatcher_server::{Dispatcher, DispatcherServer};
use v1::session_message::Message;

type Answer<T> = Result<Response<T>, Status>;
type Out = mpsc::UnboundedSender<Result<v1::SessionMessage, Status>>;

/// What a manager knows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) leader: Option<String>,
    pub(crate) manager_addrs: Vec<String>,
    pub(crate) wanted: BTreeMap<TaskId, Task>,
    pub(crate) seen: BTreeMap<TaskId, Vec<TaskStatus>>,
    pub(crate) refuse_statuses: bool,
    pub(crate) deaf: bool,
    pub(crate) term: u64,
    pub(crate) sessions: u64,
    pub(crate) heartbeats: u64,
    pub(crate) goodbyes: u64,
    pub(crate) descriptions: Vec<v1::NodeDescription>,
    pub(crate) reports: Vec<v1::ReportCommandRequest>,
    pub(crate) networks: Vec<v1::UpdateNetworkStatusRequest>,
    pub(crate) lines: Vec<String>,
    pub(crate) log_ends: Vec<v1::PublishLogsRequest>,
    version: u64,
    out: Option<Out>,
}

#[derive(Clone)]
pub(crate) struct Manager {
    pub(crate) addr: String,
    state: Arc<Mutex<State>>,
}

impl Manager {
    /// Listens on loopback; ends with `set`.
    pub(crate) async fn start(set: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let manager = Self { addr, state: Arc::default() };
        manager.serve(listener, set);
        manager
    }

    pub(crate) fn serve(&self, listener: TcpListener, set: &mut JoinSet<()>) {
        let service = DispatcherServer::new(self.clone());
        set.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for a condition; panics with `what` after a minute.
    pub(crate) async fn until<T>(&self, what: &str, mut find: impl FnMut(&State) -> Option<T>) -> T {
        wait_for(what, || find(&self.state())).await
    }

    pub(crate) fn send(&self, message: Message) {
        let state = self.state();
        if let Some(out) = &state.out {
            drop(out.send(Ok(v1::SessionMessage { message: Some(message) })));
        }
    }

    /// Ends the session.
    pub(crate) fn hang_up(&self) {
        self.state().out = None;
    }

    pub(crate) fn want(&self, id: &str, image: &str, desired: TaskState) {
        let message = {
            let mut state = self.state();
            let task = state.wanted.entry(id.into()).or_insert_with(|| {
                let mut task = Task { id: id.into(), slot: 1, ..Task::default() };
                Arc::make_mut(&mut task.spec).container.image = image.into();
                task.status.state = TaskState::Assigned;
                task
            });
            task.desired_state = desired;
            let update = v1::assignment_change::Change::Update((&*task).into());
            state.difference(update)
        };
        self.send(message);
    }

    pub(crate) fn forget(&self, id: &str) {
        let message = {
            let mut state = self.state();
            state.wanted.remove(&TaskId::new(id));
            state.difference(v1::assignment_change::Change::Remove(id.into()))
        };
        self.send(message);
    }

    pub(crate) fn command(&self, id: &str, command: v1::command::Command) {
        self.send(Message::Command(v1::Command { id: id.into(), command: Some(command) }));
    }

    pub(crate) async fn task_is(&self, id: &str, state: TaskState) -> TaskStatus {
        self.until(&format!("{id} {state}"), |s| {
            s.seen.get(&TaskId::new(id))?.last().filter(|status| status.state == state).cloned()
        })
        .await
    }
}

pub(crate) async fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl State {
    fn difference(&mut self, change: v1::assignment_change::Change) -> Message {
        let applies_to = self.version;
        self.version += 1;
        Message::Assignments(v1::Assignments {
            applies_to: Some(applies_to),
            results_in: self.version,
            changes: vec![v1::AssignmentChange { change: Some(change) }],
        })
    }

    fn whole(&mut self) -> Message {
        self.version += 100;
        let update = |t: &Task| v1::assignment_change::Change::Update(t.into());
        Message::Assignments(v1::Assignments {
            applies_to: None,
            results_in: self.version,
            changes: self.wanted.values().map(|t| v1::AssignmentChange { change: Some(update(t)) }).collect(),
        })
    }

    fn cluster(&self) -> v1::ClusterChanged {
        v1::ClusterChanged {
            manager_addrs: self.manager_addrs.clone(),
            root_cert_pem: "ROOT".into(),
            ..v1::ClusterChanged::default()
        }
    }
}

#[tonic::async_trait]
impl Dispatcher for Manager {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SessionMessage, Status>> + Send>>;
    type FetchArchiveStream = Pin<Box<dyn Stream<Item = Result<v1::ArchiveChunk, Status>> + Send>>;

    async fn session(&self, request: Request<v1::SessionRequest>) -> Answer<Self::SessionStream> {
        let mut state = self.state();
        if let Some(leader) = &state.leader {
            let mut status = Status::failed_precondition("not the leader");
            status.metadata_mut().insert(LEADER_METADATA, leader.parse().unwrap());
            return Err(status);
        }
        state.sessions += 1;
        state.descriptions.extend(request.into_inner().description);
        let (out, messages) = mpsc::unbounded_channel();
        let registered = Message::Registered(v1::Registered {
            session_id: format!("session{}", state.sessions),
            heartbeat_period_ms: 20,
            cluster: Some(state.cluster()),
            term: state.term,
        });
        let whole = state.whole();
        for message in [registered, whole] {
            out.send(Ok(v1::SessionMessage { message: Some(message) })).unwrap();
        }
        state.out = Some(out);
        Ok(Response::new(tokio_stream::wrappers::UnboundedReceiverStream::new(messages).boxed()))
    }

    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Answer<v1::HeartbeatResponse> {
        if self.state().deaf {
            std::future::pending::<()>().await;
        }
        self.state().heartbeats += 1;
        Ok(Response::new(v1::HeartbeatResponse { period_ms: 20 }))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Answer<v1::UpdateTaskStatusResponse> {
        let mut state = self.state();
        if state.refuse_statuses {
            return Err(Status::unavailable("lost leadership"));
        }
        for update in request.into_inner().updates {
            let status = TaskStatus::try_from(update.status.unwrap()).unwrap();
            let id = TaskId::new(update.task_id);
            if let Some(task) = state.wanted.get_mut(&id)
                && status.state > task.status.state
            {
                task.status = status.clone();
            }
            state.seen.entry(id).or_default().push(status);
        }
        Ok(Response::new(v1::UpdateTaskStatusResponse {}))
    }

    async fn update_network_status(
        &self,
        request: Request<v1::UpdateNetworkStatusRequest>,
    ) -> Answer<v1::UpdateNetworkStatusResponse> {
        self.state().networks.push(request.into_inner());
        Ok(Response::new(v1::UpdateNetworkStatusResponse {}))
    }

    async fn goodbye(&self, _: Request<v1::GoodbyeRequest>) -> Answer<v1::GoodbyeResponse> {
        self.state().goodbyes += 1;
        Ok(Response::new(v1::GoodbyeResponse {}))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<v1::PublishLogsRequest>>,
    ) -> Answer<v1::PublishLogsResponse> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            let mut state = self.state();
            for line in &message.lines {
                state.lines.push(format!(
                    "{}@{} {}",
                    line.task_id,
                    line.node_id,
                    String::from_utf8_lossy(&line.data)
                ));
            }
            if message.end {
                state.log_ends.push(message);
            }
        }
        Ok(Response::new(v1::PublishLogsResponse {}))
    }

    async fn report_command(
        &self,
        request: Request<v1::ReportCommandRequest>,
    ) -> Answer<v1::ReportCommandResponse> {
        self.state().reports.push(request.into_inner());
        Ok(Response::new(v1::ReportCommandResponse {}))
    }

    async fn fetch_archive(
        &self,
        request: Request<v1::FetchArchiveRequest>,
    ) -> Answer<Self::FetchArchiveStream> {
        let name = request.into_inner().transfer_id;
        if name == "none" {
            return Err(Status::not_found("no such transfer"));
        }
        let chunks =
            ["loaded/", &name, ":1"].map(|text| Ok(v1::ArchiveChunk { data: text.to_owned().into() }));
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }
}
