//! What must hold at every moment, whatever goes wrong. One file each; [`crate::sim`] asks them.

pub mod addresses_are_unique;
pub mod logs_agree;
pub mod newest_leader_obeyed;
pub mod no_acknowledged_write_lost;
pub mod no_container_twice;
pub mod no_status_lost;
pub mod node_not_oversubscribed;
pub mod one_leader_per_term;
pub mod ports_are_unique;
pub mod quorum_never_given_away;
pub mod same_log_same_store;
pub mod settles;
pub mod slots_within_spec;
pub mod state_only_grows;
pub mod stopped_before_forgotten;
pub mod task_keeps_its_node;
pub mod told_the_truth;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};

use swarm_manager_core::store::View;

use addresses_are_unique::AddressesAreUnique;
use logs_agree::LogsAgree;
use newest_leader_obeyed::NewestLeaderObeyed;
use no_container_twice::NoContainerTwice;
use one_leader_per_term::OneLeaderPerTerm;
use same_log_same_store::SameLogSameStore;

/// Those that have a memory.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: OneLeaderPerTerm,
    logs: LogsAgree,
    stores: SameLogSameStore,
    obeyed: NewestLeaderObeyed,
    containers: NoContainerTwice,
    addresses: AddressesAreUnique,
    acknowledged: BTreeSet<u64>,
    /// Plans by term and index: the version of the store that each was decided on.
    plans: BTreeMap<(u64, u64), u64>,
}

impl Invariants {
    /// The cluster begins with this.
    pub fn begin(&mut self, view: View) {
        drop(view);
    }
    /// A manager's store is that of a snapshot up to `index`.
    pub fn restarted(&mut self, host: usize, index: u64) {
        self.logs.restarted(host, index);
    }
    /// A leader has proposed a plan that it decided on the version `base` of the store.
    pub fn planned(&mut self, term: u64, index: u64, base: u64) {
        self.plans.insert((term, index), base);
    }
    /// Somebody was told that this entry is written.
    pub fn acknowledged(&mut self, index: u64) {
        self.acknowledged.insert(index);
    }
}
