//! Node info: what the tasks of each node add up to, kept up to date task by task.
//!
//! Reads:   nodes and tasks, as they change.
//! Writes:  its own totals.
//! Never:   counts a task twice, whatever order and number of events it sees.
//! Start:   [`NodeTable`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::endpoint::Port;
use swarm_types::id::{NodeId, ServiceId, TaskId};
use swarm_types::node::Node;
use swarm_types::resources::Resources;
use swarm_types::task::{Task, TaskSpec};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use super::GroupKey;
use crate::allocator::port::collide;

/// A node and the totals of its tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeInfo {
    id: NodeId,
    /// None: tasks name it, but there is no such node (any more).
    node: Option<Arc<Node>>,
    reserved: Resources,
    /// Tasks that hold something of the node, whatever they are told.
    holding: u32,
    /// Tasks that are meant to run there.
    tasks: u32,
    by_service: BTreeMap<ServiceId, u32>,
    failures: BTreeMap<GroupKey, BTreeMap<TaskId, Timestamp>>,
    /// Ports that its tasks open, and how many of them think so.
    ports: BTreeMap<Port, u32>,
}

impl NodeInfo {
    /// A node without tasks.
    pub fn new(node: Arc<Node>) -> NodeInfo {
        NodeInfo { id: node.id, node: Some(node), ..NodeInfo::default() }
    }
    /// Its id.
    pub fn id(&self) -> NodeId {
        self.id
    }
    /// The node, if there is one.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }
    /// What is not reserved.
    pub fn free(&self) -> Resources {
        self.node.as_ref().map_or(Resources::default(), |n| n.description.resources.minus(self.reserved))
    }
    /// Tasks that are meant to run on it.
    pub fn tasks(&self) -> u32 {
        self.tasks
    }
    /// Those of one service.
    pub fn tasks_of(&self, service: &ServiceId) -> u32 {
        if self.by_service.is_empty() { 0 } else { self.by_service.get(service).copied().unwrap_or(0) }
    }
    /// A task that has not ended has this port open, or is about to. A port that the node chooses is
    /// never in the way.
    pub fn has_open(&self, port: &Port) -> bool {
        !self.ports.is_empty() && self.ports.keys().any(|open| collide(open, port))
    }
    /// Tasks of one template that failed on it after `since` and are still remembered.
    pub fn failures_since(&self, group: &GroupKey, since: Timestamp) -> u32 {
        if self.failures.is_empty() {
            return 0;
        }
        let Some(failures) = self.failures.get(group) else { return 0 };
        u32::try_from(failures.values().filter(|at| **at > since).count()).unwrap_or(u32::MAX)
    }

    /// Counts a task that is on this node.
    pub fn add(&mut self, task: &Task) {
        if task.status.state.consumes_resources() && task.is_wanted() {
            self.hold(&task.spec, &task.service);
        } else if task.status.state.consumes_resources() {
            self.holding += 1;
            self.reserved = self.reserved.plus(task.spec.resources.reservations);
            self.open(&task.spec);
        } else if has_failed(task) {
            let failures = self.failures.entry(GroupKey::of(task)).or_default();
            failures.insert(task.id, task.status.applied_at);
        }
    }

    fn hold(&mut self, spec: &TaskSpec, service: &ServiceId) {
        self.holding += 1;
        self.reserved = self.reserved.plus(spec.resources.reservations);
        self.tasks += 1;
        *self.by_service.entry(*service).or_default() += 1;
        self.open(spec);
    }

    fn open(&mut self, spec: &TaskSpec) {
        for port in spec.host_ports.iter().filter(|p| p.published != 0) {
            *self.ports.entry(*port).or_default() += 1;
        }
    }

    fn close(&mut self, spec: &TaskSpec) {
        for port in spec.host_ports.iter().filter(|p| p.published != 0) {
            take_one(&mut self.ports, port);
        }
    }

    fn remove(&mut self, id: &TaskId, counted: &Counted) {
        if counted.state.consumes_resources() {
            self.holding -= 1;
            self.reserved = self.reserved.minus(counted.reserved);
            if counted.desired <= TaskState::Running {
                self.tasks -= 1;
                take_one(&mut self.by_service, &counted.group.service);
            }
        } else if let Some(failures) = self.failures.get_mut(&counted.group) {
            failures.remove(id);
            if failures.is_empty() {
                self.failures.remove(&counted.group);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.node.is_none() && self.holding == 0 && self.failures.is_empty()
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}

fn has_failed(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
}

fn counts(task: &Task) -> bool {
    !task.node.is_empty() && (task.status.state.consumes_resources() || has_failed(task))
}

/// What of a task is counted, to be taken back when the task changes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counted {
    node: NodeId,
    group: GroupKey,
    reserved: Resources,
    state: TaskState,
    desired: TaskState,
    applied_at: Timestamp,
}

impl Counted {
    fn of(task: &Task) -> Counted {
        Counted {
            node: task.node,
            group: GroupKey::of(task),
            reserved: task.spec.resources.reservations,
            state: task.status.state,
            desired: task.desired_state,
            applied_at: task.status.applied_at,
        }
    }
    fn is_wanted(&self) -> bool {
        self.desired <= TaskState::Running
    }
    fn has_failed(&self) -> bool {
        matches!(self.state, TaskState::Failed | TaskState::Rejected)
    }
}

/// All nodes, by id, and the tasks that are counted in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeTable {
    infos: Vec<NodeInfo>,
    /// Exactly what is counted: the same event again, or an older one late, changes nothing.
    counted: BTreeMap<TaskId, Counted>,
    /// The templates of those counted tasks that open ports.
    with_ports: BTreeMap<TaskId, Arc<TaskSpec>>,
    touched: BTreeSet<NodeId>,
}

impl NodeTable {
    /// All nodes, by id.
    pub fn infos(&self) -> &[NodeInfo] {
        &self.infos
    }
    /// The place of a node in [`NodeTable::infos`].
    pub fn index(&self, node: &NodeId) -> Option<usize> {
        self.infos.binary_search_by(|info| info.id.cmp(node)).ok()
    }
    /// The nodes that have changed, or whose tasks have, since this was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.touched)
    }

    /// A node is new or another.
    pub fn put_node(&mut self, node: &Arc<Node>) {
        let index = self.enter(node.id);
        let info = &mut self.infos[index];
        if info.node.as_ref().is_some_and(|old| same_for_us(old, node)) {
            return;
        }
        info.node = Some(node.clone());
        self.touched.insert(node.id);
    }

    /// A node is gone; what its tasks hold stays counted until they are gone too.
    pub fn delete_node(&mut self, id: &NodeId) {
        if let Some(index) = self.index(id) {
            self.infos[index].node = None;
            self.touched.insert(*id);
            self.leave(index);
        }
    }

    /// A task is new or another.
    pub fn put_task(&mut self, task: &Arc<Task>) {
        match self.counted.get(&task.id) {
            Some(old) if same_count(old, task) => return,
            // An older observation that comes late.
            Some(old) if old.state > task.status.state || old.desired > task.desired_state => {
                return;
            }
            Some(_) => self.delete_task(&task.id),
            None => {}
        }
        if counts(task) {
            let index = self.enter(task.node);
            self.infos[index].add(task);
            self.note_ports(task);
            self.counted.insert(task.id, Counted::of(task));
            self.touched.insert(task.node);
        }
    }

    /// Counts a task of this template on the node at `index`, before it is known which.
    pub fn reserve(&mut self, index: usize, spec: &TaskSpec, service: &ServiceId) {
        let info = &mut self.infos[index];
        info.hold(spec, service);
        self.touched.insert(info.id);
    }

    /// This is the task that was counted by [`NodeTable::reserve`].
    pub fn record(&mut self, task: &Task) {
        self.note_ports(task);
        self.counted.insert(task.id, Counted::of(task));
    }

    fn note_ports(&mut self, task: &Task) {
        if !task.spec.host_ports.is_empty() && task.status.state.consumes_resources() {
            self.with_ports.insert(task.id, task.spec.clone());
        }
    }

    /// A task is gone.
    pub fn delete_task(&mut self, id: &TaskId) {
        let Some(old) = self.counted.remove(id) else { return };
        let spec = if self.with_ports.is_empty() { None } else { self.with_ports.remove(id) };
        if let Some(index) = self.index(&old.node) {
            if let Some(spec) = spec {
                self.infos[index].close(&spec);
            }
            self.infos[index].remove(id, &old);
            self.touched.insert(old.node);
            self.leave(index);
        }
    }

    fn enter(&mut self, id: NodeId) -> usize {
        match self.infos.binary_search_by(|info| info.id.cmp(&id)) {
            Ok(index) => index,
            Err(index) => {
                self.infos.insert(index, NodeInfo { id, ..NodeInfo::default() });
                index
            }
        }
    }

    fn leave(&mut self, index: usize) {
        if self.infos[index].is_empty() {
            self.infos.remove(index);
        }
    }
}

fn same_for_us(old: &Node, new: &Node) -> bool {
    old.status.state == new.status.state
        && old.status.addr == new.status.addr
        && old.spec == new.spec
        && old.description == new.description
}

fn same_count(old: &Counted, new: &Task) -> bool {
    old.state.consumes_resources() == new.status.state.consumes_resources()
        && old.is_wanted() == new.is_wanted()
        && old.has_failed() == has_failed(new)
        && old.node == new.node
        && (!has_failed(new) || old.applied_at == new.status.applied_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::testing::node;

    fn task(id: &str, state: TaskState, desired: TaskState) -> Arc<Task> {
        let mut task = Task { id: id.into(), service: "s".into(), node: "n".into(), ..Task::default() };
        task.status.state = state;
        task.desired_state = desired;
        Arc::new(task)
    }

    #[test]
    fn events_may_repeat_and_come_in_any_order() {
        use TaskState::{Assigned, Failed, Running, Shutdown};
        let events = [
            task("a", Assigned, Running),
            task("a", Running, Running),
            task("a", Running, Shutdown),
            task("b", Assigned, Running),
            task("b", Failed, Running),
        ];
        let mut table = NodeTable::default();
        for event in events.iter().chain(&events) {
            table.put_task(event);
        }
        table.put_node(&Arc::new(node("n")));
        let mut other = NodeTable::default();
        other.put_node(&Arc::new(node("n")));
        for event in events.iter().rev() {
            other.put_task(event);
        }
        for table in [&table, &other] {
            let info = &table.infos()[0];
            assert_eq!((info.tasks(), info.holding), (0, 1));
            assert_eq!(
                info.failures_since(&GroupKey::of(&events[0]), Timestamp::ZERO),
                0,
                "not after the epoch"
            );
            assert_eq!(info.failures.len(), 1);
        }
    }

    #[test]
    fn what_is_gone_is_not_counted() {
        let mut table = NodeTable::default();
        table.put_node(&Arc::new(node("n")));
        table.put_task(&task("a", TaskState::Running, TaskState::Running));
        table.delete_task(&"a".into());
        assert_eq!(table.infos()[0].tasks(), 0);
        table.delete_node(&"n".into());
        assert!(table.infos().is_empty());
    }
}
