//! Objects: everything in a view, in an order that a snapshot can be written and read in.
//!
//! Reads:   all tables.
//! Writes:  nothing.
//! Never:   copies an object; knows how one is encoded.
//! Start:   [`records`].

use std::sync::Arc;

use swarm_types::id::ServiceId;
use swarm_types::task::Task;

use super::event::Object;
use super::transaction::SpecSource;
use super::view::View;

/// One object of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The object.
    pub object: Object,
    /// For tasks, what the encoder may leave out: [`SpecSource::OfService`] as in a transaction (the
    /// service comes earlier), [`SpecSource::Unchanged`]: as in the record just before, which is a
    /// task of the same service. Always `Inline` for other objects.
    pub source: SpecSource,
}

impl Record {
    fn plain(object: Object) -> Record {
        Record { object, source: SpecSource::Inline }
    }
}

/// All objects: the cluster, nodes by id, networks by id, services by id, then tasks grouped by service and spec, so
/// that no spec needs to be written twice. Lazy: holds one service's tasks at a time.
pub fn records(view: &View) -> impl Iterator<Item = Record> + use<'_> {
    let cluster = view.cluster().cloned().map(Object::Cluster);
    let nodes = view.nodes().cloned().map(Object::Node);
    let networks = view.networks().cloned().map(Object::Network);
    let services = view.services().cloned().map(Object::Service);
    let tasks = view.services_with_tasks().flat_map(|id| task_records(view, id));
    cluster.into_iter().chain(nodes).chain(networks).chain(services).map(Record::plain).chain(tasks)
}

fn task_records(view: &View, id: &ServiceId) -> Vec<Record> {
    let mut tasks: Vec<Arc<Task>> = view.tasks_of_service(id).cloned().collect();
    tasks.sort_by_key(|task| task.spec_version);
    let mut before: Option<Arc<Task>> = None;
    let mut records = Vec::with_capacity(tasks.len());
    for task in tasks {
        let source = source(view, before.as_deref(), &task);
        before = Some(task.clone());
        records.push(Record { object: Object::Task(task), source });
    }
    records
}

fn source(view: &View, before: Option<&Task>, task: &Task) -> SpecSource {
    let as_before = |b: &Task| b.spec == task.spec && b.service_annotations == task.service_annotations;
    let of_service = view.service(&task.service).is_some_and(|service| {
        service.spec_version == task.spec_version
            && service.spec.task == task.spec
            && service.spec.annotations == *task.service_annotations
    });
    match before {
        _ if of_service => SpecSource::OfService,
        Some(before) if as_before(before) => SpecSource::Unchanged,
        Some(_) | None => SpecSource::Inline,
    }
}
