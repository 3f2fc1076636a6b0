//! Consensus messages to other managers: one stream to each, opened when there is something to say
//! and opened again when it breaks. What cannot be sent is lost; consensus sends it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use swarm_manager_raft::{Member, OutgoingSnapshot, RaftHandle, Transport, WeakRaftHandle};
use swarm_proto::{CHUNK_BYTES, v1};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use v1::raft_client::RaftClient;

/// Makes connections to other managers.
pub trait Peers: Send + Sync + 'static {
    /// A channel to the manager at `addr` (`host:port`), which proves to be the node `expected`
    /// (if one is given). Connects when it is used; connects again when it breaks.
    fn channel(&self, addr: &str, expected: Option<swarm_types::id::NodeId>) -> Channel;
}

/// Messages that wait for a slow peer; more are dropped.
const QUEUE: usize = 1024;

/// Sends over gRPC.
pub struct GrpcTransport {
    peers: Arc<dyn Peers>,
    own_id: u64,
    runtime: Handle,
    tasks: TaskTracker,
    // Set once consensus runs: it needs the transport to start. Weak: the consensus thread holds this
    // transport, and ends when nobody holds a handle any more.
    raft: OnceLock<WeakRaftHandle>,
    lines: Mutex<BTreeMap<u64, Line>>,
}

/// The way to one peer.
struct Line {
    addr: String,
    queue: mpsc::Sender<v1::StepRequest>,
}

impl GrpcTransport {
    /// For the manager with raft id `own_id`.
    pub fn new(peers: Arc<dyn Peers>, own_id: u64) -> Arc<Self> {
        Arc::new(GrpcTransport {
            peers,
            own_id,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            raft: OnceLock::new(),
            lines: Mutex::default(),
        })
    }

    /// Where to report peers that cannot be reached.
    pub fn attach(&self, raft: &RaftHandle) {
        // A second time would be the same handle.
        let _same = self.raft.set(raft.downgrade());
    }

    /// Ends all lines.
    pub fn stop(&self) {
        self.lines.lock().expect("no code panics while it holds the lines").clear();
    }

    fn queue_to(&self, to: &Member) -> mpsc::Sender<v1::StepRequest> {
        let mut lines = self.lines.lock().expect("no code panics while it holds the lines");
        if let Some(line) = lines.get(&to.raft_id).filter(|l| l.addr == to.address && !l.queue.is_closed()) {
            return line.queue.clone();
        }
        let (queue, messages) = mpsc::channel(QUEUE);
        lines.insert(to.raft_id, Line { addr: to.address.clone(), queue: queue.clone() });
        let channel = self.peers.channel(&to.address, Some(to.node_id));
        let (raft, id) = (self.raft.get().cloned(), to.raft_id);
        self.tasks.spawn_on(talk(channel, messages, raft, id), &self.runtime);
        queue
    }
}

/// Keeps a stream to one peer until nothing more can come.
async fn talk(
    channel: Channel,
    messages: mpsc::Receiver<v1::StepRequest>,
    raft: Option<WeakRaftHandle>,
    peer: u64,
) {
    let mut client = RaftClient::new(channel).max_encoding_message_size(usize::MAX);
    if let Err(status) = client.step(ReceiverStream::new(messages)).await {
        tracing::debug!(raft.peer = peer, error = %status, "line to a manager broke");
        if let Some(raft) = raft.and_then(|r| r.upgrade()) {
            raft.report_unreachable(peer);
        }
    }
}

impl Transport for GrpcTransport {
    fn send(&self, to: &Member, messages: Vec<Bytes>) {
        // Called on the consensus thread; making a channel needs the runtime around it.
        let _runtime = self.runtime.enter();
        let request = v1::StepRequest { from: self.own_id, to: to.raft_id, messages };
        if self.queue_to(to).try_send(request).is_err()
            && let Some(raft) = self.raft.get().and_then(WeakRaftHandle::upgrade)
        {
            raft.report_unreachable(to.raft_id);
        }
    }

    fn send_snapshot(&self, to: &Member, snapshot: OutgoingSnapshot) {
        let _runtime = self.runtime.enter();
        let channel = self.peers.channel(&to.address, Some(to.node_id));
        let header =
            v1::SnapshotHeader { from: self.own_id, to: to.raft_id, message: snapshot.message.clone() };
        let peer = to.raft_id;
        self.tasks.spawn_on(
            async move {
                match stream_snapshot(channel, header, snapshot).await {
                    Ok(()) => tracing::info!(raft.peer = peer, "snapshot sent"),
                    Err(e) => tracing::warn!(raft.peer = peer, error = %e, "snapshot could not be sent"),
                }
            },
            &self.runtime,
        );
    }
}

async fn stream_snapshot(
    channel: Channel,
    header: v1::SnapshotHeader,
    snapshot: OutgoingSnapshot,
) -> Result<(), tonic::Status> {
    use v1::snapshot_request::Message;
    let (chunks, stream) = mpsc::channel(4);
    let header = v1::SnapshotRequest { message: Some(Message::Header(header)) };
    let reading = tokio::task::spawn_blocking(move || {
        let mut snapshot = snapshot;
        let sent = read_chunks(&mut snapshot, header, &chunks);
        (snapshot, sent)
    });
    let answer = RaftClient::new(channel).snapshot(ReceiverStream::new(stream)).await;
    let (snapshot, sent) = reading.await.map_err(|e| tonic::Status::internal(e.to_string()))?;
    match answer.and(sent.map_err(|e| tonic::Status::internal(format!("read snapshot: {e}")))) {
        Ok(()) => {
            snapshot.delivered();
            Ok(())
        }
        Err(e) => {
            snapshot.failed();
            Err(e)
        }
    }
}

fn read_chunks(
    snapshot: &mut OutgoingSnapshot,
    header: v1::SnapshotRequest,
    chunks: &mpsc::Sender<v1::SnapshotRequest>,
) -> std::io::Result<()> {
    let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the receiver hung up");
    chunks.blocking_send(header).map_err(gone)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let n = std::io::Read::read(&mut snapshot.reader, &mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let chunk = Bytes::copy_from_slice(&buffer[..n]);
        let message = v1::SnapshotRequest { message: Some(v1::snapshot_request::Message::Chunk(chunk)) };
        chunks.blocking_send(message).map_err(gone)?;
    }
}
