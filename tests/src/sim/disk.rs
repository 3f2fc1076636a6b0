//! A manager's disk: what is durable, and what a crash takes.

use std::collections::BTreeMap;

use swarm_manager_core::store::{Object, Store, View, records};
use swarm_manager_raft::SnapshotMeta;
use swarm_manager_raft::core::{Entry, HardState, Ready, Restored};
use swarm_manager_server::codec::{SnapshotReader, SnapshotWriter};

/// A snapshot as bytes.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// Its content, as the managers write it.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// The snapshot of a view.
    pub fn of(meta: SnapshotMeta, view: &View) -> Snapshot {
        let objects: Vec<Object> = records(view).map(|r| r.object).collect();
        let bytes = SnapshotWriter::default().chunk(view.version(), view.newest_time(), objects.iter());
        Snapshot { meta, bytes }
    }
    /// The store that it holds.
    pub fn store(&self) -> Store {
        if self.bytes.is_empty() {
            return Store::default();
        }
        let (version, time, objects) =
            SnapshotReader::default().chunk(&self.bytes).expect("what was written can be read");
        Store::restore(version, time, objects)
    }
}

/// How far a write had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// Nothing of it is on the disk.
    Nothing,
    /// The first part: the snapshot.
    First,
    /// All of it.
    All,
}

/// What a manager wrote.
#[derive(Debug, Default)]
pub struct Disk {
    synced: HardState,
    /// Written and not synced: the kernel has it, the disk may not.
    written: HardState,
    entries: BTreeMap<u64, Entry>,
    /// The newest snapshot.
    pub snapshot: Snapshot,
    /// Writes fail.
    pub full: bool,
}

impl Disk {
    /// The disk of a manager that begins with a snapshot.
    pub fn new(restored: Restored, snapshot: Snapshot) -> Disk {
        Disk { synced: restored.hard_state, written: restored.hard_state, snapshot, ..Disk::default() }
    }
    /// Makes a [`Ready`] durable, or only hands it to the kernel if that is enough.
    pub fn write(&mut self, ready: &Ready, snapshot: Option<Snapshot>) {
        if let (Some(_), Some(snapshot)) = (&ready.snapshot, snapshot) {
            self.snapshot = snapshot;
            self.entries.clear();
        }
        if let Some(hard_state) = ready.hard_state {
            self.written = hard_state;
        }
        if let Some(first) = ready.entries.first() {
            self.entries.split_off(&first.index);
            self.entries.extend(ready.entries.iter().map(|e| (e.index, e.clone())));
        }
        if ready.must_sync || ready.snapshot.is_some() {
            self.synced = self.written;
        }
    }
    /// A snapshot was written, and the log up to `compacted` is not needed any more.
    pub fn snapshotted(&mut self, snapshot: Snapshot, compacted: u64) {
        self.snapshot = snapshot;
        self.entries = self.entries.split_off(&(compacted + 1));
    }
    /// The process died: what it had not written yet is gone.
    pub fn lose_unsynced(&mut self) {
        self.written = self.synced;
    }
    /// The process died while it wrote, before anybody was told. A record of the log is on the disk whole or
    /// not at all: a torn one does not verify and is dropped (`manager/raft/src/log/recover.rs`).
    /// A snapshot may be there before the log next to it is.
    pub fn tear(&mut self, ready: &Ready, snapshot: Option<Snapshot>, torn: Torn) {
        match (torn, &ready.snapshot, snapshot) {
            (Torn::Nothing, _, _) => {}
            (Torn::First, Some(_), Some(snapshot)) => self.snapshot = snapshot,
            (Torn::First, _, _) => {}
            (Torn::All, _, snapshot) => self.write(ready, snapshot),
        }
    }
    /// What was on the disk next to a newer snapshot is of no use.
    pub fn reset_log(&mut self) {
        self.entries.clear();
    }
    /// What a manager finds here when it starts.
    pub fn restored(&self) -> Restored {
        Restored {
            hard_state: self.written,
            snapshot: self.snapshot.meta.clone(),
            entries: self.entries.values().cloned().collect(),
        }
    }
}
