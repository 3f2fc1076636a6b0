//! Enforcer: tells tasks to leave nodes that they may not be on any more.
//!
//! Reads:   nodes, the tasks on them, services.
//! Writes:  Task.desired_state SHUTDOWN and Task.status.err of tasks that must leave, and
//!          replacements in their slots; Task.status ORPHANED if nobody will ever hear of them.
//! Never:   chooses another node; answers a task's own end.
//! Start:   [`Enforcer::plan`], [`unfit`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use swarm_types::defaults;
use swarm_types::id::{NodeId, TaskId};
use swarm_types::node::{Availability, Node, NodeState};
use swarm_types::policy::RestartCondition;
use swarm_types::resources::Resources;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::orchestrator::new_task::{Start, replace, tell};
use crate::orchestrator::slot::{Slot, key_of};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::View;
use crate::store::{Event, Object};

/// Why a task may not stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The node was removed from the cluster.
    Removed,
    /// The node does not answer.
    Down,
    /// The node is drained.
    Drained,
    /// The node does not satisfy the task's constraints (any more).
    Constraints,
    /// The node has less than its tasks reserve.
    Resources,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Removed => "node was removed from the cluster",
            Unfit::Down => "node is down",
            Unfit::Drained => "node is drained",
            Unfit::Constraints => "assigned node no longer meets constraints",
            Unfit::Resources => "assigned node no longer has the reserved resources",
        })
    }
}

impl Unfit {
    fn reason(self) -> Reason {
        match self {
            Unfit::Removed => Reason::NodeGone,
            Unfit::Down => Reason::NodeDown,
            Unfit::Drained => Reason::NodeDrained,
            Unfit::Constraints | Unfit::Resources => Reason::NodeUnfit,
        }
    }
}

/// Why a task must leave its node, looking at the task alone. A paused node and one that is not
/// heard of for a moment keep what they have.
pub fn unfit(task: &Task, node: Option<&Node>) -> Option<Unfit> {
    let Some(node) = node else { return Some(Unfit::Removed) };
    if node.status.state == NodeState::Down {
        Some(Unfit::Down)
    } else if node.spec.availability == Availability::Drain {
        Some(Unfit::Drained)
    } else if !task.spec.placement.constraints.iter().all(|c| c.matches(node)) {
        Some(Unfit::Constraints)
    } else {
        None
    }
}

/// The loop. Remembers nothing but what to look at next, and when nodes have been down for so long
/// that their tasks are given up.
#[derive(Debug, Clone, Default)]
pub struct Enforcer {
    dirty_nodes: BTreeSet<NodeId>,
    /// Tasks that came to a node; the node may have changed while they were on their way.
    dirty_tasks: BTreeMap<NodeId, BTreeSet<TaskId>>,
    given_up: BTreeSet<(Timestamp, NodeId)>,
}

impl ControlLoop for Enforcer {
    fn restore(view: &View) -> Self {
        let mut this = Self::default();
        this.dirty_nodes.extend(view.nodes().map(|n| n.id));
        // Also nodes that are gone and left tasks behind.
        let assigned = view.tasks().filter(|t| !t.node.is_empty());
        this.dirty_nodes.extend(assigned.filter(|t| t.is_wanted() || t.is_live()).map(|t| t.node));
        this
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Created(Object::Node(node)) | Event::Deleted(Object::Node(node)) => {
                self.dirty_nodes.insert(node.id);
            }
            Event::Updated { old: Object::Node(old), new: Object::Node(new) } if !same_for_us(old, new) => {
                self.dirty_nodes.insert(new.id);
            }
            Event::Created(Object::Task(task)) if !task.node.is_empty() => {
                self.dirty_tasks.entry(task.node).or_default().insert(task.id);
            }
            Event::Updated { old: Object::Task(old), new: Object::Task(new) } if old.node != new.node => {
                self.dirty_tasks.entry(new.node).or_default().insert(new.id);
            }
            _ => {}
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        while let Some((at, node)) = self.given_up.first().copied() {
            if at > ctx.now {
                break;
            }
            self.given_up.pop_first();
            self.dirty_nodes.insert(node);
        }
        while let Some(node) = self.next() {
            if plan.is_full() || !self.look_at(plan, ctx, &node) {
                self.dirty_nodes.insert(node);
                return Wake::Now;
            }
            self.given_up.extend(gives_up_at(plan, &node).filter(|at| *at > ctx.now).map(|at| (at, node)));
        }
        self.given_up.first().map_or(Wake::Never, |(at, _)| Wake::At(*at))
    }
}

impl Enforcer {
    /// The first node that has changed or got tasks: nodes are always taken in one order.
    fn next(&self) -> Option<NodeId> {
        let node = self.dirty_nodes.first().copied();
        let tasks = self.dirty_tasks.keys().next().copied();
        node.into_iter().chain(tasks).min()
    }

    /// Looks at a node, or only at the tasks that came to it; false if the plan was full before.
    fn look_at(&mut self, plan: &mut Plan, ctx: &mut Context<'_>, node: &NodeId) -> bool {
        let tasks = self.dirty_tasks.remove(node).unwrap_or_default();
        if self.dirty_nodes.remove(node) {
            return look_at_node(plan, ctx, node);
        }
        for id in tasks {
            if plan.is_full() {
                return false;
            }
            if let Some(task) = plan.task(&id).cloned() {
                look_at_task(plan, ctx, &task);
            }
        }
        true
    }
}

fn same_for_us(old: &Node, new: &Node) -> bool {
    let state = |n: &Node| n.status.state == NodeState::Down;
    state(old) == state(new)
        && old.status.addr == new.status.addr
        && old.spec == new.spec
        && old.description == new.description
}

/// When the tasks of a node that is down are given up.
fn gives_up_at(view: &View, node: &NodeId) -> Option<Timestamp> {
    let node = view.node(node)?;
    let down = node.status.state == NodeState::Down;
    down.then(|| node.status.since.plus(defaults::ORPHAN_AFTER))
}

/// Looks at all tasks of a node; false if the plan was full before the last.
fn look_at_node(plan: &mut Plan, ctx: &mut Context<'_>, id: &NodeId) -> bool {
    let tasks: Vec<Arc<Task>> =
        plan.tasks_on_node(id).filter(|t| t.is_wanted() || t.is_live()).cloned().collect();
    for task in &tasks {
        if plan.is_full() {
            return false;
        }
        look_at_task(plan, ctx, task);
    }
    let Some(node) = plan.node(id).cloned() else { return true };
    for task in overbooked(plan, &node) {
        if plan.is_full() {
            return false;
        }
        leave(plan, ctx, &task, Unfit::Resources);
    }
    true
}

fn look_at_task(plan: &mut Plan, ctx: &mut Context<'_>, task: &Arc<Task>) {
    if task.node.is_empty() {
        return;
    }
    let node = plan.node(&task.node).cloned();
    let why = unfit(task, node.as_deref());
    if let (Some(why), true) = (why, task.is_wanted() && task.is_live()) {
        leave(plan, ctx, task, why);
    }
    let lost = node.is_none() || gives_up_at(plan, &task.node).is_some_and(|at| at <= ctx.now);
    if lost && task.is_live() {
        orphan(plan, ctx, &task.id, why.unwrap_or(Unfit::Down));
    }
}

/// The youngest of a node's tasks whose reservations go beyond what the node has.
fn overbooked(view: &View, node: &Node) -> Vec<Arc<Task>> {
    let holds = |t: &&Arc<Task>| t.is_wanted() && t.status.state.consumes_resources();
    let mut tasks: Vec<Arc<Task>> = view.tasks_on_node(&node.id).filter(holds).cloned().collect();
    tasks.sort_by_key(|t| (t.meta.created_at, t.id));
    let mut free = node.description.resources;
    let mut over = Vec::new();
    for task in tasks {
        let wanted = task.spec.resources.reservations;
        if wanted == Resources::default() || free.covers(wanted) {
            free = free.minus(wanted);
        } else {
            over.push(task);
        }
    }
    over
}

/// Tells a task to leave. In a numbered slot another task takes its place at once, without delay and
/// without counting as a restart; a global task has no other place.
fn leave(plan: &mut Plan, ctx: &mut Context<'_>, task: &Arc<Task>, why: Unfit) {
    let mut old = Task::clone(task);
    old.status.err = why.to_string();
    let reason = why.reason();
    let service = plan.service(&task.service).cloned();
    let never = task.spec.restart.condition == RestartCondition::None;
    match service {
        Some(service) if task.slot != 0 && !never && is_alone(plan, task) => {
            let start =
                if why == Unfit::Removed || why == Unfit::Down { Start::Now } else { Start::After(ctx.now) };
            replace(plan, ctx, &service, &old, start, task.attempt, reason);
        }
        _ => tell(plan, &old, TaskState::Shutdown, reason),
    }
}

/// No other task of its slot is meant to run: an update has not put one beside it.
fn is_alone(view: &View, task: &Task) -> bool {
    let slot = Slot::read(view, &task.service, key_of(task));
    !slot.wanted().any(|t| t.id != task.id && t.is_live())
}

/// Nobody will ever report on the task again: it counts as ended and holds nothing.
fn orphan(plan: &mut Plan, ctx: &Context<'_>, id: &TaskId, why: Unfit) {
    let Some(task) = plan.task(id) else { return };
    let mut task = Task::clone(task);
    task.status.state = TaskState::Orphaned;
    task.status.at = ctx.now;
    task.status.applied_at = ctx.now;
    task.status.message = "orphaned".into();
    task.status.err = why.to_string();
    plan.put_task(task, why.reason());
}
