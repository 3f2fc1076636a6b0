//! Once nothing goes wrong any more the cluster comes to rest: each service has what it asks for (or
//! says why not), each container belongs to a task that is to run there, the group is made of the managers, and
//! nothing more is planned.
//!
//! What is not asked for, because the system is to be so:
//! - Services whose tasks end by themselves and are made anew for ever ([`restless`]) have no rest; but they
//!   disturb nobody else's.
//! - An update that is paused, or waits for room, may hold an old and a new task in one slot.
//! - A node all of whose managers of old have left the cluster cannot find it ([`Sim::can_ask`]).

use std::collections::BTreeSet;

use swarm_manager_core::orchestrator::{mode, slot::Slot};
use swarm_manager_core::store::{SlotKey, View};
use swarm_manager_raft::MemberRole;
use swarm_types::id::{NodeId, ServiceId};
use swarm_types::node::{NodeState, Role};
use swarm_types::service::{Mode, Service, UpdateState};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::sim::Sim;
use crate::sim::user::Fate;

/// Services whose tasks end by themselves: those of the spec, or those that a paused update has left.
pub fn restless(view: &View) -> BTreeSet<ServiceId> {
    let ends = |image: &str| ["crash", "once", "missing"].iter().any(|bad| image.starts_with(bad));
    let of_specs = view.services().filter(|s| ends(&s.spec.task.container.image)).map(|s| s.id);
    let of_tasks = view.tasks().filter(|t| t.is_wanted() && ends(&t.spec.container.image)).map(|t| t.service);
    of_specs.chain(of_tasks).collect()
}

/// Whether the cluster is at rest now.
///
/// # Errors
/// What is not at rest.
pub fn check(sim: &Sim) -> Result<(), String> {
    group(sim, leader(sim)?)?;
    if sim.user.asked.values().any(|a| a.fate == Fate::Open) {
        return Err("a user waits for an answer".into());
    }
    let view = sim.view();
    let restless = restless(view);
    for task in view.tasks().filter(|t| t.is_live() && !restless.contains(&t.service)) {
        self::task(view, task)?;
    }
    for service in view.services().filter(|s| !restless.contains(&s.id)) {
        self::service(view, service)?;
    }
    super::told_the_truth::check(sim)?;
    (0..sim.hosts.len()).try_for_each(|host| node(sim, host, &restless))
}

fn task(view: &View, task: &Task) -> Result<(), String> {
    let node_down = view.node(&task.node).is_some_and(|n| n.status.state == NodeState::Down);
    let state = task.status.state;
    let name = task.name();
    if task.desired_state > TaskState::Running && !node_down {
        return Err(format!("{name} is to be {} and is {state}", task.desired_state));
    }
    let waits = state <= TaskState::Pending && !task.status.err.is_empty();
    if task.is_wanted() && !waits && (state != TaskState::Running || node_down) {
        return Err(format!("{name} is {state}, desired {}, node down: {node_down}", task.desired_state));
    }
    Ok(())
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
    let in_between =
        update.is_some_and(|u| !matches!(u, UpdateState::Completed | UpdateState::RollbackCompleted));
    let wanted: BTreeSet<SlotKey> = tasks().map(|t| SlotKey::of(t)).collect();
    if !in_between && wanted.len() != tasks().count() {
        return Err(format!("{name} has {} tasks in {} slots", tasks().count(), wanted.len()));
    }
    // Filled by a task that runs or waits, or by the last word of one that is not to be replaced.
    let all: BTreeSet<SlotKey> = view.tasks_of_service(&service.id).map(|t| SlotKey::of(t)).collect();
    let filled: BTreeSet<SlotKey> =
        all.into_iter().filter(|key| Slot::read(view, &service.id, *key).is_active()).collect();
    match service.spec.mode {
        Mode::Replicated { replicas } if filled.len() as u64 != replicas => {
            Err(format!("{name} has {} of {replicas} slots filled", filled.len()))
        }
        Mode::Replicated { .. } => Ok(()),
        Mode::Global => {
            let mut missing = view.nodes().filter(|n| mode::belongs_on(service, n));
            match missing.find(|n| !filled.iter().any(|key| key.node == n.id)) {
                Some(node) => Err(format!("{name} is not on {}", node.id)),
                None => Ok(()),
            }
        }
    }
}

/// The one that leads.
fn leader(sim: &Sim) -> Result<usize, String> {
    let leads = |h: &usize| sim.hosts[*h].manager.as_ref().is_some_and(|m| m.leading().is_some());
    let leaders: Vec<usize> = (0..sim.hosts.len()).filter(leads).collect();
    match leaders[..] {
        [leader] => Ok(leader),
        _ => Err(format!("{} managers lead", leaders.len())),
    }
}

/// Members of the group and managers in the store are the same, and all of them vote.
fn group(sim: &Sim, leader: usize) -> Result<(), String> {
    let Some(running) = sim.hosts[leader].manager.as_ref().and_then(|m| m.running.as_ref()) else {
        return Err("the leader does not run".into());
    };
    let (members, view) = (running.core.members(), sim.view());
    if let Some(member) =
        members.iter().find(|m| view.node(&m.node_id).is_none_or(|n| n.role != Role::Manager))
    {
        return Err(format!("{} is in the group and no manager", member.node_id));
    }
    if let Some(node) = view.nodes().find(|n| n.role != n.spec.role) {
        return Err(format!(
            "{} is a {} and is to be a {}",
            node.id,
            node.role.as_str(),
            node.spec.role.as_str()
        ));
    }
    let here =
        |id: NodeId| sim.hosts.iter().position(|h| h.node == id && h.up).is_some_and(|h| sim.can_ask(h));
    // One whose machine has left while it joined waits for its operator.
    if let Some(learner) = members.iter().find(|m| m.role == MemberRole::Learner && here(m.node_id)) {
        return Err(format!("manager {} does not vote", learner.node_id));
    }
    if let Some(node) = view.nodes().find(|n| n.status.state != NodeState::Down && !here(n.id)) {
        return Err(format!("nobody is {}, and it is not down", node.id));
    }
    let outside = |n: &swarm_types::node::Node| n.role == Role::Manager && members.by_node(&n.id).is_none();
    match view.nodes().find(|n| outside(n) && here(n.id)) {
        Some(node) => Err(format!("{} is a manager and not in the group", node.id)),
        None => Ok(()),
    }
}

fn node(sim: &Sim, n: usize, restless: &BTreeSet<ServiceId>) -> Result<(), String> {
    let host = &sim.hosts[n];
    let Some(known) = sim.view().node(&host.node).filter(|_| host.up && sim.can_ask(n)) else {
        return Ok(());
    };
    if known.status.state != NodeState::Ready {
        return Err(format!("{} is not ready", host.name));
    }
    if host.worker.running.as_ref().is_none_or(|w| w.agent.session().is_none()) {
        return Err(format!("{} has no session", host.name));
    }
    for id in host.worker.containers.running() {
        let task = sim.view().task(id);
        if task.is_some_and(|t| restless.contains(&t.service)) {
            continue;
        }
        if !task.is_some_and(|t| t.node == host.node && t.is_wanted()) {
            return Err(format!("container {} runs on {} and should not", id.short(), host.name));
        }
    }
    let said =
        |t: &&std::sync::Arc<Task>| t.status.state == TaskState::Running && !restless.contains(&t.service);
    for task in sim.view().tasks_on_node(&host.node).filter(said) {
        if !sim.is_running(n, &task.id) {
            return Err(format!("{} is said to run on {} and does not", task.name(), host.name));
        }
    }
    Ok(())
}
