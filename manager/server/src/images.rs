//! Images on nodes: an archive that a user sends goes to every node; pulls and removals are done by
//! the nodes at once, side by side.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::stream::{self, Stream, StreamExt};
use swarm_manager_core::store::View;
use swarm_proto::v1;
use swarm_types::id::NodeId;
use swarm_types::node::NodeState;
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};
use v1::command::Command;

use crate::commands::{Answer, CommandHub};

/// Progress of an image command on its nodes.
pub type ProgressStream = Pin<Box<dyn Stream<Item = Result<v1::ImageProgress, Status>> + Send>>;

/// Archives on their way from a user to the nodes.
#[derive(Clone)]
pub struct Transfers {
    dir: PathBuf,
    open: Arc<Mutex<BTreeMap<String, PathBuf>>>,
}

/// An archive that nodes may fetch for as long as this lives.
pub struct Transfer {
    id: String,
    transfers: Transfers,
}

impl Transfers {
    /// Keeps archives in `dir`, which is emptied: what a crash left there is of no use.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(dir: PathBuf) -> std::io::Result<Self> {
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => std::fs::create_dir_all(&dir)?,
        }
        Ok(Transfers { dir, open: Arc::default() })
    }

    /// The file of a transfer.
    pub fn path(&self, id: &str) -> Option<PathBuf> {
        self.open.lock().expect("no code panics while it holds the list").get(id).cloned()
    }

    /// Writes what the user sends to a file.
    ///
    /// # Errors
    /// If the user stops midway, or the disk is full.
    pub async fn receive(
        &self,
        id: String,
        chunks: &mut Streaming<v1::LoadImageRequest>,
    ) -> Result<Transfer, Status> {
        let path = self.dir.join(&id);
        let transfer = Transfer { id: id.clone(), transfers: self.clone() };
        self.open.lock().expect("no code panics while it holds the list").insert(id, path.clone());
        let io = |e: std::io::Error| {
            Status::resource_exhausted(format!("keep the archive in {}: {e}", path.display()))
        };
        let mut file = tokio::fs::File::create(&path).await.map_err(io)?;
        while let Some(message) = chunks.message().await? {
            match message.message {
                Some(v1::load_image_request::Message::Chunk(bytes)) => {
                    file.write_all(&bytes).await.map_err(io)?
                }
                Some(v1::load_image_request::Message::Header(_)) | None => {
                    return Err(Status::invalid_argument(
                        "the header of an archive comes once, before its bytes",
                    ));
                }
            }
        }
        file.flush().await.map_err(io)?;
        Ok(transfer)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let path =
            self.transfers.open.lock().expect("no code panics while it holds the list").remove(&self.id);
        if let Some(path) = path {
            // Gone already is as good; what cannot be removed now is removed at the next start.
            let _left_for_the_next_start = std::fs::remove_file(path);
        }
    }
}

/// Nodes by name: those that `references` name, or all that are in the cluster.
///
/// # Errors
/// If a reference names no node.
pub fn nodes(view: &View, references: &[String]) -> Result<Vec<(NodeId, String)>, Status> {
    let named = |n: &Arc<swarm_types::node::Node>| (n.id, n.display_name().to_owned());
    if references.is_empty() {
        return Ok(view.nodes().map(named).collect());
    }
    references
        .iter()
        .map(|r| {
            let found = swarm_manager_core::control::resolve::node(view, r);
            found.map(named).map_err(|e| crate::status::denied(&e))
        })
        .collect()
}

/// Has every one of `nodes` do `command` and streams what they say. `held` is kept until all are done.
pub fn everywhere<T: Send + 'static>(
    hub: &CommandHub,
    view: &View,
    nodes: Vec<(NodeId, String)>,
    command: &Command,
    held: T,
) -> ProgressStream {
    let each =
        nodes.into_iter().map(|(node, name)| one(hub, view, node, name, command.clone())).collect::<Vec<_>>();
    Box::pin(async_stream::stream! {
        let _held = held;
        let mut all = stream::select_all(each);
        while let Some(progress) = all.next().await {
            yield Ok(progress);
        }
    })
}

fn one(
    hub: &CommandHub,
    view: &View,
    node: NodeId,
    name: String,
    command: Command,
) -> Pin<Box<dyn Stream<Item = v1::ImageProgress> + Send>> {
    let blank =
        v1::ImageProgress { node_id: node.to_string(), node_name: name, ..v1::ImageProgress::default() };
    let failed = |why: String| v1::ImageProgress { done: true, error: why, ..blank.clone() };
    let down = view.node(&node).is_none_or(|n| n.status.state != NodeState::Ready);
    let running = match hub.run(node, command) {
        Ok(running) => running,
        Err(_) if down => return Box::pin(stream::iter([failed("the node is down".into())])),
        Err(e) => return Box::pin(stream::iter([failed(e.to_string())])),
    };
    Box::pin(async_stream::stream! {
        let mut running = running;
        loop {
            match running.next().await {
                Some(Answer::Report(report)) => {
                    let done = report.done;
                    yield v1::ImageProgress {
                        message: report.message,
                        done,
                        error: report.error,
                        images: report.names,
                        ..blank.clone()
                    };
                    if done {
                        return;
                    }
                }
                Some(Answer::Logs(_)) => {}
                None => {
                    yield v1::ImageProgress { done: true, error: "the node went away".into(), ..blank.clone() };
                    return;
                }
            }
        }
    })
}

/// The images of each of `nodes`.
pub async fn list(hub: &CommandHub, nodes: Vec<(NodeId, String)>) -> Vec<v1::NodeImages> {
    let each = nodes.into_iter().map(|(node, name)| {
        let running = hub.run(node, Command::ListImages(v1::ListNodeImages {}));
        async move {
            let answer =
                |images, error| v1::NodeImages { node_id: node.to_string(), node_name: name, images, error };
            let Ok(mut running) = running else { return answer(Vec::new(), "the node is down".into()) };
            while let Some(next) = running.next().await {
                match next {
                    Answer::Report(report) if report.done => return answer(report.images, report.error),
                    Answer::Report(_) | Answer::Logs(_) => {}
                }
            }
            answer(Vec::new(), "the node went away".into())
        }
    });
    futures::future::join_all(each).await
}
