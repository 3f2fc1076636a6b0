//! The agent against a manager on loopback and a node without containers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod dispatcher;
mod networks;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatcher::{Manager, wait_for};
use futures::FutureExt;
use futures::future::BoxFuture;
use swarm_proto::v1;
use swarm_types::id::{Seed, TaskId};
use swarm_types::task_state::TaskState;
use swarm_types::time::{Clock, Timestamp};
use swarm_worker_agent::executor::{ExecError, Executor, LogStream};
use swarm_worker_agent::fake::{FakeExecutor, Script};
use swarm_worker_agent::{Agent, DialError, Dialer, Handle, Settings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use v1::command::Command;

/// Starts somewhere in 2026 and runs on from there.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000).plus(self.0.elapsed())
    }
}

struct PlainDialer;

impl Dialer for PlainDialer {
    fn dial(&self, addr: String) -> BoxFuture<'_, Result<Channel, DialError>> {
        async move {
            let endpoint = Endpoint::from_shared(format!("http://{addr}"))
                .map_err(|e| DialError::Failed(e.to_string()))?;
            endpoint.connect().await.map_err(|e| DialError::Failed(format!("{addr}: {e}")))
        }
        .boxed()
    }
}

/// An agent that runs.
struct Node {
    handle: Handle,
    shutdown: CancellationToken,
    set: JoinSet<()>,
}

impl Node {
    fn start(dir: &Path, executor: &Arc<FakeExecutor>, managers: &[&Manager]) -> Self {
        let settings = Settings {
            node: "node1".into(),
            state_dir: dir.into(),
            managers: managers.iter().map(|m| m.addr.clone()).collect(),
        };
        let executor: Arc<dyn Executor> = Arc::clone(executor) as _;
        let clock = Arc::new(TestClock(Instant::now()));
        let (agent, handle) = Agent::new(settings, Arc::new(PlainDialer), executor, clock, Seed(1));
        let shutdown = CancellationToken::new();
        let mut set = JoinSet::new();
        let stop = shutdown.clone();
        set.spawn(async move { agent.run(stop).await.unwrap() });
        Self { handle, shutdown, set }
    }

    async fn stopped(mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.set.join_next()).await;
        ended.expect("the agent ends in time").expect("one task").expect("no panic");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.stopped().await;
    }
}

struct World {
    dir: tempfile::TempDir,
    managers: JoinSet<()>,
    manager: Manager,
    executor: Arc<FakeExecutor>,
}

impl World {
    async fn new() -> Self {
        let mut managers = JoinSet::new();
        let manager = Manager::start(&mut managers).await;
        manager.state().manager_addrs = vec![manager.addr.clone()];
        Self { dir: tempfile::tempdir().unwrap(), managers, manager, executor: FakeExecutor::new("host1") }
    }
    fn node(&self) -> Node {
        Node::start(self.dir.path(), &self.executor, &[&self.manager])
    }
    async fn session(&self, number: u64) {
        self.manager.until(&format!("session {number}"), |s| (s.sessions >= number).then_some(())).await;
    }
}

#[tokio::test]
async fn a_task_runs_ends_and_is_forgotten() {
    let world = World::new().await;
    let node = world.node();
    world.session(1).await;
    assert_eq!(world.manager.state().descriptions[0].hostname, "host1");
    world.manager.want("t1", "image:1", TaskState::Running);
    let running = world.manager.task_is("t1", TaskState::Running).await;
    assert_eq!(running.container.unwrap().container_id, "t1");
    assert!(world.executor.exit("t1".into(), 3));
    let failed = world.manager.task_is("t1", TaskState::Failed).await;
    assert_eq!(failed.err, "task: non-zero exit (3)");
    assert_eq!(world.executor.containers().len(), 1, "kept for its logs");
    world.manager.forget("t1");
    wait_for("the container is gone", || world.executor.containers().is_empty().then_some(())).await;
    let seen: Vec<_> = world.manager.state().seen[&TaskId::new("t1")].iter().map(|s| s.state).collect();
    assert!(seen.is_sorted(), "{seen:?}");
    node.stop().await;
    assert_eq!(world.manager.state().goodbyes, 0, "a restart of the daemon is no good-bye");
}

#[tokio::test]
async fn a_running_task_is_stopped_with_its_signal() {
    let world = World::new().await;
    let _node = world.node();
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Running).await;
    world.manager.want("t1", "image:1", TaskState::Shutdown);
    let stopped = world.manager.task_is("t1", TaskState::Shutdown).await;
    assert_eq!(stopped.container.unwrap().exit_code, 143);
    assert_eq!(stopped.err, "");
}

#[tokio::test]
async fn failures_are_told() {
    let world = World::new().await;
    let fatal = |err: &str| Some(ExecError::Fatal(err.into()));
    world
        .executor
        .script("none:1", Script { prepare_error: fatal("no such image: none:1"), ..Script::default() });
    world.executor.script("bad:1", Script { start_error: fatal("exec: no such file"), ..Script::default() });
    world.executor.script("ok:1", Script { exits: Some((Duration::ZERO, 0)), ..Script::default() });
    let _node = world.node();
    world.session(1).await;
    world.manager.want("a", "none:1", TaskState::Running);
    world.manager.want("b", "bad:1", TaskState::Running);
    world.manager.want("c", "ok:1", TaskState::Running);
    world.manager.want("d", "run:1", TaskState::Running);
    world.manager.want("e", "run:1", TaskState::Running);
    assert_eq!(world.manager.task_is("a", TaskState::Rejected).await.err, "no such image: none:1");
    assert_eq!(world.manager.task_is("b", TaskState::Failed).await.err, "exec: no such file");
    assert_eq!(world.manager.task_is("c", TaskState::Complete).await.err, "");
    world.manager.task_is("d", TaskState::Running).await;
    world.executor.vanish("d".into());
    assert_eq!(world.manager.task_is("d", TaskState::Failed).await.err, "container is gone");
    world.manager.task_is("e", TaskState::Running).await;
    world.executor.oom("e".into());
    let oom = world.manager.task_is("e", TaskState::Failed).await;
    assert_eq!(oom.err, "task: non-zero exit (137): OOM killed");
}

#[tokio::test]
async fn a_slow_preparation_is_dropped_when_the_task_is_not_wanted() {
    let world = World::new().await;
    world.executor.script("slow:1", Script { prepare_takes: Duration::from_secs(3600), ..Script::default() });
    let _node = world.node();
    world.session(1).await;
    world.manager.want("t1", "slow:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Preparing).await;
    world.manager.want("t1", "slow:1", TaskState::Remove);
    world.manager.task_is("t1", TaskState::Shutdown).await;
}

#[tokio::test]
async fn statuses_survive_a_manager_that_is_away() {
    let mut world = World::new().await;
    let node = world.node();
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Running).await;
    // Statuses are refused: the session ends, the next ones fail too.
    world.manager.state().refuse_statuses = true;
    world.executor.exit("t1".into(), 0);
    world.session(2).await;
    // The manager's process dies, and comes back at the same address.
    world.managers.shutdown().await;
    let addr = world.manager.addr.clone();
    let mut status = node.handle.status();
    status.wait_for(|s| s.session.is_none()).await.unwrap();
    world.manager.state().refuse_statuses = false;
    let listener = tokio::net::TcpListener::bind(&addr).await.unwrap();
    world.manager.serve(listener, &mut world.managers);
    world.manager.task_is("t1", TaskState::Complete).await;
    status.wait_for(|s| s.owed == 0 && s.session.is_some()).await.unwrap();
}

#[tokio::test]
async fn the_leader_is_followed_and_remembered() {
    let mut world = World::new().await;
    let second = Manager::start(&mut world.managers).await;
    let addrs = vec![second.addr.clone(), world.manager.addr.clone()];
    world.manager.state().leader = Some(second.addr.clone());
    second.state().manager_addrs = addrs.clone();
    let node = world.node();
    second.until("a session with the leader", |s| (s.sessions == 1).then_some(())).await;
    let mut status = node.handle.status();
    let seen = status.wait_for(|s| !s.root_cert_pem.is_empty()).await.unwrap().clone();
    assert_eq!((seen.manager, seen.managers), (Some(second.addr.clone()), addrs.clone()));
    assert_eq!(seen.root_cert_pem, "ROOT");
    node.stop().await;
    // After a restart the list is known though the settings name nobody.
    let node = Node::start(world.dir.path(), &world.executor, &[]);
    second.until("a second session with the leader", |s| (s.sessions == 2).then_some(())).await;
    // Leadership moves: the old leader says so and ends the session.
    world.manager.state().leader = None;
    second.state().leader = Some(world.manager.addr.clone());
    let message =
        v1::ClusterChanged { manager_addrs: vec![world.manager.addr.clone()], ..Default::default() };
    second.send(v1::session_message::Message::ClusterChanged(message));
    second.send(v1::session_message::Message::Close("lost leadership".into()));
    world.session(1).await;
    node.stop().await;
}

#[tokio::test]
async fn a_manager_that_does_not_answer_heartbeats_is_left() {
    let world = World::new().await;
    let _node = world.node();
    world.manager.until("heartbeats", |s| (s.heartbeats > 3).then_some(())).await;
    world.manager.state().deaf = true;
    world.session(2).await;
}

#[tokio::test]
async fn a_leader_of_the_past_is_not_obeyed() {
    let world = World::new().await;
    world.manager.state().term = 2;
    let node = world.node();
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Running).await;
    // It slept since the term before, and its set does not name the task.
    let wanted = {
        let mut state = world.manager.state();
        state.term = 1;
        std::mem::take(&mut state.wanted)
    };
    world.manager.hang_up();
    world.session(3).await;
    assert_eq!(world.executor.running(), [TaskId::new("t1")]);
    {
        let mut state = world.manager.state();
        (state.term, state.wanted) = (3, wanted);
    }
    world.manager.task_is("t1", TaskState::Running).await;
    world.manager.want("t2", "image:1", TaskState::Running);
    world.manager.task_is("t2", TaskState::Running).await;
    node.stop().await;
    assert_eq!(world.executor.running(), [TaskId::new("t1"), TaskId::new("t2")]);
}

#[tokio::test]
async fn a_gap_is_answered_with_the_whole_set() {
    let world = World::new().await;
    let _node = world.node();
    world.session(1).await;
    let lost = v1::Assignments { applies_to: Some(9999), results_in: 10_000, changes: vec![] };
    world.manager.send(v1::session_message::Message::Assignments(lost));
    world.session(2).await;
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Running).await;
}

#[tokio::test]
async fn restarts_of_the_daemon_do_not_touch_containers() {
    let world = World::new().await;
    let node = world.node();
    for id in ["runs", "dies", "dropped"] {
        world.manager.want(id, "image:1", TaskState::Running);
        world.manager.task_is(id, TaskState::Running).await;
    }
    node.stop().await;
    assert_eq!(world.executor.running().len(), 3);
    // While the daemon is away: one container ends, one task is given to another node.
    world.executor.exit("dies".into(), 7);
    world.manager.state().wanted.remove(&TaskId::new("dropped"));
    let node = world.node();
    assert_eq!(world.manager.task_is("dies", TaskState::Failed).await.err, "task: non-zero exit (7)");
    wait_for("the leftover is gone", || {
        (!world.executor.containers().contains_key(&TaskId::new("dropped"))).then_some(())
    })
    .await;
    assert_eq!(world.executor.running(), [TaskId::new("runs")]);
    node.stop().await;
    // The journal is lost: the task is learned again, its container is not started a second time.
    std::fs::remove_file(world.dir.path().join("tasks")).unwrap();
    let node = world.node();
    let mut status = node.handle.status();
    status.wait_for(|s| s.tasks == 2 && s.owed == 0 && s.session.is_some()).await.unwrap();
    assert_eq!(world.executor.containers()[&TaskId::new("runs")].starts, 1);
}

#[tokio::test]
async fn killed_at_any_moment_it_comes_to_the_same_end() {
    let world = World::new().await;
    world.executor.script(
        "image:1",
        Script {
            prepare_takes: Duration::from_millis(3),
            start_takes: Duration::from_millis(3),
            stop_takes: Duration::from_millis(3),
            ..Script::default()
        },
    );
    for n in 0..8 {
        world.manager.want(&format!("t{n}"), "image:1", TaskState::Running);
    }
    for n in 0..30_u64 {
        let mut node = world.node();
        tokio::time::sleep(Duration::from_millis(n % 11)).await;
        if n == 15 {
            (4..8).for_each(|n| world.manager.want(&format!("t{n}"), "image:1", TaskState::Shutdown));
        }
        // No orderly end: everything is dropped where it stands.
        node.set.abort_all();
        while node.set.join_next().await.is_some() {}
    }
    let _node = world.node();
    for n in 0..4 {
        world.manager.task_is(&format!("t{n}"), TaskState::Running).await;
    }
    for n in 4..8 {
        let id = TaskId::new(format!("t{n}"));
        wait_for("stopped", || (!world.executor.running().contains(&id)).then_some(())).await;
    }
    assert!(world.executor.containers().values().all(|c| c.starts <= 1));
}

#[tokio::test]
async fn leaving_says_goodbye_and_removes_everything() {
    let world = World::new().await;
    let node = world.node();
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Running).await;
    node.handle.leave();
    node.stopped().await;
    assert_eq!(world.manager.state().goodbyes, 1);
    assert!(world.executor.containers().is_empty());
}

#[tokio::test]
async fn logs_are_sent_up() {
    let world = World::new().await;
    let says = (1..=1000).map(|n| format!("line {n}")).collect();
    world.executor.script("image:1", Script { says, ..Script::default() });
    let _node = world.node();
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.task_is("t1", TaskState::Running).await;
    let logs = |tail, follow| {
        let options = v1::LogOptions { tail, follow, ..v1::LogOptions::default() };
        let task_ids = vec!["t1".into(), "unknown".into()];
        Command::StreamLogs(v1::StreamLogs { task_ids, options: Some(options) })
    };
    world.manager.command("c1", logs(-1, false));
    let end = world.manager.until("end of logs", |s| s.log_ends.first().cloned()).await;
    assert_eq!((end.command_id.as_str(), end.warnings.len()), ("c1", 0));
    {
        let mut state = world.manager.state();
        let lines = std::mem::take(&mut state.lines);
        assert_eq!(lines.len(), 1000);
        assert_eq!((lines[0].as_str(), lines[999].as_str()), ("t1@node1 line 1", "t1@node1 line 1000"));
    }
    world.manager.command("c2", logs(2, true));
    world.manager.until("the tail", |s| (s.lines.len() == 2).then_some(())).await;
    world.executor.say("t1".into(), LogStream::Stderr, "new");
    let last = world.manager.until("a new line", |s| s.lines.get(2).cloned()).await;
    assert_eq!(last, "t1@node1 new");
    world.manager.command("c2", Command::Cancel("c2".into()));
    world.executor.say("t1".into(), LogStream::Stdout, "unread");
    // A third command shows that the second is over: its answer comes after whatever the second sent.
    world.manager.command("c3", logs(1, false));
    world.manager.until("the last line", |s| (s.lines.last()? == "t1@node1 unread").then_some(())).await;
}

#[tokio::test]
async fn logs_of_a_task_that_has_not_started_come_when_it_has() {
    let world = World::new().await;
    let script = Script {
        prepare_takes: Duration::from_millis(100),
        says: vec!["hello".into()],
        exits: Some((Duration::from_millis(50), 0)),
        ..Script::default()
    };
    world.executor.script("image:1", script);
    let _node = world.node();
    world.session(1).await;
    let options = v1::LogOptions { tail: -1, follow: true, ..v1::LogOptions::default() };
    let logs = v1::StreamLogs { task_ids: vec!["t1".into()], options: Some(options) };
    // Asked for before the task itself is known.
    world.manager.command("c1", Command::StreamLogs(logs));
    world.manager.want("t1", "image:1", TaskState::Running);
    world.manager.until("the end of the logs", |s| s.log_ends.first().cloned()).await;
    assert_eq!(world.manager.state().lines, ["t1@node1 hello"]);
}

#[tokio::test]
async fn image_commands_are_performed_and_answered() {
    let world = World::new().await;
    let _node = world.node();
    world.session(1).await;
    let pull = |image: &str, auth| Command::PullImage(v1::PullImage { image: image.into(), auth });
    let auth = v1::RegistryAuth { username: "me".into(), password: "secret".into() };
    let commands = [
        ("load", Command::LoadImage(v1::LoadImage { transfer_id: "x".into() })),
        ("no-load", Command::LoadImage(v1::LoadImage { transfer_id: "none".into() })),
        ("pull", pull("pulled:1", None)),
        ("auth", pull("private:1", Some(auth))),
        ("list", Command::ListImages(v1::ListNodeImages {})),
        ("rm", Command::RemoveImage(v1::RemoveNodeImage { image: "pulled:1".into(), force: false })),
        ("no-rm", Command::RemoveImage(v1::RemoveNodeImage { image: "pulled:1".into(), force: false })),
    ];
    let mut answers = Vec::new();
    for (n, (id, command)) in commands.into_iter().enumerate() {
        world.manager.command(id, command);
        let report = world.manager.until(id, |s| s.reports.get(n).cloned()).await;
        assert!(report.done && report.command_id == id);
        let images: Vec<_> = report.images.iter().flat_map(|i| i.tags.clone()).collect();
        answers.push(format!("{id}: {} {} {}", report.names.join(","), images.join(","), report.error));
    }
    assert_eq!(answers[0].trim(), "load: loaded/x:1");
    assert_eq!(answers[1], "no-load:   fetch archive: no such transfer");
    assert_eq!(answers[2].trim(), "pull: pulled:1");
    assert!(answers[3].contains("credentials are not supported") && !answers[3].contains("secret"));
    assert_eq!(answers[4].trim(), "list:  loaded/x:1,pulled:1");
    assert!(answers[5].starts_with("rm: Untagged: pulled:1,Deleted: sha256:"));
    assert_eq!(answers[6], "no-rm:   no such image: pulled:1");
}
