//! What a node is told to have: a complete set once, then differences.

use std::sync::Arc;

use crate::id::TaskId;
use crate::task::Task;

/// One message of the stream from a dispatcher to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentsMessage {
    /// Whole set or difference.
    pub kind: AssignmentsKind,
    /// Number of this message; the agent's set has this number once it is applied.
    pub results_in: u64,
    /// What is to be there, changed or gone.
    pub changes: Vec<AssignmentChange>,
}

/// Whole set or difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignmentsKind {
    /// All that is not named is gone.
    Complete,
    /// To be applied to the set of this number; a gap means "ask for the whole set".
    Incremental {
        /// The number that the agent's set must have.
        applies_to: u64,
    },
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentChange {
    /// Have this task as it is here.
    Update(Arc<Task>),
    /// Have it no more: stop it if it runs, and forget it.
    Remove(TaskId),
}
