//! Nodes.

use swarm_types::node::{
    Availability, ManagerMembership, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role,
};
use swarm_types::time::Timestamp;

use super::network::{addrs, short, texts};
use super::{Malformed, id, nested, required};
use crate::v1;
use v1::node_status::State;

impl From<Role> for v1::Role {
    fn from(r: Role) -> Self {
        match r {
            Role::Worker => v1::Role::Worker,
            Role::Manager => v1::Role::Manager,
        }
    }
}

impl From<v1::Role> for Role {
    fn from(r: v1::Role) -> Self {
        match r {
            v1::Role::Worker => Role::Worker,
            v1::Role::Manager => Role::Manager,
        }
    }
}

impl From<Availability> for v1::Availability {
    fn from(a: Availability) -> Self {
        match a {
            Availability::Active => v1::Availability::Active,
            Availability::Pause => v1::Availability::Pause,
            Availability::Drain => v1::Availability::Drain,
        }
    }
}

impl From<v1::Availability> for Availability {
    fn from(a: v1::Availability) -> Self {
        match a {
            v1::Availability::Active => Availability::Active,
            v1::Availability::Pause => Availability::Pause,
            v1::Availability::Drain => Availability::Drain,
        }
    }
}

fn role(number: i32, field: &str) -> Result<Role, Malformed> {
    v1::Role::try_from(number).map(Into::into).map_err(|e| Malformed::new(field, e))
}

impl From<&NodeSpec> for v1::NodeSpec {
    fn from(s: &NodeSpec) -> Self {
        v1::NodeSpec {
            annotations: Some((&s.annotations).into()),
            role: v1::Role::from(s.role).into(),
            availability: v1::Availability::from(s.availability).into(),
        }
    }
}

impl TryFrom<v1::NodeSpec> for NodeSpec {
    type Error = Malformed;
    fn try_from(s: v1::NodeSpec) -> Result<Self, Malformed> {
        let availability = v1::Availability::try_from(s.availability);
        Ok(NodeSpec {
            annotations: required(s.annotations, "annotations")?.into(),
            role: role(s.role, "role")?,
            availability: availability.map_err(|e| Malformed::new("availability", e))?.into(),
        })
    }
}

impl From<&NodeDescription> for v1::NodeDescription {
    fn from(d: &NodeDescription) -> Self {
        v1::NodeDescription {
            hostname: d.hostname.clone(),
            platform: Some((&d.platform).into()),
            resources: Some(d.resources.into()),
            engine_version: d.engine_version.clone(),
            engine_labels: d.engine_labels.clone(),
            missing_controllers: d.missing_controllers.clone(),
            network: Some((&d.network).into()),
        }
    }
}

impl TryFrom<v1::NodeDescription> for NodeDescription {
    type Error = Malformed;
    fn try_from(d: v1::NodeDescription) -> Result<Self, Malformed> {
        Ok(NodeDescription {
            hostname: d.hostname,
            platform: required(d.platform, "platform")?.into(),
            resources: required(d.resources, "resources")?.into(),
            engine_version: d.engine_version,
            engine_labels: d.engine_labels,
            missing_controllers: d.missing_controllers,
            network: d.network.map(TryFrom::try_from).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<&Node> for v1::Node {
    fn from(n: &Node) -> Self {
        let state = match n.status.state {
            NodeState::Unknown => State::Unknown,
            NodeState::Down => State::Down,
            NodeState::Ready => State::Ready,
            NodeState::Disconnected => State::Disconnected,
        };
        v1::Node {
            id: n.id.to_string(),
            meta: Some(n.meta.into()),
            spec: Some((&n.spec).into()),
            description: Some((&n.description).into()),
            status: Some(v1::NodeStatus {
                state: state.into(),
                message: n.status.message.clone(),
                addr: n.status.addr.clone(),
                since_ms: n.status.since.0,
            }),
            role: v1::Role::from(n.role).into(),
            index: n.index.into(),
            entry: texts(&n.entry),
            manager: n
                .manager
                .as_ref()
                .map(|m| v1::ManagerMembership { raft_id: m.raft_id, addr: m.addr.clone() }),
        }
    }
}

impl TryFrom<v1::NodeStatus> for NodeStatus {
    type Error = Malformed;
    fn try_from(s: v1::NodeStatus) -> Result<Self, Malformed> {
        let state = State::try_from(s.state).map_err(|e| Malformed::new("state", e))?;
        Ok(NodeStatus {
            state: match state {
                State::Unknown => NodeState::Unknown,
                State::Down => NodeState::Down,
                State::Ready => NodeState::Ready,
                State::Disconnected => NodeState::Disconnected,
            },
            message: s.message,
            addr: s.addr,
            since: Timestamp(s.since_ms),
        })
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = Malformed;
    fn try_from(n: v1::Node) -> Result<Self, Malformed> {
        Ok(Node {
            id: id(&n.id, "id")?,
            meta: required(n.meta, "meta")?.into(),
            spec: nested(n.spec, "spec")?,
            description: nested(n.description, "description")?,
            status: nested(n.status, "status")?,
            role: role(n.role, "role")?,
            index: short(n.index, "index")?,
            entry: addrs(&n.entry, "entry")?,
            manager: n.manager.map(|m| ManagerMembership { raft_id: m.raft_id, addr: m.addr }),
        })
    }
}
