//! Networks: what each node is told of the networks, and what it said that it made of that.
//!
//! Reads:   networks, services, tasks, nodes, the cluster's settings; acknowledgements of nodes.
//! Writes:  nothing in the store; messages to agents.
//! Never:   scans for a change: a complete set once a session, then events.
//! Start:   [`Networks::register`], [`Networks::observe`], [`Networks::flush`].
//!
//! A node is told of the networks that its tasks are on, and of the ingress network as soon as any
//! service has a port there; of the nodes that take part in the same networks; and of itself.

mod truth;
mod withdrawal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::assignment::AssignmentsKind;
use swarm_types::id::{NetworkId, NodeId, SessionId, TaskId};
use swarm_types::network_set::{NetworkChange, NetworkProblem, NetworksMessage, SelfPart};
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use crate::store::{Event, View};
use truth::{News, Truth};
use withdrawal::Withdrawals;

/// A message for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworksDelivery {
    /// To whom.
    pub node: NodeId,
    /// In which session.
    pub session: SessionId,
    /// What.
    pub message: NetworksMessage,
}

#[derive(Debug, Clone)]
struct Stream {
    session: SessionId,
    sent: u64,
    applied: u64,
    own: Option<Arc<SelfPart>>,
    networks: BTreeSet<NetworkId>,
    /// Other nodes that it was told of, and what.
    peers: BTreeMap<NodeId, Arc<swarm_types::network_set::Peer>>,
}

/// A node's other keys, until all who know the node have them.
#[derive(Debug, Clone, Default)]
struct Keys {
    confirmed: Vec<String>,
    told: Vec<String>,
    waiting: BTreeMap<NodeId, u64>,
}

/// What each node with a session is told of the networks.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    truth: Truth,
    streams: BTreeMap<NodeId, Stream>,
    withdrawals: Withdrawals,
    keys: BTreeMap<NodeId, Keys>,
    problems: BTreeMap<NodeId, Vec<NetworkProblem>>,
}

impl Networks {
    /// What a new leader knows: nobody has said anything yet.
    pub fn new(view: &View, now: Timestamp) -> Networks {
        let mut networks = Networks { truth: Truth::restore(view), ..Networks::default() };
        let ready: Vec<NodeId> = withdrawal::ready_nodes(view).collect();
        let stopping = view.tasks().filter(|task| withdrawal::is_stopping(task));
        let exposed: Vec<_> = stopping.filter(|task| networks.is_exposed(task)).collect();
        for task in exposed {
            let waiting = ready.iter().map(|node| (*node, u64::MAX)).collect();
            networks.withdrawals.hold(task.id, waiting, now);
        }
        for node in view.nodes() {
            let confirmed = node.description.network.keys.clone();
            networks.keys.insert(node.id, Keys { told: confirmed.clone(), confirmed, ..Keys::default() });
        }
        networks
    }

    /// Notes a committed event; [`Networks::flush`] says what it means.
    pub fn observe(&mut self, event: &Event) {
        self.truth.observe(event);
    }

    /// A session began: the complete set, numbered 1.
    pub fn register(&mut self, view: &View, node: NodeId, session: SessionId) -> NetworksDelivery {
        let stream = Stream {
            session,
            sent: 0,
            applied: 0,
            own: None,
            networks: BTreeSet::new(),
            peers: BTreeMap::new(),
        };
        self.streams.insert(node, stream);
        let changes = self.catch_up(view, node);
        let stream = self.streams.get_mut(&node).expect("inserted above");
        stream.sent = 1;
        self.withdrawals.registered(&node, stream.sent);
        let message = NetworksMessage { kind: AssignmentsKind::Complete, results_in: 1, changes };
        NetworksDelivery { node, session, message }
    }

    /// A session ended: the node cannot acknowledge any more.
    pub fn ended(&mut self, node: &NodeId, session: SessionId) {
        if self.streams.get(node).is_some_and(|stream| stream.session == session) {
            self.streams.remove(node);
            self.withdrawals.gone(node);
            for keys in self.keys.values_mut() {
                keys.waiting.remove(node);
            }
        }
    }

    /// A node's kernel agrees with its set of this number, but for these problems. True if the
    /// problems are others than before.
    pub fn applied(
        &mut self,
        node: &NodeId,
        session: SessionId,
        applied: u64,
        problems: Vec<NetworkProblem>,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(node).filter(|stream| stream.session == session) else {
            return false;
        };
        stream.applied = stream.applied.max(applied.min(stream.sent));
        self.withdrawals.applied(node, stream.applied);
        for keys in self.keys.values_mut() {
            keys.waiting.retain(|waited, version| waited != node || *version > applied);
        }
        let before = match problems.is_empty() {
            true => self.problems.remove(node).unwrap_or_default(),
            false => self.problems.insert(*node, problems.clone()).unwrap_or_default(),
        };
        before != problems
    }

    /// What a node could not do, as it said last.
    pub fn problems(&self, node: &NodeId) -> &[NetworkProblem] {
        self.problems.get(node).map_or(&[], Vec::as_slice)
    }

    /// What the noted events mean: one message for each node that has to know. Tasks that were served
    /// and are asked to stop are held from now on, until all have taken them out.
    pub fn flush(&mut self, view: &View, now: Timestamp) -> Vec<NetworksDelivery> {
        let news = self.truth.refresh(view);
        self.problems.retain(|node, _| view.node(node).is_some());
        let mut out: BTreeMap<NodeId, Vec<NetworkChange>> = BTreeMap::new();
        self.spread(&news, &mut out);
        for node in self.others(&news) {
            let changes = self.catch_up(view, node);
            if !changes.is_empty() {
                out.entry(node).or_default().extend(changes);
            }
        }
        let deliveries = out.into_iter().filter_map(|(node, changes)| self.deliver(node, changes)).collect();
        for task in &news.withdrawn {
            let waiting = self.waiting_for(view, task);
            self.withdrawals.hold(*task, waiting, now);
        }
        self.withdrawals.settle(view);
        self.watch_keys(&news);
        deliveries
    }

    /// Passes what changed on a network to its nodes.
    fn spread(&self, news: &News, out: &mut BTreeMap<NodeId, Vec<NetworkChange>>) {
        let mut told: BTreeMap<NetworkId, Vec<NodeId>> = BTreeMap::new();
        for (network, change) in &news.changes {
            let nodes = told.entry(*network).or_insert_with(|| self.told_of(network));
            for node in nodes.iter() {
                out.entry(*node).or_default().push(change.clone());
            }
        }
    }

    /// Nodes that were told of a network and go on taking part in it.
    fn told_of(&self, network: &NetworkId) -> Vec<NodeId> {
        let told = |node: &NodeId| self.streams.get(node).is_some_and(|s| s.networks.contains(network));
        self.truth.participants(network).into_iter().filter(told).collect()
    }

    /// Nodes for which more than the content of a network may have changed.
    fn others(&self, news: &News) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        for network in news.moved.iter().chain(&news.gone) {
            nodes.extend(self.truth.participants(network));
            nodes.extend(self.streams.iter().filter(|(_, s)| s.networks.contains(network)).map(|(n, _)| *n));
        }
        for changed in &news.nodes {
            nodes.insert(*changed);
            let knows = |s: &Stream| s.peers.contains_key(changed);
            nodes.extend(self.streams.iter().filter(|(_, s)| knows(s)).map(|(node, _)| *node));
            // A node that has just got its number or address is told to its neighbours.
            let shared = self.truth.networks_of(changed);
            nodes.extend(shared.iter().flat_map(|network| self.truth.participants(network)));
        }
        nodes.retain(|node| self.streams.contains_key(node));
        nodes
    }

    /// What a node has to be told so that itself, its networks and its peers are right. What is in
    /// networks that it knows is told by [`Networks::spread`].
    fn catch_up(&mut self, view: &View, node: NodeId) -> Vec<NetworkChange> {
        let own = self.own(view, &node).map(Arc::new);
        let wanted = self.truth.networks_of(&node);
        let peers: BTreeSet<NodeId> = wanted
            .iter()
            .flat_map(|network| self.truth.participants(network))
            .filter(|n| *n != node)
            .collect();
        let Some(stream) = self.streams.get_mut(&node) else { return Vec::new() };
        let mut changes = Vec::new();
        if let Some(own) = own.filter(|own| stream.own.as_ref() != Some(own)) {
            stream.own = Some(own.clone());
            changes.push(NetworkChange::PutSelf(own));
        }
        changes.extend(stream.networks.difference(&wanted).map(|id| NetworkChange::RemoveNetwork(*id)));
        let peer = |id: &NodeId| Some((*id, self.truth.nodes.get(id)?.clone()?));
        let peers: BTreeMap<_, _> = peers.iter().filter_map(peer).collect();
        let gone = stream.peers.keys().filter(|id| !peers.contains_key(*id));
        changes.extend(gone.map(|id| NetworkChange::RemovePeer(*id)));
        let new = peers.iter().filter(|(id, peer)| stream.peers.get(*id) != Some(*peer));
        changes.extend(new.map(|(_, peer)| NetworkChange::PutPeer(peer.clone())));
        stream.peers = peers;
        for id in wanted.difference(&stream.networks) {
            let Some(net) = self.truth.networks.get(id) else { continue };
            changes.push(NetworkChange::PutNetwork(net.part.clone()));
            changes.extend(net.endpoints.values().map(|e| NetworkChange::PutEndpoint(*id, e.clone())));
            changes.extend(net.services.values().map(|s| NetworkChange::PutService(*id, s.clone())));
        }
        stream.networks = wanted;
        changes
    }

    fn own(&self, view: &View, id: &NodeId) -> Option<SelfPart> {
        let (node, cluster) = (view.node(id)?, view.cluster()?);
        Some(SelfPart {
            node: *id,
            index: node.index,
            addr: truth::address(node),
            entry: node.entry.clone(),
            data_port: cluster.spec.data_path_port,
            key_epoch: cluster.key_epoch,
            keys: self.keys.get(id).map(|keys| keys.confirmed.clone()).unwrap_or_default(),
        })
    }

    fn deliver(&mut self, node: NodeId, changes: Vec<NetworkChange>) -> Option<NetworksDelivery> {
        let stream = self.streams.get_mut(&node)?;
        let kind = AssignmentsKind::Incremental { applies_to: stream.sent };
        stream.sent += 1;
        let message = NetworksMessage { kind, results_in: stream.sent, changes };
        Some(NetworksDelivery { node, session: stream.session, message })
    }
}

/// Tasks that wait for all nodes to take them out of their rules before they are told to stop.
impl Networks {
    /// The task is to be kept from its node: others still send it connections. It is given back by
    /// [`Networks::take_released`].
    pub fn keep_back(&mut self, task: &Arc<Task>) -> bool {
        self.withdrawals.keep_back(task)
    }

    /// The task is kept back now: its node may not know yet that it is to stop.
    pub fn is_kept_back(&self, task: &TaskId) -> bool {
        self.withdrawals.is_held(task)
    }

    /// Tasks whose nodes may be told.
    pub fn take_released(&mut self, now: Timestamp) -> Vec<Arc<Task>> {
        self.withdrawals.take_released(now)
    }

    /// When [`Networks::take_released`] wants to be called at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.withdrawals.next_deadline()
    }

    fn is_exposed(&self, task: &Task) -> bool {
        let on =
            |id: &NetworkId| self.truth.networks.get(id).is_some_and(|n| n.endpoints.contains_key(&task.id));
        self.truth.networks_of_task(&task.id).iter().any(on)
    }

    /// Nodes that may send the task connections, and the number of the set that ends it. A node that
    /// is thought to be alive and has no session yet will be told when it registers.
    fn waiting_for(&self, view: &View, task: &TaskId) -> BTreeMap<NodeId, u64> {
        let networks = self.truth.networks_of_task(task);
        let here = networks.iter().flat_map(|network| self.truth.participants(network));
        let answers: BTreeSet<NodeId> = here.filter(|node| withdrawal::is_ready(view, node)).collect();
        let version = |node: &NodeId| self.streams.get(node).map_or(u64::MAX, |stream| stream.sent);
        answers.into_iter().map(|node| (node, version(&node))).collect()
    }
}

/// Other keys of a node's tunnel: it may use them when all who send to it know them.
impl Networks {
    fn watch_keys(&mut self, news: &News) {
        for id in &news.nodes {
            let Some(Some(peer)) = self.truth.nodes.get(id) else { continue };
            let keys = self.keys.entry(*id).or_default();
            if keys.told == peer.keys {
                continue;
            }
            keys.told.clone_from(&peer.keys);
            let knows = self.streams.iter().filter(|(_, stream)| stream.peers.contains_key(id));
            keys.waiting = knows.map(|(node, stream)| (*node, stream.sent)).collect();
        }
    }

    /// Messages to nodes whose keys are known to all now.
    pub fn confirm_keys(&mut self, view: &View) -> Vec<NetworksDelivery> {
        let known = |keys: &Keys| keys.confirmed != keys.told && keys.waiting.is_empty();
        let ready: Vec<NodeId> = self.keys.iter().filter(|(_, k)| known(k)).map(|(id, _)| *id).collect();
        let mut deliveries = Vec::new();
        for node in ready {
            if let Some(keys) = self.keys.get_mut(&node) {
                keys.confirmed.clone_from(&keys.told);
            }
            let changes = self.catch_up(view, node);
            if !changes.is_empty() {
                deliveries.extend(self.deliver(node, changes));
            }
        }
        deliveries
    }
}
