use swarm_types::assignment::{AssignmentChange, AssignmentsKind};
use swarm_types::task::ContainerStatus;

use super::*;
use crate::observed::{Exit, FoundState};
use crate::step::Failure;

const NOW: Timestamp = Timestamp(1_000_000);

fn task(id: &str, desired: TaskState) -> Task {
    let mut task = Task { id: id.into(), desired_state: desired, ..Task::default() };
    task.status.state = TaskState::Assigned;
    task
}

fn set(results_in: u64, tasks: &[Task]) -> AssignmentsMessage {
    let changes = tasks.iter().map(|t| AssignmentChange::Update(Arc::new(t.clone()))).collect();
    AssignmentsMessage { kind: AssignmentsKind::Complete, results_in, changes }
}

fn diff(applies_to: u64, changes: Vec<AssignmentChange>) -> AssignmentsMessage {
    let kind = AssignmentsKind::Incremental { applies_to };
    AssignmentsMessage { kind, results_in: applies_to + 1, changes }
}

/// Effects as short words: what a reader of a test wants to see.
fn words(effects: &[Effect]) -> String {
    let word = |e: &Effect| match e {
        Effect::Connect { .. } => "connect".into(),
        Effect::Run(task, op) => format!("{} {}", op.as_str(), task.id),
        Effect::Cancel(id) => format!("cancel {id}"),
        Effect::Persist(task) => format!("persist {}={}", task.id, task.status.state),
        Effect::Forget(id) => format!("forget {id}"),
        Effect::Report(all) => {
            let all: Vec<_> = all.iter().map(|(id, s)| format!("{id}={}", s.state)).collect();
            format!("report {}", all.join(","))
        }
        Effect::ApplyNetworks(turn, set) => format!("apply networks {} in turn {turn}", set.networks.len()),
        Effect::ReportNetworks(report) => {
            format!("report networks {} problems {}", report.applied, report.problems.len())
        }
        Effect::Resync => "resync".into(),
        Effect::HangUp => "hang up".into(),
        Effect::WakeAt(at) => format!("wake +{}", at.since(NOW).as_millis()),
    };
    effects.iter().map(word).collect::<Vec<_>>().join("; ")
}

struct Bench {
    agent: Agent,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        Self::restored(vec![], [])
    }
    fn restored<const N: usize>(tasks: Vec<Task>, found: [(&str, FoundState); N]) -> Self {
        let mut bench = Self { agent: Agent::new(Seed(1)), now: NOW };
        let found = found
            .into_iter()
            .map(|(id, state)| {
                let container = ContainerStatus { container_id: id.into(), ..ContainerStatus::default() };
                (TaskId::new(id), Found { container, state })
            })
            .collect();
        bench.does(Input::Restored { tasks: tasks.into_iter().map(Arc::new).collect(), found });
        bench
    }
    fn connected(mut self) -> Self {
        self.does(Input::Connected("s".into(), 1));
        self
    }
    fn does(&mut self, input: Input) -> String {
        words(&self.agent.handle(input, self.now))
    }
    fn assigned(&mut self, message: AssignmentsMessage) -> String {
        self.does(Input::Assigned("s".into(), message))
    }
    fn finished(&mut self, id: &str, op: Op, outcome: Outcome) -> String {
        self.does(Input::OpFinished(id.into(), op, outcome))
    }
    fn running(mut self, id: &str) -> Self {
        self.assigned(set(1, &[task(id, TaskState::Running)]));
        self.finished(id, Op::Prepare, Outcome::Done);
        self.finished(id, Op::Start, Outcome::Started(ContainerStatus::default()));
        self.taken(id, TaskState::Running);
        self
    }
    fn taken(&mut self, id: &str, state: TaskState) -> String {
        self.does(Input::Reported(vec![(id.into(), state)]))
    }
    fn state(&self, id: &str) -> TaskState {
        self.agent.task(id.into()).expect("task").task().status.state
    }
}

fn ended(code: i32) -> Outcome {
    Outcome::Ended(Exit { code, ..Exit::default() })
}

#[test]
fn a_task_from_assignment_to_its_end() {
    let mut b = Bench::new().connected();
    assert_eq!(
        b.assigned(set(1, &[task("a", TaskState::Running)])),
        "persist a=assigned; persist a=accepted; prepare a; report a=preparing"
    );
    assert_eq!(b.finished("a", Op::Prepare, Outcome::Done), "start a");
    assert_eq!(b.taken("a", TaskState::Preparing), "report a=starting");
    let started = Outcome::Started(ContainerStatus::default());
    assert_eq!(b.finished("a", Op::Start, started), "persist a=running; wait a");
    assert_eq!(b.taken("a", TaskState::Starting), "report a=running");
    assert_eq!(b.taken("a", TaskState::Running), "");
    assert_eq!(b.finished("a", Op::Wait, ended(1)), "persist a=failed; report a=failed");
    // Its container, with its logs, stays until the managers have forgotten the task.
    assert_eq!(b.taken("a", TaskState::Failed), "");
    assert_eq!(b.assigned(diff(1, vec![AssignmentChange::Remove("a".into())])), "persist a=failed; remove a");
    assert_eq!(b.finished("a", Op::Remove, Outcome::Done), "forget a");
    assert!(b.agent.is_idle() && b.agent.owed() == 0);
}

#[test]
fn a_running_task_is_told_to_stop() {
    let mut b = Bench::new().connected().running("a");
    let stop = AssignmentChange::Update(Arc::new(task("a", TaskState::Shutdown)));
    assert_eq!(b.assigned(diff(1, vec![stop])), "persist a=running; cancel a; report a=running");
    assert_eq!(b.finished("a", Op::Wait, Outcome::Cancelled), "shutdown a");
    assert_eq!(b.finished("a", Op::Shutdown, ended(143)), "persist a=shutdown");
    assert_eq!(b.state("a"), TaskState::Shutdown);
}

#[test]
fn a_task_told_to_stop_before_it_started_never_starts() {
    let mut b = Bench::new().connected();
    b.assigned(set(1, &[task("a", TaskState::Running)]));
    let stop = AssignmentChange::Update(Arc::new(task("a", TaskState::Remove)));
    assert_eq!(b.assigned(diff(1, vec![stop])), "persist a=preparing; cancel a");
    // It may have links by now, and their addresses are another's as soon as it is said to have ended.
    assert_eq!(b.finished("a", Op::Prepare, Outcome::Cancelled), "shutdown a");
    assert_eq!(b.finished("a", Op::Shutdown, ended(0)), "persist a=shutdown");
    assert_eq!(b.agent.task("a".into()).expect("is here").task.status.container, None, "there was none");

    let mut b = Bench::new().connected();
    assert_eq!(
        b.assigned(set(1, &[task("a", TaskState::Shutdown)])),
        "persist a=assigned; persist a=shutdown; report a=shutdown"
    );
}

#[test]
fn ready_is_held_and_start_after_is_waited_for() {
    let mut b = Bench::new().connected();
    b.assigned(set(1, &[task("a", TaskState::Ready)]));
    b.taken("a", TaskState::Preparing);
    assert_eq!(b.finished("a", Op::Prepare, Outcome::Done), "report a=ready");
    let mut go = task("a", TaskState::Running);
    go.start_after = NOW.plus(Duration::from_secs(5));
    let go = AssignmentChange::Update(Arc::new(go));
    b.taken("a", TaskState::Ready);
    assert_eq!(b.assigned(diff(1, vec![go])), "persist a=ready; report a=ready; wake +5000");
    b.now = NOW.plus(Duration::from_secs(4));
    assert_eq!(b.does(Input::Tick), "wake +5000");
    b.now = NOW.plus(Duration::from_secs(5));
    assert_eq!(b.does(Input::Tick), "start a");
}

#[test]
fn a_clock_that_is_behind_does_not_delay_a_start_for_longer() {
    let mut b = Bench::new().connected();
    let mut late = task("a", TaskState::Running);
    late.meta.updated_at = NOW.plus(Duration::from_secs(3600));
    late.start_after = NOW.plus(Duration::from_secs(3605));
    b.assigned(set(1, &[late]));
    assert_eq!(b.finished("a", Op::Prepare, Outcome::Done), "wake +5000");
}

#[test]
fn failures_that_may_pass_are_tried_again() {
    let mut b = Bench::new().connected();
    b.assigned(set(1, &[task("a", TaskState::Running)]));
    b.taken("a", TaskState::Preparing);
    let busy = || Outcome::Failed(Failure { temporary: true, err: "registry busy".into() });
    assert_eq!(b.finished("a", Op::Prepare, busy()), "wake +1000");
    b.now = NOW.plus(Duration::from_secs(1));
    assert_eq!(b.does(Input::Tick), "prepare a");
    for _ in 0..2 {
        b.finished("a", Op::Prepare, busy());
        b.now = b.now.plus(Duration::from_secs(10));
        assert_eq!(b.does(Input::Tick), "prepare a");
    }
    assert_eq!(b.finished("a", Op::Prepare, busy()), "persist a=rejected; shutdown a; report a=rejected");
    assert_eq!(b.finished("a", Op::Shutdown, ended(0)), "");
    assert_eq!(b.state("a"), TaskState::Rejected);

    // A container that cannot be stopped is never given up.
    let mut b = Bench::new().connected().running("a");
    b.assigned(diff(1, vec![AssignmentChange::Remove("a".into())]));
    b.finished("a", Op::Wait, Outcome::Cancelled);
    for _ in 0..20 {
        b.finished("a", Op::Shutdown, Outcome::Failed(Failure { temporary: false, err: "stuck".into() }));
        b.now = b.now.plus(Duration::from_secs(10));
        assert_eq!(b.does(Input::Tick), "shutdown a");
    }
}

#[test]
fn cut_off_tasks_go_on_and_their_statuses_are_owed() {
    let mut b = Bench::new().connected().running("a");
    assert_eq!(b.does(Input::Lost(LostReason::Broken)), "connect");
    assert_eq!(b.finished("a", Op::Wait, ended(0)), "persist a=complete");
    assert_eq!(b.does(Input::Lost(LostReason::Broken)), "connect");
    assert_eq!(b.does(Input::Connected("s2".into(), 1)), "report a=complete");
    assert_eq!(b.does(Input::Lost(LostReason::Redirected)), "connect");
    assert_eq!(b.does(Input::Connected("s3".into(), 1)), "report a=complete");
}

#[test]
fn a_status_that_died_with_a_leader_is_owed_again() {
    let mut b = Bench::new().connected().running("a");
    assert_eq!(b.agent.owed(), 0);
    b.does(Input::Lost(LostReason::Broken));
    b.does(Input::Connected("s".into(), 1));
    // The new leader still thinks that the task is assigned only.
    assert_eq!(b.assigned(set(1, &[task("a", TaskState::Running)])), "report a=running");
}

#[test]
fn messages_of_other_sessions_and_gaps_change_nothing() {
    let mut b = Bench::new().connected().running("a");
    let stop = || vec![AssignmentChange::Remove("a".into())];
    assert_eq!(b.does(Input::Assigned("old".into(), set(9, &[]))), "");
    assert_eq!(b.assigned(diff(0, stop())), "", "came twice");
    assert_eq!(b.assigned(diff(5, stop())), "resync");
    assert_eq!(b.assigned(diff(6, stop())), "");
    assert_eq!(b.assigned(set(7, &[task("a", TaskState::Running)])), "report a=running");
    assert_eq!(b.state("a"), TaskState::Running);
}

#[test]
fn a_restarted_daemon_finds_what_runs_and_starts_nothing_by_itself() {
    let at = |id, state| {
        let mut task = task(id, TaskState::Running);
        task.status.state = state;
        task
    };
    let tasks = vec![
        at("runs", TaskState::Running),
        at("died", TaskState::Running),
        at("gone", TaskState::Running),
        at("fresh", TaskState::Accepted),
        at("made", TaskState::Accepted),
    ];
    let mut b = Bench { agent: Agent::new(Seed(1)), now: NOW };
    let found = |state| Found { container: ContainerStatus::default(), state };
    let found = BTreeMap::from([
        ("runs".into(), found(FoundState::Running)),
        ("died".into(), found(FoundState::Exited(Exit { code: 137, ..Exit::default() }))),
        ("made".into(), found(FoundState::Created)),
        ("stray".into(), found(FoundState::Running)),
    ]);
    let input = Input::Restored { tasks: tasks.into_iter().map(Arc::new).collect(), found };
    assert_eq!(b.does(input), "persist died=failed; connect; wait gone; wait runs");
    assert_eq!(
        b.does(Input::Connected("s".into(), 1)),
        "report died=failed,fresh=accepted,gone=running,made=accepted,runs=running"
    );
    let gone = Outcome::Failed(Failure { temporary: false, err: "container is gone".into() });
    assert_eq!(b.finished("gone", Op::Wait, gone), "persist gone=failed; shutdown gone");
    // The managers replaced `fresh` meanwhile; `made` they still want; the stray they do not know.
    let mut set = set(1, &["runs", "died", "gone", "made"].map(|id| at(id, TaskState::Accepted)));
    set.results_in = 4;
    assert_eq!(
        b.assigned(set),
        "persist fresh=accepted; persist fresh=shutdown; remove fresh; prepare made; shutdown stray"
    );
    assert_eq!(b.finished("stray", Op::Shutdown, ended(0)), "remove stray");
    assert_eq!(b.finished("stray", Op::Remove, Outcome::Done), "forget stray");
}

#[test]
fn a_task_lost_from_the_journal_is_adopted_not_started_again() {
    let mut b = Bench::restored(vec![], [("a", FoundState::Running)]).connected();
    let mut known = task("a", TaskState::Running);
    known.status.state = TaskState::Running;
    assert_eq!(b.assigned(set(1, &[known])), "persist a=running; wait a");
    let mut b = Bench::restored(vec![], [("a", FoundState::Running)]).connected();
    let fresh = task("a", TaskState::Running);
    assert_eq!(b.assigned(set(1, &[fresh])), "persist a=running; wait a; report a=running");
    // No container either: it is not started a second time, it has failed.
    let mut b = Bench::new().connected();
    let mut known = task("a", TaskState::Running);
    known.status.state = TaskState::Running;
    assert_eq!(b.assigned(set(1, &[known])), "persist a=running; wait a");
}

#[test]
fn an_orphaned_task_is_stopped() {
    let mut b = Bench::new().connected().running("a");
    let mut orphan = task("a", TaskState::Running);
    orphan.status.state = TaskState::Orphaned;
    assert_eq!(b.assigned(set(2, &[orphan])), "persist a=orphaned; cancel a");
    assert_eq!(b.finished("a", Op::Wait, Outcome::Cancelled), "shutdown a");
    assert_eq!(b.finished("a", Op::Shutdown, ended(0)), "");
    assert_eq!(b.state("a"), TaskState::Orphaned);
}

#[test]
fn leaving_removes_everything() {
    let mut runs = task("a", TaskState::Running);
    runs.status.state = TaskState::Running;
    let found = [("a", FoundState::Running), ("stray", FoundState::Created)];
    let mut b = Bench::restored(vec![runs], found).connected();
    assert_eq!(b.does(Input::Leave), "persist a=running; cancel a; shutdown stray");
    assert_eq!(b.assigned(set(1, &[task("b", TaskState::Running)])), "", "nothing new is begun");
    assert_eq!(b.finished("a", Op::Wait, Outcome::Cancelled), "shutdown a");
    assert_eq!(b.finished("a", Op::Shutdown, ended(0)), "persist a=shutdown; remove a");
    assert_eq!(b.finished("a", Op::Remove, Outcome::Done), "forget a");
    assert_eq!(b.finished("stray", Op::Shutdown, ended(0)), "remove stray");
    assert!(!b.agent.is_idle());
    let last = b.finished("stray", Op::Remove, Outcome::Done);
    assert_eq!(last, "forget stray; apply networks 0 in turn 1", "tasks had their networks to the end");
    assert!(!b.agent.is_idle());
    assert_eq!(b.does(Input::NetworksApplied(1)), "");
    assert!(b.agent.is_idle());
}

#[test]
fn networks_have_a_chain_of_their_own() {
    let whole = |results_in| NetworksMessage { kind: AssignmentsKind::Complete, results_in, changes: vec![] };
    let diff = |applies_to| NetworksMessage {
        kind: AssignmentsKind::Incremental { applies_to },
        ..whole(applies_to + 1)
    };
    let mut b = Bench::new();
    assert_eq!(b.does(Input::NetworksRestored(Arc::default())), "apply networks 0 in turn 1");
    b = b.connected();
    assert_eq!(b.does(Input::NetworksApplied(1)), "", "no manager asked for that");
    assert_eq!(b.assigned(set(1, &[])), "");
    assert_eq!(b.does(Input::Networks("s".into(), whole(5))), "apply networks 0 in turn 2");
    assert_eq!(b.does(Input::Networks("s".into(), diff(5))), "apply networks 0 in turn 3");
    assert_eq!(b.does(Input::Networks("other".into(), diff(6))), "");
    assert_eq!(b.does(Input::NetworksApplied(3)), "report networks 6 problems 0");
    assert_eq!(b.does(Input::NetworksReported), "");
    assert_eq!(b.does(Input::Networks("s".into(), diff(7))), "resync");
    let more = AssignmentChange::Remove("nobody".into());
    assert_eq!(b.assigned(self::diff(1, vec![more])), "", "the other chain is whole");
}

#[test]
fn what_nobody_waits_for_is_ignored() {
    let mut b = Bench::new().connected().running("a");
    assert_eq!(b.finished("a", Op::Start, Outcome::Done), "");
    assert_eq!(b.finished("nobody", Op::Wait, ended(0)), "");
    assert_eq!(b.taken("nobody", TaskState::Running), "");
}

#[test]
fn sessions_that_do_not_last_are_begun_ever_more_slowly() {
    let mut b = Bench::new();
    let wait = |b: &mut Bench, lasts: u64| {
        b.does(Input::Connected("s".into(), 1));
        b.assigned(set(1, &[]));
        b.now = b.now.plus(Duration::from_secs(lasts));
        match b.agent.handle(Input::Lost(LostReason::Broken), b.now).as_slice() {
            [Effect::Connect { after }] => *after,
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..10 {
        wait(&mut b, 0);
    }
    assert!(wait(&mut b, 0) >= Duration::from_secs(1));
    assert!(wait(&mut b, 5) <= Duration::from_millis(50), "after a session that lasted");
}

/// A power cut took the shutdown from the journal; the container shows an end that could be a failure.
#[test]
fn what_is_final_for_the_managers_is_final_here() {
    let mut lost = task("a", TaskState::Running);
    lost.status.state = TaskState::Running;
    let exit = Exit { code: 143, ..Exit::default() };
    let mut bench = Bench::restored(vec![lost], [("a", FoundState::Exited(exit))]).connected();
    assert_eq!(bench.agent.task("a".into()).unwrap().task().status.state, TaskState::Failed);
    let mut theirs = task("a", TaskState::Shutdown);
    theirs.status.state = TaskState::Shutdown;
    bench.assigned(set(1, &[theirs]));
    assert_eq!(bench.agent.task("a".into()).unwrap().task().status.state, TaskState::Shutdown);
}

#[test]
fn nothing_is_taken_of_a_leader_of_the_past() {
    let mut b = Bench::new().connected().running("a");
    b.does(Input::Lost(LostReason::Broken));
    b.does(Input::Connected("new".into(), 7));
    b.does(Input::Assigned("new".into(), set(1, &[task("a", TaskState::Running)])));
    b.does(Input::Lost(LostReason::Broken));
    // One that slept since before term 7 knows nothing of `a`.
    assert_eq!(b.does(Input::Connected("old".into(), 6)), "hang up");
    assert_eq!(b.does(Input::Assigned("old".into(), set(9, &[]))), "");
    let networks = NetworksMessage { kind: AssignmentsKind::Complete, results_in: 1, changes: vec![] };
    assert_eq!(b.does(Input::Networks("old".into(), networks)), "");
    assert_eq!(b.state("a"), TaskState::Running);
    b.does(Input::Lost(LostReason::Broken));
    assert_ne!(b.does(Input::Connected("same".into(), 7)), "hang up");
    assert!(b.agent.session().is_some());
}
