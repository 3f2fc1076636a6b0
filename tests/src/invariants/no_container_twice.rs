//! A task is started once, on one node (task model: never restarted); also in another container, after the
//! first was removed. Left out is a task whose container somebody removed by hand: see
//! [`crate::sim::containers::Containers::vanish`].

use std::collections::BTreeMap;

use swarm_types::id::TaskId;

/// Where tasks were started.
#[derive(Debug, Default)]
pub struct NoContainerTwice(BTreeMap<TaskId, usize>);

impl NoContainerTwice {
    /// A container was started; for the so-many-th time.
    ///
    /// # Errors
    /// If it was started before.
    pub fn started(&mut self, host: usize, task: TaskId, starts: u32) -> Result<(), String> {
        let first = *self.0.entry(task).or_insert(host);
        if first != host {
            return Err(format!("task {task} was started on {first} and {host}"));
        }
        if starts > 1 { Err(format!("task {task} was started {starts} times")) } else { Ok(()) }
    }
}
