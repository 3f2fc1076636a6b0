//! Index: all tasks, and the ways to find them other than by id.
//!
//! Reads:   the tasks handed to it.
//! Writes:  its own tables.
//! Never:   writes the ways to a task that stays in its place; holds a task twice.
//! Start:   [`Index::put`].

use std::sync::Arc;

use swarm_types::id::{NodeId, ServiceId, TaskId};
use swarm_types::task::Task;

use super::table::Table;

/// The place that a task fills within its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SlotKey {
    /// Number of a replicated service's slot, from 1; 0 in a global service.
    pub slot: u64,
    /// The node, in a global service; else empty.
    pub node: NodeId,
}

impl SlotKey {
    /// The place that `task` fills.
    pub fn of(task: &Task) -> SlotKey {
        SlotKey { slot: task.slot, node: if task.slot == 0 { task.node } else { NodeId::MIN } }
    }
}

/// Ids only: copying a part of it touches no task.
type Ways<Outer, Inner> = Table<Outer, Table<Inner, ()>>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    tasks: Table<TaskId, Arc<Task>>,
    by_service: Ways<ServiceId, (SlotKey, TaskId)>,
    by_node: Ways<NodeId, TaskId>,
}

impl Index {
    pub(super) fn get(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        self.tasks.values()
    }
    pub(super) fn from(&self, id: &TaskId) -> impl Iterator<Item = (&TaskId, &Arc<Task>)> + use<'_> {
        self.tasks.range_from(id)
    }
    pub(super) fn of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        let keys = self.by_service.get(id).into_iter().flat_map(Table::keys);
        keys.filter_map(|(_, task)| self.tasks.get(task))
    }
    pub(super) fn count_of_service(&self, id: &ServiceId) -> usize {
        self.by_service.get(id).map_or(0, Table::len)
    }
    pub(super) fn of_slot(
        &self,
        id: &ServiceId,
        slot: SlotKey,
    ) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        let from = (slot, TaskId::MIN);
        let keys = self.by_service.get(id).into_iter().flat_map(move |keys| keys.range_from(&from));
        let here = keys.take_while(move |((of, _), ())| *of == slot);
        here.filter_map(|((_, task), ())| self.tasks.get(task))
    }
    pub(super) fn on_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> + use<'_> {
        let keys = self.by_node.get(id).into_iter().flat_map(Table::keys);
        keys.filter_map(|task| self.tasks.get(task))
    }
    pub(super) fn count_on_node(&self, id: &NodeId) -> usize {
        self.by_node.get(id).map_or(0, Table::len)
    }
    /// Services that have tasks; also those whose object is gone.
    pub(super) fn services_with_tasks(&self) -> impl Iterator<Item = &ServiceId> + use<'_> {
        self.by_service.keys()
    }

    /// Files a task; gives back the one that had its id.
    pub(super) fn put(&mut self, task: Arc<Task>) -> Option<Arc<Task>> {
        let (id, node) = (task.id, task.node);
        let place = (task.service, (SlotKey::of(&task), id));
        let old = self.tasks.insert(id, task);
        let before = old.as_ref().map(|old| ((old.service, (SlotKey::of(old), id)), old.node));
        if before.is_none_or(|(before, _)| before != place) {
            if let Some((before, _)) = before {
                delete_way(&mut self.by_service, &before.0, &before.1);
            }
            put_way(&mut self.by_service, place.0, place.1);
        }
        if before.is_none_or(|(_, before)| before != node) {
            // Those that wait for a node are on none: one more set of all of them would be of use to nobody.
            if let Some((_, before)) = before.filter(|(_, before)| !before.is_empty()) {
                delete_way(&mut self.by_node, &before, &id);
            }
            if !node.is_empty() {
                put_way(&mut self.by_node, node, id);
            }
        }
        old
    }

    /// Drops a task; gives it back.
    pub(super) fn delete(&mut self, id: &TaskId) -> Option<Arc<Task>> {
        let task = self.tasks.remove(id)?;
        delete_way(&mut self.by_service, &task.service, &(SlotKey::of(&task), *id));
        if !task.node.is_empty() {
            delete_way(&mut self.by_node, &task.node, id);
        }
        Some(task)
    }
}

fn put_way<K: Ord + Clone, I: Ord + Clone>(ways: &mut Ways<K, I>, key: K, inner: I) {
    match ways.get_mut(&key) {
        Some(keys) => {
            keys.insert(inner, ());
        }
        None => {
            let mut keys = Table::default();
            keys.insert(inner, ());
            ways.insert(key, keys);
        }
    }
}

fn delete_way<K: Ord + Clone, I: Ord + Clone>(ways: &mut Ways<K, I>, key: &K, inner: &I) {
    let Some(keys) = ways.get_mut(key) else { return };
    keys.remove(inner);
    if keys.is_empty() {
        ways.remove(key);
    }
}
