//! Score: which of the nodes that fit is best. The policy is the order of the fields.
//!
//! Reads:   a node's totals.
//! Writes:  nothing.
//! Never:   weighs one thing against another: no weights, no floats.
//! Start:   [`Score`].

use swarm_types::defaults;

use super::node_info::NodeInfo;
use super::{GroupKey, spread};
use swarm_types::time::Timestamp;

/// Lower is better. Ties end at the node's place in the order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Recent failures of this template on the node, if there are so many that it is to blame.
    pub recent_failures: u32,
    /// How far placing it here is from what the preferences ask for.
    pub spread_violation: u32,
    /// Tasks of the service on the node.
    pub tasks_of_service: u32,
    /// All tasks on the node.
    pub tasks_total: u32,
    /// Place of the node in the order of ids.
    pub node: usize,
}

impl Score {
    /// The score of a node for one more task of a group.
    pub fn of(info: &NodeInfo, index: usize, group: &GroupKey, now: Timestamp) -> Score {
        let failures = info.failures_since(group, Timestamp(now.0.saturating_sub(window_ms())));
        Score {
            recent_failures: if failures >= defaults::MAX_FAILURES { failures } else { 0 },
            spread_violation: spread::violation(info),
            tasks_of_service: info.tasks_of(&group.service),
            tasks_total: info.tasks(),
            node: index,
        }
    }
}

fn window_ms() -> u64 {
    u64::try_from(defaults::FAILURE_WINDOW.as_millis()).expect("minutes fit")
}
