//! What the library may read back: the log since the last compaction, in memory.

use std::cell::Cell;
use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{Entry, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::HardState;
use super::convert::{conf_state, to_wire};
use crate::snapshot::SnapshotMeta;

/// Invariant: `entries` are continuous and start right after `base`.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) hard_state: HardState,
    pub(super) snapshot: SnapshotMeta,
    /// Index and term of the entry before the first one kept.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Set when somebody needs a snapshot newer than the one there is.
    wants_snapshot: Cell<bool>,
}

impl Memory {
    pub(super) fn new(hard_state: HardState, snapshot: SnapshotMeta, entries: Vec<Entry>) -> Self {
        let mut memory = Self {
            base: (snapshot.index, snapshot.term),
            hard_state,
            snapshot,
            entries: VecDeque::new(),
            bytes: 0,
            wants_snapshot: Cell::new(false),
        };
        // Entries that the snapshot covers are kept for slow followers; the first one is only a base.
        let mut entries = entries.into_iter();
        let covered = |e: &&Entry| e.index <= memory.snapshot.index;
        if let Some(first) = entries.as_slice().first().filter(covered) {
            memory.base = (first.index, first.term);
            entries.next();
        }
        memory.append(entries.collect());
        memory
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Bytes of payload since the snapshot, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|e| e.index) else { return };
        assert!(first > self.base.0 && first <= self.last() + 1, "entries must follow one another");
        while self.last() >= first {
            let gone = self.entries.pop_back();
            self.bytes -= gone.map_or(0, |e| e.data.len());
        }
        self.bytes += entries.iter().map(|e| e.data.len()).sum::<usize>();
        self.entries.extend(entries);
    }

    /// A snapshot replaces everything.
    pub(super) fn install(&mut self, snapshot: SnapshotMeta) {
        self.base = (snapshot.index, snapshot.term);
        self.entries.clear();
        self.bytes = 0;
        self.hard_state.commit = self.hard_state.commit.max(snapshot.index);
        self.snapshot = snapshot;
    }

    /// A snapshot of what was applied was written; all but `keep` entries before it may go.
    pub(super) fn compact(&mut self, snapshot: SnapshotMeta, keep: u64) {
        let to = snapshot.index.saturating_sub(keep);
        while self.base.0 < to {
            let Some(e) = self.entries.pop_front() else { break };
            self.base = (e.index, e.term);
            self.bytes -= e.data.len();
        }
        self.snapshot = snapshot;
        self.wants_snapshot.set(false);
    }

    pub(super) fn wants_snapshot(&self) -> bool {
        self.wants_snapshot.get()
    }

    pub(super) fn base_index(&self) -> u64 {
        self.base.0
    }
}

impl Storage for Memory {
    fn initial_state(&self) -> Result<RaftState> {
        let mut hs = raft::eraftpb::HardState::default();
        (hs.term, hs.vote, hs.commit) = (self.hard_state.term, self.hard_state.vote, self.hard_state.commit);
        Ok(RaftState::new(hs, conf_state(&self.snapshot)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let skip = usize::try_from(low - self.base.0 - 1).expect("fits: it is in memory");
        let count = usize::try_from(high - low).expect("fits: it is in memory");
        let (mut out, mut size) = (Vec::new(), 0u64);
        for e in self.entries.iter().skip(skip).take(count) {
            size += u64::from(e.compute_size());
            if size > limit && !out.is_empty() {
                break;
            }
            out.push(e.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let at = usize::try_from(index - self.base.0 - 1).expect("fits: it is in memory");
        self.entries.get(at).map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        // A snapshot from before its receiver joined would be thrown away by the receiver: make a newer one first.
        if self.snapshot.members.get(to).is_none() || self.snapshot.index < request_index {
            self.wants_snapshot.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(to_wire(&self.snapshot))
    }
}
