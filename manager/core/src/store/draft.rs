//! Draft: a view that reads its own writes; becomes a transaction.
//!
//! Reads:   the view it was made from.
//! Writes:  nothing that others see, until its transaction is applied.
//! Never:   checks what it writes: that is the writer's part, and [`Store`](super::Store)'s.
//! Start:   [`Draft::new`].

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use swarm_types::cluster::Cluster;
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::meta::Meta;
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use super::event::Object;
use super::transaction::{Change, Key, SpecSource, Transaction};
use super::view::View;

/// A view with changes that are not in the log yet. Dereferences to the view *with* them.
///
/// Objects written by a draft carry the next version after the base's; applying gives them their
/// final one.
#[derive(Debug, Clone)]
pub struct Draft {
    base: View,
    view: View,
    now: Timestamp,
    changes: Vec<Change>,
    /// Of each change, the object as it was.
    before: Vec<Option<Object>>,
    requires: BTreeSet<Key>,
}

/// A moment to which [`Draft::rollback`] returns.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Without its tasks: those are taken back one by one, so that a checkpoint does not make every
    /// write after it a copy.
    rest: View,
    changes: usize,
    requires: BTreeSet<Key>,
}

impl Deref for Draft {
    type Target = View;
    fn deref(&self) -> &View {
        &self.view
    }
}

impl Draft {
    /// An empty draft on `base`. Time never runs backwards: an older `now` becomes the newest time
    /// of the store.
    pub fn new(base: View, now: Timestamp) -> Draft {
        let now = now.max(base.newest_time());
        Draft {
            view: base.clone(),
            base,
            now,
            changes: Vec::new(),
            before: Vec::new(),
            requires: BTreeSet::new(),
        }
    }
    /// The time that its changes get.
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// The view that it was made from.
    pub fn base(&self) -> &View {
        &self.base
    }
    /// Creates or updates the cluster. As all puts: nothing happens if the object is as it was.
    /// True if something changed.
    pub fn put_cluster(&mut self, cluster: Cluster) -> bool {
        self.put(Object::Cluster(Arc::new(cluster)))
    }
    /// Creates or updates a node; see [`Draft::put_cluster`].
    pub fn put_node(&mut self, node: Node) -> bool {
        self.put(Object::Node(Arc::new(node)))
    }
    /// Creates or updates a network; see [`Draft::put_cluster`].
    pub fn put_network(&mut self, network: Network) -> bool {
        self.put(Object::Network(Arc::new(network)))
    }
    /// Creates or updates a service; see [`Draft::put_cluster`].
    pub fn put_service(&mut self, service: Service) -> bool {
        self.put(Object::Service(Arc::new(service)))
    }
    /// Creates or updates a task; see [`Draft::put_cluster`].
    pub fn put_task(&mut self, task: Task) -> bool {
        self.put(Object::Task(Arc::new(task)))
    }
    /// Deletes a node, if there is one. True if there was.
    pub fn delete_node(&mut self, id: &NodeId) -> bool {
        self.delete(Key::Node(*id), Change::DeleteNode(*id))
    }
    /// Deletes a network, if there is one. True if there was.
    pub fn delete_network(&mut self, id: &NetworkId) -> bool {
        self.delete(Key::Network(*id), Change::DeleteNetwork(*id))
    }
    /// Deletes a service, if there is one. True if there was.
    pub fn delete_service(&mut self, id: &ServiceId) -> bool {
        self.delete(Key::Service(*id), Change::DeleteService(*id))
    }
    /// Deletes a task, if there is one. True if there was.
    pub fn delete_task(&mut self, id: &TaskId) -> bool {
        self.delete(Key::Task(*id), Change::DeleteTask(*id))
    }
    /// Makes the transaction depend on an object that it only read: it is refused if that object
    /// changed meanwhile. Objects that are written are guarded anyway.
    pub fn require_unchanged(&mut self, key: Key) {
        self.requires.insert(key);
    }

    /// What was written, in order; an object may occur more than once.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
    /// How many changes were made.
    pub fn len(&self) -> usize {
        self.changes.len()
    }
    /// True if nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Of each change, the object as it was just before.
    pub(crate) fn before(&self) -> &[Option<Object>] {
        &self.before
    }

    /// Remembers this moment.
    pub fn checkpoint(&self) -> Checkpoint {
        let rest = self.view.without_tasks();
        Checkpoint { rest, changes: self.changes.len(), requires: self.requires.clone() }
    }
    /// Drops all that was done since `to`.
    pub fn rollback(&mut self, to: Checkpoint) {
        let changes = self.changes.drain(to.changes..).map(|change| change.key());
        self.view.undo(to.rest, changes.zip(self.before.drain(to.changes..)));
        self.requires = to.requires;
    }

    fn put(&mut self, mut object: Object) -> bool {
        let key = object.key();
        let old = self.view.get(&key);
        if let Some(old) = &old {
            share_spec(old, &mut object);
            object.set_meta(old.meta());
            if object == *old {
                return false;
            }
        }
        // Deleted and put again within one draft is an update to whoever applies it.
        let created_at = match &old {
            Some(old) => old.meta().created_at,
            None => self.base.get(&key).map_or(self.now, |first| first.meta().created_at),
        };
        object.set_meta(Meta { version: self.base.version() + 1, created_at, updated_at: self.now });
        self.changes.push(match object.clone() {
            Object::Cluster(cluster) => Change::PutCluster(cluster),
            Object::Node(node) => Change::PutNode(node),
            Object::Network(network) => Change::PutNetwork(network),
            Object::Service(service) => Change::PutService(service),
            Object::Task(task) => Change::PutTask(task, SpecSource::Inline),
        });
        self.before.push(old);
        self.view.put(object);
        true
    }

    fn delete(&mut self, key: Key, change: Change) -> bool {
        let Some(old) = self.view.get(&key) else { return false };
        self.view.delete(&key);
        self.changes.push(change);
        self.before.push(Some(old));
        true
    }

    /// The transaction: one change for each object, in an order in which each can be applied.
    pub fn into_transaction(self) -> Transaction {
        let Draft { view, now, changes, before, mut requires, base } = self;
        // By object, then in order: the first knows how the object was, the last how it shall be.
        let mut order: Vec<(Key, usize)> = changes.iter().map(Change::key).zip(0..).collect();
        order.sort_unstable();
        let mut changes: Vec<Option<Change>> = changes.into_iter().map(Some).collect();
        let (mut deletes, mut puts, mut versions) = (Vec::new(), Vec::new(), Vec::new());
        for of_one in order.chunk_by(|a, b| a.0 == b.0) {
            let (Some((key, first)), Some((_, last))) = (of_one.first(), of_one.last()) else { continue };
            let was = before[*first].as_ref();
            match changes[*last].take() {
                // Made and dropped within this draft: it never was.
                Some(change) if change.is_delete() && was.is_none() => continue,
                Some(change) if change.is_delete() => deletes.push(change),
                Some(change) => puts.push(with_source(was, &view, change)),
                None => continue,
            }
            requires.remove(key);
            versions.push((*key, was.map_or(0, |was| was.meta().version)));
        }
        deletes.append(&mut puts);
        versions.extend(requires.into_iter().map(|key| (key, base.version_of(&key))));
        versions.sort_unstable();
        Transaction { at: now, requires: versions, changes: deletes }
    }
}

/// Equal specs become the same `Arc`, so that copies do not pile up.
fn share_spec(old: &Object, new: &mut Object) {
    let (Object::Task(old), Object::Task(task)) = (old, new) else { return };
    if !Arc::ptr_eq(&task.spec, &old.spec) && task.spec == old.spec {
        Arc::make_mut(task).spec = old.spec.clone();
    }
}

/// Says what the encoder may leave out of a task.
fn with_source(was: Option<&Object>, view: &View, change: Change) -> Change {
    let Change::PutTask(task, _) = change else { return change };
    let unchanged = match was {
        Some(Object::Task(old)) => {
            old.spec == task.spec && old.service_annotations == task.service_annotations
        }
        _ => false,
    };
    let of_service = |service: &Arc<Service>| {
        service.spec_version == task.spec_version
            && service.spec.task == task.spec
            && service.spec.annotations == *task.service_annotations
    };
    let source = if unchanged {
        SpecSource::Unchanged
    } else if view.service(&task.service).is_some_and(of_service) {
        SpecSource::OfService
    } else {
        SpecSource::Inline
    };
    Change::PutTask(task, source)
}
