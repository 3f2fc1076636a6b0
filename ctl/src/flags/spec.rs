//! Flags that `service create` and `service update` share. Absent means: as it was.

use std::sync::Arc;
use std::time::Duration;

use swarm_types::policy::{FailureAction, RestartCondition, UpdateOrder};
use swarm_types::service::{Mode, ServiceSpec};

use super::endpoint::EndpointFlags;
use super::{decimal, duration, size, words};

/// See the module.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SpecFlags {
    /// Number of tasks
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) replicas: Option<u64>,
    /// Most tasks of the service on one node (0: no limit)
    #[arg(long, value_name = "N")]
    replicas_max_per_node: Option<u64>,
    /// CPUs that each task may use
    #[arg(long, value_name = "CPUS", value_parser = decimal::cpus)]
    limit_cpu: Option<u64>,
    /// Memory that each task may use
    #[arg(long, value_name = "BYTES", value_parser = size::parse)]
    limit_memory: Option<u64>,
    /// Processes that each task may have (0: no limit)
    #[arg(long, value_name = "N")]
    limit_pids: Option<u64>,
    /// CPUs to keep for each task
    #[arg(long, value_name = "CPUS", value_parser = decimal::cpus)]
    reserve_cpu: Option<u64>,
    /// Memory to keep for each task
    #[arg(long, value_name = "BYTES", value_parser = size::parse)]
    reserve_memory: Option<u64>,
    /// Replace ended tasks: none, on-failure or any [default: any]
    #[arg(long, value_name = "CONDITION", value_parser = condition)]
    restart_condition: Option<RestartCondition>,
    /// Time between an end and the replacement [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    restart_delay: Option<Duration>,
    /// Give up after so many replacements (0: never)
    #[arg(long, value_name = "N")]
    restart_max_attempts: Option<u64>,
    /// Count only replacements younger than this (0: all)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    restart_window: Option<Duration>,
    /// Tasks updated at once (0: all) [default: 1]
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u64>,
    /// Time between two batches of an update [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    update_delay: Option<Duration>,
    /// Which comes first: stop-first or start-first [default: stop-first]
    #[arg(long, value_name = "ORDER", value_parser = order)]
    update_order: Option<UpdateOrder>,
    /// How long a new task is watched; given here, the command waits for it [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) update_monitor: Option<Duration>,
    /// When new tasks fail: pause, continue or rollback [default: pause]
    #[arg(long, value_name = "ACTION", value_parser = action)]
    update_failure_action: Option<FailureAction>,
    /// Share of tasks that may fail, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = decimal::permille)]
    update_max_failure_ratio: Option<u32>,
    /// Signal that asks a container to stop [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between that signal and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    stop_grace_period: Option<Duration>,
    /// User, as name or uid, with an optional :group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Replaces the image's entrypoint; split like a shell does
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Host name in the container; may hold {{.Task.Slot}} and the like
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Mount the container's root file system read-only
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    read_only: Option<bool>,
    #[command(flatten)]
    endpoint: EndpointFlags,
}

impl SpecFlags {
    /// Puts what was given into `spec`.
    pub(crate) fn apply(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        if let Some(replicas) = self.replicas {
            match &mut spec.mode {
                Mode::Replicated { replicas: old } => *old = replicas,
                Mode::Global => return Err("--replicas can only be used with replicated mode".into()),
            }
        }
        self.endpoint.apply(&mut spec.endpoint);
        self.policies(spec);
        self.resources(spec);
        self.container(spec)
    }

    fn policies(&self, spec: &mut ServiceSpec) {
        let task = Arc::make_mut(&mut spec.task);
        set(&mut task.restart.condition, self.restart_condition);
        set(&mut task.restart.delay, self.restart_delay);
        set(&mut task.restart.max_attempts, self.restart_max_attempts);
        set(&mut task.restart.window, self.restart_window);
        set(&mut task.placement.max_replicas_per_node, self.replicas_max_per_node);
        set(&mut spec.update.parallelism, self.update_parallelism);
        set(&mut spec.update.delay, self.update_delay);
        set(&mut spec.update.order, self.update_order);
        set(&mut spec.update.monitor, self.update_monitor);
        set(&mut spec.update.failure_action, self.update_failure_action);
        set(&mut spec.update.max_failure_permille, self.update_max_failure_ratio);
    }

    fn resources(&self, spec: &mut ServiceSpec) {
        let resources = &mut Arc::make_mut(&mut spec.task).resources;
        set(&mut resources.limits.nano_cpus, self.limit_cpu);
        set(&mut resources.limits.memory_bytes, self.limit_memory);
        set(&mut resources.limits.pids, self.limit_pids);
        set(&mut resources.reservations.nano_cpus, self.reserve_cpu);
        set(&mut resources.reservations.memory_bytes, self.reserve_memory);
    }

    fn container(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        let container = &mut Arc::make_mut(&mut spec.task).container;
        set(&mut container.stop_signal, self.stop_signal.clone());
        set(&mut container.stop_grace_period, self.stop_grace_period.map(Some));
        set(&mut container.user, self.user.clone());
        set(&mut container.dir, self.workdir.clone());
        set(&mut container.hostname, self.hostname.clone());
        set(&mut container.read_only, self.read_only);
        if let Some(text) = &self.entrypoint {
            container.entrypoint = words::split(text)?;
        }
        Ok(())
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

fn condition(text: &str) -> Result<RestartCondition, String> {
    let all = [RestartCondition::None, RestartCondition::OnFailure, RestartCondition::Any];
    all.into_iter().find(|c| c.as_str() == text).ok_or_else(|| "expected none, on-failure or any".into())
}

fn order(text: &str) -> Result<UpdateOrder, String> {
    match text {
        "stop-first" => Ok(UpdateOrder::StopFirst),
        "start-first" => Ok(UpdateOrder::StartFirst),
        _ => Err("expected stop-first or start-first".into()),
    }
}

fn action(text: &str) -> Result<FailureAction, String> {
    match text {
        "pause" => Ok(FailureAction::Pause),
        "continue" => Ok(FailureAction::Continue),
        "rollback" => Ok(FailureAction::Rollback),
        _ => Err("expected pause, continue or rollback".into()),
    }
}
