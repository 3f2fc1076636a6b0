//! An agent that has been told something by the leader of a term takes nothing from the leader of an earlier
//! one: that one may have been asleep since, and what its set does not name would be stopped.
//!
//! Held for the life of a process: what an agent knows of terms is not on its disk.

use std::collections::BTreeMap;

/// The newest term that told an agent something, by host and life of its process.
#[derive(Debug, Default)]
pub struct NewestLeaderObeyed(BTreeMap<(usize, u64), u64>);

impl NewestLeaderObeyed {
    /// An agent takes what the leader of this term says.
    ///
    /// # Errors
    /// If it was told something by a later one.
    pub fn told(&mut self, host: usize, life: u64, term: u64) -> Result<(), String> {
        let newest = self.0.entry((host, life)).or_insert(term);
        if term < *newest {
            return Err(format!("host {host} obeys the leader of term {term} after that of {newest}"));
        }
        *newest = term;
        Ok(())
    }
}
