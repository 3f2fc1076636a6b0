//! Options of a scenario's commands: `replicas=3 image=app:1`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::placement::Constraint;
use swarm_types::policy::{FailureAction, RestartCondition, UpdateOrder};
use swarm_types::resources::NANO_CPU;
use swarm_types::service::{Mode, ServiceSpec};

use super::bad;
use crate::sim::command::Change;
use crate::sim::workload::service;

/// `key=value` pairs.
pub(super) struct Options(BTreeMap<String, String>);

/// `250ms`, `3s`, `2m` in milliseconds.
pub(super) fn millis(text: &str) -> Result<u64, String> {
    let (number, factor) = if let Some(n) = text.strip_suffix("ms") {
        (n, 1)
    } else if let Some(n) = text.strip_suffix('s') {
        (n, 1000)
    } else if let Some(n) = text.strip_suffix('m') {
        (n, 60_000)
    } else {
        return Err(bad(text));
    };
    number.parse::<u64>().map(|n| n * factor).map_err(|_| bad(text))
}

/// The change of a service that `key=value` stands for.
pub(super) fn change(text: &str) -> Result<Change, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| bad(text))?;
    let value = value.to_owned();
    Ok(match key {
        "image" => Change::Task(|t, v| t.container.image = v.into(), value),
        "label" => Change::Label(value),
        "force" => Change::Task(|t, v| t.force_update = v.parse().unwrap_or(0), value),
        "memory" => {
            Change::Task(|t, v| t.resources.reservations.memory_bytes = v.parse().unwrap_or(0) << 20, value)
        }
        _ => return Err(bad(text)),
    })
}

impl Options {
    /// Reads them.
    pub(super) fn read(words: &[&str]) -> Result<Options, String> {
        let pair = |word: &&str| {
            let (key, value) = word.split_once('=').ok_or_else(|| bad(word))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        words.iter().map(pair).collect::<Result<_, String>>().map(Options)
    }
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.get(key).map(|v| v.parse().map_err(|_| bad(v))).transpose()
    }
    fn time(&self, key: &str) -> Result<Option<Duration>, String> {
        self.get(key).map(|v| millis(v).map(Duration::from_millis)).transpose()
    }

    /// A service's spec.
    pub(super) fn service(&self, name: &str) -> Result<ServiceSpec, String> {
        let replicas = self.number("replicas")?.unwrap_or(1);
        let mut spec = service(name, replicas, self.get("image").unwrap_or("app:1"));
        if self.get("mode") == Some("global") {
            spec.mode = Mode::Global;
        }
        self.roll_out(&mut spec)?;
        let task = Arc::make_mut(&mut spec.task);
        if let Some(text) = self.get("constraint") {
            task.placement.constraints.push(Constraint::parse(text).map_err(|e| e.to_string())?);
        }
        task.resources.reservations.memory_bytes = self.number("memory")?.unwrap_or(0) << 20;
        task.resources.reservations.nano_cpus = self.number("cpus")?.unwrap_or(0) * NANO_CPU;
        task.placement.max_replicas_per_node = self.number("per-node")?.unwrap_or(0);
        task.restart.delay = self.time("delay")?.unwrap_or(task.restart.delay);
        task.restart.max_attempts = self.number("attempts")?.unwrap_or(0);
        task.restart.window = self.time("window")?.unwrap_or(Duration::ZERO);
        task.restart.condition = match self.get("restart") {
            Some("none") => RestartCondition::None,
            Some("on-failure") => RestartCondition::OnFailure,
            _ => RestartCondition::Any,
        };
        Ok(spec)
    }

    fn roll_out(&self, spec: &mut ServiceSpec) -> Result<(), String> {
        spec.update.parallelism = self.number("parallelism")?.unwrap_or(1);
        spec.update.delay = self.time("update-delay")?.unwrap_or(Duration::ZERO);
        spec.update.monitor = self.time("monitor")?.unwrap_or(spec.update.monitor);
        spec.update.order = match self.get("order") {
            Some("start-first") => UpdateOrder::StartFirst,
            _ => UpdateOrder::StopFirst,
        };
        spec.update.failure_action = match self.get("on-failure") {
            Some("continue") => FailureAction::Continue,
            Some("rollback") => FailureAction::Rollback,
            _ => FailureAction::Pause,
        };
        Ok(())
    }
}
