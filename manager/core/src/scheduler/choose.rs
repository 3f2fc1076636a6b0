//! Choose: the best nodes for a number of tasks that are alike.
//!
//! Reads:   the totals of nodes, a template.
//! Writes:  the totals, as if the tasks were placed.
//! Never:   knows which tasks they are.
//! Start:   [`choose`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use swarm_types::task::TaskSpec;
use swarm_types::time::Timestamp;

use super::GroupKey;
use super::filter::{check, check_totals};
use super::node_info::{NodeInfo, NodeTable};
use super::score::Score;

/// Places in [`NodeTable::infos`] for up to `count` tasks of a group, one after the other, each the
/// best at its turn; fewer if no node fits any more. `encrypted`: a network of theirs is.
pub fn choose(
    table: &mut NodeTable,
    spec: &TaskSpec,
    encrypted: bool,
    group: &GroupKey,
    count: usize,
    now: Timestamp,
) -> Vec<usize> {
    let may = |info: &NodeInfo| check(spec, encrypted, &group.service, info).is_none();
    let fits = table.infos().iter().enumerate().filter(|(_, info)| may(info));
    let scores: Vec<_> = fits.map(|(i, info)| Reverse(Score::of(info, i, group, now))).collect();
    let mut best = BinaryHeap::from(scores);
    let mut chosen = Vec::with_capacity(count.min(1 << 16));
    while chosen.len() < count {
        let Some(mut top) = best.peek_mut() else { break };
        let index = top.0.node;
        chosen.push(index);
        table.reserve(index, spec, &group.service);
        let info = &table.infos()[index];
        if check_totals(spec, &group.service, info).is_none() {
            top.0 = Score::of(info, index, group, now);
        } else {
            PeekMut::pop(top);
        }
    }
    chosen
}
