//! What a node is told of the networks: a complete set once a session, then differences.
//!
//! A node knows the networks that its tasks are on, and the ingress network. What it is told is the
//! truth: it makes the kernel agree, and goes on with what it was told last when no manager answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::assignment::AssignmentsKind;
use crate::endpoint::{Balance, EndpointMode, Port};
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::network::NetworkDriver;

/// One message of the stream from a dispatcher to an agent. Numbers are those of its own chain, not
/// the one of assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworksMessage {
    /// Whole set or difference.
    pub kind: AssignmentsKind,
    /// Number of this message. The agent says this number when the kernel agrees.
    pub results_in: u64,
    /// What is to be there, changed or gone; to be taken in this order.
    pub changes: Vec<NetworkChange>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NetworkChange {
    PutSelf(Arc<SelfPart>),
    PutPeer(Arc<Peer>),
    RemovePeer(NodeId),
    /// Keeps the endpoints and services that the network has.
    PutNetwork(Arc<NetworkPart>),
    /// With its endpoints and services.
    RemoveNetwork(NetworkId),
    PutEndpoint(NetworkId, Arc<TaskEndpoint>),
    RemoveEndpoint(NetworkId, TaskId),
    PutService(NetworkId, Arc<ServiceEndpoint>),
    RemoveService(NetworkId, ServiceId),
}

/// What a node must know of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelfPart {
    /// Its id.
    pub node: NodeId,
    /// Its number, from 1; unique in the cluster. In the MAC addresses of its tunnels' ends.
    pub index: u16,
    /// Its own address under which other nodes reach it.
    pub addr: Option<IpAddr>,
    /// Its own addresses on the ingress network: what a task sees when the node itself calls.
    pub entry: Vec<IpAddr>,
    /// UDP port of VXLAN.
    pub data_port: u16,
    /// When this grows, make another key for the tunnel.
    pub key_epoch: u64,
    /// Its public keys that all nodes which send to it know: it may use these.
    pub keys: Vec<String>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Its number.
    pub index: u16,
    /// The address that it is reached under.
    pub addr: IpAddr,
    /// Its addresses on the ingress network.
    pub entry: Vec<IpAddr>,
    /// Public keys of its tunnel in base64, the one to be used first; two while it changes them.
    pub keys: Vec<String>,
    /// UDP port of its tunnel.
    pub tunnel_port: u16,
}

/// A network that the node takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPart {
    /// Its id.
    pub id: NetworkId,
    /// Its name, for people and comments.
    pub name: String,
    /// What makes it real.
    pub driver: NetworkDriver,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Subnets and the gateway of each.
    pub subnets: Vec<(IpNet, IpAddr)>,
    /// No way out, no names of the world.
    pub internal: bool,
    /// It is the one of published ports and the way out.
    pub ingress: bool,
    /// Through the tunnel only.
    pub encrypted: bool,
    /// Bytes of a packet; 0: as many as the underlay allows.
    pub mtu: u32,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// A task on a network. It is there from ASSIGNED until it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEndpoint {
    /// Which task.
    pub task: TaskId,
    /// Where it runs.
    pub node: NodeId,
    /// Its service.
    pub service: ServiceId,
    /// Its name (`web.3`).
    pub name: String,
    /// Its addresses on this network.
    pub addrs: Vec<IpAddr>,
    /// It runs and is not asked to stop: new connections and names lead to it.
    pub serving: bool,
    /// Its share of new connections, from 1 to 100.
    pub weight: u32,
}

/// A service on a network: what its name stands for, and where its virtual address leads: to those
/// of its tasks on the network that are serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Which service.
    pub service: ServiceId,
    /// Its name, and more names on this network.
    pub name: String,
    /// See [`crate::network::AttachmentSpec::aliases`].
    pub aliases: Vec<String>,
    /// What its name stands for.
    pub mode: EndpointMode,
    /// Which task a new connection gets.
    pub balance: Balance,
    /// Its virtual addresses on this network; none with dnsrr.
    pub vips: Vec<IpAddr>,
    /// Its published ports, ingress and host; on the ingress network only.
    pub ports: Vec<Port>,
}

/// All that a node was told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSet {
    /// Number of the last message taken in; 0: none, or from an earlier session.
    pub version: u64,
    /// Itself; none until a manager said it.
    pub own: Option<Arc<SelfPart>>,
    /// The other nodes.
    pub peers: BTreeMap<NodeId, Arc<Peer>>,
    /// The networks that it takes part in.
    pub networks: BTreeMap<NetworkId, NetworkEntry>,
}

/// One network of a [`NetworkSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkEntry {
    /// What it is.
    pub network: Arc<NetworkPart>,
    /// Its tasks, on all nodes.
    pub endpoints: BTreeMap<TaskId, Arc<TaskEndpoint>>,
    /// Its services.
    pub services: BTreeMap<ServiceId, Arc<ServiceEndpoint>>,
}

impl NetworkSet {
    /// Takes in a message that fits (the caller has checked the chain).
    pub fn take(&mut self, message: &NetworksMessage) {
        if message.kind == AssignmentsKind::Complete {
            *self = Self::default();
        }
        message.changes.iter().for_each(|change| self.change(change));
        self.version = message.results_in;
    }

    /// The ingress network, if there is one.
    pub fn ingress(&self) -> Option<&NetworkEntry> {
        self.networks.values().find(|entry| entry.network.ingress)
    }

    /// The set as one complete message.
    pub fn to_changes(&self) -> Vec<NetworkChange> {
        let own = self.own.iter().cloned().map(NetworkChange::PutSelf);
        let peers = self.peers.values().cloned().map(NetworkChange::PutPeer);
        let mut changes: Vec<_> = own.chain(peers).collect();
        for (id, entry) in &self.networks {
            changes.push(NetworkChange::PutNetwork(entry.network.clone()));
            changes.extend(entry.endpoints.values().map(|e| NetworkChange::PutEndpoint(*id, e.clone())));
            changes.extend(entry.services.values().map(|s| NetworkChange::PutService(*id, s.clone())));
        }
        changes
    }

    fn change(&mut self, change: &NetworkChange) {
        match change {
            NetworkChange::PutSelf(own) => self.own = Some(own.clone()),
            NetworkChange::PutPeer(peer) => drop(self.peers.insert(peer.node, peer.clone())),
            NetworkChange::RemovePeer(node) => drop(self.peers.remove(node)),
            NetworkChange::PutNetwork(network) => match self.networks.get_mut(&network.id) {
                Some(entry) => entry.network = network.clone(),
                None => {
                    let (endpoints, services) = (BTreeMap::new(), BTreeMap::new());
                    let entry = NetworkEntry { network: network.clone(), endpoints, services };
                    self.networks.insert(network.id, entry);
                }
            },
            NetworkChange::RemoveNetwork(id) => drop(self.networks.remove(id)),
            NetworkChange::PutEndpoint(id, endpoint) => {
                if let Some(entry) = self.networks.get_mut(id) {
                    entry.endpoints.insert(endpoint.task, endpoint.clone());
                }
            }
            NetworkChange::RemoveEndpoint(id, task) => {
                if let Some(entry) = self.networks.get_mut(id) {
                    entry.endpoints.remove(task);
                }
            }
            NetworkChange::PutService(id, service) => {
                if let Some(entry) = self.networks.get_mut(id) {
                    entry.services.insert(service.service, service.clone());
                }
            }
            NetworkChange::RemoveService(id, service) => {
                if let Some(entry) = self.networks.get_mut(id) {
                    entry.services.remove(service);
                }
            }
        }
    }
}

impl NetworkEntry {
    /// The tasks that new connections to a service lead to, by id.
    pub fn serving(&self, service: ServiceId) -> impl Iterator<Item = &Arc<TaskEndpoint>> {
        self.endpoints.values().filter(move |e| e.service == service && e.serving)
    }
}

/// Something that a node could not make so, or found wrong. Reported to the managers, shown to users.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkProblem {
    /// What it is about: `port 8080/tcp`, `network web`, `firewall`, `conntrack`, `tunnel` …
    pub subject: String,
    /// What is wrong, why, and what to do.
    pub text: String,
}

/// A difference between what a node wants and what its kernel has (`swarmctl network check`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkDifference {
    /// The namespace: `host`, or the name of a network.
    pub place: String,
    /// What it is about, as `ip` or `nft` would print it.
    pub what: String,
    /// `missing`, `unexpected` or how it differs.
    pub how: String,
}
