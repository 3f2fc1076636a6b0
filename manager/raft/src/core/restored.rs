//! What a manager starts from, and whether its parts fit together.

use super::types::{Entry, HardState};
use crate::snapshot::SnapshotMeta;

/// What was found on disk.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The newest promise.
    pub hard_state: HardState,
    /// The newest snapshot, which the state machine holds now; default for none.
    pub snapshot: SnapshotMeta,
    /// The log, continuous; it may begin before the snapshot's index and never after the next one.
    pub entries: Vec<Entry>,
}

/// Why a manager cannot start from what was restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Entries are missing.
    #[error("the log begins at index {first}, but the snapshot ends at index {snapshot}")]
    Gap {
        /// First index of the log.
        first: u64,
        /// Index of the snapshot.
        snapshot: u64,
    },
    /// Committed entries are missing.
    #[error("index {commit} was committed, but the log ends at index {last}")]
    CommitBeyondLog {
        /// Known to be committed.
        commit: u64,
        /// The log's end.
        last: u64,
    },
    /// The library refused.
    #[error("consensus core refused its settings: {0}")]
    Library(String),
}

/// True if the entries neither reach nor continue the snapshot: it was installed over them.
fn superseded(snapshot: &SnapshotMeta, entries: &[Entry]) -> bool {
    let at_snapshot = entries.iter().find(|e| e.index == snapshot.index).map(|e| e.term);
    let continues = entries.first().is_some_and(|e| e.index == snapshot.index + 1);
    !continues && at_snapshot != Some(snapshot.term) && !entries.is_empty()
}

impl Restored {
    /// True if the entries were replaced by the snapshot, and the log on disk has yet to be reset.
    pub fn log_is_superseded(&self) -> bool {
        superseded(&self.snapshot, &self.entries)
    }
}

/// Brings snapshot and log together: a snapshot may be newer than the log it was written next to.
pub(super) fn reconcile(restored: Restored) -> Result<(HardState, Vec<Entry>), StartError> {
    let Restored { mut hard_state, snapshot, mut entries } = restored;
    let first = entries.first().map_or(0, |e| e.index);
    if first > snapshot.index + 1 {
        return Err(StartError::Gap { first, snapshot: snapshot.index });
    }
    if superseded(&snapshot, &entries) {
        entries.clear();
    }
    if snapshot.term > hard_state.term {
        hard_state.term = snapshot.term;
        hard_state.vote = 0;
    }
    hard_state.commit = hard_state.commit.max(snapshot.index);
    let last = entries.last().map_or(snapshot.index, |e| e.index);
    if hard_state.commit > last {
        return Err(StartError::CommitBeyondLog { commit: hard_state.commit, last });
    }
    Ok((hard_state, entries))
}
