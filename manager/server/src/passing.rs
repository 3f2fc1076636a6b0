//! States of tasks that pass (accepted, preparing, starting): kept in the leader's memory, shown to
//! users, never stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use swarm_manager_core::store::{Event, Object, View};
use swarm_types::id::{NodeId, TaskId};
use swarm_types::task::{Task, TaskStatus};
use swarm_types::task_state::TaskState;

use crate::state::ClusterState;
use crate::watch::News;

/// The passing states of all tasks.
pub(crate) struct Passing {
    state: Arc<ClusterState>,
    statuses: Mutex<BTreeMap<TaskId, TaskStatus>>,
}

impl Passing {
    /// None yet.
    pub(crate) fn new(state: Arc<ClusterState>) -> Self {
        Passing { state, statuses: Mutex::default() }
    }

    /// Takes in what `node` reports.
    pub(crate) fn note(&self, view: &View, node: &NodeId, statuses: &[(TaskId, TaskStatus)]) {
        for (id, status) in statuses {
            let passes = status.state > TaskState::Assigned && status.state < TaskState::Running;
            let Some(task) = view.task(id).filter(|t| passes && t.node == *node) else { continue };
            if status.state <= task.status.state {
                continue;
            }
            self.lock().insert(*id, status.clone());
            let shown = Task { status: status.clone(), ..task.as_ref().clone() };
            self.state.announce(News::Passing(Box::new(shown)));
        }
    }

    /// Forgets what has been stored or is gone.
    pub(crate) fn settle(&self, events: &[Event]) {
        let mut statuses = self.lock();
        for event in events {
            match event {
                Event::Updated { new: Object::Task(task), .. }
                    if statuses.get(&task.id).is_some_and(|s| s.state <= task.status.state) =>
                {
                    statuses.remove(&task.id);
                }
                Event::Deleted(Object::Task(task)) => {
                    statuses.remove(&task.id);
                }
                Event::Created(_) | Event::Updated { .. } | Event::Deleted(_) => {}
            }
        }
    }

    /// The task as it is now, if that is newer than what is stored.
    pub(crate) fn overlay(&self, task: &Task) -> Option<Task> {
        let statuses = self.lock();
        let status = statuses.get(&task.id).filter(|s| s.state > task.status.state)?;
        Some(Task { status: status.clone(), ..task.clone() })
    }

    /// Forgets all: this manager does not lead any more.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, TaskStatus>> {
        self.statuses.lock().expect("no code panics while it holds the statuses")
    }
}
