//! Between the store's transactions and the bytes of the log and of snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use swarm_manager_core::store::{Change, Key, Object, SpecSource, Transaction};
use swarm_proto::convert::Malformed;
use swarm_proto::v1;
use swarm_types::id::ServiceId;
use swarm_types::task::{Task, TaskSpec};
use swarm_types::time::Timestamp;

/// Bytes are no transaction, or no part of a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Not the message that was expected.
    #[error("decode log entry")]
    Bytes(#[from] prost::DecodeError),
    /// A message with a field that is missing or wrong.
    #[error("read log entry: {0}")]
    Field(#[from] Malformed),
    /// A oneof without a value: written by a version that knows more.
    #[error("log entry holds an unknown {0}: it was written by a newer version")]
    Unknown(&'static str),
}

/// The bytes of a transaction.
pub fn encode(tx: &Transaction) -> Vec<u8> {
    v1::Transaction {
        at_ms: tx.at.0,
        requires: tx
            .requires
            .iter()
            .map(|(key, version)| v1::Requirement { key: Some(key_out(key)), version: *version })
            .collect(),
        changes: tx.changes.iter().map(|c| v1::Change { change: Some(change_out(c)) }).collect(),
    }
    .encode_to_vec()
}

/// The transaction that `bytes` are.
///
/// # Errors
/// If they are none, or one from a version that knows more than this.
pub fn decode(bytes: &[u8]) -> Result<Transaction, CodecError> {
    let wire = v1::Transaction::decode(bytes)?;
    let requires = wire.requires.into_iter().map(|r| Ok((key_in(r.key)?, r.version)));
    let changes = wire.changes.into_iter().map(|c| change_in(c.change.ok_or(CodecError::Unknown("change"))?));
    Ok(Transaction {
        at: Timestamp(wire.at_ms),
        requires: requires.collect::<Result<_, CodecError>>()?,
        changes: changes.collect::<Result<_, CodecError>>()?,
    })
}

fn key_out(key: &Key) -> v1::Key {
    use v1::key::Key as Wire;
    let key = match key {
        Key::Cluster => Wire::Cluster(true),
        Key::Node(id) => Wire::Node(id.to_string()),
        Key::Network(id) => Wire::Network(id.to_string()),
        Key::Service(id) => Wire::Service(id.to_string()),
        Key::Task(id) => Wire::Task(id.to_string()),
    };
    v1::Key { key: Some(key) }
}

fn key_in(key: Option<v1::Key>) -> Result<Key, CodecError> {
    use v1::key::Key as Wire;
    let bad = |e: swarm_types::id::InvalidId| Malformed { field: "key".into(), problem: e.to_string() };
    Ok(match key.and_then(|k| k.key).ok_or(CodecError::Unknown("key"))? {
        Wire::Cluster(_) => Key::Cluster,
        Wire::Node(id) => Key::Node(id.parse().map_err(bad)?),
        Wire::Network(id) => Key::Network(id.parse().map_err(bad)?),
        Wire::Service(id) => Key::Service(id.parse().map_err(bad)?),
        Wire::Task(id) => Key::Task(id.parse().map_err(bad)?),
    })
}

fn change_out(change: &Change) -> v1::change::Change {
    use v1::change::Change as Wire;
    use v1::put_task::SpecSource as WireSource;
    match change {
        Change::PutCluster(c) => Wire::PutCluster(c.as_ref().into()),
        Change::PutNode(n) => Wire::PutNode(n.as_ref().into()),
        Change::PutNetwork(n) => Wire::PutNetwork(n.as_ref().into()),
        Change::PutService(s) => Wire::PutService(s.as_ref().into()),
        Change::PutTask(task, source) => {
            let (source, task) = match source {
                SpecSource::Inline => (WireSource::Inline, v1::Task::from(task.as_ref())),
                SpecSource::OfService => (WireSource::OfService, v1::Task::without_spec(task)),
                SpecSource::Unchanged => (WireSource::Unchanged, v1::Task::without_spec(task)),
            };
            Wire::PutTask(v1::PutTask { task: Some(task), spec_source: source.into() })
        }
        Change::DeleteNode(id) => Wire::Delete(key_out(&Key::Node(*id))),
        Change::DeleteNetwork(id) => Wire::Delete(key_out(&Key::Network(*id))),
        Change::DeleteService(id) => Wire::Delete(key_out(&Key::Service(*id))),
        Change::DeleteTask(id) => Wire::Delete(key_out(&Key::Task(*id))),
    }
}

fn change_in(change: v1::change::Change) -> Result<Change, CodecError> {
    use v1::change::Change as Wire;
    Ok(match change {
        Wire::PutCluster(c) => Change::PutCluster(Arc::new(c.try_into()?)),
        Wire::PutNode(n) => Change::PutNode(Arc::new(n.try_into()?)),
        Wire::PutNetwork(n) => Change::PutNetwork(Arc::new(n.try_into()?)),
        Wire::PutService(s) => Change::PutService(Arc::new(s.try_into()?)),
        Wire::PutTask(put) => put_task_in(put)?,
        Wire::Delete(key) => match key_in(Some(key))? {
            Key::Node(id) => Change::DeleteNode(id),
            Key::Network(id) => Change::DeleteNetwork(id),
            Key::Service(id) => Change::DeleteService(id),
            Key::Task(id) => Change::DeleteTask(id),
            Key::Cluster => return Err(CodecError::Unknown("deletion of the cluster")),
        },
    })
}

fn put_task_in(put: v1::PutTask) -> Result<Change, CodecError> {
    use v1::put_task::SpecSource as WireSource;
    let task = put.task.ok_or(CodecError::Unknown("task"))?;
    let source = match WireSource::try_from(put.spec_source) {
        Ok(WireSource::Inline) => return Ok(Change::PutTask(Arc::new(task.try_into()?), SpecSource::Inline)),
        Ok(WireSource::OfService) => SpecSource::OfService,
        Ok(WireSource::Unchanged) => SpecSource::Unchanged,
        Err(_) => return Err(CodecError::Unknown("source of a task's spec")),
    };
    // The store puts the shared spec in place when it applies this.
    let task: Task = task.with_spec(Arc::default())?;
    Ok(Change::PutTask(Arc::new(task), source))
}

/// Writes objects as the chunks of a snapshot. Tasks that share a spec carry it once.
#[derive(Default)]
pub struct SnapshotWriter {
    last_spec: Option<(ServiceId, u64, Arc<TaskSpec>)>,
}

impl SnapshotWriter {
    /// The bytes of one chunk, without its length.
    pub fn chunk<'a>(
        &mut self,
        version: u64,
        newest_time: Timestamp,
        objects: impl Iterator<Item = &'a Object>,
    ) -> Vec<u8> {
        let objects = objects.map(|o| self.object(o)).collect();
        v1::SnapshotChunk { version, objects, newest_time_ms: newest_time.0 }.encode_to_vec()
    }

    fn object(&mut self, object: &Object) -> v1::Object {
        use v1::object::Object as Wire;
        let object = match object {
            Object::Cluster(c) => Wire::Cluster(c.as_ref().into()),
            Object::Node(n) => Wire::Node(n.as_ref().into()),
            Object::Network(n) => Wire::Network(n.as_ref().into()),
            Object::Service(s) => Wire::Service(s.as_ref().into()),
            Object::Task(t) => Wire::Task(self.task(t)),
        };
        v1::Object { object: Some(object) }
    }

    fn task(&mut self, task: &Arc<Task>) -> v1::Task {
        let shared = self
            .last_spec
            .as_ref()
            .is_some_and(|(s, v, spec)| *s == task.service && *v == task.spec_version && *spec == task.spec);
        if shared {
            return v1::Task::without_spec(task);
        }
        self.last_spec = Some((task.service, task.spec_version, task.spec.clone()));
        task.as_ref().into()
    }
}

/// Reads the chunks of a snapshot, in order.
#[derive(Default)]
pub struct SnapshotReader {
    specs: BTreeMap<(ServiceId, u64), Arc<TaskSpec>>,
}

impl SnapshotReader {
    /// The version, newest time and objects of one chunk.
    ///
    /// # Errors
    /// If the bytes are no chunk.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(u64, Timestamp, Vec<Object>), CodecError> {
        let chunk = v1::SnapshotChunk::decode(bytes)?;
        let objects = chunk.objects.into_iter().map(|o| self.object(o));
        Ok((chunk.version, Timestamp(chunk.newest_time_ms), objects.collect::<Result<_, _>>()?))
    }

    fn object(&mut self, object: v1::Object) -> Result<Object, CodecError> {
        use v1::object::Object as Wire;
        Ok(match object.object.ok_or(CodecError::Unknown("object"))? {
            Wire::Cluster(c) => Object::Cluster(Arc::new(c.try_into()?)),
            Wire::Node(n) => Object::Node(Arc::new(n.try_into()?)),
            Wire::Network(n) => Object::Network(Arc::new(n.try_into()?)),
            Wire::Service(s) => Object::Service(Arc::new(s.try_into()?)),
            Wire::Task(t) => Object::Task(Arc::new(self.task(t)?)),
        })
    }

    fn task(&mut self, task: v1::Task) -> Result<Task, CodecError> {
        let of = |t: &v1::Task| (ServiceId::new(&t.service_id), t.spec_version);
        if task.spec.is_some() {
            let task = Task::try_from(task)?;
            self.specs.insert((task.service, task.spec_version), task.spec.clone());
            return Ok(task);
        }
        let spec = self.specs.get(&of(&task)).cloned().ok_or(CodecError::Unknown("spec of a task"))?;
        Ok(task.with_spec(spec)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::testing::service;

    fn transaction() -> Transaction {
        let spec = service("web").build();
        let service = swarm_types::service::Service { id: "s".into(), spec, ..Default::default() };
        let task = Task { id: "t".into(), service: service.id, ..Default::default() };
        Transaction {
            at: Timestamp(9),
            requires: vec![(Key::Cluster, 3), (Key::Task("t".into()), 0)],
            changes: vec![
                Change::PutService(Arc::new(service)),
                Change::PutTask(Arc::new(task.clone()), SpecSource::OfService),
                Change::PutTask(Arc::new(task), SpecSource::Inline),
                Change::DeleteNode("n".into()),
            ],
        }
    }

    #[test]
    fn a_transaction_comes_back() {
        let tx = transaction();
        let back = decode(&encode(&tx)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{tx:?}"));
    }

    #[test]
    fn cut_bytes_are_refused_or_shorter_never_a_panic() {
        let bytes = encode(&transaction());
        for end in 0..bytes.len() {
            drop(decode(&bytes[..end]));
        }
    }

    #[test]
    fn a_snapshot_shares_specs() {
        let spec = service("web").build().task;
        let task = |id: &str| {
            Object::Task(Arc::new(Task {
                id: id.into(),
                service: "s".into(),
                spec: spec.clone(),
                ..Task::default()
            }))
        };
        let objects = [task("a"), task("b")];
        let mut writer = SnapshotWriter::default();
        let chunks = [
            writer.chunk(5, Timestamp(1), objects[..1].iter()),
            writer.chunk(5, Timestamp(1), objects[1..].iter()),
        ];
        let mut reader = SnapshotReader::default();
        let mut back = Vec::new();
        for chunk in &chunks {
            let (version, _, objects) = reader.chunk(chunk).unwrap();
            assert_eq!(version, 5);
            back.extend(objects);
        }
        let [Object::Task(a), Object::Task(b)] = &back[..] else { panic!("two tasks expected") };
        assert!(Arc::ptr_eq(&a.spec, &b.spec) && a.spec == spec);
    }
}
