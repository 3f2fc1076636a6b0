//! Managers that have applied the same entries hold equal stores, also those that began with a snapshot.

use std::collections::BTreeMap;

use swarm_manager_core::store::View;

/// Stores are compared whole at every so-many-th entry.
const EVERY: u64 = 8;

/// Stores at some entries.
#[derive(Debug, Default)]
pub struct SameLogSameStore(BTreeMap<u64, View>);

impl SameLogSameStore {
    /// A manager has applied an entry.
    ///
    /// # Errors
    /// If another store was seen at this place.
    pub fn applied(&mut self, host: usize, index: u64, view: &View) -> Result<(), String> {
        if !index.is_multiple_of(EVERY) {
            return Ok(());
        }
        let known = self.0.entry(index).or_insert_with(|| view.clone());
        if known != view {
            return Err(format!("the store of host {host} differs at entry {index}"));
        }
        while self.0.len() > 64 {
            self.0.pop_first();
        }
        Ok(())
    }
}
