//! Spread: how well a node serves the placement preferences of a service.
//!
//! Reads:   a node's labels and totals.
//! Writes:  nothing.
//! Never:   excludes a node: a preference only orders.
//! Start:   [`violation`].
//!
//! Task specs have no preferences yet, so every node serves them equally. The field in
//! [`super::score::Score`] keeps their place in the order: after failures, before counts.

use super::node_info::NodeInfo;

/// By how many tasks the node's group is ahead of the emptiest one.
pub fn violation(_node: &NodeInfo) -> u32 {
    0
}
