//! Resolve: which object a user means by a name, an id, or the beginning of an id.
//!
//! Reads:   services, networks, nodes, tasks.
//! Writes:  nothing.
//! Never:   guesses: what stands for several is refused.
//! Start:   [`service`], [`node`], [`task`].
//!
//! A full id wins over a name, a name over the beginning of an id (Docker's order).

use std::sync::Arc;

use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::Task;

use super::Denied;
use crate::store::{SlotKey, View};

/// The service meant by `name`. Names of services ignore case.
///
/// # Errors
/// [`Denied::NotFound`], [`Denied::Ambiguous`].
pub fn service<'a>(view: &'a View, name: &'a str) -> Result<&'a Arc<Service>, Denied> {
    let exact = full(name).and_then(|id| view.service(&id.into())).or_else(|| view.service_by_name(name));
    match exact {
        Some(service) => Ok(service),
        None => only("service", name, prefix(name, view.services_by_prefix(name))),
    }
}

/// The network meant by `name`.
///
/// # Errors
/// [`Denied::NotFound`], [`Denied::Ambiguous`].
pub fn network<'a>(view: &'a View, name: &'a str) -> Result<&'a Arc<Network>, Denied> {
    let exact = full(name).and_then(|id| view.network(&id.into())).or_else(|| view.network_by_name(name));
    match exact {
        Some(network) => Ok(network),
        None => only("network", name, prefix(name, view.networks_by_prefix(name))),
    }
}

/// The node meant by `name`: its own name or its host's.
///
/// # Errors
/// [`Denied::NotFound`], [`Denied::Ambiguous`]: host names need not be unique.
pub fn node<'a>(view: &'a View, name: &'a str) -> Result<&'a Arc<Node>, Denied> {
    if let Some(node) = full(name).and_then(|id| view.node(&id.into())) {
        return Ok(node);
    }
    let named = |node: &&Arc<Node>| {
        !name.is_empty() && (node.description.hostname == name || node.spec.annotations.name == name)
    };
    match view.nodes().filter(named).count() {
        0 => only("node", name, prefix(name, view.nodes_by_prefix(name))),
        _ => only("node", name, view.nodes().filter(named)),
    }
}

/// The task meant by `name`: besides ids, `service.slot` (`service.node` in a global one) is the
/// newest task of that place.
///
/// # Errors
/// [`Denied::NotFound`], [`Denied::Ambiguous`].
pub fn task<'a>(view: &'a View, name: &'a str) -> Result<&'a Arc<Task>, Denied> {
    let exact = full(name).and_then(|id| view.task(&id.into())).or_else(|| in_place(view, name));
    match exact {
        Some(task) => Ok(task),
        None => only("task", name, prefix(name, view.tasks_by_prefix(name))),
    }
}

fn in_place<'a>(view: &'a View, name: &str) -> Option<&'a Arc<Task>> {
    let (service, place) = name.rsplit_once('.')?;
    let service = view.service_by_name(service)?;
    let key = match place.parse::<u64>() {
        Ok(slot) if slot > 0 => SlotKey { slot, ..SlotKey::default() },
        _ => SlotKey { slot: 0, node: full(place)?.into() },
    };
    view.tasks_of_slot(&service.id, key).max_by_key(|task| (task.is_wanted(), task.meta.created_at, task.id))
}

/// Text that can be a whole id. Longer text would be cut when made into one.
fn full(name: &str) -> Option<&str> {
    let good = !name.is_empty() && name.len() <= swarm_types::id::MAX_ID_BYTES;
    (good && name.bytes().all(|b| b.is_ascii_graphic())).then_some(name)
}

fn prefix<'a, T>(name: &str, found: impl Iterator<Item = &'a Arc<T>>) -> impl Iterator<Item = &'a Arc<T>>
where
    T: 'a,
{
    let good = full(name).is_some();
    found.take_while(move |_| good)
}

fn only<'a, T>(
    kind: &'static str,
    name: &str,
    mut found: impl Iterator<Item = &'a Arc<T>>,
) -> Result<&'a Arc<T>, Denied> {
    let first = found.next().ok_or_else(|| Denied::not_found(kind, name))?;
    match found.count() {
        0 => Ok(first),
        more => Err(Denied::Ambiguous { kind, name: name.to_owned(), matches: more + 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Draft;
    use swarm_types::testing;
    use swarm_types::time::Timestamp;

    fn world() -> Draft {
        let mut draft = Draft::new(View::default(), Timestamp(1));
        for (id, name) in [("abc1", "Web"), ("abd2", "db"), ("x", "abc1")] {
            let spec = testing::service(name).build();
            draft.put_service(Service { id: id.into(), spec, ..Service::default() });
        }
        for (id, host) in [("n1", "alpha"), ("n2", "beta"), ("n3", "beta")] {
            let mut node = testing::node(id);
            node.description.hostname = host.into();
            draft.put_node(node);
        }
        for (id, slot) in [("t1", 1), ("t2", 1), ("t3", 2)] {
            let (service, slot) = ("abd2".into(), slot);
            draft.put_task(Task { id: id.into(), service, slot, ..Task::default() });
        }
        draft
    }

    #[test]
    fn id_then_name_then_prefix() {
        let world = world();
        let id = |name| service(&world, name).map(|s| s.id.to_string());
        assert_eq!(id("abc1"), Ok("abc1".into()), "not the service that is called so");
        assert_eq!(id("wEB"), Ok("abc1".into()));
        assert_eq!(id("abd"), Ok("abd2".into()));
        assert_eq!(id("ab").unwrap_err().to_string(), "service ab is ambiguous (2 matches found)");
        assert_eq!(id("nope").unwrap_err().to_string(), "service nope not found");
        assert_eq!(id("").unwrap_err().to_string(), "service  not found");
    }

    #[test]
    fn text_that_is_no_id_finds_nothing() {
        let world = world();
        for name in ["abc1 ", "ä", "abc1abc1abc1abc1abc1abc1abc1"] {
            assert!(matches!(service(&world, name), Err(Denied::NotFound { .. })), "{name}");
        }
    }

    #[test]
    fn host_names_may_be_ambiguous() {
        let world = world();
        assert_eq!(node(&world, "alpha").unwrap().id, "n1".into());
        assert!(matches!(node(&world, "beta"), Err(Denied::Ambiguous { matches: 2, .. })));
        assert!(matches!(node(&world, "n"), Err(Denied::Ambiguous { matches: 3, .. })));
    }

    #[test]
    fn a_task_is_known_by_its_place() {
        let world = world();
        assert_eq!(task(&world, "db.1").unwrap().id, "t2".into());
        assert_eq!(task(&world, "t3").unwrap().id, "t3".into());
        assert!(matches!(task(&world, "db.7"), Err(Denied::NotFound { .. })));
        assert!(matches!(task(&world, "t"), Err(Denied::Ambiguous { .. })));
    }
}
