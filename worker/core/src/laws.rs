//! Laws of the agent, held against a small world in which anything may happen in any order.
//!
//! Reads:   the agent, through its inputs and effects alone.
//! Writes:  a world of its own: managers, a disk, containers.
//! Never:   leaves the tests.
//! Start:   `everything_ends_right`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use swarm_types::assignment::{AssignmentChange, AssignmentsKind, AssignmentsMessage};
use swarm_types::id::{Seed, SessionId, TaskId};
use swarm_types::task::{ContainerStatus, Task};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::agent::{Agent, Effect, Input, LostReason};
use crate::observed::{Exit, Found, FoundState};
use crate::step::{Failure, Op, Outcome};

/// A container of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Created,
    Running,
    Exited(i32),
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Assign(u8),
    Want(u8, TaskState),
    Unassign(u8),
    Send,
    SendTwice,
    Skip,
    OpEnds(u8, bool),
    Exit(u8, i32),
    Vanish(u8),
    ReportTaken,
    Lose,
    Kill,
    ForgetJournal(u8),
    PowerLoss,
    Pass,
}

fn event() -> impl Strategy<Value = Event> {
    use TaskState::{Ready, Remove, Running, Shutdown};
    let id = 0..4_u8;
    let want = prop::sample::select(vec![Ready, Running, Running, Shutdown, Remove]);
    prop_oneof![
        3 => id.clone().prop_map(Event::Assign),
        2 => (id.clone(), want).prop_map(|(id, s)| Event::Want(id, s)),
        1 => id.clone().prop_map(Event::Unassign),
        5 => Just(Event::Send),
        1 => Just(Event::SendTwice),
        1 => Just(Event::Skip),
        8 => (any::<u8>(), prop::bool::weighted(0.85)).prop_map(|(n, good)| Event::OpEnds(n, good)),
        2 => (id.clone(), prop::sample::select(vec![0, 1, 137])).prop_map(|(id, c)| Event::Exit(id, c)),
        1 => id.clone().prop_map(Event::Vanish),
        3 => Just(Event::ReportTaken),
        1 => Just(Event::Lose),
        1 => Just(Event::Kill),
        1 => id.prop_map(Event::ForgetJournal),
        1 => Just(Event::PowerLoss),
        2 => Just(Event::Pass),
    ]
}

/// Managers, a disk, containers and one agent.
struct World {
    agent: Agent,
    now: Timestamp,
    sessions: u64,
    /// What the managers want of this node: the truth.
    wanted: BTreeMap<TaskId, Task>,
    changed: BTreeSet<TaskId>,
    version: u64,
    sent: u64,
    /// Tasks that the managers had and forgot.
    forgotten: BTreeSet<TaskId>,
    journal: BTreeMap<TaskId, Arc<Task>>,
    containers: BTreeMap<TaskId, Container>,
    starts: BTreeMap<TaskId, u32>,
    ops: BTreeMap<TaskId, (Arc<Task>, Op)>,
    cancelled: BTreeSet<TaskId>,
    report: Option<Vec<(TaskId, TaskState)>>,
    reported: BTreeMap<TaskId, TaskState>,
    wake: Option<Timestamp>,
    connect: bool,
    resync: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            agent: Agent::new(Seed(1)),
            now: Timestamp(1_000_000),
            sessions: 0,
            wanted: BTreeMap::new(),
            changed: BTreeSet::new(),
            version: 0,
            sent: 0,
            forgotten: BTreeSet::new(),
            journal: BTreeMap::new(),
            containers: BTreeMap::new(),
            starts: BTreeMap::new(),
            ops: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            report: None,
            reported: BTreeMap::new(),
            wake: None,
            connect: false,
            resync: false,
        };
        world.boot();
        world
    }

    fn id(n: u8) -> TaskId {
        TaskId::new(format!("t{n}"))
    }

    fn boot(&mut self) {
        self.agent = Agent::new(Seed(1));
        self.ops.clear();
        self.cancelled.clear();
        self.report = None;
        self.wake = None;
        self.forgive();
        let found = self.containers.iter().map(|(id, c)| {
            let state = match c {
                Container::Created => FoundState::Created,
                Container::Running => FoundState::Running,
                Container::Exited(code) => FoundState::Exited(exit(*code)),
            };
            (*id, Found { container: ContainerStatus::default(), state })
        });
        let input =
            Input::Restored { tasks: self.journal.values().cloned().collect(), found: found.collect() };
        self.handle(input);
    }

    /// If the container is gone and neither the journal nor a manager has heard that it was started,
    /// no trace of the start is left in the world: nobody can know of it.
    fn forgive(&mut self) {
        let heard = |task: Option<&Task>| task.is_some_and(|t| t.status.state >= TaskState::Starting);
        self.starts.retain(|id, _| {
            self.containers.contains_key(id)
                || heard(self.journal.get(id).map(AsRef::as_ref))
                || heard(self.wanted.get(id))
        });
    }

    fn handle(&mut self, input: Input) {
        let before: BTreeMap<_, _> = self.agent.tasks().map(|(id, e)| (*id, state_of(e.task()))).collect();
        let effects = self.agent.handle(input, self.now);
        for (id, entry) in self.agent.tasks() {
            if let Some((state, desired)) = before.get(id) {
                let (new_state, new_desired) = state_of(entry.task());
                assert!(new_state >= *state && new_desired >= *desired, "{id} went back");
            }
        }
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { .. } => self.connect = true,
            Effect::Run(task, op) => {
                assert!(!self.ops.contains_key(&task.id), "two operations of {}", task.id);
                if op == Op::Remove {
                    assert_ne!(
                        self.containers.get(&task.id),
                        Some(&Container::Running),
                        "removed while running"
                    );
                }
                self.ops.insert(task.id, (task, op));
            }
            Effect::Cancel(id) => {
                assert!(self.cancelled.insert(id) && self.ops.contains_key(&id), "cancel of nothing: {id}");
            }
            Effect::Persist(task) => drop(self.journal.insert(task.id, task)),
            Effect::Forget(id) => {
                assert!(!self.containers.contains_key(&id), "{id} forgotten with its container");
                self.journal.remove(&id);
            }
            Effect::Report(statuses) => {
                assert!(self.report.is_none(), "two calls at once");
                self.report = Some(statuses.iter().map(|(id, s)| (*id, s.state)).collect());
            }
            Effect::ApplyNetworks(turn, _) => self.handle(Input::NetworksApplied(turn)),
            Effect::ReportNetworks(_) => self.handle(Input::NetworksReported),
            Effect::HangUp => unreachable!("all sessions are of one leader"),
            Effect::Resync => self.resync = true,
            Effect::WakeAt(at) => self.wake = Some(at),
        }
    }

    fn session(&self) -> SessionId {
        SessionId::new(format!("s{}", self.sessions))
    }

    fn whole(&mut self) -> AssignmentsMessage {
        self.changed.clear();
        self.version += 1;
        self.sent = self.version;
        let changes = self.wanted.values().map(|t| AssignmentChange::Update(Arc::new(t.clone()))).collect();
        AssignmentsMessage { kind: AssignmentsKind::Complete, results_in: self.version, changes }
    }

    fn part(&mut self) -> AssignmentsMessage {
        let changes = std::mem::take(&mut self.changed).into_iter().map(|id| match self.wanted.get(&id) {
            Some(task) => AssignmentChange::Update(Arc::new(task.clone())),
            None => AssignmentChange::Remove(id),
        });
        let changes = changes.collect();
        let kind = AssignmentsKind::Incremental { applies_to: self.sent };
        self.version += 1;
        self.sent = self.version;
        AssignmentsMessage { kind, results_in: self.version, changes }
    }

    fn send(&mut self, times: u32) {
        if std::mem::take(&mut self.connect) {
            self.sessions += 1;
            self.handle(Input::Connected(self.session(), 1));
            self.resync = true;
        }
        let message = if std::mem::take(&mut self.resync) { self.whole() } else { self.part() };
        for _ in 0..times {
            self.handle(Input::Assigned(self.session(), message.clone()));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Assign(n) => {
                let id = Self::id(n);
                if !self.forgotten.contains(&id) && !self.wanted.contains_key(&id) {
                    let mut task = Task { id, desired_state: TaskState::Ready, ..Task::default() };
                    task.status.state = TaskState::Assigned;
                    task.start_after = self.now.plus(Duration::from_secs(u64::from(n)));
                    self.wanted.insert(id, task);
                    self.changed.insert(id);
                }
            }
            Event::Want(n, state) => {
                if let Some(task) = self.wanted.get_mut(&Self::id(n)) {
                    task.desired_state = task.desired_state.max(state);
                    self.changed.insert(task.id);
                }
            }
            Event::Unassign(n) => {
                if self.wanted.remove(&Self::id(n)).is_some() {
                    self.forgotten.insert(Self::id(n));
                    self.changed.insert(Self::id(n));
                }
            }
            Event::Send => self.send(1),
            Event::SendTwice => self.send(2),
            Event::Skip => drop(self.part()),
            Event::OpEnds(n, good) => self.op_ends(usize::from(n), good),
            Event::Exit(n, code) => {
                if let Some(c) = self.containers.get_mut(&Self::id(n)).filter(|c| **c == Container::Running) {
                    *c = Container::Exited(code);
                }
            }
            Event::Vanish(n) => drop(self.containers.remove(&Self::id(n))),
            Event::ReportTaken => self.report_taken(),
            Event::Lose => {
                self.report = None;
                self.handle(Input::Lost(LostReason::Broken));
            }
            Event::Kill => self.boot(),
            Event::ForgetJournal(n) => {
                self.journal.remove(&Self::id(n));
                self.boot();
            }
            Event::PowerLoss => {
                for c in self.containers.values_mut().filter(|c| **c == Container::Running) {
                    *c = Container::Exited(255);
                }
                self.boot();
            }
            Event::Pass => self.pass(),
        }
    }

    fn report_taken(&mut self) {
        let Some(states) = self.report.take() else { return };
        for (id, state) in &states {
            let seen = self.reported.entry(*id).or_default();
            *seen = (*seen).max(*state);
            if let Some(task) = self.wanted.get_mut(id) {
                task.status.state = task.status.state.max(*state);
            }
        }
        self.handle(Input::Reported(states));
    }

    fn pass(&mut self) {
        self.now = self.now.plus(Duration::from_secs(3));
        if self.wake.is_some_and(|at| at <= self.now) {
            self.wake = None;
            self.handle(Input::Tick);
        }
    }

    /// The `n`th of the operations that can end now ends.
    fn op_ends(&mut self, n: usize, good: bool) {
        let ready: Vec<_> = self
            .ops
            .iter()
            .filter(|(id, (_, op))| {
                let waits = *op == Op::Wait && self.containers.get(id) == Some(&Container::Running);
                !waits || self.cancelled.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        let Some(&id) = ready.get(n % ready.len().max(1)) else { return };
        let Some((_, op)) = self.ops.remove(&id) else { return };
        let outcome =
            if self.cancelled.remove(&id) { Outcome::Cancelled } else { self.outcome(id, op, good) };
        self.handle(Input::OpFinished(id, op, outcome));
    }

    fn outcome(&mut self, id: TaskId, op: Op, good: bool) -> Outcome {
        let failed = |temporary| Outcome::Failed(Failure { temporary, err: "bad luck".into() });
        if !good {
            return failed(op != Op::Prepare);
        }
        match (op, self.containers.get(&id).copied()) {
            (Op::Prepare, None) => {
                self.containers.insert(id, Container::Created);
                Outcome::Done
            }
            (Op::Prepare, Some(_)) => Outcome::Done,
            (Op::Start, Some(c)) => {
                if c == Container::Created {
                    *self.starts.entry(id).or_default() += 1;
                    self.containers.insert(id, Container::Running);
                }
                Outcome::Started(ContainerStatus::default())
            }
            (Op::Start | Op::Wait, None) => failed(false),
            (Op::Wait, Some(Container::Exited(code))) => Outcome::Ended(exit(code)),
            (Op::Wait, Some(_)) => failed(false),
            (Op::Shutdown, Some(Container::Running)) => {
                self.containers.insert(id, Container::Exited(143));
                Outcome::Ended(exit(143))
            }
            (Op::Shutdown, _) => Outcome::Ended(Exit::default()),
            (Op::Remove, _) => {
                self.containers.remove(&id);
                Outcome::Done
            }
        }
    }

    /// Nothing bad happens any more: everything comes to rest.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.send(1);
            for _ in 0..20 {
                self.op_ends(0, true);
            }
            self.report_taken();
            self.pass();
        }
    }

    fn check_settled(&self) {
        assert_eq!(self.agent.owed(), 0, "statuses are still owed");
        let here: BTreeSet<_> = self.agent.tasks().map(|(id, _)| *id).collect();
        let wanted: BTreeSet<_> = self.wanted.keys().copied().collect();
        assert_eq!(here, wanted);
        assert_eq!(self.journal.keys().copied().collect::<BTreeSet<_>>(), wanted, "the journal");
        assert!(self.containers.keys().all(|id| wanted.contains(id)), "leaked: {:?}", self.containers);
        for (id, entry) in self.agent.tasks() {
            let task = entry.task();
            let runs = self.containers.get(id) == Some(&Container::Running);
            assert_eq!(runs, task.status.state == TaskState::Running, "{id} {:?}", task.status);
            assert_eq!(
                self.reported.get(id).copied().unwrap_or_default(),
                task.status.state,
                "{id} reported"
            );
            let state = task.status.state;
            let at_rest = match task.desired_state {
                TaskState::Ready => state == TaskState::Ready || state.is_terminal(),
                TaskState::Running => state >= TaskState::Running,
                _ => state.is_terminal(),
            };
            assert!(at_rest, "{id}: desired {}, is {state}", task.desired_state);
        }
    }
}

fn exit(code: i32) -> Exit {
    Exit { code, ..Exit::default() }
}

fn state_of(task: &Task) -> (TaskState, TaskState) {
    (task.status.state, task.desired_state)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened, in whatever order, with the daemon killed and the journal damaged: states
    /// only grew, nothing started twice, operations never overlapped, and in the end the node has
    /// what the managers want, they know it, and nothing else is left.
    #[test]
    fn everything_ends_right(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.settle();
        world.check_settled();
        prop_assert!(world.starts.values().all(|n| *n <= 1), "started twice: {:?}", world.starts);
    }

    /// Same inputs, same effects.
    #[test]
    fn same_in_same_out(events in prop::collection::vec(event(), 1..60)) {
        let run = || {
            let mut world = World::new();
            events.iter().cloned().for_each(|e| world.happen(e));
            format!("{:?}", world.agent)
        };
        prop_assert_eq!(run(), run());
    }
}
