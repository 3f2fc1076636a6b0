//! Transaction: changes that take effect together or not at all, and what they were decided on.
//!
//! Reads:   nothing.
//! Writes:  nothing: plain values, carried by the log.
//! Never:   carries a reason; depends on the clock of who applies it.
//! Start:   [`Transaction`].

use std::fmt;
use std::sync::Arc;

use swarm_types::cluster::Cluster;
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use super::event::Object;

/// Names one stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Key {
    Cluster,
    Node(NodeId),
    Network(NetworkId),
    Service(ServiceId),
    Task(TaskId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Cluster => f.write_str("cluster"),
            Key::Node(id) => write!(f, "node {id}"),
            Key::Network(id) => write!(f, "network {id}"),
            Key::Service(id) => write!(f, "service {id}"),
            Key::Task(id) => write!(f, "task {id}"),
        }
    }
}

/// What the encoder of a task may leave out, because [`Store::apply`](super::Store::apply) finds it
/// in the store. Decoded, `spec` and `service_annotations` of such a task are empty until applied.
/// Applied, they are shared, which is why a million tasks fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecSource {
    /// Nothing is left out.
    #[default]
    Inline,
    /// Spec and annotations are the service's of now, which has the task's `spec_version`.
    OfService,
    /// Spec and annotations are those of the stored task.
    Unchanged,
}

/// One object written or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change {
    PutCluster(Arc<Cluster>),
    PutNode(Arc<Node>),
    PutNetwork(Arc<Network>),
    PutService(Arc<Service>),
    PutTask(Arc<Task>, SpecSource),
    DeleteNode(NodeId),
    DeleteNetwork(NetworkId),
    DeleteService(ServiceId),
    DeleteTask(TaskId),
}

impl Change {
    /// The object that it changes.
    pub fn key(&self) -> Key {
        match self {
            Change::PutCluster(_) => Key::Cluster,
            Change::PutNode(node) => Key::Node(node.id),
            Change::PutNetwork(network) => Key::Network(network.id),
            Change::PutService(service) => Key::Service(service.id),
            Change::PutTask(task, _) => Key::Task(task.id),
            Change::DeleteNode(id) => Key::Node(*id),
            Change::DeleteNetwork(id) => Key::Network(*id),
            Change::DeleteService(id) => Key::Service(*id),
            Change::DeleteTask(id) => Key::Task(*id),
        }
    }
    /// True if the object shall be gone.
    pub fn is_delete(&self) -> bool {
        self.object().is_none()
    }
    /// The object as it shall be; none if it shall be gone.
    pub fn object(&self) -> Option<Object> {
        self.clone().into_object()
    }
    /// The same, without another holder of the object.
    pub fn into_object(self) -> Option<Object> {
        match self {
            Change::PutCluster(cluster) => Some(Object::Cluster(cluster)),
            Change::PutNode(node) => Some(Object::Node(node)),
            Change::PutNetwork(network) => Some(Object::Network(network)),
            Change::PutService(service) => Some(Object::Service(service)),
            Change::PutTask(task, _) => Some(Object::Task(task)),
            Change::DeleteNode(_)
            | Change::DeleteNetwork(_)
            | Change::DeleteService(_)
            | Change::DeleteTask(_) => None,
        }
    }
}

/// Changes that take effect together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// When it was decided, by the leader's clock: the time that changed objects get.
    pub at: Timestamp,
    /// Versions that these objects must still have; 0: the object must not exist.
    pub requires: Vec<(Key, u64)>,
    /// In order: deletions first, then one put for each object.
    pub changes: Vec<Change>,
}
