//! Store: the one truth; changes only by [`Store::apply`].
//!
//! Reads:   all tables.
//! Writes:  all tables, and every object's meta.
//! Never:   takes a part of a transaction; panics on what one holds.
//! Start:   [`Store::apply`].

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::id::ServiceId;
use swarm_types::meta::{Annotations, Meta};
use swarm_types::network::{Network, Subnet};
use swarm_types::service::Service;
use swarm_types::task::{Task, TaskSpec};
use swarm_types::time::Timestamp;

use super::event::{Event, Object};
use super::transaction::{Change, Key, SpecSource, Transaction};
use super::view::View;

/// A transaction was not applied; the store is as before. All managers refuse alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An object is not as it was when the transaction was decided.
    #[error("{key} has version {found}, not {required}: update out of sequence")]
    Stale {
        /// Which object.
        key: Key,
        /// The version it had then; 0 for "did not exist".
        required: u64,
        /// The version it has.
        found: u64,
    },
    /// Another service has the name.
    #[error("service {0} already exists")]
    NameTaken(String),
    /// Another network has the name.
    #[error("network {0} already exists")]
    NetworkNameTaken(String),
    /// Another network has the addresses or the number, or is the ingress network already.
    #[error("network {0} is in the way")]
    NetworkInTheWay(String),
    /// A network is to be deleted that a service is on.
    #[error("network {network} is in use by service {service}")]
    NetworkInUse {
        /// Its name.
        network: String,
        /// The service's.
        service: String,
    },
    /// Something is to be deleted that is not there.
    #[error("{0} not found")]
    Missing(Key),
    /// A task came without its spec, and the store does not have it either.
    #[error("{0} has no spec")]
    NoSpec(Key),
    /// Versions must grow.
    #[error("version {given} is not after {current}")]
    OldVersion {
        /// The version it came with.
        given: u64,
        /// The version of the store.
        current: u64,
    },
}

/// The one truth.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    view: View,
}

impl Store {
    /// All objects as they are now. Cheap.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Applies a transaction whole, as the one of `version`: the index of its log entry, which must
    /// be greater than all before. Gives back what changed, in the order of the changes.
    ///
    /// # Errors
    /// See [`Refused`]; nothing changed then.
    pub fn apply(&mut self, version: u64, transaction: &Transaction) -> Result<Vec<Event>, Refused> {
        self.apply_owned(version, transaction.clone())
    }

    /// As [`Store::apply`]; objects that nobody else holds are taken over, not copied.
    ///
    /// # Errors
    /// See [`Refused`]; nothing changed then.
    pub fn apply_owned(&mut self, version: u64, transaction: Transaction) -> Result<Vec<Event>, Refused> {
        let Transaction { at, requires, changes } = transaction;
        let current = self.view.version();
        if version <= current {
            return Err(Refused::OldVersion { given: version, current });
        }
        for (key, required) in requires {
            let found = self.view.version_of(&key);
            if found != required {
                return Err(Refused::Stale { key, required, found });
            }
        }
        // Written in place, where no reader holds the view; taken back if a change is refused.
        let rest = self.view.without_tasks();
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match apply_change(&mut self.view, version, at, change) {
                Ok(event) => events.push(event),
                Err(refused) => {
                    let writes = events.iter().map(|event| (event.key(), event.before().cloned()));
                    self.view.undo(rest, writes);
                    return Err(refused);
                }
            }
        }
        self.view.version = version;
        self.view.newest_time = self.view.newest_time.max(at);
        Ok(events)
    }

    /// A store that holds these objects as they are, each with its meta: what a snapshot brings.
    /// Equal specs of a service's tasks become one in memory.
    pub fn restore(version: u64, newest_time: Timestamp, objects: impl IntoIterator<Item = Object>) -> Store {
        let mut view = View::default();
        (view.version, view.newest_time) = (version, newest_time);
        let mut shared = Shared::default();
        for object in objects {
            view.put(match object {
                Object::Task(task) => Object::Task(shared.task(task)),
                Object::Service(service) => {
                    shared.service(&service);
                    Object::Service(service)
                }
                other @ (Object::Cluster(_) | Object::Node(_) | Object::Network(_)) => other,
            });
        }
        Store { view }
    }
}

fn apply_change(view: &mut View, version: u64, at: Timestamp, change: Change) -> Result<Event, Refused> {
    let key = change.key();
    let source = if let Change::PutTask(_, source) = change { source } else { SpecSource::Inline };
    let old = view.get(&key);
    let Some(mut object) = change.into_object() else {
        if let Some(Object::Network(network)) = &old {
            unused(view, network)?;
        }
        view.delete(&key);
        return old.map(Event::Deleted).ok_or(Refused::Missing(key));
    };
    let created_at = old.as_ref().map_or(at, |old| old.meta().created_at);
    object.set_meta(Meta { version, created_at, updated_at: at });
    let object = match object {
        Object::Task(task) => Object::Task(with_spec(view, task, source)?),
        Object::Service(service) => Object::Service(named_once(view, service)?),
        Object::Network(network) => Object::Network(network_named_once(view, network)?),
        object @ (Object::Cluster(_) | Object::Node(_)) => object,
    };
    view.put(object.clone());
    Ok(match old {
        Some(old) => Event::Updated { old, new: object },
        None => Event::Created(object),
    })
}

fn named_once(view: &View, service: Arc<Service>) -> Result<Arc<Service>, Refused> {
    let name = &service.spec.annotations.name;
    match view.service_by_name(name) {
        Some(other) if other.id != service.id => Err(Refused::NameTaken(name.clone())),
        _ => Ok(service),
    }
}

fn network_named_once(view: &View, network: Arc<Network>) -> Result<Arc<Network>, Refused> {
    let name = &network.spec.annotations.name;
    match view.network_by_name(name) {
        Some(other) if other.id != network.id => Err(Refused::NetworkNameTaken(name.clone())),
        // What is unique of a network never changes once it is there.
        _ if view.network(&network.id).is_some() => Ok(network),
        _ => match view.networks().find(|other| in_the_way(&network, other)) {
            Some(other) => Err(Refused::NetworkInTheWay(other.spec.annotations.name.clone())),
            None => Ok(network),
        },
    }
}

/// Two that were made at the same moment did not see each other.
fn in_the_way(network: &Network, other: &Network) -> bool {
    let overlap = |a: &Subnet, b: &Subnet| a.net.contains(&b.net) || b.net.contains(&a.net);
    network.subnets.iter().any(|a| other.subnets.iter().any(|b| overlap(a, b)))
        || (network.vni != 0 && network.vni == other.vni)
        || (network.spec.ingress && other.spec.ingress)
}

/// A service may have come to a network while its removal was on the way.
fn unused(view: &View, network: &Network) -> Result<(), Refused> {
    let on = |s: &&Arc<Service>| s.spec.task.networks.iter().any(|a| a.network == network.id);
    match view.services().find(on) {
        None => Ok(()),
        Some(service) => Err(Refused::NetworkInUse {
            network: network.spec.annotations.name.clone(),
            service: service.spec.annotations.name.clone(),
        }),
    }
}

/// Gives a task the spec and annotations that the store has already, if they are the same.
fn with_spec(view: &View, mut task: Arc<Task>, source: SpecSource) -> Result<Arc<Task>, Refused> {
    let refused = Refused::NoSpec(Key::Task(task.id));
    let (spec, annotations) = match source {
        SpecSource::Inline => return Ok(task),
        SpecSource::Unchanged => {
            let old = view.task(&task.id).ok_or(refused)?;
            (old.spec.clone(), old.service_annotations.clone())
        }
        SpecSource::OfService => {
            let service = view.service(&task.service).filter(|s| s.spec_version == task.spec_version);
            let service = service.ok_or_else(|| refused.clone())?;
            (service.spec.task.clone(), view.service_annotations(&service.id).ok_or(refused)?.clone())
        }
    };
    let changed = Arc::make_mut(&mut task);
    changed.spec = spec;
    changed.service_annotations = annotations;
    Ok(task)
}

/// Specs met so far while restoring: the last of each service's version.
#[derive(Default)]
struct Shared(BTreeMap<(ServiceId, u64), (Arc<TaskSpec>, Arc<Annotations>)>);

impl Shared {
    fn service(&mut self, service: &Service) {
        let annotations = Arc::new(service.spec.annotations.clone());
        self.0.insert((service.id, service.spec_version), (service.spec.task.clone(), annotations));
    }
    fn task(&mut self, mut task: Arc<Task>) -> Arc<Task> {
        let mine = (task.spec.clone(), task.service_annotations.clone());
        let known = self.0.entry((task.service, task.spec_version)).or_insert(mine);
        if known.0 != task.spec {
            known.0 = task.spec.clone();
        }
        if known.1 != task.service_annotations {
            known.1 = task.service_annotations.clone();
        }
        if !Arc::ptr_eq(&known.0, &task.spec) || !Arc::ptr_eq(&known.1, &task.service_annotations) {
            let task = Arc::make_mut(&mut task);
            (task.spec, task.service_annotations) = known.clone();
        }
        task
    }
}
