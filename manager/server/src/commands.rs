//! Commands to nodes: they go down an agent's session, and what the agent reports comes back to
//! whoever asked. Known to the leader only; a new leader starts with none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use swarm_proto::v1;
use swarm_types::id::NodeId;
use tokio::sync::mpsc;

/// What a node answers to a command.
#[derive(Debug)]
pub enum Answer {
    /// Progress or result of an image command.
    Report(v1::ReportCommandRequest),
    /// Log lines.
    Logs(v1::PublishLogsRequest),
}

/// Answers that wait for a slow reader; then the agent is held back.
const WINDOW: usize = 64;

/// Sends commands to nodes and brings the answers home.
#[derive(Clone, Default)]
pub struct CommandHub {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    nodes: BTreeMap<NodeId, mpsc::UnboundedSender<v1::SessionMessage>>,
    running: BTreeMap<String, Waiting>,
}

struct Waiting {
    node: NodeId,
    answers: mpsc::Sender<Answer>,
}

/// A node cannot be told anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {0} is not connected")]
pub struct NotConnected(pub NodeId);

/// A command that runs. Dropping it stops the command on its node.
pub struct Running {
    id: String,
    hub: CommandHub,
    answers: mpsc::Receiver<Answer>,
}

impl CommandHub {
    /// From now on `node` is told through `session`.
    pub fn connect(&self, node: NodeId, session: mpsc::UnboundedSender<v1::SessionMessage>) {
        let mut inner = self.lock();
        inner.forget_commands_of(node);
        inner.nodes.insert(node, session);
    }

    /// The session of `node` is over, if it is still this one.
    pub fn disconnect(&self, node: NodeId, session: &mpsc::UnboundedSender<v1::SessionMessage>) {
        let mut inner = self.lock();
        if inner.nodes.get(&node).is_some_and(|s| s.same_channel(session)) {
            inner.nodes.remove(&node);
            inner.forget_commands_of(node);
        }
    }

    /// Nobody is connected any more: this manager does not lead.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.nodes.clear();
        inner.running.clear();
    }

    /// Has `node` do `command`.
    ///
    /// # Errors
    /// If it is not connected.
    pub fn run(&self, node: NodeId, command: v1::command::Command) -> Result<Running, NotConnected> {
        let mut inner = self.lock();
        inner.next_id += 1;
        let id = format!("c{}", inner.next_id);
        let (answers, receiver) = mpsc::channel(WINDOW);
        let message = v1::Command { id: id.clone(), command: Some(command) };
        inner.send(node, message)?;
        inner.running.insert(id.clone(), Waiting { node, answers });
        Ok(Running { id, hub: self.clone(), answers: receiver })
    }

    /// Where the answers of `node` to command `id` go; none if nobody waits for them any more.
    pub fn answers(&self, node: NodeId, id: &str) -> Option<mpsc::Sender<Answer>> {
        let inner = self.lock();
        inner.running.get(id).filter(|w| w.node == node).map(|w| w.answers.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the hub")
    }
}

impl Inner {
    fn send(&self, node: NodeId, command: v1::Command) -> Result<(), NotConnected> {
        let message = v1::SessionMessage { message: Some(v1::session_message::Message::Command(command)) };
        let session = self.nodes.get(&node).ok_or(NotConnected(node))?;
        session.send(message).map_err(|_| NotConnected(node))
    }

    /// Their readers see the end of the answers.
    fn forget_commands_of(&mut self, node: NodeId) {
        self.running.retain(|_, waiting| waiting.node != node);
    }
}

impl Running {
    /// The next answer; none when the node is gone.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        if let Some(waiting) = inner.running.remove(&self.id) {
            let cancel = v1::command::Command::Cancel(self.id.clone());
            // A node that is gone has nothing to stop.
            let _gone = inner.send(waiting.node, v1::Command { id: self.id.clone(), command: Some(cancel) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> v1::command::Command {
        v1::command::Command::ListImages(v1::ListNodeImages {})
    }

    #[tokio::test]
    async fn answers_reach_who_asked_and_only_from_that_node() {
        let hub = CommandHub::default();
        let (session, mut told) = mpsc::unbounded_channel();
        hub.connect("n".into(), session);
        let mut running = hub.run("n".into(), list()).unwrap();
        let id = match told.recv().await.unwrap().message {
            Some(v1::session_message::Message::Command(c)) => c.id,
            other => panic!("{other:?}"),
        };
        assert!(hub.answers("other".into(), &id).is_none());
        let report = v1::ReportCommandRequest { done: true, ..Default::default() };
        hub.answers("n".into(), &id).unwrap().send(Answer::Report(report)).await.unwrap();
        assert!(matches!(running.next().await, Some(Answer::Report(r)) if r.done));
        drop(running);
        assert!(hub.answers("n".into(), &id).is_none());
        assert!(told.recv().await.is_some(), "the node is told to stop");
    }

    #[tokio::test]
    async fn a_lost_node_ends_its_commands() {
        let hub = CommandHub::default();
        assert_eq!(hub.run("n".into(), list()).err(), Some(NotConnected("n".into())));
        let (session, _told) = mpsc::unbounded_channel();
        hub.connect("n".into(), session.clone());
        let mut running = hub.run("n".into(), list()).unwrap();
        hub.disconnect("n".into(), &session);
        assert!(running.next().await.is_none());
    }
}
