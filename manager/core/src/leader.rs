//! Leader: the elected manager as one value; routes inputs to rooms and their decisions to effects.
//!
//! Reads:   what its rooms read.
//! Writes:  what its rooms write: one plan at a time, all rooms in one.
//! Never:   decides anything but the order of the rooms.
//! Start:   [`Leader::handle`].

mod message;

pub use message::{Effect, Input, NetworkReport, Proposal, SessionInput};

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use swarm_types::id::{IdSource, NodeId, Seed, SessionId, TaskId};
use swarm_types::network_set::NetworkProblem;
use swarm_types::node::NodeState;
use swarm_types::task::TaskStatus;
use swarm_types::time::Timestamp;

use crate::allocator::Allocator;
use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::dispatcher::{
    Assignments, Close, Delivery, Networks, NetworksDelivery, Registration, Sessions, Statuses, Verdict,
};
use crate::enforcer::Enforcer;
use crate::orchestrator::Orchestrator;
use crate::plan::Plan;
use crate::reaper::Reaper;
use crate::restart::Restart;
use crate::scheduler::Scheduler;
use crate::store::{Event, View};
use crate::update::Update;

/// Loops that want to go on at once, with nothing to propose, wait so long.
const BREATH: Duration = Duration::from_millis(10);
/// After so many refusals in a row something is odd, and the next plan waits for [`PAUSE`].
const REFUSALS: u32 = 3;
/// See [`REFUSALS`].
const PAUSE: Duration = Duration::from_millis(200);

/// How a loop is made from a view.
pub type Restore = fn(&View) -> Box<dyn ControlLoop + Send>;

/// The loops of a pass, in their order; before them come sessions and statuses.
pub const LOOPS: &[(&str, Restore)] = &[
    ("enforcer", |view| Box::new(Enforcer::restore(view))),
    ("orchestrator", |view| Box::new(Orchestrator::restore(view))),
    ("restart", |view| Box::new(Restart::restore(view))),
    ("update", |view| Box::new(Update::restore(view))),
    ("allocator", |view| Box::new(Allocator::restore(view))),
    ("scheduler", |view| Box::new(Scheduler::restore(view))),
    ("reaper", |view| Box::new(Reaper::restore(view))),
];

struct Room {
    name: &'static str,
    restore: Restore,
    state: Box<dyn ControlLoop + Send>,
}

/// The elected manager.
pub struct Leader {
    sessions: Sessions,
    statuses: Statuses,
    assignments: Assignments,
    networks: Networks,
    rooms: Vec<Room>,
    /// Loops that panicked, and what they said. They stay out for this term.
    parked: BTreeMap<&'static str, String>,
    ids: IdSource,
    now: Timestamp,
    in_flight: bool,
    /// Something happened since the last pass.
    due: bool,
    refusals: u32,
    /// No plan before this.
    pause_until: Timestamp,
    wake: Wake,
    told_wake: Option<Timestamp>,
}

impl Leader {
    /// A new leader on what the store says, at `now`, with the dice of `seed`. Give it a
    /// [`Input::Tick`] at once.
    pub fn new(view: &View, now: Timestamp, seed: Seed) -> Leader {
        Leader::with_loops(view, now, seed, LOOPS)
    }

    /// As [`Leader::new`], with other loops.
    pub fn with_loops(view: &View, now: Timestamp, seed: Seed, loops: &[(&'static str, Restore)]) -> Leader {
        let now = now.max(view.newest_time());
        let mut leader = Leader {
            sessions: Sessions::new(view, now),
            statuses: Statuses::restore(view),
            assignments: Assignments::default(),
            networks: Networks::new(view, now),
            rooms: Vec::new(),
            parked: BTreeMap::new(),
            ids: IdSource::new(seed),
            now,
            in_flight: false,
            due: true,
            refusals: 0,
            pause_until: Timestamp::ZERO,
            wake: Wake::Never,
            told_wake: None,
        };
        for &(name, restore) in loops {
            if let Some(state) = guard(&mut leader.parked, name, || restore(view)) {
                leader.rooms.push(Room { name, restore, state });
            }
        }
        leader
    }

    /// Takes in what happened; says what is to be done.
    pub fn handle(&mut self, view: &View, input: Input, now: Timestamp) -> Vec<Effect> {
        self.now = self.now.max(now).max(view.newest_time());
        let mut effects = Vec::new();
        self.take(view, input, &mut effects);
        self.due |= self.sessions.expire(self.now) || self.woken();
        if self.due && !self.in_flight && self.now >= self.pause_until {
            self.pass(view, &mut effects);
        }
        self.release(&mut effects);
        self.close_sessions(&mut effects);
        self.tell_wake(&mut effects);
        effects
    }

    fn take(&mut self, view: &View, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Committed { events, own } => self.committed(view, &events, own, effects),
            Input::Refused => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    self.pause_until = self.now.plus(PAUSE);
                }
                self.look_again(view);
            }
            Input::Lost => {
                self.pause_until = self.now.plus(PAUSE);
                self.look_again(view);
            }
            Input::Tick => {
                self.told_wake = None;
                self.due = true;
            }
            Input::Session(node, input) => self.session(view, node, input, effects),
            Input::NetworkStatus(node, session, report) => {
                self.network_status(view, node, session, report, effects);
            }
            Input::Statuses(node, session, statuses) => {
                self.take_statuses(view, node, session, statuses, effects);
            }
        }
    }

    fn committed(&mut self, view: &View, events: &[Event], own: bool, effects: &mut Vec<Effect>) {
        if own {
            self.in_flight = false;
            self.refusals = 0;
        }
        for event in events {
            self.sessions.observe(event);
            self.statuses.observe(event);
            self.networks.observe(event);
        }
        // What a task needs of the networks is told before the task, and that others are to leave it
        // alone before that it is to stop.
        effects.extend(self.networks.flush(view, self.now).into_iter().map(send_networks));
        for event in events {
            self.assignments.observe(event, |task| self.networks.keep_back(task));
        }
        observe_all(&mut self.rooms, &mut self.parked, events);
        effects.extend(self.assignments.flush().into_iter().map(send));
        self.due = true;
    }

    /// The last plan came to nothing: what was decided on its base is decided again.
    fn look_again(&mut self, view: &View) {
        self.in_flight = false;
        self.due = true;
        self.sessions.replan();
        self.statuses.replan();
        let parked = &mut self.parked;
        self.rooms.retain_mut(|room| match guard(parked, room.name, || (room.restore)(view)) {
            Some(state) => {
                room.state = state;
                true
            }
            None => false,
        });
    }

    fn session(&mut self, view: &View, node: NodeId, input: SessionInput, effects: &mut Vec<Effect>) {
        match input {
            SessionInput::Registered { session, description, addr } => {
                let with = Registration { session, description: *description, addr };
                if self.sessions.register(view, node, with, self.now) {
                    effects.push(send_networks(self.networks.register(view, node, session)));
                    let kept_back = |task: &TaskId| self.networks.is_kept_back(task);
                    let (delivery, kept) = self.assignments.register(view, node, session, kept_back);
                    for task in &kept {
                        self.networks.keep_back(task);
                    }
                    effects.push(send(delivery));
                }
                self.due = true;
            }
            SessionInput::Heartbeat { session } => {
                self.sessions.seen(node, session, self.now);
            }
            SessionInput::Ended { session, goodbye } => {
                if self.sessions.ended(node, session, goodbye) {
                    self.assignments.ended(&node, session);
                    self.networks.ended(&node, session);
                    self.due |= goodbye;
                }
            }
        }
    }

    fn take_statuses(
        &mut self,
        view: &View,
        node: NodeId,
        session: SessionId,
        statuses: Vec<(TaskId, TaskStatus)>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.sessions.seen(node, session, self.now) {
            return;
        }
        for (task, status) in statuses {
            match self.statuses.take(view, &node, task, status, self.now) {
                Verdict::Commit => self.due = true,
                Verdict::NoSuchTask => self.assignments.forget(&node, task),
                Verdict::Passing | Verdict::Ignored => {}
            }
        }
        effects.extend(self.assignments.flush().into_iter().map(send));
    }

    fn network_status(
        &mut self,
        view: &View,
        node: NodeId,
        session: SessionId,
        report: NetworkReport,
        effects: &mut Vec<Effect>,
    ) {
        if !self.sessions.seen(node, session, self.now) {
            return;
        }
        if let Some(description) = report.description {
            self.due |= self.sessions.describe_network(&node, description);
        }
        if self.networks.applied(&node, session, report.applied, report.problems.clone()) {
            effects.push(Effect::NetworkProblems(node, report.problems));
        }
        effects.extend(self.networks.confirm_keys(view).into_iter().map(send_networks));
    }

    /// Tells nodes of tasks that were kept back and need not be any longer.
    fn release(&mut self, effects: &mut Vec<Effect>) {
        for task in self.networks.take_released(self.now) {
            self.assignments.update(task);
        }
        effects.extend(self.assignments.flush().into_iter().map(send));
    }

    fn woken(&self) -> bool {
        match self.wake {
            Wake::At(at) => at <= self.now,
            Wake::Now | Wake::Never => false,
        }
    }

    /// One pass: each loop plans on what those before it planned; the whole is proposed.
    fn pass(&mut self, view: &View, effects: &mut Vec<Effect>) {
        self.due = false;
        let mut plan = Plan::new(view.clone(), self.now);
        let mut wake = Wake::Never;
        let (parked, ids, now) = (&mut self.parked, &mut self.ids, self.now);
        wake = wake.min(run(parked, "sessions", &mut self.sessions, &mut plan, ids, now));
        wake = wake.min(run(parked, "statuses", &mut self.statuses, &mut plan, ids, now));
        for room in &mut self.rooms {
            wake = wake.min(run(parked, room.name, room.state.as_mut(), &mut plan, ids, now));
        }
        self.rooms.retain(|room| !parked.contains_key(room.name));
        self.wake = match wake {
            // What is proposed comes back soon, and the loops go on then.
            Wake::Now if !plan.is_empty() => Wake::Never,
            Wake::Now => Wake::At(self.now.plus(BREATH)),
            Wake::At(at) if at <= self.now => Wake::At(self.now.plus(BREATH)),
            wake => wake,
        };
        if !plan.is_empty() {
            let (transaction, reasons) = plan.into_parts();
            self.in_flight = true;
            effects.push(Effect::Propose(Proposal { transaction, reasons }));
        }
    }

    fn close_sessions(&mut self, effects: &mut Vec<Effect>) {
        for Close { node, session, reason } in self.sessions.take_closes() {
            self.assignments.ended(&node, session);
            self.networks.ended(&node, session);
            effects.push(Effect::Close(node, session, reason));
        }
    }

    fn tell_wake(&mut self, effects: &mut Vec<Effect>) {
        let paused = self.due && !self.in_flight;
        let at = match self.wake {
            // While a plan is on its way nothing can be planned.
            Wake::At(at) if !self.in_flight => Some(at.max(self.pause_until)),
            Wake::At(_) | Wake::Now | Wake::Never => None,
        };
        let sessions = self.sessions.next_deadline();
        let all = [at, paused.then_some(self.pause_until), sessions, self.networks.next_deadline()];
        let next = all.into_iter().flatten().min();
        if next != self.told_wake {
            self.told_wake = next;
            effects.extend(next.map(Effect::WakeAt));
        }
    }

    /// What is known of a task that the store does not say (yet), for showing it to users.
    pub fn live_status(&self, task: &TaskId) -> Option<&TaskStatus> {
        self.statuses.newer(task)
    }
    /// Loops that panicked in this term, and what they said.
    pub fn parked(&self) -> &BTreeMap<&'static str, String> {
        &self.parked
    }
    /// A node that is thought to be alive has no session with this leader (yet): it may still be
    /// looking for it.
    pub fn misses_a_node(&self, view: &View) -> bool {
        view.nodes().any(|n| n.status.state == NodeState::Ready && !self.sessions.has(&n.id))
    }
    /// What a node could not do of its networks, as it said last.
    pub fn network_problems(&self, node: &NodeId) -> &[NetworkProblem] {
        self.networks.problems(node)
    }
    /// Nodes that have a session, and which.
    pub fn sessions(&self) -> impl Iterator<Item = (&NodeId, SessionId)> {
        self.sessions.nodes()
    }
    /// A proposal was given out and its outcome was not told yet.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight
    }
}

fn send_networks(delivery: NetworksDelivery) -> Effect {
    Effect::SendNetworks(delivery.node, delivery.session, delivery.message)
}

fn send(delivery: Delivery) -> Effect {
    Effect::Send(delivery.node, delivery.session, delivery.message)
}

/// Lets a loop see and plan. If it panics, what it planned is dropped and it is parked.
fn run(
    parked: &mut BTreeMap<&'static str, String>,
    name: &'static str,
    room: &mut dyn ControlLoop,
    plan: &mut Plan,
    ids: &mut IdSource,
    now: Timestamp,
) -> Wake {
    let before = plan.checkpoint();
    let wake = guard(parked, name, || {
        for event in plan.fresh() {
            room.observe(event);
        }
        room.plan(plan, &mut Context { now, ids })
    });
    wake.unwrap_or_else(|| {
        plan.rollback(before);
        Wake::Never
    })
}

fn observe_all(rooms: &mut Vec<Room>, parked: &mut BTreeMap<&'static str, String>, events: &[Event]) {
    rooms.retain_mut(|room| {
        let seen = guard(parked, room.name, || events.iter().for_each(|event| room.state.observe(event)));
        seen.is_some()
    });
}

/// Runs a loop's code unless it is parked; parks it if it panics.
fn guard<T>(
    parked: &mut BTreeMap<&'static str, String>,
    name: &'static str,
    code: impl FnOnce() -> T,
) -> Option<T> {
    if parked.contains_key(name) {
        return None;
    }
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(panic) => {
            parked.insert(name, words(panic.as_ref()));
            None
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod tests;
