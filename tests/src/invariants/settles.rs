//! Once nothing goes wrong any more the cluster comes to rest: each service has what it asks for (or
//! says why not), each container belongs to a task that is to run there, and nothing more is planned.

use std::collections::BTreeSet;

use swarm_manager_core::store::View;
use swarm_types::node::NodeState;
use swarm_types::service::{Mode, Service, UpdateState};
use swarm_types::task_state::TaskState;

use crate::sim::Sim;
use crate::sim::user::Fate;

/// Whether the cluster is at rest now.
///
/// # Errors
/// What is not at rest.
pub fn check(sim: &Sim) -> Result<(), String> {
    leader(sim)?;
    if sim.user.asked.values().any(|a| a.fate == Fate::Open) {
        return Err("a user waits for an answer".into());
    }
    let view = sim.view();
    for task in view.tasks().filter(|t| t.is_live()) {
        let node_down = view.node(&task.node).is_some_and(|n| n.status.state == NodeState::Down);
        let state = task.status.state;
        let name = task.name();
        if task.desired_state > TaskState::Running && !node_down {
            return Err(format!("{name} is to be {} and is {state}", task.desired_state));
        }
        let waits = state <= TaskState::Pending && !task.status.err.is_empty();
        let fine = state == TaskState::Running || waits || node_down;
        if task.is_wanted() && !fine {
            return Err(format!("{name} is {state}, desired {}", task.desired_state));
        }
    }
    for service in view.services() {
        self::service(view, service)?;
    }
    super::told_the_truth::check(sim)?;
    sim.hosts.iter().enumerate().try_for_each(|(n, _)| containers(sim, n))
}

fn service(view: &View, service: &Service) -> Result<(), String> {
    let name = &service.spec.annotations.name;
    let tasks = || view.tasks_of_service(&service.id).filter(|t| t.is_wanted() && t.is_live());
    let update = service.update_status.as_ref().map(|u| u.state);
    let waits = tasks().any(|t| t.status.state <= TaskState::Pending);
    if matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted)) && !waits {
        return Err(format!("{name} is being updated"));
    }
    if let Some(task) = tasks().find(|t| t.desired_state < TaskState::Running) {
        return Err(format!("{} is still to wait", task.name()));
    }
    // A paused or waiting update may hold an old and a new task in one slot.
    let in_between =
        update.is_some_and(|u| !matches!(u, UpdateState::Completed | UpdateState::RollbackCompleted));
    let slots: BTreeSet<u64> = tasks().map(|t| t.slot).collect();
    let count = if in_between { slots.len() } else { tasks().count() };
    match service.spec.mode {
        Mode::Replicated { replicas } if count as u64 > replicas => {
            Err(format!("{name} has {count} of {replicas}"))
        }
        Mode::Replicated { .. } | Mode::Global => Ok(()),
    }
}

fn leader(sim: &Sim) -> Result<(), String> {
    let leads = |h: &&crate::sim::host::Host| h.manager.as_ref().is_some_and(|m| m.leading().is_some());
    match sim.hosts.iter().filter(leads).count() {
        1 => Ok(()),
        n => Err(format!("{n} managers lead")),
    }
}

fn containers(sim: &Sim, n: usize) -> Result<(), String> {
    let host = &sim.hosts[n];
    let known = sim.view().node(&host.node);
    if !host.up || known.is_none() || !sim.knows_a_manager(n) {
        return Ok(());
    }
    if known.is_some_and(|n| n.status.state != NodeState::Ready) {
        return Err(format!("{} is not ready", host.name));
    }
    if host.worker.running.as_ref().is_none_or(|w| w.agent.session().is_none()) {
        return Err(format!("{} has no session", host.name));
    }
    for id in host.worker.containers.running() {
        let task = sim.view().task(id);
        if !task.is_some_and(|t| t.node == host.node && t.is_wanted()) {
            return Err(format!("container {} runs on {} and should not", id.short(), host.name));
        }
    }
    for task in sim.view().tasks_on_node(&host.node).filter(|t| t.status.state == TaskState::Running) {
        if !sim.is_running(n, &task.id) {
            return Err(format!("{} is said to run on {} and does not", task.name(), host.name));
        }
    }
    Ok(())
}
