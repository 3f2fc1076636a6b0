//! Containers of one host: how long they take, how they end. An image's name says what it does.

use std::collections::{BTreeMap, BTreeSet};

use swarm_types::id::{IdSource, TaskId};
use swarm_types::task::ContainerStatus;
use swarm_types::time::Timestamp;
use swarm_worker_core::observed::{Exit, Found, FoundState};
use swarm_worker_core::step::{Failure, Op, Outcome};

/// One container.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it does.
    pub state: FoundState,
    /// How often it was started.
    pub starts: u32,
    /// Its image.
    pub image: String,
}

/// Containers and images of one host.
#[derive(Debug, Default)]
pub struct Containers {
    /// By task.
    pub all: BTreeMap<TaskId, Container>,
    images: BTreeSet<String>,
    /// How often each task was started, in all its containers.
    started: BTreeMap<TaskId, u32>,
    /// Things fail at random, in a thousand.
    pub failing_permille: u64,
    /// Longest time of a pull in milliseconds.
    pub pull_ms: u64,
}

fn failed(temporary: bool, err: impl Into<String>) -> Outcome {
    Outcome::Failed(Failure { temporary, err: err.into() })
}

/// When and how a container of this image ends by itself.
pub fn life(image: &str) -> Option<(u64, Exit)> {
    let exit = |code, oom_killed| Exit { code, oom_killed, at: Timestamp::ZERO };
    match image.split(':').next().unwrap_or_default() {
        "crash" => Some((200, exit(1, false))),
        "once" => Some((1000, exit(0, false))),
        "hog" => Some((500, exit(137, true))),
        _ => None,
    }
}

impl Containers {
    /// How long an operation takes, in milliseconds; none if it lasts until the container ends.
    pub fn time_of(&mut self, task: TaskId, op: Op, image: &str, dice: &mut IdSource) -> Option<u64> {
        match op {
            Op::Prepare if self.images.contains(image) => Some(2 + dice.below(10)),
            Op::Prepare => Some(20 + dice.below(self.pull_ms + 1)),
            Op::Start => Some(5 + dice.below(20)),
            Op::Wait => match self.all.get(&task).map(|c| &c.state) {
                Some(FoundState::Running) => None,
                _ => Some(1),
            },
            Op::Shutdown if image.starts_with("stubborn") => Some(10_000),
            Op::Shutdown => Some(10 + dice.below(50)),
            Op::Remove => Some(2 + dice.below(5)),
        }
    }

    /// Does the operation; how it ends.
    pub fn perform(
        &mut self,
        task: TaskId,
        op: Op,
        image: &str,
        now: Timestamp,
        dice: &mut IdSource,
    ) -> Outcome {
        if op != Op::Wait && dice.below(1000) < self.failing_permille {
            return failed(true, "the machine is busy");
        }
        match op {
            Op::Prepare => self.prepare(task, image),
            Op::Start => self.start(task, image),
            Op::Wait => self.wait(task),
            Op::Shutdown => self.shutdown(task, now),
            Op::Remove => {
                self.all.remove(&task);
                Outcome::Done
            }
        }
    }

    fn prepare(&mut self, task: TaskId, image: &str) -> Outcome {
        if image.starts_with("missing") {
            return failed(false, format!("No such image: {image}"));
        }
        self.images.insert(image.to_owned());
        let new = Container { state: FoundState::Created, starts: 0, image: image.to_owned() };
        self.all.entry(task).or_insert(new);
        Outcome::Done
    }

    fn start(&mut self, task: TaskId, image: &str) -> Outcome {
        let Some(container) = self.all.get_mut(&task) else {
            return failed(false, "no such container");
        };
        if image.starts_with("unstartable") {
            return failed(false, "exec: no such file or directory");
        }
        match &container.state {
            FoundState::Created => {
                container.state = FoundState::Running;
                let starts = self.started.entry(task).or_default();
                *starts += 1;
                container.starts = *starts;
            }
            FoundState::Running => {}
            FoundState::Exited(exit) => return Outcome::Ended(exit.clone()),
        }
        Outcome::Started(status(task, true))
    }

    fn wait(&self, task: TaskId) -> Outcome {
        match self.all.get(&task).map(|c| &c.state) {
            Some(FoundState::Exited(exit)) => Outcome::Ended(exit.clone()),
            Some(FoundState::Running) => failed(true, "it still runs"),
            Some(FoundState::Created) | None => failed(false, "container was removed"),
        }
    }

    fn shutdown(&mut self, task: TaskId, now: Timestamp) -> Outcome {
        let killed = Exit { code: 143, oom_killed: false, at: now };
        match self.all.get_mut(&task) {
            Some(container) => {
                if container.state == FoundState::Running {
                    container.state = FoundState::Exited(killed);
                }
                match &container.state {
                    FoundState::Exited(exit) => Outcome::Ended(exit.clone()),
                    FoundState::Created | FoundState::Running => Outcome::Ended(Exit::default()),
                }
            }
            None => Outcome::Ended(Exit { code: 137, at: now, ..Exit::default() }),
        }
    }

    /// Somebody removes a container by hand. If a power cut then takes its end from the node's journal before
    /// a manager has heard of it, nobody knows that the task ever ran: it may be started once more.
    pub fn vanish(&mut self, task: TaskId) -> bool {
        self.started.remove(&task);
        self.all.remove(&task).is_some()
    }

    /// A container ends by itself. True if it ran.
    pub fn exit(&mut self, task: TaskId, exit: Exit) -> bool {
        match self.all.get_mut(&task) {
            Some(container) if container.state == FoundState::Running => {
                container.state = FoundState::Exited(exit);
                true
            }
            _ => false,
        }
    }

    /// The power went.
    pub fn power_loss(&mut self) {
        for container in self.all.values_mut().filter(|c| c.state == FoundState::Running) {
            container.state = FoundState::Exited(Exit { code: 255, ..Exit::default() });
        }
    }

    /// What a daemon that starts finds.
    pub fn found(&self) -> BTreeMap<TaskId, Found> {
        let found = |(id, c): (&TaskId, &Container)| {
            let running = c.state == FoundState::Running;
            (*id, Found { container: status(*id, running), state: c.state.clone() })
        };
        self.all.iter().map(found).collect()
    }

    /// Tasks whose containers run.
    pub fn running(&self) -> impl Iterator<Item = &TaskId> {
        self.all.iter().filter(|(_, c)| c.state == FoundState::Running).map(|(id, _)| id)
    }
}

fn status(task: TaskId, running: bool) -> ContainerStatus {
    ContainerStatus {
        container_id: format!("c{}", task.short()),
        pid: if running { 100 } else { 0 },
        ..ContainerStatus::default()
    }
}
