//! What a scenario prints: state, never log lines, at most 100 columns.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use swarm_types::service::Mode;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::sim::Sim;

/// Milliseconds as seconds.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

/// How many tasks of a service run.
pub(super) fn running(sim: &Sim, name: &str) -> usize {
    let Some(service) = sim.view().service_by_name(name) else { return 0 };
    let tasks = sim.view().tasks_of_service(&service.id);
    tasks.filter(|t| t.is_wanted() && t.status.state == TaskState::Running).count()
}

/// The tasks of a service, slot by slot, the newest first.
pub(super) fn tasks(sim: &Sim, name: &str, out: &mut String) {
    let Some(service) = sim.view().service_by_name(name) else {
        let _ = writeln!(out, "no service {name}");
        return;
    };
    let mut slots: BTreeMap<(u64, String), Vec<&Arc<Task>>> = BTreeMap::new();
    for task in sim.view().tasks_of_service(&service.id) {
        let node = if task.slot == 0 { task.node.to_string() } else { String::new() };
        slots.entry((task.slot, node)).or_default().push(task);
    }
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|t| (t.is_wanted(), t.meta.created_at, t.id));
        for (n, task) in tasks.iter().rev().enumerate() {
            let lead = if n == 0 { "" } else { "  before: " };
            let line = format!("{lead}{}  {}  {}", task.name(), on(task), state(task));
            let _ = writeln!(out, "{}", line.chars().take(100).collect::<String>().trim_end());
        }
    }
    if slots.is_empty() {
        let _ = writeln!(out, "{name} has no tasks");
    }
}

fn on(task: &Task) -> String {
    if task.node.is_empty() { "-".into() } else { task.node.to_string() }
}

fn state(task: &Task) -> String {
    let mut text = task.status.state.to_string();
    if task.is_live() && task.desired_state > TaskState::Running {
        let _ = write!(text, " (to be {})", task.desired_state);
    }
    if task.spec.container.image != "app:1" {
        let _ = write!(text, "  {}", task.spec.container.image);
    }
    if !task.status.err.is_empty() {
        let _ = write!(text, "  \"{}\"", task.status.err);
    } else if task.status.state.is_terminal() && !task.status.message.is_empty() {
        let _ = write!(text, "  ({})", task.status.message);
    }
    text
}

/// How many of a service's tasks each node runs.
pub(super) fn count(sim: &Sim, name: &str, out: &mut String) {
    let Some(service) = sim.view().service_by_name(name) else { return };
    let mut nodes: BTreeMap<String, usize> = sim.view().nodes().map(|n| (n.id.to_string(), 0)).collect();
    for task in sim.view().tasks_of_service(&service.id) {
        if task.is_wanted() && task.status.state == TaskState::Running {
            *nodes.entry(task.node.to_string()).or_default() += 1;
        }
    }
    let busy = nodes.iter().filter(|(_, n)| **n > 0).map(|(node, n)| format!("{node}: {n}"));
    let _ = writeln!(out, "{name}  {}", busy.collect::<Vec<_>>().join("  "));
}

/// All nodes.
pub(super) fn nodes(sim: &Sim, out: &mut String) {
    for node in sim.view().nodes() {
        let host = sim.hosts.iter().find(|h| h.node == node.id);
        let manager = host.and_then(|h| h.manager.as_ref()).filter(|_| node.manager.is_some());
        let leads = manager.map_or("", |m| if m.leading().is_some() { "  leader" } else { "  reachable" });
        let (state, availability) = (node.status.state.as_str(), node.spec.availability.as_str());
        let _ = writeln!(out, "{}  {state}  {availability}{leads}", node.id);
    }
}

/// All services.
pub(super) fn services(sim: &Sim, out: &mut String) {
    for service in sim.view().services() {
        let name = &service.spec.annotations.name;
        let wanted = match service.spec.mode {
            Mode::Replicated { replicas } => replicas.to_string(),
            Mode::Global => "global".into(),
        };
        let update = service.update_status.as_ref();
        let update = update.map(|u| format!("  {}: {}", u.state.as_str(), u.message)).unwrap_or_default();
        let image = &service.spec.task.container.image;
        // Ids name the task that failed: they say nothing here.
        let update: Vec<&str> = update.split(' ').map(|w| if w.len() == 25 { "TASK" } else { w }).collect();
        let _ = writeln!(out, "{name}  {}/{wanted}  {image}{}", running(sim, name), update.join(" "));
    }
}
