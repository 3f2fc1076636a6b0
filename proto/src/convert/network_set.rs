//! What a node is told of the networks, and what it says of them.

use std::sync::Arc;

use swarm_types::assignment::AssignmentsKind;
use swarm_types::network_set::{
    NetworkChange, NetworkDifference, NetworkPart, NetworkProblem, NetworksMessage, Peer, SelfPart,
    ServiceEndpoint, TaskEndpoint,
};

use super::network::{
    addr, addrs, balance, driver, endpoint_mode, maybe_addr, maybe_text, net, ports, short, texts,
};
use super::{Malformed, id, required};
use crate::v1;
use v1::network_change::Change;

impl From<&NetworksMessage> for v1::Networks {
    fn from(m: &NetworksMessage) -> Self {
        v1::Networks {
            applies_to: match m.kind {
                AssignmentsKind::Complete => None,
                AssignmentsKind::Incremental { applies_to } => Some(applies_to),
            },
            results_in: m.results_in,
            changes: m.changes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Networks> for NetworksMessage {
    type Error = Malformed;
    fn try_from(m: v1::Networks) -> Result<Self, Malformed> {
        let changes: Result<_, Malformed> = m.changes.into_iter().map(NetworkChange::try_from).collect();
        Ok(NetworksMessage {
            kind: match m.applies_to {
                None => AssignmentsKind::Complete,
                Some(applies_to) => AssignmentsKind::Incremental { applies_to },
            },
            results_in: m.results_in,
            changes: changes.map_err(|e| e.within("changes"))?,
        })
    }
}

impl From<&NetworkChange> for v1::NetworkChange {
    fn from(change: &NetworkChange) -> Self {
        let member = |network_id: String, task: String, service: String| v1::NetworkMember {
            network_id,
            task,
            service,
        };
        let none = String::new();
        let change = match change {
            NetworkChange::PutSelf(own) => Change::PutSelf(own.as_ref().into()),
            NetworkChange::PutPeer(peer) => Change::PutPeer(peer.as_ref().into()),
            NetworkChange::RemovePeer(node) => Change::RemovePeer(node.to_string()),
            NetworkChange::PutNetwork(network) => Change::PutNetwork(network.as_ref().into()),
            NetworkChange::RemoveNetwork(network) => Change::RemoveNetwork(network.to_string()),
            NetworkChange::PutEndpoint(network, e) => {
                Change::PutEndpoint(v1::TaskEndpoint { network_id: network.to_string(), ..e.as_ref().into() })
            }
            NetworkChange::RemoveEndpoint(network, task) => {
                Change::RemoveEndpoint(member(network.to_string(), task.to_string(), none))
            }
            NetworkChange::PutService(network, s) => Change::PutService(v1::ServiceEndpoint {
                network_id: network.to_string(),
                ..s.as_ref().into()
            }),
            NetworkChange::RemoveService(network, service) => {
                Change::RemoveService(member(network.to_string(), none, service.to_string()))
            }
        };
        v1::NetworkChange { change: Some(change) }
    }
}

impl TryFrom<v1::NetworkChange> for NetworkChange {
    type Error = Malformed;
    fn try_from(change: v1::NetworkChange) -> Result<Self, Malformed> {
        Ok(match required(change.change, "change")? {
            Change::PutSelf(own) => NetworkChange::PutSelf(Arc::new(own.try_into()?)),
            Change::PutPeer(peer) => NetworkChange::PutPeer(Arc::new(peer.try_into()?)),
            Change::RemovePeer(node) => NetworkChange::RemovePeer(id(&node, "remove_peer")?),
            Change::PutNetwork(network) => NetworkChange::PutNetwork(Arc::new(network.try_into()?)),
            Change::RemoveNetwork(network) => NetworkChange::RemoveNetwork(id(&network, "remove_network")?),
            Change::PutEndpoint(e) => {
                NetworkChange::PutEndpoint(id(&e.network_id, "network_id")?, Arc::new(e.try_into()?))
            }
            Change::RemoveEndpoint(m) => {
                NetworkChange::RemoveEndpoint(id(&m.network_id, "network_id")?, id(&m.task, "task")?)
            }
            Change::PutService(s) => {
                NetworkChange::PutService(id(&s.network_id, "network_id")?, Arc::new(s.try_into()?))
            }
            Change::RemoveService(m) => {
                NetworkChange::RemoveService(id(&m.network_id, "network_id")?, id(&m.service, "service")?)
            }
        })
    }
}

impl From<&SelfPart> for v1::SelfPart {
    fn from(s: &SelfPart) -> Self {
        v1::SelfPart {
            node_id: s.node.to_string(),
            index: s.index.into(),
            addr: maybe_text(s.addr),
            entry: texts(&s.entry),
            data_port: s.data_port.into(),
            key_epoch: s.key_epoch,
            keys: s.keys.clone(),
        }
    }
}

impl TryFrom<v1::SelfPart> for SelfPart {
    type Error = Malformed;
    fn try_from(s: v1::SelfPart) -> Result<Self, Malformed> {
        Ok(SelfPart {
            node: id(&s.node_id, "node_id")?,
            index: short(s.index, "index")?,
            addr: maybe_addr(&s.addr, "addr")?,
            entry: addrs(&s.entry, "entry")?,
            data_port: short(s.data_port, "data_port")?,
            key_epoch: s.key_epoch,
            keys: s.keys,
        })
    }
}

impl From<&Peer> for v1::Peer {
    fn from(p: &Peer) -> Self {
        v1::Peer {
            node_id: p.node.to_string(),
            index: p.index.into(),
            addr: p.addr.to_string(),
            entry: texts(&p.entry),
            keys: p.keys.clone(),
            tunnel_port: p.tunnel_port.into(),
        }
    }
}

impl TryFrom<v1::Peer> for Peer {
    type Error = Malformed;
    fn try_from(p: v1::Peer) -> Result<Self, Malformed> {
        Ok(Peer {
            node: id(&p.node_id, "node_id")?,
            index: short(p.index, "index")?,
            addr: addr(&p.addr, "addr")?,
            entry: addrs(&p.entry, "entry")?,
            keys: p.keys,
            tunnel_port: short(p.tunnel_port, "tunnel_port")?,
        })
    }
}

impl From<&NetworkPart> for v1::NetworkPart {
    fn from(n: &NetworkPart) -> Self {
        let subnet = |(net, gateway): &(ipnet::IpNet, std::net::IpAddr)| v1::SubnetGateway {
            net: net.to_string(),
            gateway: gateway.to_string(),
        };
        v1::NetworkPart {
            id: n.id.to_string(),
            name: n.name.clone(),
            driver: v1::network_spec::Driver::from(n.driver).into(),
            vni: n.vni,
            subnets: n.subnets.iter().map(subnet).collect(),
            internal: n.internal,
            ingress: n.ingress,
            encrypted: n.encrypted,
            mtu: n.mtu,
            options: n.options.clone(),
        }
    }
}

impl TryFrom<v1::NetworkPart> for NetworkPart {
    type Error = Malformed;
    fn try_from(n: v1::NetworkPart) -> Result<Self, Malformed> {
        let subnet = |s: v1::SubnetGateway| Ok((net(&s.net, "subnets")?, addr(&s.gateway, "subnets")?));
        Ok(NetworkPart {
            id: id(&n.id, "id")?,
            name: n.name,
            driver: driver(n.driver, "driver")?,
            vni: n.vni,
            subnets: n.subnets.into_iter().map(subnet).collect::<Result<_, Malformed>>()?,
            internal: n.internal,
            ingress: n.ingress,
            encrypted: n.encrypted,
            mtu: n.mtu,
            options: n.options,
        })
    }
}

impl From<&TaskEndpoint> for v1::TaskEndpoint {
    /// Without the network, which the change names.
    fn from(e: &TaskEndpoint) -> Self {
        v1::TaskEndpoint {
            network_id: String::new(),
            task_id: e.task.to_string(),
            node_id: e.node.to_string(),
            service_id: e.service.to_string(),
            name: e.name.clone(),
            addrs: texts(&e.addrs),
            serving: e.serving,
            weight: e.weight,
        }
    }
}

impl TryFrom<v1::TaskEndpoint> for TaskEndpoint {
    type Error = Malformed;
    fn try_from(e: v1::TaskEndpoint) -> Result<Self, Malformed> {
        Ok(TaskEndpoint {
            task: id(&e.task_id, "task_id")?,
            node: id(&e.node_id, "node_id")?,
            service: id(&e.service_id, "service_id")?,
            name: e.name,
            addrs: addrs(&e.addrs, "addrs")?,
            serving: e.serving,
            weight: e.weight,
        })
    }
}

impl From<&ServiceEndpoint> for v1::ServiceEndpoint {
    /// Without the network, which the change names.
    fn from(s: &ServiceEndpoint) -> Self {
        v1::ServiceEndpoint {
            network_id: String::new(),
            service_id: s.service.to_string(),
            name: s.name.clone(),
            aliases: s.aliases.clone(),
            mode: v1::endpoint_spec::Mode::from(s.mode).into(),
            balance: v1::endpoint_spec::Balance::from(s.balance).into(),
            vips: texts(&s.vips),
            ports: s.ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::ServiceEndpoint> for ServiceEndpoint {
    type Error = Malformed;
    fn try_from(s: v1::ServiceEndpoint) -> Result<Self, Malformed> {
        Ok(ServiceEndpoint {
            service: id(&s.service_id, "service_id")?,
            name: s.name,
            aliases: s.aliases,
            mode: endpoint_mode(s.mode, "mode")?,
            balance: balance(s.balance, "balance")?,
            vips: addrs(&s.vips, "vips")?,
            ports: ports(s.ports)?,
        })
    }
}

impl From<&NetworkProblem> for v1::NetworkProblem {
    fn from(p: &NetworkProblem) -> Self {
        v1::NetworkProblem { subject: p.subject.clone(), text: p.text.clone() }
    }
}

impl From<v1::NetworkProblem> for NetworkProblem {
    fn from(p: v1::NetworkProblem) -> Self {
        NetworkProblem { subject: p.subject, text: p.text }
    }
}

impl From<&NetworkDifference> for v1::NetworkDifference {
    fn from(d: &NetworkDifference) -> Self {
        v1::NetworkDifference { place: d.place.clone(), what: d.what.clone(), how: d.how.clone() }
    }
}

impl From<v1::NetworkDifference> for NetworkDifference {
    fn from(d: v1::NetworkDifference) -> Self {
        NetworkDifference { place: d.place, what: d.what, how: d.how }
    }
}
