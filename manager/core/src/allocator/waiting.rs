//! Waiting: tasks that cannot have what they need yet, and what they wait for.
//!
//! Reads:   nothing.
//! Writes:  itself.
//! Never:   asks a waiting task again before what it waits for has changed.
//! Start:   [`Waiting`].

use std::collections::{BTreeMap, BTreeSet};

use swarm_types::id::{NetworkId, ServiceId, TaskId};

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blocker {
    /// That there is an ingress network.
    Ingress,
    /// An address of this network.
    Network(NetworkId),
    /// That this service has its ports and virtual addresses.
    Service(ServiceId),
}

/// Who waits for what.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    by: BTreeMap<Blocker, BTreeSet<TaskId>>,
    of: BTreeMap<TaskId, Blocker>,
    /// What may not block any more.
    open: BTreeSet<Blocker>,
}

impl Waiting {
    /// Nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
    /// This task waits for this, and for nothing else.
    pub(super) fn put(&mut self, task: TaskId, blocker: Blocker) {
        self.forget(&task);
        self.of.insert(task, blocker);
        self.by.entry(blocker).or_default().insert(task);
        self.open.remove(&blocker);
    }
    /// This task does not wait.
    pub(super) fn forget(&mut self, task: &TaskId) {
        let Some(blocker) = self.of.remove(task) else { return };
        if let Some(tasks) = self.by.get_mut(&blocker) {
            tasks.remove(task);
            if tasks.is_empty() {
                self.by.remove(&blocker);
            }
        }
    }
    /// This may not block any more: who waits for it is asked again, one after the other, until one
    /// has to wait on.
    pub(super) fn open(&mut self, blocker: Blocker) {
        if self.by.contains_key(&blocker) {
            self.open.insert(blocker);
        }
    }
    /// The first task whose blocker was opened.
    pub(super) fn first(&mut self) -> Option<TaskId> {
        let by = &self.by;
        self.open.retain(|blocker| by.contains_key(blocker));
        self.open.iter().filter_map(|blocker| self.by.get(blocker)?.first().copied()).min()
    }
}
