//! How a service gets to where it shall be: from what the managers report to lines and a verdict. Pure;
//! [`follow`](crate::progress::follow()) drives it.

mod follow;
mod screen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_proto::convert::Malformed;
use swarm_proto::v1;
use swarm_types::policy::RestartCondition;
use swarm_types::service::{Mode, Service, UpdateState, UpdateStatus};
use swarm_types::task_state::TaskState;
use v1::object::Object;
use v1::watch_message::Message;

pub(crate) use follow::{WaitFlags, follow};

/// Failures in a row in one slot after which we stop waiting; the cluster goes on trying.
const PATIENCE_FAILURES: usize = 3;

/// What is waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wait {
    /// All must have run for so long; absent: as soon as all run.
    pub(crate) stable: Option<Duration>,
    /// A rollback is what was asked for.
    pub(crate) rollback: bool,
    /// The status of an update before this one, which says nothing of this one.
    pub(crate) before: Option<UpdateStatus>,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Waiting,
    /// Everything runs.
    Converged,
    /// Nothing moves, and for this reason.
    Stuck(String),
    /// It will not get there.
    Failed(String),
}

/// A slot's number, or a node in a global service.
type SlotKey = (u64, String);

#[derive(Debug, Clone, Default)]
struct Seen {
    slot: SlotKey,
    created: (u64, u64),
    wanted: bool,
    state: TaskState,
    err: String,
    spec_version: u64,
    spec: Option<v1::TaskSpec>,
    restarts: u64,
}

/// What was reported so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    wait: Wait,
    service: Option<Service>,
    tasks: BTreeMap<String, Seen>,
    /// Tasks that had ended before we looked.
    old: BTreeSet<String>,
    synced: bool,
    synced_once: bool,
    removed: bool,
}

/// One slot, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    label: String,
    state: TaskState,
    err: String,
}

impl Progress {
    pub(crate) fn new(wait: Wait) -> Self {
        Progress { wait, ..Progress::default() }
    }

    /// A new stream begins: what was seen may be outdated.
    pub(crate) fn restart(&mut self) {
        self.tasks.clear();
        self.synced = false;
    }

    /// Takes in what the managers report.
    pub(crate) fn take(&mut self, message: v1::WatchMessage) -> Result<(), Malformed> {
        match message.message {
            None => {}
            Some(Message::Synced(_)) => {
                self.synced = true;
                if !std::mem::replace(&mut self.synced_once, true) {
                    let ended = self.tasks.iter().filter(|(_, t)| t.state.is_terminal());
                    self.old = ended.map(|(id, _)| id.clone()).collect();
                }
            }
            Some(Message::Current(object)) => self.put(object.object, false)?,
            Some(Message::Event(event)) => {
                let kind = event.kind();
                let object = event.object.and_then(|o| o.object);
                match kind {
                    v1::watch_event::Kind::Deleted => self.delete(object),
                    v1::watch_event::Kind::Passing => self.put(object, true)?,
                    v1::watch_event::Kind::Created | v1::watch_event::Kind::Updated => {
                        self.put(object, false)?
                    }
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, object: Option<Object>, passing: bool) -> Result<(), Malformed> {
        match object {
            Some(Object::Service(service)) => self.service = Some(Service::try_from(service)?),
            Some(Object::Task(task)) => {
                let id = task.id.clone();
                let mut seen = Seen::from(task);
                if let Some(before) = self.tasks.get(&id) {
                    // A state only grows: the lesser one is the older report.
                    if before.state > seen.state {
                        (seen.state, seen.err) = (before.state, before.err.clone());
                    }
                    if passing {
                        seen = Seen { state: seen.state, err: seen.err, ..before.clone() };
                    }
                }
                self.tasks.insert(id, seen);
            }
            Some(Object::Cluster(_) | Object::Node(_) | Object::Network(_)) | None => {}
        }
        Ok(())
    }

    fn delete(&mut self, object: Option<Object>) {
        match object {
            Some(Object::Service(_)) => self.removed = true,
            Some(Object::Task(task)) => {
                self.tasks.remove(&task.id);
            }
            Some(Object::Cluster(_) | Object::Node(_) | Object::Network(_)) | None => {}
        }
    }

    /// The task of each slot that matters most: one that shall run and is up to date, else the newest.
    fn slots(&self) -> BTreeMap<&SlotKey, &Seen> {
        let mut slots: BTreeMap<&SlotKey, &Seen> = BTreeMap::new();
        let rank = |t: &Seen| (t.wanted && !t.state.is_terminal(), self.is_current(t), t.created);
        for task in self.tasks.values() {
            let best = slots.entry(&task.slot).or_insert(task);
            if rank(task) > rank(best) {
                *best = task;
            }
        }
        slots.retain(|_, t| t.wanted || self.will_stay_ended(t));
        slots
    }

    fn is_current(&self, task: &Seen) -> bool {
        self.service.as_ref().is_some_and(|s| {
            task.spec_version == s.spec_version
                || task.spec.as_ref().is_some_and(|spec| *spec == v1::TaskSpec::from(s.spec.task.as_ref()))
        })
    }

    /// It ended, and the restart policy does not replace it.
    fn will_stay_ended(&self, task: &Seen) -> bool {
        let Some(service) = &self.service else { return false };
        let policy = &service.spec.task.restart;
        let spent = policy.max_attempts > 0 && task.restarts >= policy.max_attempts;
        let failed = matches!(task.state, TaskState::Failed | TaskState::Rejected);
        let by_itself = failed || task.state == TaskState::Complete;
        self.is_current(task)
            && by_itself
            && match policy.condition {
                RestartCondition::None => true,
                RestartCondition::OnFailure => !failed || spent,
                RestartCondition::Any => spent,
            }
    }

    fn is_done(&self, task: &Seen) -> bool {
        let finished = task.state == TaskState::Complete && self.will_stay_ended(task);
        self.is_current(task) && (task.wanted && task.state == TaskState::Running || finished)
    }

    /// Slots where all is well, and slots there shall be.
    fn counts(&self) -> (u64, u64) {
        let slots = self.slots();
        let done = slots.values().filter(|t| self.is_done(t)).count() as u64;
        let total = match self.service.as_ref().map(|s| s.spec.mode) {
            Some(Mode::Replicated { replicas }) => replicas,
            _ => slots.len() as u64,
        };
        (done, total)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.removed {
            return Verdict::Failed("the service was removed".into());
        }
        let Some(service) = self.service.as_ref().filter(|_| self.synced) else { return Verdict::Waiting };
        let status = service.update_status.as_ref().filter(|s| Some(*s) != self.wait.before.as_ref());
        if let Some(why) = status.and_then(|s| self.update_failure(s)) {
            return Verdict::Failed(why);
        }
        let (done, total) = self.counts();
        let live = |t: &&Seen| t.wanted && !t.state.is_terminal();
        let extra = self.tasks.values().filter(live).any(|t| !self.is_done(t));
        if done == total && !extra {
            return Verdict::Converged;
        }
        self.obstacle()
    }

    fn update_failure(&self, status: &UpdateStatus) -> Option<String> {
        let message = &status.message;
        match status.state {
            UpdateState::Paused => Some(format!("service update paused: {message}")),
            UpdateState::RollbackPaused => Some(format!("service rollback paused: {message}")),
            UpdateState::RollbackCompleted if !self.wait.rollback => {
                Some(format!("service rolled back: {message}"))
            }
            _ => None,
        }
    }

    /// Why it does not get there.
    fn obstacle(&self) -> Verdict {
        let slots = self.slots();
        let open: Vec<_> = slots.values().filter(|t| !self.is_done(t)).collect();
        if let Some(task) = open.iter().find(|t| self.will_stay_ended(t)) {
            let (name, err) = (self.name(&task.slot), why(task));
            return Verdict::Failed(format!("{name} failed and will not be tried again: {err}"));
        }
        let mut failures: BTreeMap<&SlotKey, Vec<&Seen>> = BTreeMap::new();
        for (id, task) in &self.tasks {
            let failed = matches!(task.state, TaskState::Failed | TaskState::Rejected);
            if failed && self.is_current(task) && !self.old.contains(id) {
                failures.entry(&task.slot).or_default().push(task);
            }
        }
        for (slot, failed) in failures {
            let well = slots.get(slot).is_some_and(|t| self.is_done(t));
            if failed.len() >= PATIENCE_FAILURES && !well {
                let last = failed.iter().max_by_key(|t| t.created).map_or("", |t| why(t));
                let (name, n) = (self.name(slot), failed.len());
                return Verdict::Failed(format!("{name} failed {n} times, and is tried again: {last}"));
            }
        }
        let waits = |t: &Seen| t.state <= TaskState::Pending && !t.err.is_empty();
        match open.iter().find(|t| waits(t)) {
            Some(task) if open.iter().all(|t| waits(t)) => {
                Verdict::Stuck(format!("{}: {}", self.name(&task.slot), task.err))
            }
            _ => Verdict::Waiting,
        }
    }

    fn name(&self, slot: &SlotKey) -> String {
        let service = self.service.as_ref().map_or("", |s| &s.spec.annotations.name);
        match slot {
            (0, node) => format!("{service}.{node}"),
            (number, _) => format!("{service}.{number}"),
        }
    }

    /// What to show: how many of how many, and each slot.
    pub(crate) fn lines(&self) -> (String, Vec<Line>) {
        let (done, total) = self.counts();
        let line = |(slot, task): (&&SlotKey, &&Seen)| Line {
            label: match slot {
                (0, node) => node.chars().take(12).collect(),
                (number, _) => format!("{number}/{total}"),
            },
            state: if task.wanted && !self.is_current(task) { TaskState::New } else { task.state },
            err: task.err.clone(),
        };
        let slots = self.slots();
        (format!("overall progress: {done} out of {total} tasks"), slots.iter().map(line).collect())
    }
}

fn why(task: &Seen) -> &str {
    if task.err.is_empty() { task.state.as_str() } else { &task.err }
}

impl From<v1::Task> for Seen {
    fn from(task: v1::Task) -> Self {
        let status = task.status.unwrap_or_default();
        let meta = task.meta.unwrap_or_default();
        Seen {
            slot: (task.slot, if task.slot == 0 { task.node_id } else { String::new() }),
            created: (meta.created_at_ms, meta.version),
            wanted: task.desired_state <= TaskState::Running.number(),
            state: TaskState::from_number(status.state).unwrap_or_default(),
            err: status.err,
            spec_version: task.spec_version,
            spec: task.spec,
            restarts: task.attempt_count,
        }
    }
}
