//! Tasks with their spec left out, for the log and snapshots: a million tasks share few specs.

use std::sync::Arc;

use swarm_types::task::{Task, TaskSpec};

use super::{Malformed, task};
use crate::v1;

impl v1::Task {
    /// `task` without its spec, for a reader who has the spec.
    pub fn without_spec(task: &Task) -> Self {
        task::without_spec(task)
    }

    /// The task that this, read by someone who has the spec, stands for. A spec that it may carry
    /// is ignored.
    ///
    /// # Errors
    /// If a field is missing or wrong.
    pub fn with_spec(self, spec: Arc<TaskSpec>) -> Result<Task, Malformed> {
        task::with_spec(self, spec)
    }
}
