//! A node: a machine that belongs to the cluster.

use std::net::IpAddr;

use crate::id::NodeId;
use crate::meta::{Annotations, Labels, Meta};
use crate::placement::Platform;
use crate::resources::Resources;
use crate::site::SitePrefix;
use crate::time::Timestamp;

/// A node as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its id: the CN of its certificate.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What users want of it.
    pub spec: NodeSpec,
    /// What its agent told of it.
    pub description: NodeDescription,
    /// Whether it answers.
    pub status: NodeStatus,
    /// The role that it has now: the one in its certificate. Follows `spec.role`.
    pub role: Role,
    /// Its number on the networks, from 1; 0 until it has one.
    pub index: u16,
    /// Its own addresses on the ingress network.
    pub entry: Vec<IpAddr>,
    /// Its membership of the managers' Raft group, if it is a manager.
    pub manager: Option<ManagerMembership>,
}

/// What users want of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSpec {
    /// Name (mostly empty: the host name is shown) and labels for constraints.
    pub annotations: Annotations,
    /// The role that it shall have.
    pub role: Role,
    /// May it have tasks?
    pub availability: Availability,
}

/// What a node is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Keeps the cluster's state too.
    Manager,
}

impl Role {
    /// `worker` or `manager`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }
}

/// May a node have tasks?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Availability {
    /// Yes.
    #[default]
    Active,
    /// It keeps those it has and gets no new ones.
    Pause,
    /// No: those it has are stopped and replaced elsewhere.
    Drain,
}

impl Availability {
    /// `active`, `pause` or `drain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        }
    }
}

/// What an agent tells of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Operating system and architecture.
    pub platform: Platform,
    /// What it has for tasks.
    pub resources: Resources,
    /// Version of swarmd.
    pub engine_version: String,
    /// Labels from the daemon's own settings. Not to be trusted: the node says them of itself.
    pub engine_labels: Labels,
    /// Its end of the networks.
    pub network: NetworkDescription,
    /// Limits that the machine cannot enforce (`cpu`, `memory`, `pids`).
    pub missing_controllers: Vec<String>,
}

/// What an agent tells of its end of the networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkDescription {
    /// Public keys of its tunnel in base64, the one to be used first; two while it changes them.
    pub keys: Vec<String>,
    /// UDP port of its tunnel; 0: it has none.
    pub tunnel_port: u16,
    /// What encrypts: `kernel`, `user space`, or empty if nothing can.
    pub encryption: String,
    /// The address for the traffic of networks (`--data-path-addr`); none: the one it is seen under.
    pub data_addr: Option<IpAddr>,
    /// What the host uses outside of the cluster's networks; sorted.
    pub site: Vec<SitePrefix>,
}

/// Whether a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// Its state.
    pub state: NodeState,
    /// Why it is in that state.
    pub message: String,
    /// The address that it is seen under, without a port.
    pub addr: String,
    /// When `state` changed last (leader's clock).
    pub since: Timestamp,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum NodeState {
    /// Not heard of since there is this leader.
    #[default]
    Unknown,
    /// Does not answer, or said good-bye.
    Down,
    /// Answers.
    Ready,
    /// Its session ended and it may come back at once.
    Disconnected,
}

impl NodeState {
    /// Docker's word for it, lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Down => "down",
            NodeState::Ready => "ready",
            NodeState::Disconnected => "disconnected",
        }
    }
}

/// A node's membership of the Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManagerMembership {
    /// Its number in the group.
    pub raft_id: u64,
    /// `host:port` under which other nodes reach it.
    pub addr: String,
}

impl Node {
    /// The name that people know it by: its own if it has one, else the host's.
    pub fn display_name(&self) -> &str {
        match self.spec.annotations.name.as_str() {
            "" => &self.description.hostname,
            name => name,
        }
    }
    /// New tasks may go to it.
    pub fn takes_tasks(&self) -> bool {
        self.status.state == NodeState::Ready && self.spec.availability == Availability::Active
    }
}
