//! How far the tasks of this node have come: what a reader of logs waits for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use swarm_types::id::TaskId;
use swarm_types::task_state::TaskState;
use tokio::sync::watch;

/// A manager may ask for the logs of a task a moment before the task itself arrives; one that has not
/// come after so long is not expected any more.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(5);

/// The states of this node's tasks. Written by the driver alone.
#[derive(Debug, Default)]
pub(crate) struct TaskStates {
    states: Mutex<BTreeMap<TaskId, TaskState>>,
    changes: watch::Sender<()>,
}

impl TaskStates {
    pub(crate) fn set(&self, task: TaskId, state: TaskState) {
        if self.lock().insert(task, state) != Some(state) {
            self.changes.send_replace(());
        }
    }

    pub(crate) fn remove(&self, task: TaskId) {
        self.lock().remove(&task);
        self.changes.send_replace(());
    }

    /// Waits until the task runs, has ended, or is not (any more) of this node.
    pub(crate) async fn until_started(&self, task: TaskId) {
        let mut changes = self.changes.subscribe();
        let mut was_known = false;
        loop {
            changes.borrow_and_update();
            let state = self.lock().get(&task).copied();
            let changed = match state {
                Some(state) if state >= TaskState::Running => return,
                None if was_known => return,
                Some(_) => changes.changed().await.is_ok(),
                None => {
                    tokio::time::timeout(UNKNOWN_PATIENCE, changes.changed()).await.is_ok_and(|c| c.is_ok())
                }
            };
            was_known |= state.is_some();
            if !changed {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, TaskState>> {
        self.states.lock().expect("nobody panics while it holds the states")
    }
}
