//! Agent: a worker as one value. Routes what happens to the tasks, and says what to do about it.
//!
//! Reads:   assignments, the networks' set, outcomes of operations, what was found on the node.
//! Writes:  the table of this node's tasks; `Task.status` from ACCEPTED.
//! Never:   restarts a task; stops one because managers are out of reach.
//! Start:   [`Agent::handle`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_types::assignment::AssignmentsMessage;
use swarm_types::id::{Seed, SessionId, TaskId};
use swarm_types::network_set::{NetworkSet, NetworksMessage};
use swarm_types::task::{Task, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::assignments::{Chain, Verdict, changes};
use crate::backoff::{Backoff, CALM};
use crate::entry::Entry;
use crate::networks::{Gap, NetworkReport, NetworkStatus, Networks};
use crate::observed::Found;
use crate::reporter::Reporter;
use crate::step::{Next, Op, Outcome};

/// What happens to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The daemon has started: the tasks of the journal, and the containers that are there. First of
    /// all inputs, once.
    Restored {
        /// Tasks of the journal, each with this node's own status.
        tasks: Vec<Arc<Task>>,
        /// Containers that exist.
        found: BTreeMap<TaskId, Found>,
    },
    /// The networks' set that an earlier daemon kept. After `Restored`, before any session.
    NetworksRestored(Arc<NetworkSet>),
    /// A dispatcher has registered this node, and leads in this term.
    Connected(SessionId, u64),
    /// The session is over, or there is none because dialling or registering failed.
    Lost(LostReason),
    /// A message of this session's assignment stream.
    Assigned(SessionId, AssignmentsMessage),
    /// A message of this session's stream of networks.
    Networks(SessionId, NetworksMessage),
    /// The kernel agrees with the set of this turn, as far as it can, and so with all before it.
    NetworksApplied(u64),
    /// What the data plane cannot do, or the node's end of the networks, has changed.
    NetworkStatus(NetworkStatus),
    /// The dispatcher has taken the last `Effect::ReportNetworks`.
    NetworksReported,
    /// An operation has ended. Exactly one for each `Effect::Run`, unless the daemon dies.
    OpFinished(TaskId, Op, Outcome),
    /// The dispatcher has taken these states.
    Reported(Vec<(TaskId, TaskState)>),
    /// This node leaves the cluster: stop and remove everything. [`Agent::is_idle`] says when.
    Leave,
    /// The time of the last `Effect::WakeAt` has come.
    Tick,
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// The manager is not the leader, and said who is: dial that one at once.
    Redirected,
    /// Anything else.
    Broken,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Dial a manager after this wait; answer with `Connected` or `Lost`.
    Connect {
        /// How long to wait before.
        after: Duration,
    },
    /// Begin an operation; answer with `OpFinished`.
    Run(Arc<Task>, Op),
    /// Drop the operation that runs for this task; answer with `OpFinished(.., Cancelled)`, or with its
    /// outcome if it was just ready.
    Cancel(TaskId),
    /// Keep this task, with this status, in the journal.
    Persist(Arc<Task>),
    /// Drop this task from the journal.
    Forget(TaskId),
    /// Tell the dispatcher; answer with `Reported`, or with `Lost` if that fails.
    Report(Vec<(TaskId, TaskStatus)>),
    /// Make the kernel agree with this set and keep it so, and keep the set for the next daemon; answer
    /// with `NetworksApplied` of this turn or of a later one.
    ApplyNetworks(u64, Arc<NetworkSet>),
    /// Tell the dispatcher; answer with `NetworksReported`, or with `Lost` if that fails.
    ReportNetworks(NetworkReport),
    /// A message of a stream is missing: open the session again.
    Resync,
    /// The session is one with a leader of the past: end it; answer with `Lost`.
    HangUp,
    /// Send `Tick` at this time; replaces the time asked for before.
    WakeAt(Timestamp),
}

/// A worker.
#[derive(Debug, Clone)]
pub struct Agent {
    tasks: BTreeMap<TaskId, Entry>,
    /// Containers whose tasks are not in the journal: a manager will say what they are.
    strays: BTreeMap<TaskId, Found>,
    session: Option<SessionId>,
    session_since: Timestamp,
    /// The newest term that a leader of this node had.
    term: u64,
    chain: Chain,
    reporter: Reporter,
    networks: Networks,
    backoff: Backoff,
    wakes: BTreeMap<TaskId, Timestamp>,
    wake_at: Option<Timestamp>,
    leaving: bool,
}

impl Agent {
    /// A worker that knows nothing yet. `seed` is for the jitter of reconnects.
    pub fn new(seed: Seed) -> Self {
        Self {
            tasks: BTreeMap::new(),
            strays: BTreeMap::new(),
            session: None,
            session_since: Timestamp::ZERO,
            term: 0,
            chain: Chain::default(),
            reporter: Reporter::default(),
            networks: Networks::default(),
            backoff: Backoff::new(seed),
            wakes: BTreeMap::new(),
            wake_at: None,
            leaving: false,
        }
    }

    /// Takes in what happened; says what to do about it.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut out = Vec::new();
        let touched = match input {
            Input::Restored { tasks, found } => self.restored(tasks, found, now, &mut out),
            Input::Connected(session, term) => self.connected(session, term, now, &mut out),
            Input::Lost(reason) => self.lost(reason, now, &mut out),
            Input::Assigned(session, message) => self.assigned(session, &message, now, &mut out),
            Input::OpFinished(task, op, outcome) => self.finished(task, op, outcome, now, &mut out),
            Input::Reported(states) => {
                self.reporter.taken(&states);
                BTreeSet::new()
            }
            Input::NetworksRestored(set) => {
                let (turn, set) = self.networks.restored(&set);
                out.push(Effect::ApplyNetworks(turn, set));
                BTreeSet::new()
            }
            Input::Networks(session, message) => self.told(session, &message, &mut out),
            Input::NetworksApplied(turn) => {
                self.networks.applied(turn);
                BTreeSet::new()
            }
            Input::NetworkStatus(status) => {
                self.networks.status(status);
                BTreeSet::new()
            }
            Input::NetworksReported => {
                self.networks.taken();
                BTreeSet::new()
            }
            Input::Leave => self.leave(now, &mut out),
            Input::Tick => self.due(now),
        };
        for id in touched {
            self.advance(id, now, &mut out);
        }
        if self.leaving && self.tasks.is_empty() && self.strays.is_empty() {
            // Tasks that are told to stop may still answer; after the last one nothing is to stay.
            out.extend(self.networks.clear().map(|(turn, set)| Effect::ApplyNetworks(turn, set)));
        }
        self.report(&mut out);
        self.plan_wake(&mut out);
        out
    }

    /// The tasks of this node.
    pub fn tasks(&self) -> impl Iterator<Item = (&TaskId, &Entry)> {
        self.tasks.iter()
    }

    /// One task of this node.
    pub fn task(&self, id: TaskId) -> Option<&Entry> {
        self.tasks.get(&id)
    }

    /// The session with a dispatcher, if there is one.
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// How many statuses the dispatcher does not have yet.
    pub fn owed(&self) -> usize {
        self.reporter.len()
    }

    /// How many tasks this node has, ended ones whose containers are kept included.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// No task is here.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// No task and no container is left here, and the kernel has the networks that it is to have.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.strays.is_empty() && self.networks.is_settled()
    }

    /// The networks' set that the kernel is to agree with.
    pub fn network_set(&self) -> &Arc<NetworkSet> {
        self.networks.set()
    }

    fn restored(
        &mut self,
        tasks: Vec<Arc<Task>>,
        mut found: BTreeMap<TaskId, Found>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<TaskId> {
        for task in tasks {
            let id = task.id;
            let mut entry = Entry::restored(task, now);
            if let Some(found) = found.remove(&id)
                && entry.find(&found, now)
            {
                out.push(Effect::Persist(Arc::clone(&entry.task)));
            }
            // What managers have seen of it is not known here: all statuses are owed once.
            self.reporter.owe(id, &entry.task.status);
            self.tasks.insert(id, entry);
        }
        self.strays = found;
        out.push(Effect::Connect { after: Duration::ZERO });
        self.tasks.keys().copied().collect()
    }

    /// Nothing that a leader says is taken after something of a later one: it may have been asleep since, and
    /// its set is one of then.
    fn connected(
        &mut self,
        session: SessionId,
        term: u64,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<TaskId> {
        if term < self.term {
            out.push(Effect::HangUp);
            return BTreeSet::new();
        }
        self.term = term;
        self.session = Some(session);
        self.session_since = now;
        self.chain.reset();
        self.reporter.interrupted();
        self.networks.interrupted();
        BTreeSet::new()
    }

    fn lost(&mut self, reason: LostReason, now: Timestamp, out: &mut Vec<Effect>) -> BTreeSet<TaskId> {
        if self.session.take().is_some() && now.since(self.session_since) >= CALM {
            self.backoff.worked();
        }
        self.chain.reset();
        self.reporter.interrupted();
        self.networks.interrupted();
        let after = match reason {
            LostReason::Redirected => self.backoff.redirected(),
            LostReason::Broken => self.backoff.failed(),
        };
        out.push(Effect::Connect { after });
        BTreeSet::new()
    }

    fn assigned(
        &mut self,
        session: SessionId,
        message: &AssignmentsMessage,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<TaskId> {
        if self.session != Some(session) || self.leaving {
            return BTreeSet::new();
        }
        match self.chain.accept(message) {
            Verdict::Apply => {}
            Verdict::Ignore => return BTreeSet::new(),
            Verdict::Gap => {
                out.push(Effect::Resync);
                return BTreeSet::new();
            }
        }
        let known = self.tasks.keys().chain(self.strays.keys()).copied();
        let changes = changes(message, known);
        let mut touched = BTreeSet::new();
        for task in changes.update {
            touched.insert(task.id);
            self.update(&task, now, out);
        }
        for id in changes.remove {
            if self.remove(id, now, out) {
                touched.insert(id);
            }
        }
        touched
    }

    /// A manager wants this task to be as it is here.
    fn update(&mut self, theirs: &Arc<Task>, now: Timestamp, out: &mut Vec<Effect>) {
        let id = theirs.id;
        let mut worth = false;
        let entry = self.tasks.entry(id).or_insert_with(|| {
            worth = true;
            Entry::assigned(Arc::clone(theirs), now)
        });
        if !worth {
            worth = entry.learn(theirs, now);
        }
        if let Some(found) = self.strays.remove(&id) {
            entry.find(&found, now);
        }
        // A status that the managers do not have (their leader died with it) is owed again.
        if entry.task.status.state > theirs.status.state {
            self.reporter.owe(id, &entry.task.status);
        }
        if worth {
            out.push(Effect::Persist(Arc::clone(&entry.task)));
        }
    }

    /// This task is not to be here any more. False if it is not.
    fn remove(&mut self, id: TaskId, now: Timestamp, out: &mut Vec<Effect>) -> bool {
        if let Some(found) = self.strays.remove(&id) {
            let mut entry = Entry::leftover(id, now);
            entry.find(&found, now);
            self.tasks.insert(id, entry);
            return true;
        }
        let Some(entry) = self.tasks.get_mut(&id) else { return false };
        self.reporter.forget(id);
        if entry.remove() {
            // If the daemon dies now, it goes on stopping it before it has heard of a manager.
            out.push(Effect::Persist(Arc::clone(&entry.task)));
        }
        true
    }

    /// A manager says what is to be of the networks.
    fn told(
        &mut self,
        session: SessionId,
        message: &NetworksMessage,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<TaskId> {
        if self.session == Some(session) && !self.leaving {
            match self.networks.told(message) {
                Ok(Some((turn, set))) => out.push(Effect::ApplyNetworks(turn, set)),
                Ok(None) => {}
                Err(Gap) => out.push(Effect::Resync),
            }
        }
        BTreeSet::new()
    }

    fn leave(&mut self, now: Timestamp, out: &mut Vec<Effect>) -> BTreeSet<TaskId> {
        self.leaving = true;
        let all: BTreeSet<TaskId> = self.tasks.keys().chain(self.strays.keys()).copied().collect();
        for &id in &all {
            self.remove(id, now, out);
        }
        all
    }

    fn finished(
        &mut self,
        id: TaskId,
        op: Op,
        outcome: Outcome,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<TaskId> {
        let Some(entry) = self.tasks.get_mut(&id).filter(|e| e.running() == Some(op)) else {
            return BTreeSet::new();
        };
        let gone = op == Op::Remove && outcome == Outcome::Done;
        if entry.finished(op, outcome, now) {
            self.changed(id, out);
        }
        if gone && self.tasks.get(&id).is_some_and(|e| e.facts.removing) {
            self.tasks.remove(&id);
            self.reporter.forget(id);
            self.wakes.remove(&id);
            out.push(Effect::Forget(id));
            return BTreeSet::new();
        }
        BTreeSet::from([id])
    }

    fn due(&mut self, now: Timestamp) -> BTreeSet<TaskId> {
        self.wake_at = None;
        let due: BTreeSet<TaskId> =
            self.wakes.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        self.wakes.retain(|_, at| *at > now);
        due
    }

    /// Takes one task as far as it can go now.
    fn advance(&mut self, id: TaskId, now: Timestamp, out: &mut Vec<Effect>) {
        self.wakes.remove(&id);
        loop {
            let Some(entry) = self.tasks.get_mut(&id) else { return };
            if entry.cancel() {
                out.push(Effect::Cancel(id));
                return;
            }
            match entry.next(now) {
                Next::Rest => return,
                Next::Until(at) => {
                    self.wakes.insert(id, at);
                    return;
                }
                Next::Become(state) => {
                    if entry.become_state(state, now) {
                        self.changed(id, out);
                    }
                }
                Next::Do(op) => {
                    let changed = entry.begin(op, now);
                    let task = Arc::clone(&entry.task);
                    if changed {
                        self.changed(id, out);
                    }
                    out.push(Effect::Run(task, op));
                    return;
                }
            }
        }
    }

    /// The status of a task changed: it is owed, and kept if it would be missed.
    fn changed(&mut self, id: TaskId, out: &mut Vec<Effect>) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let task = &entry.task;
        if !entry.facts.removing {
            self.reporter.owe(id, &task.status);
        }
        // PREPARING, READY and STARTING need not be written: after a restart the container itself
        // shows how far it had come.
        let state = task.status.state;
        let passing = state > TaskState::Accepted && state < TaskState::Running;
        if !passing && !entry.leftover {
            out.push(Effect::Persist(Arc::clone(task)));
        }
    }

    fn report(&mut self, out: &mut Vec<Effect>) {
        if self.session.is_some()
            && let Some(statuses) = self.reporter.next_call()
        {
            out.push(Effect::Report(statuses));
        }
        if self.session.is_some()
            && let Some(report) = self.networks.next_report()
        {
            out.push(Effect::ReportNetworks(report));
        }
    }

    fn plan_wake(&mut self, out: &mut Vec<Effect>) {
        let next = self.wakes.values().min().copied();
        if let Some(at) = next
            && self.wake_at != Some(at)
        {
            out.push(Effect::WakeAt(at));
        }
        self.wake_at = next;
    }
}

#[cfg(test)]
mod tests;
