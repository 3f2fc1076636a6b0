//! What happens when a task ends, and how a change of a service is rolled out.

use std::time::Duration;

use crate::defaults;

/// When a task that ended is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartCondition {
    /// Never.
    None,
    /// If it failed (exit code not 0, or it could not be started).
    OnFailure,
    /// Always.
    #[default]
    Any,
}

impl RestartCondition {
    /// The word of `--restart-condition`.
    pub fn as_str(self) -> &'static str {
        match self {
            RestartCondition::None => "none",
            RestartCondition::OnFailure => "on-failure",
            RestartCondition::Any => "any",
        }
    }
}

/// Rules for replacing tasks that ended (Docker Swarm's, swarm.md B6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Which ends are answered.
    pub condition: RestartCondition,
    /// Time between the end and the start of the replacement.
    pub delay: Duration,
    /// Give up after so many restarts (within `window`, if that is not zero); 0 means never.
    pub max_attempts: u64,
    /// Only restarts younger than this count; zero means all do.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: defaults::RESTART_DELAY,
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// Which comes first when a task is replaced by an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    StartFirst,
}

/// What an update does when too many new tasks fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    Rollback,
}

/// How a change of the task template reaches the running tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdatePolicy {
    /// Slots replaced at a time; 0 means all.
    pub parallelism: u64,
    /// Time between one slot's success and the next slot's turn.
    pub delay: Duration,
    /// What to do about failures.
    pub failure_action: FailureAction,
    /// How long a new task is watched before it counts as good.
    pub monitor: Duration,
    /// Share of slots that may fail, in thousandths.
    pub max_failure_permille: u32,
    /// Stop-first or start-first.
    pub order: UpdateOrder,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: defaults::UPDATE_MONITOR,
            max_failure_permille: 0,
            order: UpdateOrder::StopFirst,
        }
    }
}
