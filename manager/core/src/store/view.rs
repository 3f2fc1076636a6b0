//! View: all objects at one version; immutable, cheap to clone, cheap to ask.
//!
//! Reads:   all tables.
//! Writes:  nothing that others see: a change makes another view, which shares what is equal.
//! Never:   iterates in an order that depends on anything but ids.
//! Start:   [`View`].

use std::sync::Arc;

use swarm_types::cluster::Cluster;
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::meta::Annotations;
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use super::event::Object;
use super::index::{Index, SlotKey};
use super::table::Table;
use super::transaction::Key;

/// All objects at one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub(super) version: u64,
    pub(super) newest_time: Timestamp,
    cluster: Option<Arc<Cluster>>,
    nodes: Table<NodeId, Arc<Node>>,
    networks: Table<NetworkId, Arc<Network>>,
    network_names: Table<String, NetworkId>,
    services: Table<ServiceId, ServiceRow>,
    /// By name in lower case.
    names: Table<String, ServiceId>,
    tasks: Index,
}

/// A service and its annotations in the form that its tasks share.
#[derive(Debug, Clone, PartialEq)]
struct ServiceRow {
    service: Arc<Service>,
    annotations: Arc<Annotations>,
}

impl View {
    /// Version of the last applied transaction.
    pub fn version(&self) -> u64 {
        self.version
    }
    /// The newest time of any applied transaction: no leader's clock may start before it.
    pub fn newest_time(&self) -> Timestamp {
        self.newest_time
    }
    /// The cluster, once there is one.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }
    /// A node.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }
    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> + use<'_> {
        self.nodes.values()
    }
    /// A network.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }
    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> + use<'_> {
        self.networks.values()
    }
    /// The network of this name.
    pub fn network_by_name(&self, name: &str) -> Option<&Arc<Network>> {
        self.network(self.network_names.get(&name.to_owned())?)
    }
    /// Networks whose id starts with `prefix`, by id.
    pub fn networks_by_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Network>> {
        let from = self.networks.range_from(&NetworkId::new(prefix));
        from.take_while(move |(id, _)| id.as_str().starts_with(prefix)).map(|(_, network)| network)
    }
    /// The ingress network, if there is one.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.networks().find(|network| network.spec.ingress)
    }
    /// A service.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id).map(|row| &row.service)
    }
    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> + use<'_> {
        self.services.values().map(|row| &row.service)
    }
    /// The service of this name, ignoring case.
    pub fn service_by_name(&self, name: &str) -> Option<&Arc<Service>> {
        self.service(self.names.get(&name.to_lowercase())?)
    }
    /// A service's annotations in the form that all tasks made from it share: put this `Arc` into
    /// new tasks.
    pub fn service_annotations(&self, id: &ServiceId) -> Option<&Arc<Annotations>> {
        self.services.get(id).map(|row| &row.annotations)
    }
    /// A task.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }
    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.all()
    }
    /// How many tasks there are.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }
    /// A service's tasks, by slot, then id (a global service's: by node, then id).
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.of_service(id)
    }
    /// How many tasks a service has, ended ones included.
    pub fn task_count_of_service(&self, id: &ServiceId) -> usize {
        self.tasks.count_of_service(id)
    }
    /// The tasks of one slot, by id.
    pub fn tasks_of_slot(&self, id: &ServiceId, slot: SlotKey) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.of_slot(id, slot)
    }
    /// A node's tasks, by id.
    pub fn tasks_on_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.on_node(id)
    }
    /// How many tasks a node has, ended ones included.
    pub fn task_count_on_node(&self, id: &NodeId) -> usize {
        self.tasks.count_on_node(id)
    }
    /// Services that have tasks, by id; also those that are removed already.
    pub fn services_with_tasks(&self) -> impl Iterator<Item = &ServiceId> + use<'_> {
        self.tasks.services_with_tasks()
    }
    /// Services whose id starts with `prefix`, by id.
    pub fn services_by_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        let from = self.services.range_from(&ServiceId::new(prefix));
        from.take_while(move |(id, _)| id.as_str().starts_with(prefix)).map(|(_, row)| &row.service)
    }
    /// Nodes whose id starts with `prefix`, by id.
    pub fn nodes_by_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
        let from = self.nodes.range_from(&NodeId::new(prefix));
        from.take_while(move |(id, _)| id.as_str().starts_with(prefix)).map(|(_, node)| node)
    }
    /// Tasks whose id starts with `prefix`, by id.
    pub fn tasks_by_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Task>> {
        let from = self.tasks.from(&TaskId::new(prefix));
        from.take_while(move |(id, _)| id.as_str().starts_with(prefix)).map(|(_, task)| task)
    }
    /// Any object.
    pub fn get(&self, key: &Key) -> Option<Object> {
        match key {
            Key::Cluster => self.cluster.clone().map(Object::Cluster),
            Key::Node(id) => self.node(id).cloned().map(Object::Node),
            Key::Network(id) => self.network(id).cloned().map(Object::Network),
            Key::Service(id) => self.service(id).cloned().map(Object::Service),
            Key::Task(id) => self.task(id).cloned().map(Object::Task),
        }
    }
    /// Version of any object; 0 if there is none.
    pub fn version_of(&self, key: &Key) -> u64 {
        let meta = match key {
            Key::Cluster => self.cluster.as_ref().map(|cluster| cluster.meta),
            Key::Node(id) => self.node(id).map(|node| node.meta),
            Key::Network(id) => self.network(id).map(|network| network.meta),
            Key::Service(id) => self.service(id).map(|service| service.meta),
            Key::Task(id) => self.task(id).map(|task| task.meta),
        };
        meta.map_or(0, |meta| meta.version)
    }

    /// All but the tasks: small, so a copy may be kept while the other is written.
    pub(super) fn without_tasks(&self) -> View {
        View {
            version: self.version,
            newest_time: self.newest_time,
            cluster: self.cluster.clone(),
            nodes: self.nodes.clone(),
            networks: self.networks.clone(),
            network_names: self.network_names.clone(),
            services: self.services.clone(),
            names: self.names.clone(),
            tasks: Index::default(),
        }
    }

    /// Goes back to what `rest` (from [`View::without_tasks`]) and the objects as they were before
    /// each write since then, in order, say.
    pub(super) fn undo(
        &mut self,
        rest: View,
        writes: impl DoubleEndedIterator<Item = (Key, Option<Object>)>,
    ) {
        for (key, before) in writes.rev() {
            match (key, before) {
                (_, Some(Object::Task(task))) => drop(self.tasks.put(task)),
                (Key::Task(id), None) => drop(self.tasks.delete(&id)),
                _ => {}
            }
        }
        let tasks = std::mem::take(&mut self.tasks);
        *self = View { tasks, ..rest };
    }

    /// Files an object as it is.
    pub(super) fn put(&mut self, object: Object) {
        match object {
            Object::Cluster(cluster) => self.cluster = Some(cluster),
            Object::Node(node) => drop(self.nodes.insert(node.id, node)),
            Object::Network(network) => self.put_network(network),
            Object::Service(service) => self.put_service(service),
            Object::Task(task) => drop(self.tasks.put(task)),
        }
    }

    fn put_network(&mut self, network: Arc<Network>) {
        self.network_names.insert(network.spec.annotations.name.clone(), network.id);
        self.networks.insert(network.id, network);
    }

    fn put_service(&mut self, service: Arc<Service>) {
        let old = self.services.get(&service.id).cloned();
        if let Some(old) = &old {
            self.delete_name(&old.service);
        }
        let annotations = match old {
            Some(old) if *old.annotations == service.spec.annotations => old.annotations,
            _ => Arc::new(service.spec.annotations.clone()),
        };
        self.names.insert(service.spec.annotations.name.to_lowercase(), service.id);
        self.services.insert(service.id, ServiceRow { service, annotations });
    }

    fn delete_name(&mut self, service: &Service) {
        let name = service.spec.annotations.name.to_lowercase();
        if self.names.get(&name) == Some(&service.id) {
            self.names.remove(&name);
        }
    }

    /// Drops an object. The cluster cannot be dropped.
    pub(super) fn delete(&mut self, key: &Key) {
        match key {
            Key::Cluster => {}
            Key::Node(id) => drop(self.nodes.remove(id)),
            Key::Network(id) => {
                // Networks are not renamed: the name is the one that it was put with.
                if let Some(network) = self.networks.remove(id) {
                    self.network_names.remove(&network.spec.annotations.name);
                }
            }
            Key::Service(id) => {
                if let Some(row) = self.services.remove(id) {
                    self.delete_name(&row.service);
                }
            }
            Key::Task(id) => drop(self.tasks.delete(id)),
        }
    }
}
