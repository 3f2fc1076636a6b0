//! Truth: what the store says of the networks, in the form that nodes are told it.
//!
//! Reads:   networks, services, tasks, nodes, the cluster's settings.
//! Writes:  its own copy, derived from them.
//! Never:   knows who has been told what.
//! Start:   [`Truth::refresh`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::network::Network;
use swarm_types::network_set::{NetworkChange, NetworkPart, Peer, ServiceEndpoint, TaskEndpoint};
use swarm_types::node::{Node, NodeState};
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::store::{Event, Object, View};

/// One network as nodes see it.
#[derive(Debug, Clone)]
pub(super) struct Net {
    pub(super) part: Arc<NetworkPart>,
    pub(super) endpoints: BTreeMap<TaskId, Arc<TaskEndpoint>>,
    pub(super) services: BTreeMap<ServiceId, Arc<ServiceEndpoint>>,
    /// Nodes that have tasks on it, and which.
    local: BTreeMap<NodeId, BTreeSet<TaskId>>,
}

/// What the store says.
#[derive(Debug, Clone, Default)]
pub(super) struct Truth {
    pub(super) networks: BTreeMap<NetworkId, Net>,
    pub(super) nodes: BTreeMap<NodeId, Option<Arc<Peer>>>,
    ingress: Option<NetworkId>,
    /// The networks of each task that is on a node and has not ended.
    places: BTreeMap<TaskId, (NodeId, Vec<NetworkId>)>,
    dirty: Dirty,
}

#[derive(Debug, Clone, Default)]
struct Dirty {
    networks: BTreeSet<NetworkId>,
    services: BTreeSet<ServiceId>,
    tasks: BTreeSet<TaskId>,
    nodes: BTreeSet<NodeId>,
}

/// What a refresh found to be different.
#[derive(Debug, Default)]
pub(super) struct News {
    /// By network, in the order in which they can be taken.
    pub(super) changes: Vec<(NetworkId, NetworkChange)>,
    /// Networks whose participants may be others now.
    pub(super) moved: BTreeSet<NetworkId>,
    /// Networks that are gone.
    pub(super) gone: BTreeSet<NetworkId>,
    /// Nodes that are to be told of otherwise, or to be told something else of themselves.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Tasks that were served and are not any more, because they are asked to stop.
    pub(super) withdrawn: BTreeSet<TaskId>,
}

impl Truth {
    /// All that the store says; nothing is news.
    pub(super) fn restore(view: &View) -> Truth {
        let mut truth = Truth::default();
        truth.dirty.networks.extend(view.networks().map(|network| network.id));
        truth.dirty.services.extend(view.services().map(|service| service.id));
        truth.dirty.tasks.extend(view.tasks().filter(|t| !t.attachments.is_empty()).map(|t| t.id));
        truth.dirty.nodes.extend(view.nodes().map(|node| node.id));
        let _all = truth.refresh(view);
        truth
    }

    /// Notes what an event makes to be looked at again.
    pub(super) fn observe(&mut self, event: &Event) {
        match event.latest() {
            Object::Cluster(_) => self.dirty.nodes.extend(self.nodes.keys()),
            Object::Network(network) => drop(self.dirty.networks.insert(network.id)),
            Object::Service(service) => drop(self.dirty.services.insert(service.id)),
            Object::Task(task) => {
                if !task.attachments.is_empty() {
                    self.dirty.tasks.insert(task.id);
                }
            }
            Object::Node(node) => drop(self.dirty.nodes.insert(node.id)),
        }
    }

    /// The network that every node takes part in, if any service has a port on it.
    fn published(&self) -> Option<NetworkId> {
        self.ingress.filter(|id| self.networks.get(id).is_some_and(|net| !net.services.is_empty()))
    }

    /// Nodes that take part in a network.
    pub(super) fn participants(&self, network: &NetworkId) -> Vec<NodeId> {
        match self.networks.get(network) {
            Some(_) if self.published() == Some(*network) => self.nodes.keys().copied().collect(),
            Some(net) => net.local.keys().copied().collect(),
            None => Vec::new(),
        }
    }

    /// A node takes part in a network.
    pub(super) fn takes_part(&self, node: &NodeId, network: &NetworkId) -> bool {
        let local = |net: &Net| net.local.contains_key(node);
        self.published() == Some(*network) || self.networks.get(network).is_some_and(local)
    }

    /// The networks that a node takes part in.
    pub(super) fn networks_of(&self, node: &NodeId) -> BTreeSet<NetworkId> {
        self.networks.keys().filter(|id| self.takes_part(node, id)).copied().collect()
    }

    /// The networks on which a task is or was served.
    pub(super) fn networks_of_task(&self, task: &TaskId) -> &[NetworkId] {
        self.places.get(task).map_or(&[], |(_, networks)| networks)
    }

    /// New connections lead to the task, on some network.
    pub(super) fn is_served(&self, task: &TaskId) -> bool {
        let on = |id: &NetworkId| self.networks.get(id).and_then(|net| net.endpoints.get(task));
        self.networks_of_task(task).iter().filter_map(on).any(|endpoint| endpoint.serving)
    }

    /// Looks again at all that was noted.
    pub(super) fn refresh(&mut self, view: &View) -> News {
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut news = News::default();
        self.ingress = view.ingress_network().map(|network| network.id);
        let published = self.published();
        for id in &dirty.nodes {
            self.refresh_node(view, id, &mut dirty.tasks, &mut news);
        }
        for id in &std::mem::take(&mut dirty.networks) {
            self.refresh_network(view, id, &mut dirty, &mut news);
        }
        for id in &dirty.services {
            // Which networks its tasks are told of on depends on its ports, and weights on its spec.
            let tasks = view.tasks_of_service(id).filter(|task| !task.attachments.is_empty());
            dirty.tasks.extend(tasks.map(|task| task.id));
            self.refresh_service(view, id, &mut news);
        }
        for id in &dirty.tasks {
            self.refresh_task(view, id, &mut news);
        }
        if self.published() != published {
            news.moved.extend(self.ingress.into_iter().chain(published));
        }
        news
    }

    fn refresh_node(&mut self, view: &View, id: &NodeId, tasks: &mut BTreeSet<TaskId>, news: &mut News) {
        let node = view.node(id);
        let here = self.networks.values().filter_map(|net| net.local.get(id)).flatten();
        tasks.extend(here);
        news.nodes.insert(*id);
        match node {
            None => {
                self.nodes.remove(id);
                news.moved.extend(self.published());
            }
            Some(node) => {
                let new = self.nodes.insert(*id, peer(node).map(Arc::new)).is_none();
                if new {
                    news.moved.extend(self.published());
                }
            }
        }
    }

    fn refresh_network(&mut self, view: &View, id: &NetworkId, dirty: &mut Dirty, news: &mut News) {
        let Some(network) = view.network(id) else {
            if self.networks.remove(id).is_some() {
                news.gone.insert(*id);
            }
            return;
        };
        let part = Arc::new(part(network));
        match self.networks.get_mut(id) {
            Some(net) if net.part == part => {}
            Some(net) => {
                net.part = part.clone();
                news.changes.push((*id, NetworkChange::PutNetwork(part)));
            }
            None => {
                let (endpoints, services) = (BTreeMap::new(), BTreeMap::new());
                self.networks.insert(*id, Net { part, endpoints, services, local: BTreeMap::new() });
                // Tasks and services may have come to be known before it, in a store that is restored.
                dirty.services.extend(view.services().filter(|s| is_on(s, network)).map(|s| s.id));
            }
        }
    }

    fn refresh_service(&mut self, view: &View, id: &ServiceId, news: &mut News) {
        let service = view.service(id);
        for (network, net) in &mut self.networks {
            let stored = view.network(network);
            let now = service.zip(stored).and_then(|(service, network)| service_endpoint(service, network));
            match (now, net.services.get(id)) {
                (Some(now), before) if before.is_none_or(|before| **before != now) => {
                    let now = Arc::new(now);
                    net.services.insert(*id, now.clone());
                    news.changes.push((*network, NetworkChange::PutService(*network, now)));
                }
                (None, Some(_)) => {
                    net.services.remove(id);
                    news.changes.push((*network, NetworkChange::RemoveService(*network, *id)));
                }
                _ => {}
            }
        }
    }

    fn refresh_task(&mut self, view: &View, id: &TaskId, news: &mut News) {
        let served = self.is_served(id);
        let task = view.task(id).filter(|task| is_placed(task));
        let now: Vec<NetworkId> = task.iter().flat_map(|t| &t.attachments).map(|a| a.network).collect();
        let (node, before) = match task {
            Some(task) => (task.node, self.places.insert(*id, (task.node, now.clone()))),
            None => (NodeId::default(), self.places.remove(id)),
        };
        for (node, network) in
            before.iter().flat_map(|(node, networks)| networks.iter().map(move |network| (node, network)))
        {
            if !now.contains(network) {
                self.leave(*network, node, id, news);
            }
        }
        for network in now {
            let Some(net) = self.networks.get_mut(&network) else { continue };
            let local = net.local.entry(node).or_default();
            if local.is_empty() {
                news.moved.insert(network);
            }
            local.insert(*id);
            let endpoint = task.zip(view.network(&network)).and_then(|(t, n)| task_endpoint(view, t, n));
            put_endpoint(net, network, *id, endpoint, news);
        }
        let asked_to_stop = |task: &Arc<Task>| !task.is_wanted() && task.status.state == TaskState::Running;
        if served && task.is_some_and(asked_to_stop) && !self.is_served(id) {
            news.withdrawn.insert(*id);
        }
    }

    fn leave(&mut self, network: NetworkId, node: &NodeId, task: &TaskId, news: &mut News) {
        let Some(net) = self.networks.get_mut(&network) else { return };
        put_endpoint(net, network, *task, None, news);
        if let Some(local) = net.local.get_mut(node) {
            local.remove(task);
            if local.is_empty() {
                net.local.remove(node);
                news.moved.insert(network);
            }
        }
    }
}

fn put_endpoint(net: &mut Net, network: NetworkId, id: TaskId, now: Option<TaskEndpoint>, news: &mut News) {
    match (now, net.endpoints.get(&id)) {
        (Some(now), before) if before.is_none_or(|before| **before != now) => {
            let now = Arc::new(now);
            net.endpoints.insert(id, now.clone());
            news.changes.push((network, NetworkChange::PutEndpoint(network, now)));
        }
        (None, Some(_)) => {
            net.endpoints.remove(&id);
            news.changes.push((network, NetworkChange::RemoveEndpoint(network, id)));
        }
        _ => {}
    }
}

/// The task is on a node and has not ended.
fn is_placed(task: &Task) -> bool {
    !task.node.is_empty() && task.status.state >= TaskState::Assigned && task.is_live()
}

/// Nodes must know where the service is on this network. On the ingress network that is so only for
/// those with ports: others have an address there for their way out, which is nobody else's matter.
fn is_on(service: &Service, network: &Network) -> bool {
    match network.spec.ingress {
        true => !service.endpoint.ports.is_empty(),
        false => service.spec.task.networks.iter().any(|spec| spec.network == network.id),
    }
}

fn service_endpoint(service: &Service, network: &Network) -> Option<ServiceEndpoint> {
    let attachment = service.spec.task.networks.iter().find(|spec| spec.network == network.id);
    is_on(service, network).then(|| ServiceEndpoint {
        service: service.id,
        name: service.spec.annotations.name.clone(),
        aliases: attachment.map(|spec| spec.aliases.clone()).unwrap_or_default(),
        mode: service.spec.endpoint.mode,
        balance: service.spec.endpoint.balance,
        vips: service.endpoint.vips.get(&network.id).cloned().unwrap_or_default(),
        ports: if network.spec.ingress { service.endpoint.ports.clone() } else { Vec::new() },
    })
}

fn task_endpoint(view: &View, task: &Task, network: &Network) -> Option<TaskEndpoint> {
    let service = view.service(&task.service);
    if network.spec.ingress && !service.is_some_and(|service| is_on(service, network)) {
        return None;
    }
    let attachment = task.attachments.iter().find(|attachment| attachment.network == network.id)?;
    // Of a node that is Down nobody knows whether it lives: others are told that its tasks are nowhere, so that
    // connections to them are reset and do not hang.
    let node = view.node(&task.node).filter(|node| node.status.state != NodeState::Down)?;
    Some(TaskEndpoint {
        task: task.id,
        node: task.node,
        service: task.service,
        name: task.name(),
        addrs: attachment.addrs.clone(),
        serving: task.status.state == TaskState::Running && task.is_wanted(),
        weight: weight(service.map(|s| s.spec.endpoint.weight_label.as_str()), Some(node)),
    })
}

/// The number in the node's label, from 1 to 100; 1 if there is none, or no number.
fn weight(label: Option<&str>, node: Option<&Node>) -> u32 {
    let label = label.map(|label| label.strip_prefix("node.labels.").unwrap_or(label));
    let text = label.zip(node).and_then(|(label, node)| node.spec.annotations.labels.get(label));
    text.and_then(|text| text.parse::<u32>().ok()).unwrap_or(1).clamp(1, 100)
}

fn part(network: &Network) -> NetworkPart {
    NetworkPart {
        id: network.id,
        name: network.spec.annotations.name.clone(),
        driver: network.spec.driver,
        vni: network.vni,
        subnets: network.subnets.iter().map(|subnet| (subnet.net, subnet.gateway)).collect(),
        internal: network.spec.internal,
        ingress: network.spec.ingress,
        encrypted: network.spec.encrypted,
        mtu: network.spec.mtu,
        options: network.spec.options.clone(),
    }
}

/// The address under which other nodes reach a node.
pub(super) fn address(node: &Node) -> Option<IpAddr> {
    node.description.network.data_addr.or_else(|| node.status.addr.parse().ok())
}

/// None if it has no number or no address yet.
fn peer(node: &Node) -> Option<Peer> {
    let addr = address(node).filter(|_| node.index != 0)?;
    Some(Peer {
        node: node.id,
        index: node.index,
        addr,
        entry: node.entry.clone(),
        keys: node.description.network.keys.clone(),
        tunnel_port: node.description.network.tunnel_port,
    })
}
