//! No term has two leaders (Raft: election safety).

use std::collections::BTreeMap;

/// Who led in which term.
#[derive(Debug, Default)]
pub struct OneLeaderPerTerm(BTreeMap<u64, usize>);

impl OneLeaderPerTerm {
    /// Somebody was elected.
    ///
    /// # Errors
    /// If somebody else was elected in this term.
    pub fn elected(&mut self, term: u64, host: usize) -> Result<(), String> {
        match self.0.insert(term, host) {
            Some(other) if other != host => Err(format!("term {term} is led by {other} and {host}")),
            _ => Ok(()),
        }
    }
}
