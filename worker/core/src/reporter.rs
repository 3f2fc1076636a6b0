//! Reporter: which statuses are still owed to the dispatcher.
//!
//! Reads:   statuses as they become; what the dispatcher has taken.
//! Writes:  nothing but its own table.
//! Never:   waits to gather: while one call is under way, the next one gathers.
//! Start:   [`Reporter::owe`].

use std::collections::BTreeMap;

use swarm_types::id::TaskId;
use swarm_types::task::TaskStatus;
use swarm_types::task_state::TaskState;

/// Most statuses in one call: keeps it well under the 4 MiB that a gRPC message may have.
pub const MAX_STATUSES: usize = 4096;

/// Statuses that the dispatcher does not have yet, the newest of each task.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    owed: BTreeMap<TaskId, TaskStatus>,
    under_way: bool,
}

impl Reporter {
    /// This is the newest status of a task.
    pub fn owe(&mut self, task: TaskId, status: &TaskStatus) {
        match self.owed.get_mut(&task) {
            Some(old) if old.state > status.state => {}
            Some(old) => old.clone_from(status),
            None => {
                self.owed.insert(task, status.clone());
            }
        }
    }

    /// Nobody wants to know about this task any more.
    pub fn forget(&mut self, task: TaskId) {
        self.owed.remove(&task);
    }

    /// The call that was under way, if any, was lost.
    pub fn interrupted(&mut self) {
        self.under_way = false;
    }

    /// The dispatcher has these states.
    pub fn taken(&mut self, states: &[(TaskId, TaskState)]) {
        self.under_way = false;
        for (task, state) in states {
            if self.owed.get(task).is_some_and(|status| status.state <= *state) {
                self.owed.remove(task);
            }
        }
    }

    /// What to report now, if there is something and no call is under way.
    pub fn next_call(&mut self) -> Option<Vec<(TaskId, TaskStatus)>> {
        if self.under_way || self.owed.is_empty() {
            return None;
        }
        self.under_way = true;
        Some(self.owed.iter().take(MAX_STATUSES).map(|(id, status)| (*id, status.clone())).collect())
    }

    /// How many statuses are owed.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[test]
    fn one_call_at_a_time_and_the_newest_of_each_task() {
        let mut reporter = Reporter::default();
        reporter.owe("a".into(), &status(TaskState::Accepted));
        let first = reporter.next_call().unwrap();
        assert_eq!(first, [("a".into(), status(TaskState::Accepted))]);
        reporter.owe("a".into(), &status(TaskState::Ready));
        reporter.owe("a".into(), &status(TaskState::Preparing));
        assert_eq!(reporter.next_call(), None, "one is under way");
        reporter.taken(&[("a".into(), TaskState::Accepted)]);
        assert_eq!(reporter.next_call(), Some(vec![("a".into(), status(TaskState::Ready))]));
        reporter.interrupted();
        assert_eq!(reporter.next_call(), Some(vec![("a".into(), status(TaskState::Ready))]), "still owed");
        reporter.taken(&[("a".into(), TaskState::Ready)]);
        assert!(reporter.is_empty() && reporter.next_call().is_none());
    }

    #[test]
    fn a_call_is_bounded() {
        let mut reporter = Reporter::default();
        for n in 0..=MAX_STATUSES {
            reporter.owe(format!("t{n}").into(), &status(TaskState::Running));
        }
        let first = reporter.next_call().unwrap();
        assert_eq!(first.len(), MAX_STATUSES);
        reporter.taken(&first.iter().map(|(id, s)| (*id, s.state)).collect::<Vec<_>>());
        assert_eq!(reporter.next_call().unwrap().len(), 1);
    }
}
