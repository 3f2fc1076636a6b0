//! Members: the tasks and services of a network as they were when it was planned last.
//!
//! Reads:   a network's entry of the set.
//! Writes:  what changed.
//! Never:   copies what did not change: 10,000 tasks are compared by pointer.
//! Start:   [`Members::take`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::id::{NodeId, ServiceId, TaskId};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::{NetworkEntry, ServiceEndpoint, TaskEndpoint};

use super::bridge;
use super::service::Tasks;

/// Tasks and services.
#[derive(Debug, Default)]
pub(crate) struct Members {
    tasks: Tasks,
    services: BTreeMap<ServiceId, Arc<ServiceEndpoint>>,
    /// Tasks that can be reached from this node.
    by_service: BTreeMap<ServiceId, Tasks>,
}

/// A value before and after.
pub(crate) type Change<V> = (Option<Arc<V>>, Option<Arc<V>>);

/// What changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) tasks: Vec<Change<TaskEndpoint>>,
    /// They or their tasks.
    pub(crate) services: BTreeSet<ServiceId>,
}

static NO_TASKS: Tasks = Tasks::new();

impl Members {
    /// Takes over how it is now.
    pub(crate) fn take(&mut self, own: NodeId, entry: &NetworkEntry) -> Changes {
        let driver: NetworkDriver = entry.network.driver;
        let mut changes = Changes::default();
        for (id, old, new) in differences(&self.tasks, &entry.endpoints) {
            for task in old.iter() {
                changes.services.insert(task.service);
                self.tasks.remove(&id);
                if let Some(tasks) = self.by_service.get_mut(&task.service) {
                    tasks.remove(&id);
                    if tasks.is_empty() {
                        self.by_service.remove(&task.service);
                    }
                }
            }
            for task in new.iter() {
                changes.services.insert(task.service);
                self.tasks.insert(id, task.clone());
                if bridge::reaches(driver, own, task) {
                    self.by_service.entry(task.service).or_default().insert(id, task.clone());
                }
            }
            changes.tasks.push((old, new));
        }
        for (id, _, new) in differences(&self.services, &entry.services) {
            changes.services.insert(id);
            match new {
                Some(service) => drop(self.services.insert(id, service)),
                None => drop(self.services.remove(&id)),
            }
        }
        changes
    }

    pub(crate) fn service(&self, id: ServiceId) -> Option<&Arc<ServiceEndpoint>> {
        self.services.get(&id)
    }

    /// A service's tasks that can be reached from this node.
    pub(crate) fn tasks_of(&self, id: ServiceId) -> &Tasks {
        self.by_service.get(&id).unwrap_or(&NO_TASKS)
    }

    pub(crate) fn task(&self, id: TaskId) -> Option<&Arc<TaskEndpoint>> {
        self.tasks.get(&id)
    }
}

type Difference<K, V> = (K, Option<Arc<V>>, Option<Arc<V>>);

/// What is not the same in two maps. What is the same `Arc` is not looked at.
fn differences<K: Ord + Copy, V: Eq>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
) -> Vec<Difference<K, V>> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some((_, a)), Some((_, b))) if a == b => {}
            (Some((key, a)), b) => found.push((*key, Some(a.clone()), b.map(|(_, b)| b.clone()))),
            (None, Some((key, b))) => found.push((*key, None, Some(b.clone()))),
            (None, None) => return found,
        }
    }
}
