//! Restart and update policies.

use std::time::Duration;

use swarm_types::policy::{FailureAction, RestartCondition, RestartPolicy, UpdateOrder, UpdatePolicy};

use super::{Malformed, ms};
use crate::v1;
use v1::{restart_policy::Condition, update_policy as wire};

impl From<&RestartPolicy> for v1::RestartPolicy {
    fn from(p: &RestartPolicy) -> Self {
        let condition = match p.condition {
            RestartCondition::Any => Condition::Any,
            RestartCondition::OnFailure => Condition::OnFailure,
            RestartCondition::None => Condition::None,
        };
        v1::RestartPolicy {
            condition: condition.into(),
            delay_ms: ms(p.delay),
            max_attempts: p.max_attempts,
            window_ms: ms(p.window),
        }
    }
}

impl TryFrom<v1::RestartPolicy> for RestartPolicy {
    type Error = Malformed;
    fn try_from(p: v1::RestartPolicy) -> Result<Self, Malformed> {
        let condition = match Condition::try_from(p.condition).map_err(|e| Malformed::new("condition", e))? {
            Condition::Any => RestartCondition::Any,
            Condition::OnFailure => RestartCondition::OnFailure,
            Condition::None => RestartCondition::None,
        };
        Ok(RestartPolicy {
            condition,
            delay: Duration::from_millis(p.delay_ms),
            max_attempts: p.max_attempts,
            window: Duration::from_millis(p.window_ms),
        })
    }
}

impl From<&UpdatePolicy> for v1::UpdatePolicy {
    fn from(p: &UpdatePolicy) -> Self {
        let action = match p.failure_action {
            FailureAction::Pause => wire::FailureAction::Pause,
            FailureAction::Continue => wire::FailureAction::Continue,
            FailureAction::Rollback => wire::FailureAction::Rollback,
        };
        let order = match p.order {
            UpdateOrder::StopFirst => wire::Order::StopFirst,
            UpdateOrder::StartFirst => wire::Order::StartFirst,
        };
        v1::UpdatePolicy {
            parallelism: p.parallelism,
            delay_ms: ms(p.delay),
            failure_action: action.into(),
            monitor_ms: ms(p.monitor),
            max_failure_permille: p.max_failure_permille,
            order: order.into(),
        }
    }
}

impl TryFrom<v1::UpdatePolicy> for UpdatePolicy {
    type Error = Malformed;
    fn try_from(p: v1::UpdatePolicy) -> Result<Self, Malformed> {
        let action = wire::FailureAction::try_from(p.failure_action);
        let order = wire::Order::try_from(p.order);
        Ok(UpdatePolicy {
            parallelism: p.parallelism,
            delay: Duration::from_millis(p.delay_ms),
            failure_action: match action.map_err(|e| Malformed::new("failure_action", e))? {
                wire::FailureAction::Pause => FailureAction::Pause,
                wire::FailureAction::Continue => FailureAction::Continue,
                wire::FailureAction::Rollback => FailureAction::Rollback,
            },
            monitor: Duration::from_millis(p.monitor_ms),
            max_failure_permille: p.max_failure_permille,
            order: match order.map_err(|e| Malformed::new("order", e))? {
                wire::Order::StopFirst => UpdateOrder::StopFirst,
                wire::Order::StartFirst => UpdateOrder::StartFirst,
            },
        })
    }
}
