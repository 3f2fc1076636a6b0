//! What users ask for, and how a leader decides it: the shipped `control` functions.

use std::sync::Arc;

use swarm_manager_core::context::Context;
use swarm_manager_core::control::cluster::Joining;
use swarm_manager_core::control::{self, Denied, resolve};
use swarm_manager_core::role::{self, Member};
use swarm_manager_core::store::Draft;
use swarm_types::id::NodeId;
use swarm_types::network::NetworkSpec;
use swarm_types::node::{Availability, ManagerMembership, NodeSpec, Role};
use swarm_types::service::{Mode, ServiceSpec};
use swarm_types::task::TaskSpec;

/// Something that a user, or the leader's driver, wants written.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Command {
    Create(ServiceSpec),
    /// A service gets another spec: this one, but for its name.
    Update {
        name: String,
        change: Change,
    },
    Rollback(String),
    Remove(String),
    CreateNetwork(NetworkSpec),
    RemoveNetwork(String),
    Node {
        name: String,
        change: NodeChange,
    },
    RemoveNode {
        name: String,
        force: bool,
    },
    /// A machine shows a join token.
    Join {
        host: usize,
        node: NodeId,
        role: Role,
    },
    /// Of the leader's driver: a node has its role.
    SetRole(NodeId, Role),
    /// Of the leader's driver: a node is a member of the group.
    SetMembership(NodeId, ManagerMembership),
}

/// A change of a service.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Change {
    Replicas(u64),
    Label(String),
    /// Another template.
    Task(fn(&mut TaskSpec, &str), String),
    /// Anything else.
    Spec(fn(&mut ServiceSpec, &str), String),
}

/// A change of a node.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum NodeChange {
    Availability(Availability),
    Label(String, Option<String>),
    Role(Role),
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is written.
    Done,
    /// It is not, and will not be: why.
    Denied(String),
    /// It is not: this manager does not lead, or cannot now. Perhaps this one does.
    Elsewhere(Option<usize>),
}

impl Command {
    /// Decides it on a draft.
    ///
    /// # Errors
    /// As the `control` function that it stands for.
    pub fn decide(&self, draft: &mut Draft, ctx: &mut Context<'_>, members: &[Member]) -> Result<(), Denied> {
        match self {
            Command::Create(spec) => control::service::create(draft, spec.clone(), ctx).map(|_| ()),
            Command::Update { name, change } => {
                let service = resolve::service(draft, name)?.clone();
                let mut spec = service.spec.clone();
                change.apply(&mut spec);
                control::service::update(draft, &service.id, service.meta.version, spec)
            }
            Command::Rollback(name) => {
                let service = resolve::service(draft, name)?.clone();
                control::service::rollback(draft, &service.id, service.meta.version)
            }
            Command::Remove(name) => {
                let id = resolve::service(draft, name)?.id;
                control::service::remove(draft, &id)
            }
            Command::CreateNetwork(spec) => control::network::create(draft, spec.clone(), ctx).map(|_| ()),
            Command::RemoveNetwork(name) => {
                let id = resolve::network(draft, name)?.id;
                control::network::remove(draft, &id)
            }
            Command::Node { name, change } => {
                let node = resolve::node(draft, name)?.clone();
                let mut spec = node.spec.clone();
                change.apply(&mut spec);
                control::node::update(draft, &node.id, node.meta.version, spec, members)
            }
            Command::RemoveNode { name, force } => {
                let id = resolve::node(draft, name)?.id;
                control::node::remove(draft, &id, *force)
            }
            Command::Join { host, node, role } => {
                let (availability, addr) = (Availability::Active, format!("10.0.0.{host}"));
                control::cluster::join(draft, &Joining { node: *node, role: *role, availability, addr })
            }
            Command::SetRole(node, role) => {
                role::set_role(draft, node, *role);
                Ok(())
            }
            Command::SetMembership(node, membership) => {
                role::set_membership(draft, node, membership.clone());
                Ok(())
            }
        }
    }
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, spec: &mut ServiceSpec) {
        match self {
            Change::Replicas(n) => spec.mode = Mode::Replicated { replicas: *n },
            Change::Label(value) => {
                spec.annotations.labels.insert("l".into(), value.clone());
            }
            Change::Task(change, value) => change(Arc::make_mut(&mut spec.task), value),
            Change::Spec(change, value) => change(spec, value),
        }
    }
}

impl NodeChange {
    fn apply(&self, spec: &mut NodeSpec) {
        match self {
            NodeChange::Availability(availability) => spec.availability = *availability,
            NodeChange::Label(key, Some(value)) => {
                spec.annotations.labels.insert(key.clone(), value.clone());
            }
            NodeChange::Label(key, None) => {
                spec.annotations.labels.remove(key);
            }
            NodeChange::Role(role) => spec.role = *role,
        }
    }
}
