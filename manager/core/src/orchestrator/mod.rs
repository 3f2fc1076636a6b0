//! Orchestrator: which tasks should exist. One reconcile for all modes.
//!
//! Reads:   services, tasks, nodes.
//! Writes:  new tasks in slots that should be filled and are not; desired REMOVE of tasks in slots
//!          that should not be.
//! Never:   answers a task's end, rolls out changes, chooses nodes (but a global task's own).
//! Start:   [`Orchestrator::plan`].

pub mod dirty;
pub mod mode;
pub mod new_task;
pub mod slot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::id::{NodeId, ServiceId};
use swarm_types::service::{Mode, Service};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object};
use crate::store::{SlotKey, View};
use new_task::{Start, create, tell};
use slot::{Slot, key_of, numbered, on_node};

/// The loop. Remembers which slots are active, so that a service of a million tasks is not walked
/// for each event, and what to look at next.
#[derive(Debug, Clone, Default)]
pub struct Orchestrator {
    /// Active numbered slots of every replicated service (no entry: none).
    active: BTreeMap<ServiceId, BTreeSet<u64>>,
    globals: BTreeSet<ServiceId>,
    dirty_slots: BTreeSet<(ServiceId, SlotKey)>,
    dirty_services: BTreeSet<ServiceId>,
    dirty_nodes: BTreeSet<NodeId>,
}

impl ControlLoop for Orchestrator {
    fn restore(view: &View) -> Self {
        let mut this = Self::default();
        for service in view.services() {
            this.notice_service(service);
        }
        for task in view.tasks() {
            this.dirty_slots.insert((task.service, key_of(task)));
            this.dirty_services.insert(task.service);
        }
        this
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Created(object) | Event::Deleted(object) => self.notice(object),
            Event::Updated { old, new } => match (old, new) {
                (Object::Task(old), Object::Task(new)) if same_for_us(old, new) => {}
                (_, new) => self.notice(new),
            },
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        while let Some((service, key)) = self.dirty_slots.pop_first() {
            self.read_slot(plan, &service, key);
        }
        for node in std::mem::take(&mut self.dirty_nodes) {
            for service in &self.globals {
                self.dirty_slots.insert((*service, on_node(node)));
            }
        }
        while let Some(id) = self.dirty_services.pop_first() {
            let done = match plan.service(&id).cloned() {
                None => self.remove_all(plan, &id),
                Some(service) => match service.spec.mode {
                    Mode::Replicated { replicas } => self.replicate(plan, ctx, &service, replicas),
                    Mode::Global => self.sweep(plan, &service),
                },
            };
            if !done {
                self.dirty_services.insert(id);
                return Wake::Now;
            }
        }
        while let Some((id, key)) = self.dirty_slots.pop_first() {
            if plan.is_full() {
                self.dirty_slots.insert((id, key));
                return Wake::Now;
            }
            if let Some(service) = plan.service(&id).cloned() {
                fill_node(plan, ctx, &service, key);
            }
        }
        Wake::Never
    }
}

/// A change that cannot make a slot active or idle, nor a service dirty. Most events are such.
fn same_for_us(old: &Task, new: &Task) -> bool {
    old.desired_state == new.desired_state
        && old.status.state.is_terminal() == new.status.state.is_terminal()
        && old.node == new.node
}

impl Orchestrator {
    fn notice(&mut self, object: &Object) {
        match object {
            Object::Service(service) => self.notice_service(service),
            Object::Node(node) => {
                self.dirty_nodes.insert(node.id);
            }
            Object::Task(task) => {
                self.dirty_slots.insert((task.service, key_of(task)));
                if task.slot != 0 {
                    self.dirty_services.insert(task.service);
                }
            }
            Object::Cluster(_) | Object::Network(_) => {}
        }
    }

    fn notice_service(&mut self, service: &Service) {
        self.dirty_services.insert(service.id);
        if service.spec.mode == Mode::Global {
            self.globals.insert(service.id);
        }
    }

    /// Brings what is remembered of a slot up to date; a global one is left for [`fill_node`].
    fn read_slot(&mut self, plan: &Plan, service: &ServiceId, key: SlotKey) {
        if key.slot == 0 {
            // Looked at after the services; a removed one is swept there.
            if let Some(node) = self.globals.contains(service).then_some(key.node) {
                self.dirty_nodes.insert(node);
            }
            if plan.service(service).is_none() {
                self.dirty_services.insert(*service);
            }
            return;
        }
        let slots = self.active.entry(*service).or_default();
        if Slot::read(plan, service, key).is_active() {
            slots.insert(key.slot);
        } else {
            slots.remove(&key.slot);
        }
        if slots.is_empty() {
            self.active.remove(service);
        }
    }

    fn replicate(
        &mut self,
        plan: &mut Plan,
        ctx: &mut Context<'_>,
        service: &Arc<Service>,
        replicas: u64,
    ) -> bool {
        let active = self.active.entry(service.id).or_default();
        let have = u64::try_from(active.len()).expect("a count fits 64 bits");
        if have < replicas {
            let missing = usize::try_from(replicas - have).unwrap_or(usize::MAX);
            // No more than the plan can hold: the rest finds its slots in the next pass.
            let free: Vec<u64> = mode::lowest_free(active).take(missing.min(plan.room())).collect();
            for &number in &free {
                create(plan, ctx, service, numbered(number), Start::Now, Reason::ScaledUp);
                active.insert(number);
            }
            return free.len() == missing;
        }
        let surplus = usize::try_from(have - replicas).unwrap_or(usize::MAX);
        let mut left = surplus;
        if surplus > 0 {
            for number in mode::surplus(plan, &service.id, active, surplus) {
                if plan.is_full() {
                    break;
                }
                remove_slot(plan, &service.id, numbered(number));
                active.remove(&number);
                left -= 1;
            }
        }
        left == 0
    }

    /// Every node is a slot of a global service.
    fn sweep(&mut self, plan: &Plan, service: &Service) -> bool {
        self.dirty_slots.extend(plan.nodes().map(|n| (service.id, on_node(n.id))));
        self.dirty_slots.extend(plan.tasks_of_service(&service.id).map(|t| (service.id, key_of(t))));
        true
    }

    fn remove_all(&mut self, plan: &mut Plan, service: &ServiceId) -> bool {
        self.globals.remove(service);
        let room = plan.room();
        let unwanted = |t: &&Arc<Task>| t.desired_state < TaskState::Remove;
        let tasks: Vec<_> = plan.tasks_of_service(service).filter(unwanted).take(room + 1).cloned().collect();
        for task in tasks.iter().take(room) {
            tell(plan, task, TaskState::Remove, Reason::ServiceRemoved);
        }
        if tasks.len() > room {
            return false;
        }
        self.active.remove(service);
        true
    }
}

/// Gives up a slot: what runs in it stops, and its history goes with it (a later slot of the same
/// number starts afresh).
fn remove_slot(plan: &mut Plan, service: &ServiceId, key: SlotKey) {
    for task in Slot::read(plan, service, key).tasks {
        tell(plan, &task, TaskState::Remove, Reason::ScaledDown);
    }
}

/// One slot of a global service: filled if its node is there, takes tasks and fits. What must leave
/// a node is told so by the enforcer; here only the history of removed nodes goes.
fn fill_node(plan: &mut Plan, ctx: &mut Context<'_>, service: &Service, key: SlotKey) {
    if service.spec.mode != Mode::Global {
        return;
    }
    let slot = Slot::read(plan, &service.id, key);
    let Some(node) = plan.node(&key.node).cloned() else {
        for task in slot.tasks {
            tell(plan, &task, TaskState::Remove, Reason::NodeGone);
        }
        return;
    };
    if !slot.is_active() && mode::belongs_on(service, &node) {
        create(plan, ctx, service, key, Start::Now, Reason::NodeFits);
    }
}
