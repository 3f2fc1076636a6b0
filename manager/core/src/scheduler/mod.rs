//! Scheduler: chooses a node for every task that waits for one.
//!
//! Reads:   tasks, nodes.
//! Writes:  Task.node; Task.status PENDING -> ASSIGNED, or its message if no node fits.
//! Never:   creates or removes tasks; looks at time except for recent failures.
//! Start:   [`Scheduler::plan`].
//!
//! Tasks of one template wait in one group, and the nodes are filtered once for the group: then each
//! decision is one step in a heap. A group that found no node remembers which filter each node
//! failed; it is looked at again only where a node or its totals have changed.

pub mod choose;
pub mod filter;
pub mod node_info;
pub mod room;
pub mod score;
pub mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::id::{NodeId, ServiceId, TaskId};
use swarm_types::task::{Task, TaskSpec};
use swarm_types::task_state::TaskState;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object, View};
use filter::{Kind, Summary, check};
use node_info::NodeTable;

pub use room::explain;

/// So many tasks of a group are told anew why they wait when the reason changes; the others keep
/// the reason that they were told first. A cluster without room must not rewrite a million tasks
/// each time a node changes.
const TOLD_ANEW: usize = 100;

/// Tasks that are alike for the scheduler: one service, one template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The service.
    pub service: ServiceId,
    /// The template's number.
    pub spec_version: u64,
}

impl GroupKey {
    /// The group of a task.
    pub fn of(task: &Task) -> GroupKey {
        GroupKey { service: task.service, spec_version: task.spec_version }
    }
}

/// Tasks of one group that have no node.
#[derive(Debug, Clone)]
struct Group {
    spec: Arc<TaskSpec>,
    /// See [`room::needs_encryption`]; none: to be found out.
    encrypted: Option<bool>,
    /// By slot, so that low numbers are placed first.
    tasks: BTreeSet<(u64, TaskId)>,
    blocked: Option<Blocked>,
}

/// Which filter each node failed.
#[derive(Debug, Clone)]
struct Blocked {
    kinds: BTreeMap<NodeId, Kind>,
    summary: Summary,
}

/// The loop. Remembers the totals of nodes and who waits; `restore` adds both up from the tasks.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    table: NodeTable,
    waiting: BTreeMap<GroupKey, Group>,
    /// Groups to try: somebody joined them, or a node now fits.
    retry: BTreeSet<GroupKey>,
    /// Tasks that wait for the node that they were made for.
    preassigned: BTreeMap<NodeId, BTreeSet<TaskId>>,
    retry_on: BTreeSet<NodeId>,
}

impl ControlLoop for Scheduler {
    fn restore(view: &View) -> Self {
        let mut this = Self::default();
        view.nodes().for_each(|n| this.table.put_node(n));
        view.tasks().for_each(|t| this.notice(t));
        this
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Created(Object::Task(t)) | Event::Updated { new: Object::Task(t), .. } => self.notice(t),
            Event::Deleted(Object::Task(t)) => {
                self.table.delete_task(&t.id);
                self.forget(t);
            }
            Event::Created(Object::Node(n)) | Event::Updated { new: Object::Node(n), .. } => {
                self.table.put_node(n)
            }
            Event::Deleted(Object::Node(n)) => self.table.delete_node(&n.id),
            // Another ingress network may want other things of nodes.
            Event::Created(Object::Network(n)) | Event::Deleted(Object::Network(n)) if n.spec.ingress => {
                self.retry.extend(self.waiting.keys());
                self.waiting.values_mut().for_each(|group| group.encrypted = None);
                self.retry_on.extend(self.preassigned.keys());
            }
            Event::Created(_) | Event::Updated { .. } | Event::Deleted(_) => {}
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        self.look_where_touched();
        // Placing one group can push another's reasons about: until nothing is left to look at.
        while !self.retry.is_empty() || !self.retry_on.is_empty() {
            while let Some(node) = self.retry_on.pop_first() {
                if plan.is_full() || !self.place_preassigned(plan, ctx, node) {
                    self.retry_on.insert(node);
                    return Wake::Now;
                }
            }
            while let Some(key) = self.retry.pop_first() {
                if plan.is_full() || !self.place_group(plan, ctx, key) {
                    self.retry.insert(key);
                    return Wake::Now;
                }
            }
            self.look_where_touched();
        }
        Wake::Never
    }
}

fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted()
}

impl Scheduler {
    fn notice(&mut self, task: &Arc<Task>) {
        self.table.put_task(task);
        if !waits(task) {
            self.forget(task);
        } else if task.node.is_empty() {
            let key = GroupKey::of(task);
            let new =
                || Group { spec: task.spec.clone(), encrypted: None, tasks: BTreeSet::new(), blocked: None };
            if self.waiting.entry(key).or_insert_with(new).tasks.insert((task.slot, task.id)) {
                self.retry.insert(key);
            }
        } else if self.preassigned.entry(task.node).or_default().insert(task.id) {
            self.retry_on.insert(task.node);
        }
    }

    /// The task does not wait (any more).
    fn forget(&mut self, task: &Task) {
        if let Some(group) = self.waiting.get_mut(&GroupKey::of(task)) {
            group.tasks.remove(&(task.slot, task.id));
            if group.tasks.is_empty() {
                self.waiting.remove(&GroupKey::of(task));
            }
        }
        if let Some(tasks) = self.preassigned.get_mut(&task.node) {
            tasks.remove(&task.id);
            if tasks.is_empty() {
                self.preassigned.remove(&task.node);
            }
        }
    }

    /// Asks blocked groups about the nodes that have changed.
    fn look_where_touched(&mut self) {
        for id in self.table.take_touched() {
            if self.preassigned.contains_key(&id) {
                self.retry_on.insert(id);
            }
            let index = self.table.index(&id);
            for (key, group) in &mut self.waiting {
                let Some(blocked) = &mut group.blocked else { continue };
                let info = index.map(|i| &self.table.infos()[i]).filter(|info| info.node().is_some());
                let reason = info.map(|info| {
                    check(&group.spec, group.encrypted == Some(true), &key.service, info).map(|r| r.kind())
                });
                if blocked.put(id, reason) {
                    self.retry.insert(*key);
                }
            }
        }
    }

    /// Places as many tasks of a group as fit, and tells the others why they wait; false if the plan
    /// was full before that was done.
    fn place_group(&mut self, plan: &mut Plan, ctx: &Context<'_>, key: GroupKey) -> bool {
        let Some(group) = self.waiting.get_mut(&key) else { return true };
        let tasks = next_waiting(plan, group);
        let encrypted = *group.encrypted.get_or_insert_with(|| room::needs_encryption(plan, &group.spec));
        let chosen = choose::choose(&mut self.table, &group.spec, encrypted, &key, tasks.len(), ctx.now);
        let mut placed: Vec<_> = tasks.into_iter().zip(chosen).collect();
        for (task, _) in &placed {
            group.tasks.remove(&(task.slot, task.id));
        }
        // Where the store keeps them: neighbours are written one after the other.
        placed.sort_unstable_by_key(|(task, _)| task.id);
        for (task, index) in placed {
            let task = assign(&task, self.table.infos()[index].id(), ctx);
            self.table.record(&task);
            plan.put_task(task, Reason::Placed);
        }
        if plan.is_full() && !group.tasks.is_empty() {
            return false;
        }
        if group.tasks.is_empty() {
            self.waiting.remove(&key);
            return true;
        }
        let blocked = Blocked::read(&self.table, group, &key);
        let text = blocked.summary.to_string();
        group.blocked = Some(blocked);
        tell_why(plan, group, &text)
    }

    /// Tasks of global services only pass the filters on their node.
    fn place_preassigned(&mut self, plan: &mut Plan, ctx: &Context<'_>, node: NodeId) -> bool {
        let ids: Vec<TaskId> = self.preassigned.get(&node).into_iter().flatten().copied().collect();
        for id in ids {
            if plan.is_full() {
                return false;
            }
            let Some(task) = plan.task(&id).filter(|t| waits(t)).cloned() else { continue };
            let index = self.table.index(&node);
            let reason = match index {
                Some(i) => {
                    let encrypted = room::needs_encryption(plan, &task.spec);
                    check(&task.spec, encrypted, &task.service, &self.table.infos()[i]).map(|r| r.kind())
                }
                None => Some(Kind::NotReady),
            };
            match (reason, index) {
                (None, Some(index)) => {
                    let task = assign(&task, node, ctx);
                    self.forget(&task);
                    self.table.reserve(index, &task.spec, &task.service);
                    self.table.record(&task);
                    plan.put_task(task, Reason::Placed);
                }
                (reason, _) => {
                    let text = reason.into_iter().collect::<Summary>().to_string();
                    tell(plan, &task, &text);
                }
            }
        }
        true
    }
}

impl Blocked {
    fn read(table: &NodeTable, group: &Group, key: &GroupKey) -> Blocked {
        let nodes = table.infos().iter().filter(|info| info.node().is_some());
        let kinds: BTreeMap<NodeId, Kind> = nodes
            .filter_map(|info| {
                Some((
                    info.id(),
                    check(&group.spec, group.encrypted == Some(true), &key.service, info)?.kind(),
                ))
            })
            .collect();
        Blocked { summary: kinds.values().copied().collect(), kinds }
    }

    /// Notes what a node says now: `None` that there is no such node, `Some(None)` that it fits.
    /// True if the group is to be tried again, or told something else.
    fn put(&mut self, node: NodeId, reason: Option<Option<Kind>>) -> bool {
        let before = self.kinds.get(&node).copied();
        match reason {
            Some(None) => return true,
            Some(Some(kind)) => {
                self.kinds.insert(node, kind);
                self.summary.add(kind);
            }
            None => {
                self.kinds.remove(&node);
            }
        }
        if let Some(kind) = before {
            self.summary.remove(kind);
        }
        before != reason.flatten()
    }
}

/// The first tasks of a group, as many as the plan has room for. What does not wait any more has
/// left the group already: events said so.
fn next_waiting(plan: &Plan, group: &Group) -> Vec<Arc<Task>> {
    let mut ids: Vec<TaskId> = group.tasks.iter().map(|(_, id)| *id).take(plan.room()).collect();
    // Read in the store's order, which is quick, and brought into the slots' again.
    ids.sort_unstable();
    let tasks = ids.iter().filter_map(|id| plan.task(id));
    let mut tasks: Vec<Arc<Task>> = tasks.filter(|t| waits(t)).cloned().collect();
    tasks.sort_unstable_by_key(|task| (task.slot, task.id));
    tasks
}

fn assign(task: &Task, node: NodeId, ctx: &Context<'_>) -> Task {
    let mut task = task.clone();
    task.node = node;
    task.status.state = TaskState::Assigned;
    task.status.at = ctx.now;
    task.status.applied_at = ctx.now;
    task.status.message = "scheduler assigned task to node".into();
    task.status.err = String::new();
    task
}

/// Tells the tasks of a group why they wait; false if the plan was full before the last.
fn tell_why(plan: &mut Plan, group: &Group, text: &str) -> bool {
    for (nth, (_, id)) in group.tasks.iter().enumerate() {
        if plan.is_full() {
            return false;
        }
        let Some(task) = plan.task(id).cloned() else { continue };
        if nth < TOLD_ANEW || task.status.err.is_empty() {
            tell(plan, &task, text);
        }
    }
    true
}

fn tell(plan: &mut Plan, task: &Task, text: &str) {
    if !waits(task) || task.status.err == text {
        return;
    }
    let mut task = task.clone();
    task.status.message = "pending task scheduling".into();
    task.status.err = text.to_owned();
    plan.put_task(task, Reason::NoNodeFits);
}
