//! The API of one daemon, over its local socket, and the cluster's state as its watch tells it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hyper_util::rt::TokioIo;
use swarm_proto::v1;
use swarm_types::task_state::TaskState;
use tokio::net::UnixStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use v1::control_client::ControlClient;

/// A connection to one daemon.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) control: ControlClient<Channel>,
}

impl Api {
    /// Connects when it is used, and again when it broke.
    pub(crate) fn at(socket: &Path) -> Api {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://swarmd").connect_with_connector_lazy(connector);
        Api { control: ControlClient::new(channel).max_decoding_message_size(64 << 20) }
    }

    /// Creates a service; its id.
    pub(crate) async fn create(&self, spec: v1::ServiceSpec) -> Result<String, tonic::Status> {
        let request = v1::CreateServiceRequest { spec: Some(spec) };
        Ok(self.control.clone().create_service(request).await?.into_inner().service_id)
    }

    pub(crate) async fn remove(&self, reference: &str) -> Result<(), tonic::Status> {
        let request = v1::RemoveServiceRequest { reference: reference.to_owned() };
        self.control.clone().remove_service(request).await.map(drop)
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<v1::NodeEntry>, tonic::Status> {
        Ok(self.control.clone().list_nodes(v1::ListNodesRequest {}).await?.into_inner().nodes)
    }

    /// The state now, and from now on.
    pub(crate) async fn watch(&self) -> Result<World> {
        let request = v1::WatchRequest { service: String::new() };
        let stream = self.control.clone().watch(request).await.context("watch")?.into_inner();
        let mut world = World { stream, tasks: BTreeMap::new(), nodes: BTreeMap::new(), synced: false };
        while !world.synced {
            world.step().await?;
        }
        Ok(world)
    }

    /// Puts the archive's image on every node.
    pub(crate) async fn load(&self, archive: &Path) -> Result<()> {
        use v1::load_image_request::Message;
        let bytes = std::fs::read(archive).with_context(|| format!("read {}", archive.display()))?;
        let header = Message::Header(v1::LoadImageHeader { nodes: Vec::new() });
        let chunks: Vec<_> = bytes.chunks(swarm_proto::CHUNK_BYTES).map(<[u8]>::to_vec).collect();
        let chunks = chunks.into_iter().map(|chunk| Message::Chunk(chunk.into()));
        let requests: Vec<v1::LoadImageRequest> = std::iter::once(header)
            .chain(chunks)
            .map(|message| v1::LoadImageRequest { message: Some(message) })
            .collect();
        let answer = self.control.clone().load_image(tokio_stream::iter(requests)).await;
        let mut progress = answer.context("load the image")?.into_inner();
        while let Some(news) = progress.message().await.context("load the image")? {
            if !news.error.is_empty() {
                bail!("load the image on {}: {}", news.node_name, news.error);
            }
        }
        Ok(())
    }
}

/// The cluster as a watch tells it.
pub(crate) struct World {
    stream: Streaming<v1::WatchMessage>,
    pub(crate) tasks: BTreeMap<String, v1::Task>,
    pub(crate) nodes: BTreeMap<String, v1::Node>,
    synced: bool,
}

impl World {
    /// Takes in one message.
    async fn step(&mut self) -> Result<()> {
        use v1::watch_event::Kind;
        use v1::watch_message::Message;
        let message = self.stream.message().await.context("watch")?;
        match message.context("the watch ended")?.message {
            Some(Message::Current(object)) => self.put(object),
            Some(Message::Synced(_)) => self.synced = true,
            Some(Message::Event(event)) => match (event.kind(), event.object) {
                (Kind::Created | Kind::Updated, Some(object)) => self.put(object),
                (Kind::Deleted, Some(object)) => self.delete(object),
                _ => {}
            },
            None => {}
        }
        Ok(())
    }

    fn put(&mut self, object: v1::Object) {
        match object.object {
            Some(v1::object::Object::Task(task)) => drop(self.tasks.insert(task.id.clone(), task)),
            Some(v1::object::Object::Node(node)) => drop(self.nodes.insert(node.id.clone(), node)),
            _ => {}
        }
    }

    fn delete(&mut self, object: v1::Object) {
        match object.object {
            Some(v1::object::Object::Task(task)) => drop(self.tasks.remove(&task.id)),
            Some(v1::object::Object::Node(node)) => drop(self.nodes.remove(&node.id)),
            _ => {}
        }
    }

    /// Waits until it is so; when that was seen.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        so: impl Fn(&World) -> bool,
    ) -> Result<Instant> {
        let end = tokio::time::Instant::now() + limit;
        while !so(self) {
            let stepped = tokio::time::timeout_at(end, self.step()).await;
            stepped.map_err(|_| {
                anyhow!("wait for {what}: not in {} s: {}", limit.as_secs(), self.summary())
            })??;
        }
        Ok(Instant::now())
    }

    /// Tasks of a service that run and are meant to.
    pub(crate) fn running(&self, service: &str) -> impl Iterator<Item = &v1::Task> {
        let running = TaskState::Running.number();
        self.tasks.values().filter(move |task| {
            task.service_id == service
                && task.desired_state == running
                && task.status.as_ref().is_some_and(|status| status.state == running)
        })
    }

    pub(crate) fn has_tasks_of(&self, service: &str) -> bool {
        self.tasks.values().any(|task| task.service_id == service)
    }

    /// How many tasks are in each state, and a reason, for error texts.
    fn summary(&self) -> String {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        let mut reason = "";
        for status in self.tasks.values().filter_map(|task| task.status.as_ref()) {
            let state = TaskState::from_number(status.state).map_or("?", TaskState::as_str);
            *states.entry(state).or_default() += 1;
            if !status.err.is_empty() {
                reason = &status.err;
            }
        }
        format!("tasks {states:?} {reason}")
    }
}
