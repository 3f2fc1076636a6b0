//! Event: what applying a transaction did to one object.
//!
//! Reads:   nothing.
//! Writes:  nothing: plain values.
//! Never:   says why.
//! Start:   [`Event`].

use std::sync::Arc;

use swarm_types::cluster::Cluster;
use swarm_types::meta::Meta;
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;

use super::transaction::Key;

/// Any stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Object {
    Cluster(Arc<Cluster>),
    Node(Arc<Node>),
    Network(Arc<Network>),
    Service(Arc<Service>),
    Task(Arc<Task>),
}

impl Object {
    /// What it is filed under.
    pub fn key(&self) -> Key {
        match self {
            Object::Cluster(_) => Key::Cluster,
            Object::Node(node) => Key::Node(node.id),
            Object::Network(network) => Key::Network(network.id),
            Object::Service(service) => Key::Service(service.id),
            Object::Task(task) => Key::Task(task.id),
        }
    }
    /// Version and times.
    pub fn meta(&self) -> Meta {
        match self {
            Object::Cluster(cluster) => cluster.meta,
            Object::Node(node) => node.meta,
            Object::Network(network) => network.meta,
            Object::Service(service) => service.meta,
            Object::Task(task) => task.meta,
        }
    }
    /// Gives it another [`Meta`]. Copies only if somebody else holds it too.
    pub(super) fn set_meta(&mut self, meta: Meta) {
        match self {
            Object::Cluster(cluster) => Arc::make_mut(cluster).meta = meta,
            Object::Node(node) => Arc::make_mut(node).meta = meta,
            Object::Network(network) => Arc::make_mut(network).meta = meta,
            Object::Service(service) => Arc::make_mut(service).meta = meta,
            Object::Task(task) => Arc::make_mut(task).meta = meta,
        }
    }
}

/// What happened to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is new.
    Created(Object),
    /// It is another now.
    Updated {
        /// As it was.
        old: Object,
        /// As it is; same kind, same id.
        new: Object,
    },
    /// It is gone; this is how it was.
    Deleted(Object),
}

impl Event {
    /// The object that it is about.
    pub fn key(&self) -> Key {
        self.latest().key()
    }
    /// The object as it is now, or as it was if it is gone.
    pub fn latest(&self) -> &Object {
        match self {
            Event::Created(object) | Event::Updated { new: object, .. } | Event::Deleted(object) => object,
        }
    }
    /// The object as it is now; none if it is gone.
    pub fn now(&self) -> Option<&Object> {
        match self {
            Event::Created(object) | Event::Updated { new: object, .. } => Some(object),
            Event::Deleted(_) => None,
        }
    }
    /// The object as it was; none if it is new.
    pub fn before(&self) -> Option<&Object> {
        match self {
            Event::Created(_) => None,
            Event::Updated { old: object, .. } | Event::Deleted(object) => Some(object),
        }
    }
}
