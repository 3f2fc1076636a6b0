use swarm_types::policy::RestartPolicy;
use swarm_types::service::ServiceSpec;
use swarm_types::task::Task;
use swarm_types::testing;
use swarm_types::time::Timestamp;

use super::*;

fn service(spec: &ServiceSpec) -> Service {
    Service { id: "s".into(), spec: spec.clone(), spec_version: 1, ..Service::default() }
}

fn task(service: &Service, id: &str, slot: u64, state: TaskState, err: &str) -> v1::Task {
    let mut task = Task { id: id.into(), slot, spec: service.spec.task.clone(), ..Task::default() };
    task.spec_version = service.spec_version;
    task.status.state = state;
    task.status.err = err.into();
    task.desired_state = if state.is_terminal() { TaskState::Shutdown } else { TaskState::Running };
    (&task).into()
}

fn event(kind: v1::watch_event::Kind, object: Object) -> v1::WatchMessage {
    let object = Some(v1::Object { object: Some(object) });
    v1::WatchMessage { message: Some(Message::Event(v1::WatchEvent { kind: kind.into(), object })) }
}

fn updated(object: Object) -> v1::WatchMessage {
    event(v1::watch_event::Kind::Updated, object)
}

fn started(service: &Service, wait: Wait) -> Progress {
    let mut progress = Progress::new(wait);
    progress.take(updated(Object::Service(service.into()))).unwrap();
    progress.take(v1::WatchMessage { message: Some(Message::Synced(true)) }).unwrap();
    progress
}

#[test]
fn converges_when_all_run() {
    let s = service(&testing::service("web").replicas(2).build());
    let mut p = started(&s, Wait::default());
    assert_eq!(p.verdict(), Verdict::Waiting);
    p.take(updated(Object::Task(task(&s, "a", 1, TaskState::Running, "")))).unwrap();
    p.take(updated(Object::Task(task(&s, "b", 2, TaskState::Preparing, "")))).unwrap();
    assert_eq!(p.verdict(), Verdict::Waiting);
    let (overall, lines) = p.lines();
    assert_eq!((overall.as_str(), lines.len()), ("overall progress: 1 out of 2 tasks", 2));
    // A passing state may come late: a state never goes back.
    p.take(updated(Object::Task(task(&s, "b", 2, TaskState::Running, "")))).unwrap();
    let late = Object::Task(task(&s, "b", 2, TaskState::Starting, ""));
    p.take(event(v1::watch_event::Kind::Passing, late)).unwrap();
    assert_eq!(p.verdict(), Verdict::Converged);
}

#[test]
fn old_tasks_of_an_update_are_not_done() {
    let mut s = service(&testing::service("web").build());
    let old = task(&s, "a", 1, TaskState::Running, "");
    s.spec_version = 2;
    s.spec.task = testing::service("web").image("image:2").build().task;
    let mut p = started(&s, Wait::default());
    p.take(updated(Object::Task(old))).unwrap();
    assert_eq!(p.verdict(), Verdict::Waiting);
    let mut stopped = task(&s, "a", 1, TaskState::Shutdown, "");
    stopped.spec_version = 1;
    p.take(updated(Object::Task(stopped))).unwrap();
    p.take(updated(Object::Task(task(&s, "b", 1, TaskState::Running, "")))).unwrap();
    assert_eq!(p.verdict(), Verdict::Converged);
}

#[test]
fn no_node_is_stuck_with_the_reason() {
    let s = service(&testing::service("web").build());
    let mut p = started(&s, Wait::default());
    p.take(updated(Object::Task(task(&s, "a", 1, TaskState::Pending, "no suitable node (…)")))).unwrap();
    assert_eq!(p.verdict(), Verdict::Stuck("web.1: no suitable node (…)".into()));
}

#[test]
fn failures_end_the_wait() {
    let s = service(&testing::service("web").build());
    let mut p = started(&s, Wait::default());
    for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(p.verdict(), Verdict::Waiting, "{n}");
        p.take(updated(Object::Task(task(&s, id, 1, TaskState::Rejected, "No such image")))).unwrap();
    }
    assert_eq!(
        p.verdict(),
        Verdict::Failed("web.1 failed 3 times, and is tried again: No such image".into())
    );
}

#[test]
fn spent_restarts_end_the_wait() {
    let policy = RestartPolicy { max_attempts: 1, ..RestartPolicy::default() };
    let s = service(&testing::service("web").restart(policy).build());
    let mut p = started(&s, Wait::default());
    p.take(updated(Object::Task(task(&s, "a", 1, TaskState::Failed, "exit 1")))).unwrap();
    assert_eq!(p.verdict(), Verdict::Waiting);
    let mut last = task(&s, "b", 1, TaskState::Failed, "exit 1");
    last.attempt_count = 1;
    last.meta.get_or_insert_default().created_at_ms = 1;
    p.take(updated(Object::Task(last))).unwrap();
    assert_eq!(p.verdict(), Verdict::Failed("web.1 failed and will not be tried again: exit 1".into()));
}

#[test]
fn a_paused_update_fails_unless_it_is_an_older_one() {
    let mut s = service(&testing::service("web").build());
    let status = UpdateStatus {
        state: UpdateState::Paused,
        started_at: Timestamp(1),
        message: "task x failed".into(),
        ..UpdateStatus::default()
    };
    s.update_status = Some(status.clone());
    let verdict = started(&s, Wait::default()).verdict();
    assert_eq!(verdict, Verdict::Failed("service update paused: task x failed".into()));
    assert_eq!(started(&s, Wait { before: Some(status), ..Wait::default() }).verdict(), Verdict::Waiting);
}

#[test]
fn zero_replicas_and_removal() {
    let s = service(&testing::service("web").replicas(0).build());
    let mut p = started(&s, Wait::default());
    assert_eq!(p.verdict(), Verdict::Converged);
    p.take(event(v1::watch_event::Kind::Deleted, Object::Service((&s).into()))).unwrap();
    assert!(matches!(p.verdict(), Verdict::Failed(_)));
}
