//! Mode: which slots of a service should exist, and which go first when there are too many.
//!
//! Reads:   the service's mode, its active slots, nodes.
//! Writes:  nothing.
//! Never:   looks at restart policies or updates.
//! Start:   [`lowest_free`], [`surplus`], [`belongs_on`].

use std::collections::{BTreeMap, BTreeSet};

use swarm_types::id::{NodeId, ServiceId};
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task_state::TaskState;

use super::slot::{Slot, numbered};
use crate::scheduler::filter;
use crate::store::View;

/// The lowest slot numbers, from 1, that are not active.
pub fn lowest_free(active: &BTreeSet<u64>) -> impl Iterator<Item = u64> {
    let mut taken = active.iter().copied().peekable();
    (1u64..).filter(move |n| {
        while taken.peek().is_some_and(|t| t < n) {
            taken.next();
        }
        taken.peek() != Some(n)
    })
}

/// The `count` slots to give up first (swarm.md B5): those without a running task, then those on the
/// nodes with most copies; among equals the higher number.
pub fn surplus(view: &View, service: &ServiceId, active: &BTreeSet<u64>, count: usize) -> Vec<u64> {
    let mut idle = BTreeSet::new();
    let mut by_node: BTreeMap<NodeId, BTreeSet<u64>> = BTreeMap::new();
    for &number in active {
        let slot = Slot::read(view, service, numbered(number));
        match slot.wanted().find(|t| t.status.state == TaskState::Running) {
            Some(task) => by_node.entry(task.node).or_default().insert(number),
            None => idle.insert(number),
        };
    }
    let mut first: Vec<u64> = idle.into_iter().rev().take(count).collect();
    // (copies on the node, its highest slot, node): the greatest gives up its highest slot.
    let rank = |slots: &BTreeSet<u64>| slots.last().map(|&top| (slots.len(), top));
    let mut queue: BTreeSet<((usize, u64), NodeId)> =
        by_node.iter().filter_map(|(node, slots)| Some((rank(slots)?, *node))).collect();
    while first.len() < count {
        let Some((_, node)) = queue.pop_last() else { break };
        let Some(slots) = by_node.get_mut(&node) else { continue };
        first.extend(slots.pop_last());
        queue.extend(rank(slots).map(|rank| (rank, node)));
    }
    first
}

/// A task of a global service may be started on the node. One that has it may keep it longer: see
/// the enforcer.
pub fn belongs_on(service: &Service, node: &Node) -> bool {
    node.takes_tasks() && filter::fits_forever(&service.spec.task, node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_first() {
        let free = |taken: &[u64]| lowest_free(&taken.iter().copied().collect()).take(3).collect::<Vec<_>>();
        assert_eq!(free(&[]), [1, 2, 3]);
        assert_eq!(free(&[1, 3]), [2, 4, 5]);
        assert_eq!(free(&[2, 3, 9]), [1, 4, 5]);
    }
}
