//! Driver: performs the effects of `swarm_worker_core::agent::Agent`. One loop owns it, one JoinSet
//! owns everything that runs for it.

mod networks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::id::{Seed, TaskId};
use swarm_types::network_set::NetworkSet;
use swarm_types::task::Task;
use swarm_types::time::Timestamp;
use swarm_worker_core::agent::{Agent as Core, Effect, Input, LostReason};
use swarm_worker_core::observed::Found;
use swarm_worker_core::step::{Op, Outcome};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};

use self::networks::Networks;
use crate::agent::{Agent, NETWORKS};
use crate::executor::NetworkStatus;
use crate::journal::{Journal, JournalError};
use crate::managers::Managers;
use crate::operation;
use crate::session::{Event, Order, Session, SessionError};
use crate::task_states::TaskStates;

/// Messages of a session that may wait for the driver.
const EVENTS: usize = 64;
/// The driver looks at the clock at least so often while something waits for a time: a clock that was
/// set forward is seen.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often it looks for a manager while it knows none.
const NO_MANAGER_RETRY: Duration = Duration::from_secs(1);
/// How long a node that leaves waits for a manager to take its good-bye.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);

/// What the things that run for the driver say when they end.
enum Done {
    Op(TaskId, Op, Outcome),
    /// Number of the session, why it ended.
    Session(u64, SessionError),
    /// Turn, set, whether it went well.
    NetworksApplied(u64, Arc<NetworkSet>, bool),
    NetworksKept,
}

/// Performs what the core decides.
pub(crate) struct Driver {
    core: Core,
    journal: Journal,
    managers: Managers,
    states: Arc<TaskStates>,
    agent: Agent,
    networks: Networks,
    network_status: watch::Receiver<NetworkStatus>,
    running: JoinSet<Done>,
    ops: BTreeMap<TaskId, CancellationToken>,
    /// Orders for the session; `session_number` tells a session that ended from the present one.
    orders: Option<mpsc::Sender<Order>>,
    session_number: u64,
    events_in: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    wake_at: Option<Timestamp>,
    leaving: bool,
    goodbye_by: Option<tokio::time::Instant>,
}

impl Driver {
    pub(crate) fn new(agent: Agent, journal: Journal, managers: Managers, seed: Seed) -> Self {
        let (events_in, events) = mpsc::channel(EVENTS);
        let networks = Networks::new(agent.settings.state_dir.join(NETWORKS));
        let mut network_status = agent.executor.networks().status();
        network_status.mark_changed();
        Self {
            core: Core::new(seed),
            journal,
            managers,
            states: Arc::default(),
            agent,
            networks,
            network_status,
            running: JoinSet::new(),
            ops: BTreeMap::new(),
            orders: None,
            session_number: 0,
            events_in,
            events,
            wake_at: None,
            leaving: false,
            goodbye_by: None,
        }
    }

    /// What was there when the daemon started. First of all.
    pub(crate) fn restore(
        &mut self,
        tasks: Vec<Arc<Task>>,
        found: BTreeMap<TaskId, Found>,
        networks: Option<NetworkSet>,
    ) {
        tasks.iter().for_each(|task| self.states.set(task.id, task.status.state));
        self.handle(Input::Restored { tasks, found });
        if let Some(set) = networks {
            self.handle(Input::NetworksRestored(Arc::new(set)));
        }
    }

    pub(crate) async fn run(&mut self, shutdown: CancellationToken) {
        self.serve(shutdown).await;
        self.flush_networks();
    }

    async fn serve(&mut self, shutdown: CancellationToken) {
        let leave = self.agent.leave.clone();
        loop {
            let done = self.core.is_idle() && !self.networks.is_keeping();
            if self.leaving && done && self.goodbye_by.is_none() {
                info!("node has left, nothing of it runs any more");
                return;
            }
            let sleep = self.sleep();
            let goodbye_by = self.goodbye_by;
            tokio::select! {
                // A session says all it has to say before it ends; that order is kept.
                biased;
                () = shutdown.cancelled() => return,
                () = leave.cancelled(), if !self.leaving => self.leave(),
                Some(event) = self.events.recv() => self.event(event),
                Some(done) = self.running.join_next(), if !self.running.is_empty() => {
                    self.joined(done);
                }
                Ok(()) = self.network_status.changed() => {
                    let status = self.network_status.borrow_and_update().clone();
                    self.handle(Input::NetworkStatus(status));
                }
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => self.tick(),
                () = until(goodbye_by) => self.goodbye_by = None,
            }
        }
    }

    fn sleep(&self) -> Option<Duration> {
        self.wake_at.map(|at| at.since(self.agent.clock.now()).min(LONGEST_SLEEP))
    }

    fn tick(&mut self) {
        if self.wake_at.is_some_and(|at| at <= self.agent.clock.now()) {
            self.wake_at = None;
            self.handle(Input::Tick);
        }
    }

    fn leave(&mut self) {
        info!("node leaves the cluster");
        self.leaving = true;
        if let Some(orders) = &self.orders
            && self.core.session().is_some()
            && orders.try_send(Order::Goodbye).is_ok()
        {
            self.goodbye_by = Some(tokio::time::Instant::now() + GOODBYE_PATIENCE);
        }
        self.handle(Input::Leave);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected { session, term, addr } => {
                self.agent.status.send_modify(|status| {
                    status.session = Some(session);
                    status.manager = Some(addr);
                    status.error = None;
                });
                self.handle(Input::Connected(session, term));
            }
            Event::Cluster(view) => {
                self.managers.learn(&view.managers);
                let managers = self.managers.all();
                self.agent.status.send_modify(|status| {
                    status.managers = managers;
                    if view.node.is_some() {
                        status.node = view.node;
                    }
                    if !view.root_cert_pem.is_empty() {
                        status.root_cert_pem = view.root_cert_pem;
                    }
                });
            }
            Event::Assigned(session, message) => self.handle(Input::Assigned(session, message)),
            Event::Networks(session, message) => self.handle(Input::Networks(session, message)),
            Event::NetworksReported => self.handle(Input::NetworksReported),
            Event::Reported(states) => self.handle(Input::Reported(states)),
            Event::SaidGoodbye => self.goodbye_by = None,
        }
    }

    fn joined(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => self.done(done),
            // Operations catch their panics, and nothing in the set is aborted: it was a session.
            Err(e) => {
                // The runtime itself ends: there is nobody to complain to.
                if !e.is_cancelled() {
                    error!(error = %e, "the session panicked");
                }
                self.lost(LostReason::Broken);
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Op(task, op, outcome) => {
                self.ops.remove(&task);
                self.handle(Input::OpFinished(task, op, outcome));
            }
            Done::Session(number, _) if number != self.session_number => {}
            Done::Session(_, error) => self.session_ended(&error),
            Done::NetworksApplied(turn, set, good) => self.networks_applied(turn, set, good),
            Done::NetworksKept => self.networks_kept(),
        }
    }

    fn session_ended(&mut self, error: &SessionError) {
        let was_connected = self.core.session().is_some();
        if was_connected {
            info!(reason = %error, "session with the manager ended");
        } else {
            debug!(reason = %error, "no session");
        }
        let reason = match error.leader() {
            Some(leader) => {
                self.managers.named_leader(leader.to_owned());
                LostReason::Redirected
            }
            None => LostReason::Broken,
        };
        self.agent.status.send_modify(|status| status.error = Some(error.to_string()));
        self.lost(reason);
    }

    fn lost(&mut self, reason: LostReason) {
        self.orders = None;
        self.goodbye_by = None;
        self.agent.status.send_modify(|status| {
            status.session = None;
            status.manager = None;
        });
        self.handle(Input::Lost(reason));
    }

    fn handle(&mut self, input: Input) {
        let effects = self.core.handle(input, self.agent.clock.now());
        // Of several versions of one task only the last one is worth writing.
        let written = |(at, effect): (usize, &Effect)| match effect {
            Effect::Persist(task) => Some((task.id, at)),
            _ => None,
        };
        let last: BTreeMap<TaskId, usize> = effects.iter().enumerate().filter_map(written).collect();
        let (mut resync, mut hang_up) = (false, false);
        for (at, effect) in effects.into_iter().enumerate() {
            match effect {
                Effect::Persist(task) if last.get(&task.id) != Some(&at) => {}
                Effect::Resync => resync = true,
                Effect::HangUp => hang_up = true,
                effect => self.perform(effect),
            }
        }
        self.publish();
        if resync {
            // A new session begins with the whole set.
            warn!("a message of the session is missing, asking for all of them");
            self.session_number += 1;
            self.lost(LostReason::Redirected);
        }
        if hang_up {
            info!("a manager that leads no more opened a session: not taken");
            self.session_number += 1;
            self.lost(LostReason::Broken);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { after } => self.connect(after),
            Effect::Run(task, op) => self.operate(task, op),
            Effect::Cancel(task) => {
                if let Some(cancel) = self.ops.get(&task) {
                    cancel.cancel();
                }
            }
            Effect::Persist(task) => {
                self.states.set(task.id, task.status.state);
                debug!(task.id = %task.id, state = %task.status.state, desired = %task.desired_state, "task");
                self.wrote(task.id, |journal| journal.keep(&task));
            }
            Effect::Forget(task) => {
                self.states.remove(task);
                self.wrote(task, |journal| journal.forget(task));
            }
            Effect::Report(statuses) => self.report(statuses),
            Effect::ApplyNetworks(turn, set) => self.want_networks(turn, set),
            Effect::ReportNetworks(report) => self.report_networks(report),
            Effect::Resync | Effect::HangUp => {}
            Effect::WakeAt(at) => self.wake_at = Some(at),
        }
    }

    fn wrote(&mut self, task: TaskId, write: impl FnOnce(&mut Journal) -> Result<(), JournalError>) {
        if let Err(e) = write(&mut self.journal) {
            // What is missing in it is learned from the managers after a restart.
            let source = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
            warn!(task.id = %task, error = %e, source, "task journal is behind");
        }
    }

    fn connect(&mut self, after: Duration) {
        self.session_number += 1;
        self.orders = None;
        if self.leaving {
            return;
        }
        let number = self.session_number;
        let (orders_in, orders) = mpsc::channel(4);
        self.orders = Some(orders_in);
        let Some(addr) = self.managers.pick() else {
            let error = SessionError::DialTimeout("(none known)".into());
            self.running.spawn(async move {
                tokio::time::sleep(after.max(NO_MANAGER_RETRY)).await;
                Done::Session(number, error)
            });
            return;
        };
        let session = Session {
            node: self.agent.settings.node,
            dialer: Arc::clone(&self.agent.dialer),
            executor: Arc::clone(&self.agent.executor),
            states: Arc::clone(&self.states),
            addr,
            events: self.events_in.clone(),
            orders,
        };
        let work = async move {
            tokio::time::sleep(after).await;
            Done::Session(number, session.run().await)
        };
        self.running.spawn(work.in_current_span());
    }

    fn operate(&mut self, task: Arc<Task>, op: Op) {
        let cancel = CancellationToken::new();
        self.ops.insert(task.id, cancel.clone());
        let work = operation::perform(Arc::clone(&self.agent.executor), task, op, cancel);
        self.running.spawn(
            async move {
                let (task, op, outcome) = work.await;
                Done::Op(task, op, outcome)
            }
            .in_current_span(),
        );
    }

    fn report(&mut self, statuses: Vec<(TaskId, swarm_types::task::TaskStatus)>) {
        for (task, status) in statuses.iter().filter(|(_, s)| !s.err.is_empty()) {
            info!(task.id = %task, state = %status.state, error = status.err, "task failed");
        }
        // If it cannot be handed over, the session is ending: that is heard, and all is owed again.
        if let Some(orders) = &self.orders
            && orders.try_send(Order::Report(statuses)).is_err()
        {
            debug!("the session ends, statuses stay owed");
        }
    }

    fn publish(&self) {
        let (tasks, owed) = (self.core.len(), self.core.owed());
        self.agent.status.send_if_modified(|status| {
            let changed = (status.tasks, status.owed) != (tasks, owed);
            (status.tasks, status.owed) = (tasks, owed);
            changed
        });
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
