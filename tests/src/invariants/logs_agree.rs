//! All managers apply the same entry at the same place, and no place twice (Raft: state machine safety).

use std::collections::BTreeMap;

/// What was applied.
#[derive(Debug, Default)]
pub struct LogsAgree {
    entries: BTreeMap<u64, (u64, u64)>,
    applied: BTreeMap<usize, u64>,
}

impl LogsAgree {
    /// A manager starts from a snapshot of everything up to `index`.
    pub fn restarted(&mut self, host: usize, index: u64) {
        self.applied.insert(host, index);
    }
    /// A manager applied an entry.
    ///
    /// # Errors
    /// If another one applied another entry there, or this one has a gap.
    pub fn applied(&mut self, host: usize, index: u64, term: u64, data: u64) -> Result<(), String> {
        let before = self.applied.insert(host, index).unwrap_or_default();
        if index != before + 1 {
            return Err(format!("host {host} applied {index} after {before}"));
        }
        let known = *self.entries.entry(index).or_insert((term, data));
        if known == (term, data) {
            return Ok(());
        }
        Err(format!("entry {index} of host {host} has term {term}, elsewhere {}", known.0))
    }
    /// The newest entry that anybody has applied.
    pub fn newest(&self) -> u64 {
        self.entries.last_key_value().map_or(1, |(index, _)| *index)
    }
    /// An entry was applied somewhere.
    pub fn has(&self, index: u64) -> bool {
        self.entries.contains_key(&index)
    }
}
