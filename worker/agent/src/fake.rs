//! [`FakeExecutor`]: a node without containers, for tests. What it does can be scripted by image, and
//! everything can be looked at and changed while it runs.
//!
//! It outlives the agent that uses it, as real containers do: give the same one to the next agent and
//! that is a restart of the daemon.

mod images;
mod networks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use swarm_types::container_signal;
use swarm_types::id::{NodeId, TaskId};
use swarm_types::node::NodeDescription;
use swarm_types::placement::Platform;
use swarm_types::resources::{NANO_CPU, Resources};
use swarm_types::task::{ContainerStatus, Task};
use swarm_types::time::Timestamp;
use tokio::sync::watch;

use crate::executor::{
    ExecError, Executor, Exit, Found, FoundState, ImageInfo, ImageService, LogLine, LogOptions, LogStream,
    NetworkService,
};

pub use networks::FakeNetworks;

/// How tasks of an image behave. The default: everything works at once and runs until it is stopped.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How long a preparation takes.
    pub prepare_takes: Duration,
    /// Preparations fail so.
    pub prepare_error: Option<ExecError>,
    /// How long a start takes.
    pub start_takes: Duration,
    /// Starts fail so.
    pub start_error: Option<ExecError>,
    /// The container ends by itself after so long, with this code.
    pub exits: Option<(Duration, i32)>,
    /// How long it takes to stop after the stop signal; no longer than the grace period.
    pub stop_takes: Duration,
    /// Lines that it writes to standard output when it starts.
    pub says: Vec<String>,
}

/// A container that is none.
#[derive(Debug, Clone)]
pub struct FakeContainer {
    /// What it does.
    pub state: FoundState,
    /// How often it was started.
    pub starts: u32,
    /// What it wrote.
    pub log: Vec<LogLine>,
    task: Arc<Task>,
}

/// A node without containers.
pub struct FakeExecutor {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
    networks: FakeNetworks,
}

struct Inner {
    description: NodeDescription,
    scripts: BTreeMap<String, Script>,
    containers: BTreeMap<TaskId, FakeContainer>,
    images: BTreeMap<String, ImageInfo>,
    frozen: bool,
    next_pid: u32,
    ticks: u64,
}

impl FakeExecutor {
    /// A node of this name with 4 CPUs and 8 GiB.
    pub fn new(hostname: &str) -> Arc<Self> {
        let description = NodeDescription {
            hostname: hostname.into(),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: Resources { nano_cpus: 4 * NANO_CPU, memory_bytes: 8 << 30 },
            engine_version: env!("CARGO_PKG_VERSION").into(),
            ..NodeDescription::default()
        };
        let inner = Inner {
            description,
            scripts: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            frozen: false,
            next_pid: 1000,
            ticks: 0,
        };
        Arc::new(Self {
            inner: Arc::new(Mutex::new(inner)),
            changes: watch::Sender::new(0),
            networks: FakeNetworks::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Changes something, and wakes all that wait for a change.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.changes.send_modify(|n| *n += 1);
        result
    }

    /// Waits until `find` finds something.
    async fn until<T>(&self, mut find: impl FnMut(&mut Inner) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = find(&mut self.lock()) {
                return found;
            }
            changes.changed().await.expect("the sender is in self");
        }
    }

    /// Tasks of this image behave so from now on.
    pub fn script(&self, image: &str, script: Script) {
        self.change(|inner| inner.scripts.insert(image.into(), script));
    }

    /// Another description of the machine.
    pub fn describe_as(&self, change: impl FnOnce(&mut NodeDescription)) {
        self.change(|inner| change(&mut inner.description));
    }

    /// All operations stand still, or go on.
    pub fn freeze(&self, frozen: bool) {
        self.change(|inner| inner.frozen = frozen);
    }

    /// Its networks.
    pub fn fake_networks(&self) -> &FakeNetworks {
        &self.networks
    }

    /// The containers that exist.
    pub fn containers(&self) -> BTreeMap<TaskId, FakeContainer> {
        self.lock().containers.clone()
    }

    /// The tasks whose containers run.
    pub fn running(&self) -> Vec<TaskId> {
        let running = |(id, c): (&TaskId, &FakeContainer)| (c.state == FoundState::Running).then_some(*id);
        self.lock().containers.iter().filter_map(running).collect()
    }

    /// A container that runs ends with this code. False if it does not run.
    pub fn exit(&self, task: TaskId, code: i32) -> bool {
        self.end(task, &Exit { code, ..Exit::default() })
    }

    /// As [`FakeExecutor::exit`], killed for its memory.
    pub fn oom(&self, task: TaskId) -> bool {
        self.end(task, &Exit { code: 137, oom_killed: true, at: Timestamp::ZERO })
    }

    fn end(&self, task: TaskId, exit: &Exit) -> bool {
        self.change(|inner| match inner.containers.get_mut(&task) {
            Some(c) if c.state == FoundState::Running => {
                c.state = FoundState::Exited(exit.clone());
                true
            }
            _ => false,
        })
    }

    /// Someone removes a container behind our back.
    pub fn vanish(&self, task: TaskId) -> bool {
        self.change(|inner| inner.containers.remove(&task).is_some())
    }

    /// Power loss: nothing runs any more.
    pub fn power_loss(&self) {
        self.change(|inner| {
            for c in inner.containers.values_mut().filter(|c| c.state == FoundState::Running) {
                c.state = FoundState::Exited(Exit { code: 255, ..Exit::default() });
            }
        });
    }

    /// A container writes a line.
    pub fn say(&self, task: TaskId, stream: LogStream, text: &str) {
        self.change(|inner| inner.say(task, stream, text));
    }

    async fn pause(&self, wait: Duration) {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.until(|inner| (!inner.frozen).then_some(())).await;
    }

    fn script_of(&self, task: &Task) -> Script {
        self.lock().scripts.get(&task.spec.container.image).cloned().unwrap_or_default()
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("no test panics while it holds the lock")
}

impl Inner {
    /// Lines of a task from the `from`th on; whether there may be more.
    fn lines(&self, task: TaskId, from: usize) -> (Vec<LogLine>, bool) {
        match self.containers.get(&task) {
            Some(c) => {
                let ended = matches!(c.state, FoundState::Exited(_));
                (c.log.get(from..).unwrap_or_default().to_vec(), !ended)
            }
            None => (Vec::new(), false),
        }
    }

    fn say(&mut self, task: TaskId, stream: LogStream, text: &str) {
        self.ticks += 1;
        let at = Timestamp(self.ticks);
        if let Some(c) = self.containers.get_mut(&task) {
            c.log.push(LogLine { at, stream, data: Bytes::from(text.to_owned()), partial: false });
        }
    }

    fn start(&mut self, task: &Task, script: &Script) -> Result<ContainerStatus, ExecError> {
        self.next_pid += 1;
        let pid = self.next_pid;
        let c = self.containers.get_mut(&task.id);
        let c = c.ok_or_else(|| ExecError::Fatal(format!("no container of task {}", task.id)))?;
        if c.state == FoundState::Created {
            c.state = FoundState::Running;
            c.starts += 1;
            for line in &script.says {
                self.say(task.id, LogStream::Stdout, line);
            }
        }
        let pid = if self.containers[&task.id].state == FoundState::Running { pid } else { 0 };
        Ok(ContainerStatus { container_id: task.id.to_string(), pid, ..ContainerStatus::default() })
    }
}

impl Executor for FakeExecutor {
    fn set_node(&self, _: NodeId) {}
    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        async {
            let network = self.networks.status().borrow().description.clone();
            NodeDescription { network, ..self.lock().description.clone() }
        }
        .boxed()
    }

    fn recover(&self) -> BoxFuture<'_, Result<Vec<(TaskId, Found)>, ExecError>> {
        let found = |(id, c): (&TaskId, &FakeContainer)| {
            let container = ContainerStatus { container_id: id.to_string(), ..ContainerStatus::default() };
            (*id, Found { container, state: c.state.clone() })
        };
        async move { Ok(self.lock().containers.iter().map(found).collect()) }.boxed()
    }

    fn prepare<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<(), ExecError>> {
        async move {
            let script = self.script_of(task);
            self.pause(script.prepare_takes).await;
            if let Some(e) = script.prepare_error {
                return Err(e);
            }
            let new = FakeContainer {
                state: FoundState::Created,
                starts: 0,
                log: vec![],
                task: Arc::new(task.clone()),
            };
            self.change(|inner| {
                inner.containers.entry(task.id).or_insert(new);
            });
            Ok(())
        }
        .boxed()
    }

    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ContainerStatus, ExecError>> {
        async move {
            let script = self.script_of(task);
            self.pause(script.start_takes).await;
            if let Some(e) = script.start_error {
                return Err(e);
            }
            self.change(|inner| inner.start(task, &script))
        }
        .boxed()
    }

    fn wait(&self, task: TaskId) -> BoxFuture<'_, Result<Exit, ExecError>> {
        async move {
            let known = self.lock().containers.get(&task).map(|c| Arc::clone(&c.task));
            let exits = known.and_then(|task| self.script_of(&task).exits);
            let by_itself = async {
                match exits {
                    Some((after, code)) => {
                        tokio::time::sleep(after).await;
                        self.exit(task, code);
                    }
                    None => std::future::pending().await,
                }
            };
            let ended = self.until(|inner| match inner.containers.get(&task) {
                None => Some(Err(ExecError::Fatal("container is gone".into()))),
                Some(FakeContainer { state: FoundState::Exited(exit), .. }) => Some(Ok(exit.clone())),
                Some(_) => None,
            });
            tokio::pin!(ended);
            tokio::select! {
                exit = &mut ended => exit,
                () = by_itself => ended.await,
            }
        }
        .boxed()
    }

    fn shutdown(&self, task: TaskId) -> BoxFuture<'_, Result<Exit, ExecError>> {
        async move {
            let known = self.lock().containers.get(&task).map(|c| Arc::clone(&c.task));
            let Some(known) = known else { return Ok(Exit::default()) };
            let spec = &known.spec.container;
            let grace = spec.stop_grace_period.unwrap_or(swarm_types::defaults::STOP_GRACE_PERIOD);
            let takes = self.script_of(&known).stop_takes;
            self.pause(takes.min(grace)).await;
            let asked = container_signal::number(&spec.stop_signal).unwrap_or(15);
            let code = 128 + if takes > grace { 9 } else { asked };
            self.exit(task, code);
            Ok(match self.lock().containers.get(&task).map(|c| c.state.clone()) {
                Some(FoundState::Exited(exit)) => exit,
                _ => Exit::default(),
            })
        }
        .boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), ExecError>> {
        async move {
            self.pause(Duration::ZERO).await;
            self.vanish(task);
            Ok(())
        }
        .boxed()
    }

    fn logs(&self, task: TaskId, options: LogOptions) -> BoxStream<'static, Result<LogLine, ExecError>> {
        let LogOptions { since, stdout, stderr, .. } = options;
        let wanted = move |line: &LogLine| {
            line.at >= since
                && match line.stream {
                    LogStream::Stdout => stdout,
                    LogStream::Stderr => stderr,
                }
        };
        let inner = Arc::clone(&self.inner);
        let mut changes = self.changes.subscribe();
        async_stream::stream! {
            let (lines, mut more) = lock(&inner).lines(task, 0);
            let mut seen = lines.len();
            let lines: Vec<LogLine> = lines.into_iter().filter(&wanted).collect();
            let tail = options.tail.and_then(|tail| usize::try_from(tail).ok()).unwrap_or(usize::MAX);
            for line in lines.iter().skip(lines.len().saturating_sub(tail)) {
                yield Ok(line.clone());
            }
            while options.follow && more {
                if changes.changed().await.is_err() {
                    break;
                }
                let (lines, still) = lock(&inner).lines(task, seen);
                seen += lines.len();
                more = still;
                for line in lines.into_iter().filter(&wanted) {
                    yield Ok(line);
                }
            }
        }
        .boxed()
    }

    fn images(&self) -> &dyn ImageService {
        self
    }
    fn networks(&self) -> &dyn NetworkService {
        &self.networks
    }
}
