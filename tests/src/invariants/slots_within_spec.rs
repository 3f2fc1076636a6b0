//! A new task fills a slot that the spec asks for, and no slot holds more wanted tasks than its
//! update order allows: one, or two while one starts before the other stops.

use std::collections::BTreeMap;

use swarm_manager_core::store::View;
use swarm_types::id::NodeId;
use swarm_types::service::{Mode, Service};
use swarm_types::task::Task;

/// Looks at the slots of a service in which a task was just made; `before`: the store without it; `base`: the
/// version of the store that this was decided on, if that is known.
///
/// # Errors
/// If a slot was added that the spec does not ask for, or one holds too many tasks.
pub fn check(before: &View, view: &View, made: &Task, base: Option<u64>) -> Result<(), String> {
    let Some(service) = view.service(&made.service) else {
        return Err(format!("task {} was made for no service", made.id));
    };
    let name = &service.spec.annotations.name;
    let (old, new) = (slots(before, service), slots(view, service));
    if let Mode::Replicated { replicas } = service.spec.mode
        // A replacement in a slot that is about to go is no new slot.
        && new.len() > old.len()
        // A plan that a change of the spec overtook is put right by the next one.
        && base.is_some_and(|base| base >= service.meta.version)
        && new.len() as u64 > replicas
    {
        return Err(format!("{name} has {} slots and {replicas} replicas", new.len()));
    }
    match new.get(&(made.slot, if made.slot == 0 { made.node } else { NodeId::MIN })) {
        Some(count) if *count > 2 => Err(format!("{}.{} has {count} wanted tasks", name, made.slot)),
        _ => Ok(()),
    }
}

fn slots(view: &View, service: &Service) -> BTreeMap<(u64, NodeId), usize> {
    let mut slots = BTreeMap::new();
    for task in view.tasks_of_service(&service.id).filter(|t| t.is_wanted() && t.is_live()) {
        let node = if task.slot == 0 { task.node } else { NodeId::MIN };
        *slots.entry((task.slot, node)).or_default() += 1;
    }
    slots
}
