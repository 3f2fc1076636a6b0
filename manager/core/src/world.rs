//! World: a store, the loops that write tasks, and agents that do as they are told, for tests.
//!
//! Reads:   everything.
//! Writes:  everything, through transactions.
//! Never:   is part of a build.
//! Start:   [`World`].

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::id::{IdSource, NodeId, Seed, ServiceId};
use swarm_types::node::{Node, NodeState};
use swarm_types::service::{Service, ServiceSpec};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::testing;
use swarm_types::time::Timestamp;

use crate::allocator::Allocator;
use crate::context::Context;
use crate::control;
use crate::control_loop::{ControlLoop, Wake};
use crate::enforcer::Enforcer;
use crate::orchestrator::Orchestrator;
use crate::plan::Plan;
use crate::reaper::Reaper;
use crate::restart::Restart;
use crate::scheduler::Scheduler;
use crate::store::{Draft, Event, Store, Transaction, View};
use crate::update::Update;

/// The loops, in the order of a pass.
#[derive(Debug, Clone)]
pub(crate) struct Loops {
    pub(crate) enforcer: Enforcer,
    pub(crate) orchestrator: Orchestrator,
    pub(crate) restart: Restart,
    pub(crate) update: Update,
    pub(crate) allocator: Allocator,
    pub(crate) scheduler: Scheduler,
    pub(crate) reaper: Reaper,
}

impl Loops {
    pub(crate) fn restore(view: &View) -> Loops {
        Loops {
            enforcer: Enforcer::restore(view),
            orchestrator: Orchestrator::restore(view),
            restart: Restart::restore(view),
            update: Update::restore(view),
            allocator: Allocator::restore(view),
            scheduler: Scheduler::restore(view),
            reaper: Reaper::restore(view),
        }
    }

    pub(crate) fn observe(&mut self, event: &Event) {
        self.each(|l| l.observe(event));
    }

    fn each(&mut self, mut f: impl FnMut(&mut dyn Loop)) {
        f(&mut self.enforcer);
        f(&mut self.orchestrator);
        f(&mut self.restart);
        f(&mut self.update);
        f(&mut self.allocator);
        f(&mut self.scheduler);
        f(&mut self.reaper);
    }
}

/// [`ControlLoop`] without `restore`, so that it can be a trait object.
trait Loop {
    fn observe(&mut self, event: &Event);
    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake;
}

impl<L: ControlLoop> Loop for L {
    fn observe(&mut self, event: &Event) {
        ControlLoop::observe(self, event);
    }
    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        ControlLoop::plan(self, plan, ctx)
    }
}

/// A cluster in a box.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) now: Timestamp,
    pub(crate) ids: IdSource,
    pub(crate) loops: Loops,
    pub(crate) wake: Wake,
    pub(crate) room: usize,
    /// Images that cannot be started.
    pub(crate) broken: Vec<String>,
    /// What the last pass planned.
    pub(crate) last_plan: String,
    pub(crate) last_events: Vec<Event>,
}

impl World {
    pub(crate) fn new(nodes: &[&str]) -> World {
        let view = View::default();
        let mut world = World {
            store: Store::default(),
            now: Timestamp(1_000_000),
            ids: IdSource::new(Seed(1)),
            loops: Loops::restore(&view),
            wake: Wake::Never,
            room: crate::plan::MAX_CHANGES,
            broken: Vec::new(),
            last_plan: String::new(),
            last_events: Vec::new(),
        };
        nodes.iter().for_each(|n| world.node(testing::node(n)));
        world
    }

    pub(crate) fn view(&self) -> View {
        self.store.view()
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::new(self.view(), self.now);
        change(&mut draft);
        self.commit(&draft.into_transaction());
    }

    pub(crate) fn commit(&mut self, transaction: &Transaction) {
        if transaction.changes.is_empty() {
            return;
        }
        let version = self.view().version() + 1;
        let events = self.store.apply(version, transaction).expect("a test's transaction applies");
        events.iter().for_each(|e| self.loops.observe(e));
        self.last_events = events;
    }

    pub(crate) fn node(&mut self, node: Node) {
        self.change(|d| {
            d.put_node(node);
        });
    }

    pub(crate) fn edit_node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let Some(node) = self.view().node(&id.into()).cloned() else { return };
        let mut node = Arc::unwrap_or_clone(node);
        edit(&mut node);
        self.node(node);
    }

    pub(crate) fn set_state(&mut self, id: &str, state: NodeState) {
        let now = self.now;
        self.edit_node(id, |n| {
            n.status.state = state;
            n.status.since = now;
        });
    }

    /// Creates or updates a service as the control room does, but for what it denies.
    pub(crate) fn service(&mut self, mut spec: ServiceSpec) -> ServiceId {
        let mut draft = Draft::new(self.view(), self.now);
        let own = self.view().service_by_name(&spec.annotations.name).map(|s| s.id).unwrap_or_default();
        let _denied = control::reach::complete(&mut draft, &own, &mut spec);
        let name = spec.annotations.name.clone();
        let old = self.view().service_by_name(&name).cloned();
        let service = match old {
            None => Service { id: self.ids.next_id().into(), spec, spec_version: 1, ..Service::default() },
            Some(old) => {
                let changed = old.spec.task != spec.task;
                Service {
                    spec_version: old.spec_version + u64::from(changed),
                    previous_spec: Some(Box::new(old.spec.clone())),
                    update_status: None,
                    spec,
                    ..Service::clone(&old)
                }
            }
        };
        let id = service.id;
        self.change(|d| {
            d.put_service(service);
        });
        id
    }

    /// One pass of the leader: one plan, committed. False if there was nothing to do.
    pub(crate) fn pass(&mut self) -> bool {
        let mut plan = Plan::new(self.view(), self.now).with_room_for(self.room);
        let mut ctx = Context { now: self.now, ids: &mut self.ids };
        let mut wake = Wake::Never;
        self.loops.each(|l| {
            let fresh = plan.fresh().to_vec();
            fresh.iter().for_each(|e| l.observe(e));
            wake = wake.min(l.plan(&mut plan, &mut ctx));
        });
        self.wake = wake;
        let worked = !plan.is_empty();
        self.last_plan = plan.to_string();
        self.commit(&plan.into_parts().0);
        worked || wake == Wake::Now
    }

    pub(crate) fn passes(&mut self) {
        for _ in 0..10_000 {
            if !self.pass() {
                return;
            }
        }
        panic!("the loops do not come to rest:\n{}", self.last_plan);
    }

    /// What one task's agent would report next.
    fn report(&self, task: &Task, view: &View) -> Option<TaskState> {
        let node = view.node(&task.node)?;
        let state = task.status.state;
        if node.status.state == NodeState::Down || state < TaskState::Assigned || state.is_terminal() {
            return None;
        }
        if task.desired_state > TaskState::Running {
            return Some(TaskState::Shutdown);
        }
        if self.broken.contains(&task.spec.container.image) {
            return Some(TaskState::Rejected);
        }
        Some(task.desired_state).filter(|desired| *desired > state)
    }

    /// All agents take a step; false if none had one to take.
    pub(crate) fn agents(&mut self) -> bool {
        let view = self.view();
        let steps: Vec<_> =
            view.tasks().filter_map(|t| self.report(t, &view).map(|state| (t.clone(), state))).collect();
        steps.iter().for_each(|(task, state)| self.set_task(task, *state));
        !steps.is_empty()
    }

    pub(crate) fn set_task(&mut self, task: &Arc<Task>, state: TaskState) {
        let now = self.now;
        let mut task = Task::clone(task);
        task.status.state = state;
        task.status.applied_at = now;
        self.change(|d| {
            d.put_task(task);
        });
    }

    /// Passes and agents in turn until nothing happens without time.
    pub(crate) fn settle_now(&mut self) {
        for _ in 0..1000 {
            self.passes();
            if !self.agents() {
                return;
            }
        }
        panic!(
            "does not settle:\n{}\n{}",
            self.last_plan,
            self.view().services().map(|s| self.tasks(&s.id)).collect::<String>()
        );
    }

    /// As [`World::settle_now`], with time passing whenever a loop waits for it, for at most `d`.
    pub(crate) fn settle(&mut self, d: Duration) {
        let end = self.now.plus(d);
        self.settle_now();
        for _ in 0..10_000 {
            match self.wake {
                Wake::At(at) if at <= end => self.now = at.max(self.now),
                _ => {
                    self.now = end;
                    return self.settle_now();
                }
            }
            self.settle_now();
        }
        panic!("a loop wakes without end");
    }

    /// The wanted and the living tasks of a service, one line each.
    pub(crate) fn tasks(&self, service: &ServiceId) -> String {
        let view = self.view();
        let mut out = String::new();
        for task in view.tasks_of_service(service) {
            if task.is_wanted() || task.is_live() {
                let node = if task.node.is_empty() { "-" } else { task.node.as_str() };
                let place = if task.slot == 0 { "*".to_owned() } else { task.slot.to_string() };
                let (image, desired) = (&task.spec.container.image, task.desired_state);
                write!(out, "{place} {node} {image} {desired}/{}", task.status.state).unwrap();
                if !task.status.err.is_empty() {
                    write!(out, " ({})", task.status.err).unwrap();
                }
                out.push('\n');
            }
        }
        out
    }

    /// Running wanted tasks of a service on each node, `w1:2 w2:1`.
    pub(crate) fn spread(&self, service: &ServiceId) -> String {
        let view = self.view();
        let on =
            |node: &NodeId| view.tasks_on_node(node).filter(|t| t.service == *service && runs(t)).count();
        let parts: Vec<_> = view.nodes().map(|n| format!("{}:{}", n.id, on(&n.id))).collect();
        parts.join(" ")
    }

    /// Running wanted tasks of each image.
    pub(crate) fn running(&self, service: &ServiceId, image: &str) -> usize {
        let ours = |t: &&Arc<Task>| runs(t) && t.spec.container.image == image;
        self.view().tasks_of_service(service).filter(ours).count()
    }

    /// State and message of the service's update.
    pub(crate) fn update_of(&self, service: &ServiceId) -> String {
        let view = self.view();
        let status = view.service(service).and_then(|s| s.update_status.clone());
        status.map_or("none".into(), |s| format!("{}: {}", s.state.as_str(), s.message))
    }
}

pub(crate) fn runs(task: &Task) -> bool {
    task.desired_state == TaskState::Running && task.status.state == TaskState::Running
}
