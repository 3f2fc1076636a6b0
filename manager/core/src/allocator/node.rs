//! Node: the number of each node, and its entry into the ingress network.
//!
//! Reads:   nodes, the ingress network.
//! Writes:  Node.index, Node.entry.
//! Never:   gives a number to two nodes.
//! Start:   [`Allocator::look_at_nodes`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::id::{NetworkId, NodeId};
use swarm_types::network::Network;
use swarm_types::node::Node;

use super::address::{Owner, Releases};
use super::range::RangeSet;
use super::waiting::Blocker;
use super::{Allocator, Full};
use crate::context::Context;
use crate::plan::Plan;
use crate::reason::Reason;

/// The greatest number: the last address of the tunnels' network is nobody's.
const LAST: u16 = u16::MAX - 1;

/// The numbers of nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Indexes {
    used: RangeSet,
    of: BTreeMap<NodeId, u16>,
}

impl Indexes {
    /// What a node has; 0: nothing.
    pub(super) fn put(&mut self, node: NodeId, index: u16) {
        let before = if index == 0 { self.of.remove(&node) } else { self.of.insert(node, index) };
        if let Some(before) = before {
            self.used.remove(before.into());
        }
        if index != 0 {
            self.used.insert(index.into());
        }
    }

    /// The number after the greatest, so that the number of a node that left is not soon another's;
    /// at the end of the numbers the lowest free one.
    fn next(&self) -> Option<u16> {
        let after = self.used.last_overlap(0, u128::MAX).map_or(1, |last| last + 1);
        let free =
            if after <= u128::from(LAST) { Some(after) } else { self.used.lowest_free(1, LAST.into()) };
        u16::try_from(free?).ok()
    }
}

fn held(node: &Node, ingress: Option<&Arc<Network>>) -> Vec<(NetworkId, IpAddr)> {
    let Some(network) = ingress else { return Vec::new() };
    let inside = |addr: &&IpAddr| network.subnets.iter().any(|s| s.net.contains(*addr));
    node.entry.iter().filter(inside).map(|addr| (network.id, *addr)).collect()
}

impl Allocator {
    /// Gives numbers and entries to the nodes that lack them, by id.
    pub(super) fn look_at_nodes(&mut self, plan: &mut Plan, ctx: &Context<'_>) -> Result<(), Full> {
        let ingress = plan.ingress_network().cloned();
        if std::mem::take(&mut self.dirty.ingress) {
            self.dirty.nodes.extend(plan.nodes().map(|n| n.id));
            // Before any is given: what they have.
            let nodes: Vec<Arc<Node>> = plan.nodes().cloned().collect();
            for node in nodes {
                self.addresses.put(Owner::Node(node.id), held(&node, ingress.as_ref()));
            }
            if ingress.is_some() {
                self.waiting.open(Blocker::Ingress);
            }
        }
        while let Some(id) = self.dirty.nodes.first().copied() {
            if plan.is_full() {
                return Err(Full);
            }
            self.look_at_node(plan, ctx, &id, ingress.as_ref());
            self.dirty.nodes.remove(&id);
        }
        Ok(())
    }

    fn look_at_node(
        &mut self,
        plan: &mut Plan,
        ctx: &Context<'_>,
        id: &NodeId,
        ingress: Option<&Arc<Network>>,
    ) {
        let Some(old) = plan.node(id).cloned() else { return };
        let mut node = Node::clone(&old);
        if node.index == 0 {
            node.index = self.indexes.next().unwrap_or(0);
            self.indexes.put(node.id, node.index);
        }
        let had = held(&old, ingress);
        let complete = ingress.map_or(0, |n| n.subnets.len()) == had.len();
        if !complete || had.len() != old.entry.len() {
            // An entry of one family without the other is given back with it.
            let free = ingress.and_then(|n| self.addresses.free(n).ok());
            let entry =
                if complete { had.iter().map(|(_, a)| *a).collect() } else { free.unwrap_or_default() };
            if let (Some(network), false) = (ingress, complete) {
                let mut releases = Releases::default();
                had.iter().for_each(|(_, addr)| releases.add(network.id, &[*addr], ctx.now));
                self.release(plan, ctx, releases);
            }
            if let (Some(_), true) = (ingress, entry.is_empty()) {
                self.without_entry.insert(node.id);
            }
            node.entry = entry;
            self.addresses.put(Owner::Node(node.id), held(&node, ingress));
        }
        plan.put_node(node, Reason::NodeNumbered);
    }
}
