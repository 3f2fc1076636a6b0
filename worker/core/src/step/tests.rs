use super::*;
use TaskState::*;

fn task(desired: TaskState, state: TaskState) -> Task {
    let mut task = Task { id: "t".into(), desired_state: desired, ..Task::default() };
    task.status.state = state;
    task
}

fn exit(code: i32) -> Exit {
    Exit { code, oom_killed: false, at: Timestamp::ZERO }
}

fn fatal(err: &str) -> Outcome {
    Outcome::Failed(Failure { temporary: false, err: err.into() })
}

const NOW: Timestamp = Timestamp(1000);

#[test]
fn what_is_next() {
    let here = Facts { confirmed: true, ..Facts::default() };
    let runs = Facts { may_hold: true, ..here };
    let gone = Facts { removing: true, ..here };
    let held = Facts { hold_until: Timestamp(2000), ..here };
    let unsure = Facts::default();
    for (desired, state, facts, want) in [
        (Running, Assigned, here, Next::Become(Accepted)),
        (Running, Accepted, here, Next::Do(Op::Prepare)),
        (Running, Preparing, here, Next::Do(Op::Prepare)),
        (Running, Ready, here, Next::Do(Op::Start)),
        (Running, Ready, held, Next::Until(Timestamp(2000))),
        (Running, Accepted, held, Next::Do(Op::Prepare)),
        (Ready, Accepted, here, Next::Do(Op::Prepare)),
        (Ready, Ready, here, Next::Rest),
        (Running, Starting, runs, Next::Do(Op::Start)),
        (Running, Running, runs, Next::Do(Op::Wait)),
        (Complete, Running, runs, Next::Do(Op::Wait)),
        // Told to stop.
        (Shutdown, Assigned, here, Next::Become(Shutdown)),
        (Shutdown, Ready, here, Next::Become(Shutdown)),
        (Remove, Preparing, here, Next::Become(Shutdown)),
        (Shutdown, Starting, runs, Next::Do(Op::Shutdown)),
        (Remove, Running, runs, Next::Do(Op::Shutdown)),
        (Running, Running, Facts { removing: true, ..runs }, Next::Do(Op::Shutdown)),
        // Ended: the container stays until the task is not assigned any more.
        (Running, Failed, here, Next::Rest),
        (Shutdown, Shutdown, here, Next::Rest),
        (Shutdown, Shutdown, gone, Next::Do(Op::Remove)),
        (Running, Complete, gone, Next::Do(Op::Remove)),
        (Shutdown, Orphaned, runs, Next::Do(Op::Shutdown)),
        // Before a manager was heard after a restart: what runs is watched, nothing is started.
        (Running, Accepted, unsure, Next::Rest),
        (Running, Ready, unsure, Next::Rest),
        (Running, Running, Facts { may_hold: true, ..unsure }, Next::Do(Op::Wait)),
        (Shutdown, Running, Facts { may_hold: true, ..unsure }, Next::Do(Op::Shutdown)),
    ] {
        assert_eq!(next(&task(desired, state), &facts, NOW), want, "{desired} {state} {facts:?}");
    }
}

#[test]
fn what_an_outcome_makes_of_a_task() {
    let started = Outcome::Started(ContainerStatus { pid: 7, ..ContainerStatus::default() });
    for (desired, state, op, outcome, want) in [
        (Running, Preparing, Op::Prepare, Outcome::Done, Some((Ready, ""))),
        (Running, Preparing, Op::Prepare, fatal("no such image"), Some((Rejected, "no such image"))),
        (Running, Starting, Op::Start, started, Some((Running, ""))),
        (Running, Starting, Op::Start, fatal("no such file"), Some((Failed, "no such file"))),
        (Running, Running, Op::Wait, Outcome::Ended(exit(0)), Some((Complete, ""))),
        (Running, Running, Op::Wait, Outcome::Ended(exit(3)), Some((Failed, "task: non-zero exit (3)"))),
        (Running, Running, Op::Wait, fatal("container is gone"), Some((Failed, "container is gone"))),
        (Shutdown, Running, Op::Wait, Outcome::Ended(exit(3)), Some((Shutdown, ""))),
        (Shutdown, Running, Op::Shutdown, Outcome::Ended(exit(137)), Some((Shutdown, ""))),
        (Shutdown, Failed, Op::Shutdown, Outcome::Ended(exit(0)), None),
        (Shutdown, Complete, Op::Shutdown, Outcome::Ended(exit(0)), None),
        (Shutdown, Shutdown, Op::Remove, Outcome::Done, None),
        (Running, Preparing, Op::Prepare, Outcome::Cancelled, None),
        (Running, Running, Op::Start, Outcome::Done, None),
        (Shutdown, Running, Op::Shutdown, fatal("busy"), None),
    ] {
        let got = after(&task(desired, state), op, &outcome, NOW);
        let got = got.as_ref().map(|s| (s.state, s.err.as_str()));
        assert_eq!(got, want, "{desired} {state} {op:?} {outcome:?}");
    }
    let later = Outcome::Failed(Failure { temporary: true, err: "registry busy".into() });
    assert_eq!(after(&task(Running, Preparing), Op::Prepare, &later, NOW), None);
}

#[test]
fn an_end_is_told_whole() {
    let mut task = task(Running, Running);
    task.status.container =
        Some(ContainerStatus { container_id: "c".into(), pid: 9, ..ContainerStatus::default() });
    let end = Exit { code: 137, oom_killed: true, at: Timestamp(900) };
    let status = after(&task, Op::Wait, &Outcome::Ended(end), NOW).unwrap();
    assert_eq!(status.err, "task: non-zero exit (137): OOM killed");
    assert_eq!(status.at, Timestamp(900));
    let want =
        ContainerStatus { container_id: "c".into(), pid: 0, exit_code: 137, oom_killed: true, ports: vec![] };
    assert_eq!(status.container, Some(want));
}

#[test]
fn what_was_found_moves_the_state_only_forward() {
    let container = ContainerStatus { container_id: "c".into(), pid: 5, ..ContainerStatus::default() };
    let find = |desired, state, found_state| {
        let found = Found { container: container.clone(), state: found_state };
        super::found(&task(desired, state), &found, NOW).map(|s| s.state)
    };
    assert_eq!(find(Running, Accepted, FoundState::Created), None);
    assert_eq!(find(Running, Accepted, FoundState::Running), Some(Running));
    assert_eq!(find(Running, Running, FoundState::Running), None);
    assert_eq!(find(Running, Running, FoundState::Exited(exit(0))), Some(Complete));
    assert_eq!(find(Running, Accepted, FoundState::Exited(exit(1))), Some(Failed));
    assert_eq!(find(Shutdown, Running, FoundState::Exited(exit(1))), Some(Shutdown));
    assert_eq!(find(Running, Failed, FoundState::Exited(exit(0))), None);
    assert_eq!(find(Running, Failed, FoundState::Running), None);
}
