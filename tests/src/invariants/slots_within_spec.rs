//! A new task fills a slot that the spec asks for, and no slot holds more wanted tasks than its
//! update order allows: one, or two while one starts before the other stops.
//!
//! Two things are left out, because the system is to be so:
//! - A plan that a change of the spec overtook on its way (`base` is older than the service) may fill slots
//!   that are asked for no more; the next plan takes them away. If it were refused instead, a user who changes one service
//!   without pause would keep the leader from planning for all others.
//! - A slot that has more wanted tasks than the order of now allows, because the order was changed in the middle of an
//!   update, keeps them until the update comes to it. It must not get more.

use std::collections::BTreeMap;

use swarm_manager_core::store::View;
use swarm_types::id::NodeId;
use swarm_types::policy::UpdateOrder;
use swarm_types::service::{Mode, Service};
use swarm_types::task::Task;

/// Looks at the slots of a service in which a task was just made; `before`: the store without it; `base`: the
/// version of the store that this was decided on.
///
/// # Errors
/// If a slot was added that the spec does not ask for, or one holds too many tasks.
pub fn check(before: &View, view: &View, made: &Task, base: Option<u64>) -> Result<(), String> {
    let Some(service) = view.service(&made.service) else {
        return Err(format!("task {} was made for no service", made.id));
    };
    let Some(base) = base else { return Err(format!("task {} is of no plan", made.id)) };
    // The plan itself may have changed the service: what it was made for is the one before.
    let overtaken = before.service(&made.service).is_some_and(|s| s.meta.version > base);
    let name = &service.spec.annotations.name;
    let (old, new) = (slots(before, service), slots(view, service));
    if let Mode::Replicated { replicas } = service.spec.mode
        // A replacement in a slot that is about to go is no new slot.
        && new.len() > old.len()
        && !overtaken
        && new.len() as u64 > replicas
    {
        return Err(format!("{name} has {} slots and {replicas} replicas", new.len()));
    }
    let most = match service.spec.update.order {
        UpdateOrder::StopFirst if !overtaken => 1,
        UpdateOrder::StopFirst | UpdateOrder::StartFirst => 2,
    };
    let key = (made.slot, if made.slot == 0 { made.node } else { NodeId::MIN });
    let (had, has) = (old.get(&key).copied().unwrap_or(0), new.get(&key).copied().unwrap_or(0));
    if has > most.max(had) {
        return Err(format!("{name}.{} has {has} wanted tasks, {had} before", made.slot));
    }
    Ok(())
}

fn slots(view: &View, service: &Service) -> BTreeMap<(u64, NodeId), usize> {
    let mut slots = BTreeMap::new();
    for task in view.tasks_of_service(&service.id).filter(|t| t.is_wanted() && t.is_live()) {
        let node = if task.slot == 0 { task.node } else { NodeId::MIN };
        *slots.entry((task.slot, node)).or_default() += 1;
    }
    slots
}
