//! The driver's thread.

mod proposing;
mod snapshots;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use swarm_types::id::IdSource;
use tokio::sync::watch;

use super::disk::{self, Disk, StartError};
use super::handle::{Event, ProposeError, RaftHandle, Shared, Wanted, permits};
use super::status::Status;
use super::waiters::{Proposals, ProposeAnswer, Reads};
use super::{Response, Settings, SnapshotPolicy, StateMachine};
use crate::core::{Core, Entry, EntryKind, Envelope, Ready, Role, StepError};
use crate::log::AppendError;
use crate::members::{Change, Member};
use crate::seal::DataKey;
use crate::snapshot::{SnapshotError, Written};
use crate::transport::Transport;

/// Events taken in before the core is asked what to do: bounds a batch.
const MAX_EVENTS: usize = 4096;
/// Bytes of proposals in one batch.
const MAX_BATCH: usize = 4 << 20;
/// A clean stop waits this many ticks for a successor and for what is under way.
const STOP_TICKS: u32 = 10;

/// A snapshot that failed (no space, most likely) is tried again after this many ticks.
const RETRY_TICKS: u64 = 50;

/// Why the driver ends although nobody asked. The promise "durable" can no longer be kept.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error(transparent)]
    Log(#[from] AppendError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Restore(#[from] super::RestoreError),
    #[error("a snapshot was accepted without its content")]
    NoContent,
}

enum Flow {
    Go,
    End,
}

pub(super) fn start(
    settings: Settings,
    dir: &Path,
    key: &DataKey,
    mut machine: Box<dyn StateMachine>,
    transport: Arc<dyn Transport>,
) -> Result<RaftHandle, StartError> {
    let (disk, core) = disk::open(&settings, dir, key, machine.as_mut())?;
    let (events, inbox) = channel();
    let (status, watching) = watch::channel(Status::of(&core, &|_| None));
    let shared = Arc::new(Shared {
        events,
        status: watching,
        snapshots: disk.snapshots.clone(),
        timeout: settings.timeout,
        permits: permits(),
    });
    let first_read = IdSource::new(settings.core.seed).next_u64();
    let driver = Driver {
        core,
        disk,
        machine,
        transport,
        known: settings.known.into_iter().map(|m| (m.raft_id, m)).collect(),
        policy: settings.snapshots,
        tick: settings.tick,
        ticks: 0,
        status,
        shared: Arc::downgrade(&shared),
        batch: Vec::new(),
        batch_bytes: 0,
        changes: VecDeque::new(),
        proposals: Proposals::default(),
        reads: Reads::new(first_read),
        contacts: BTreeMap::new(),
        incoming: None,
        writing: None,
        bytes_since_snapshot: 0,
        snapshot_after: 0,
        lost_log: false,
        stop_at: None,
    };
    std::thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || driver.run_to_end(inbox))
        .map_err(|source| StartError::Io { path: dir.to_owned(), source })?;
    Ok(RaftHandle(shared))
}

struct Driver {
    core: Core,
    disk: Disk,
    machine: Box<dyn StateMachine>,
    transport: Arc<dyn Transport>,
    /// Managers told at joining, for as long as the member table has not arrived.
    known: BTreeMap<u64, Member>,
    policy: SnapshotPolicy,
    tick: Duration,
    ticks: u64,
    status: watch::Sender<Status>,
    shared: Weak<Shared>,
    batch: Vec<(Bytes, ProposeAnswer)>,
    batch_bytes: usize,
    changes: VecDeque<(Wanted, ProposeAnswer)>,
    proposals: Proposals,
    reads: Reads,
    contacts: BTreeMap<u64, Instant>,
    /// A snapshot that arrived and is about to be installed.
    incoming: Option<Written>,
    writing: Option<JoinHandle<()>>,
    bytes_since_snapshot: u64,
    /// After a failure, not before this tick.
    snapshot_after: u64,
    lost_log: bool,
    stop_at: Option<Instant>,
}

impl Driver {
    /// Runs until told to stop, or until something is broken; then says so and frees the directory.
    fn run_to_end(mut self, inbox: Receiver<Event>) {
        // The library panics when its contract is broken. Continuing would break promises: end.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run(&inbox)));
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(fatal)) => Some(describe(&fatal)),
            Err(panic) => Some(panic_text(panic.as_ref())),
        };
        if let Some(reason) = &failure {
            tracing::error!(raft.id = self.core.id(), error = %reason, "raft stopped: it can no longer keep its promises");
        }
        let reason = failure.as_deref().unwrap_or("this manager stopped");
        self.proposals.fail_all(reason);
        self.reads.fail_all();
        // These were never put into the log.
        let batch = self.batch.drain(..).map(|b| b.1);
        let unread = inbox.try_iter().filter_map(|event| match event {
            Event::Propose(_, answer) | Event::Change(_, answer) => Some(answer),
            _ => None,
        });
        for answer in batch.chain(unread).chain(self.changes.drain(..).map(|c| c.1)) {
            let _gone = answer.send(Err(ProposeError::Stopped));
        }
        if let Some(writing) = self.writing.take() {
            // Its result, or its panic, no longer matters.
            let _ended = writing.join();
        }
        drop(inbox);
        let Driver { disk, status, machine, .. } = self;
        drop(machine);
        drop(disk);
        status.send_modify(|s| {
            s.failure = failure;
            s.stopped = true;
            s.role = Role::Follower;
            s.leader = None;
        });
    }

    fn run(&mut self, inbox: &Receiver<Event>) -> Result<(), Fatal> {
        // A manager that is alone leads at once.
        self.core.tick();
        let mut next_tick = Instant::now() + self.tick;
        loop {
            self.process()?;
            if self.is_done_stopping() {
                return Ok(self.disk.log.flush()?);
            }
            let wait = next_tick.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(wait) {
                Ok(event) => {
                    if let Flow::End = self.take_batch(event, inbox)? {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(self.disk.log.flush()?),
            }
            let now = Instant::now();
            if now >= next_tick {
                // After a stall (a slow disk, a big restore) time is not caught up: the messages
                // that came meanwhile are read before this manager thinks its leader is gone.
                next_tick = (next_tick + self.tick).max(now + self.tick / 2);
                self.on_tick();
            }
        }
    }

    fn take_batch(&mut self, first: Event, inbox: &Receiver<Event>) -> Result<Flow, Fatal> {
        let mut next = Some(first);
        for _ in 0..MAX_EVENTS {
            let Some(event) = next else { break };
            if let Flow::End = self.on_event(event)? {
                return Ok(Flow::End);
            }
            if self.batch_bytes >= MAX_BATCH {
                break;
            }
            next = inbox.try_recv().ok();
        }
        Ok(Flow::Go)
    }

    fn on_event(&mut self, event: Event) -> Result<Flow, Fatal> {
        match event {
            Event::Propose(data, answer) => {
                self.batch_bytes += data.len();
                self.batch.push((data, answer));
            }
            Event::Change(wanted, answer) => self.changes.push_back((wanted, answer)),
            Event::Read(answer) => self.reads.add(answer),
            Event::Step(message) => {
                let outcome = self.core.step(&message);
                self.stepped(outcome);
            }
            Event::Unreachable(id) => self.core.report_unreachable(id),
            Event::SnapshotSent { to, arrived } => self.core.report_snapshot(to, arrived),
            Event::SnapshotReceived { message, written } => {
                // Nothing else may come between the step and the install.
                self.process()?;
                self.incoming = Some(written);
                let outcome = self.core.step_snapshot(&message);
                self.stepped(outcome);
                self.process()?;
                self.incoming = None;
            }
            Event::SnapshotMade(made) => self.snapshot_made(made)?,
            Event::Policy(policy) => self.policy = policy,
            Event::Transfer(to) => {
                if let Some(to) = to.or_else(|| self.core.best_successor()) {
                    self.core.transfer_leader(to);
                }
            }
            Event::Stop => self.begin_stop(),
            Event::Abort => return Ok(Flow::End),
        }
        Ok(Flow::Go)
    }

    fn stepped(&mut self, outcome: Result<(), StepError>) {
        match outcome {
            Ok(()) => {}
            // It comes with every heartbeat: once is enough.
            Err(error @ StepError::LostLog { .. }) if !std::mem::replace(&mut self.lost_log, true) => {
                tracing::error!(raft.id = self.core.id(), error = %error, "message from the leader refused");
            }
            Err(error) => {
                tracing::debug!(raft.id = self.core.id(), error = %error, "raft message refused");
            }
        }
    }

    fn on_tick(&mut self) {
        self.ticks += 1;
        self.core.tick();
        self.reads.tick(self.ticks);
        self.proposals.forget_gone();
        self.changes.retain(|(_, answer)| !answer.is_closed());
        for learner in self.core.caught_up_learners() {
            // Refused while another change is under way: the next tick tries again.
            if self.core.propose_change(&Change::Promote(learner)).is_ok() {
                tracing::info!(raft.member = learner, "manager has caught up and becomes a voter");
            }
        }
    }

    fn begin_stop(&mut self) {
        self.stop_at.get_or_insert_with(|| Instant::now() + self.tick * STOP_TICKS);
        if let Some(to) = self.core.best_successor() {
            self.core.transfer_leader(to);
        }
    }

    fn is_done_stopping(&self) -> bool {
        let Some(deadline) = self.stop_at else { return false };
        let leads = self.core.role() == Role::Leader && self.core.best_successor().is_some();
        Instant::now() >= deadline || (!leads && self.proposals.is_empty())
    }

    /// Puts what was asked for into the core and does what the core wants, until it wants nothing.
    fn process(&mut self) -> Result<(), Fatal> {
        self.propose_batch();
        self.propose_changes();
        loop {
            self.reads.ask(&mut self.core, self.ticks);
            let Some(ready) = self.core.ready() else { break };
            self.handle(ready)?;
        }
        self.maybe_snapshot();
        self.publish();
        Ok(())
    }

    fn handle(&mut self, mut ready: Ready) -> Result<(), Fatal> {
        self.send(std::mem::take(&mut ready.messages));
        if let Some(meta) = &ready.snapshot {
            let written = self.incoming.take().ok_or(Fatal::NoContent)?;
            self.disk.snapshots.install(written)?;
            let now = self.disk.log.hard_state();
            self.disk.log.reset(ready.hard_state.unwrap_or(now))?;
            self.proposals.jumped(meta.index);
        }
        self.disk.log.append(ready.hard_state, &ready.entries, ready.must_sync)?;
        self.send(std::mem::take(&mut ready.persisted_messages));
        if let Some(meta) = ready.snapshot.clone() {
            self.restore(&meta)?;
        }
        let index = ready.snapshot.as_ref().map(|s| s.index);
        let index = ready.committed.last().map(|e| e.index).or(index);
        let responses: Vec<(u64, u64, Response)> =
            ready.committed.iter().map(|e| (e.index, e.term, self.apply(e))).collect();
        if let Some(index) = index {
            self.machine.applied(index);
        }
        for state in std::mem::take(&mut ready.read_states) {
            self.reads.answered(state);
        }
        let (role_changed, members_changed) = (
            ready.role_changed,
            ready.snapshot.is_some() || ready.committed.iter().any(|e| e.kind == EntryKind::Membership),
        );
        self.core.advance(ready);
        if role_changed {
            self.log_role();
        }
        if members_changed || role_changed {
            self.publish();
        }
        for (index, term, response) in responses {
            self.proposals.decided(index, term, response);
        }
        self.reads.applied(self.core.applied());
        if members_changed {
            self.propose_changes();
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) -> Response {
        self.bytes_since_snapshot += entry.data.len() as u64;
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            self.machine.apply(entry.index, entry.term, &entry.data)
        } else {
            Box::new(())
        }
    }

    fn send(&mut self, messages: Vec<Envelope>) {
        let mut by_receiver: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
        for envelope in messages {
            if envelope.snapshot.is_some() {
                self.send_snapshot(envelope);
            } else {
                by_receiver.entry(envelope.to).or_default().push(envelope.message);
            }
        }
        for (to, messages) in by_receiver {
            if let Some(member) = self.member(to) {
                self.transport.send(&member, messages);
            }
        }
    }

    fn member(&self, id: u64) -> Option<Member> {
        self.core.members().get(id).or_else(|| self.known.get(&id)).cloned()
    }

    fn leader(&self) -> Option<Member> {
        self.core.leader().and_then(|id| self.member(id))
    }

    fn now(&self) -> Status {
        let contacts = |id| self.contacts.get(&id).copied();
        Status { leader: self.leader(), ..Status::of(&self.core, &contacts) }
    }

    fn publish(&mut self) {
        let ticks = self.core.heard_now();
        let now = Instant::now();
        for id in ticks {
            self.contacts.insert(id, now);
        }
        let fresh = self.now();
        self.status.send_if_modified(|status| {
            let differs = fresh.differs(status);
            *status = fresh;
            differs
        });
    }

    fn log_role(&self) {
        let (id, term) = (self.core.id(), self.core.term());
        match (self.core.role(), self.leader()) {
            (Role::Leader, _) => tracing::info!(raft.id = id, raft.term = term, "leading"),
            (Role::Follower, Some(leader)) => {
                tracing::info!(raft.id = id, raft.term = term, raft.leader = %leader.node_id, "following");
            }
            _ => tracing::info!(raft.id = id, raft.term = term, "no leader"),
        }
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the consensus core found its contract broken: {}", text.unwrap_or("no message"))
}
