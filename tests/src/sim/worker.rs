//! A worker: the shipped agent, driven as `worker/agent` drives it, with simulated containers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::id::{IdSource, Seed, SessionId, TaskId};
use swarm_types::network_set::NetworkSet;
use swarm_types::node::NodeDescription;
use swarm_types::task::{Task, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;
use swarm_worker_core::agent::{Agent, Effect, Input, LostReason};
use swarm_worker_core::networks::NetworkReport;
use swarm_worker_core::observed::{Exit, FoundState};
use swarm_worker_core::step::{Op, Outcome};

use super::Sim;
use super::containers::{Containers, life};
use super::event::{Body, Wait, What};
use super::known::Managers;
use super::net::Host;

const DIAL_TIMEOUT_MS: u64 = 2000;
const CALL_TIMEOUT_MS: u64 = 5000;
const BEAT_MS: u64 = 1000;
const BEAT_TIMEOUT_MS: u64 = 2000;
/// The agent's driver looks at the clock at least so often.
const LONGEST_SLEEP_MS: u64 = 30_000;

/// A connection to a manager.
#[derive(Debug, Clone, Copy)]
struct Conn {
    id: u64,
    manager: Host,
    session: Option<SessionId>,
    /// In which the manager of the session leads.
    term: u64,
    beats: u64,
    reports: u64,
    answered: (u64, u64),
}

/// A process that works.
pub struct Running {
    /// The shipped agent.
    pub agent: Agent,
    ops: BTreeMap<TaskId, RunningOp>,
    conn: Option<Conn>,
    wake: Option<Timestamp>,
    leaving: bool,
}

#[derive(Debug, Clone)]
struct RunningOp {
    op: Op,
    number: u64,
    image: String,
    cancelled: bool,
}

/// A worker's place on a host: its disk, its containers, its process if that runs.
#[derive(Default)]
pub struct Worker {
    pub(crate) journal: BTreeMap<TaskId, Arc<Task>>,
    /// Tasks that it knew to have ended, whatever its disk forgot since.
    pub(crate) ended: BTreeSet<TaskId>,
    /// What the disk has of the journal if the power goes now.
    pub(crate) synced: BTreeMap<TaskId, Arc<Task>>,
    /// The networks' set on its disk.
    pub(crate) networks: Option<Arc<NetworkSet>>,
    /// Managers that it knows.
    pub managers: Managers,
    /// Containers and images.
    pub containers: Containers,
    /// Its process.
    pub running: Option<Running>,
    /// The machine.
    pub description: NodeDescription,
}

impl Worker {
    /// The power went.
    pub fn power_loss(&mut self, dice: &mut IdSource) {
        self.containers.power_loss();
        if dice.below(2) == 0 {
            self.journal.clone_from(&self.synced);
        }
    }
}

impl Sim {
    fn working(&mut self, host: Host) -> Option<&mut Running> {
        self.hosts[host].worker.running.as_mut()
    }

    /// The agent's process of a host starts.
    pub fn start_worker(&mut self, host: Host) {
        let seed = Seed(self.dice.next_u64());
        let next = usize::try_from(self.dice.below(64)).unwrap_or(0);
        let group = self.manager_hosts(host);
        let worker = &mut self.hosts[host].worker;
        worker.managers.named(None);
        worker.managers.given(group);
        worker.managers.next = next;
        worker.running = Some(Running {
            agent: Agent::new(seed),
            ops: BTreeMap::new(),
            conn: None,
            wake: None,
            leaving: false,
        });
        let tasks = worker.journal.values().cloned().collect();
        let found = worker.containers.found();
        let networks = worker.networks.clone();
        self.agent_in(host, Input::Restored { tasks, found });
        if let Some(networks) = networks {
            self.agent_in(host, Input::NetworksRestored(networks));
        }
    }

    /// Gives the agent an input and does what it says.
    pub fn agent_in(&mut self, host: Host, input: Input) {
        let now = self.local_now(host);
        let Some(running) = self.working(host) else { return };
        let effects = running.agent.handle(input, now);
        let (mut resync, mut hang_up) = (false, false);
        for effect in effects {
            match effect {
                Effect::Resync => resync = true,
                Effect::HangUp => hang_up = true,
                effect => self.agent_effect(host, effect, now),
            }
        }
        if resync {
            self.note(|| format!("{host} misses a message of its assignments"));
            self.resyncs += 1;
            self.lost(host, LostReason::Redirected);
        }
        if hang_up {
            self.note(|| format!("{host} takes nothing of a leader of the past"));
            self.lost(host, LostReason::Broken);
        }
        if self.working(host).is_some_and(|r| r.leaving && r.agent.is_idle()) {
            self.departed(host);
        }
    }

    /// The node leaves the cluster.
    pub fn say_goodbye(&mut self, host: Host) {
        let Some(running) = self.working(host) else { return };
        running.leaving = true;
        if let Some(Conn { id: conn, manager, session: Some(session), .. }) = running.conn {
            self.send_stream(host, manager, conn, Body::Goodbye { conn, session });
        }
        self.agent_in(host, Input::Leave);
    }

    /// The leader tells who the managers are.
    pub fn told_managers(&mut self, host: Host, conn: u64, managers: Vec<Host>) {
        if self.conn(host, conn).is_some() {
            self.hosts[host].worker.managers.learn(managers);
        }
    }

    /// The connection breaks.
    pub fn broke(&mut self, host: Host, conn: u64) {
        if self.conn(host, conn).is_some() {
            self.lost(host, LostReason::Broken);
        }
    }

    fn agent_effect(&mut self, host: Host, effect: Effect, now: Timestamp) {
        match effect {
            Effect::Connect { after } => {
                self.connect(host, u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
            }
            Effect::Run(task, op) => self.operate(host, &task, op),
            Effect::Cancel(task) => self.cancel(host, task),
            Effect::Persist(task) => {
                let sync = self.dice.below(4) > 0;
                let worker = &mut self.hosts[host].worker;
                if task.status.state.is_terminal() {
                    worker.ended.insert(task.id);
                }
                worker.journal.insert(task.id, task);
                if sync {
                    worker.synced.clone_from(&worker.journal);
                }
            }
            Effect::Forget(task) => {
                self.hosts[host].worker.journal.remove(&task);
            }
            Effect::Report(statuses) => self.report(host, statuses),
            Effect::ApplyNetworks(turn, set) => self.apply_networks(host, turn, set),
            Effect::ReportNetworks(report) => self.report_networks(host, report),
            Effect::Resync | Effect::HangUp => {}
            Effect::WakeAt(at) => {
                let life = self.hosts[host].life;
                if let Some(running) = self.working(host) {
                    running.wake = Some(at);
                    let wait = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
                    self.after(wait.min(LONGEST_SLEEP_MS), What::AgentWake { host, life, at });
                }
            }
        }
    }

    /// The time that the agent asked for.
    pub fn agent_wake(&mut self, host: Host, at: Timestamp) {
        let now = self.local_now(host);
        let life = self.hosts[host].life;
        let Some(running) = self.working(host).filter(|r| r.wake == Some(at)) else { return };
        if now < at {
            let wait = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
            return self.after(wait.min(LONGEST_SLEEP_MS), What::AgentWake { host, life, at });
        }
        running.wake = None;
        self.agent_in(host, Input::Tick);
    }

    fn connect(&mut self, host: Host, after: u64) {
        let id = self.new_conn();
        let life = self.hosts[host].life;
        let worker = &mut self.hosts[host].worker;
        let Some(running) = worker.running.as_mut().filter(|r| !r.leaving) else { return };
        let Some(manager) = worker.managers.pick() else { return };
        running.conn =
            Some(Conn { id, manager, session: None, term: 0, beats: 0, reports: 0, answered: (0, 0) });
        self.after(after, What::Dial { host, life, conn: id });
    }

    /// The agent dials.
    pub fn dial(&mut self, host: Host, conn: u64) {
        let life = self.hosts[host].life;
        let description = Box::new(self.hosts[host].worker.description.clone());
        let Some(current) = self.conn(host, conn) else { return };
        self.send_stream(host, current.manager, conn, Body::Register { conn, description });
        self.after(DIAL_TIMEOUT_MS, What::Late { host, life, conn, wait: Wait::Registered });
    }

    fn conn(&mut self, host: Host, conn: u64) -> Option<Conn> {
        self.working(host)?.conn.filter(|c| c.id == conn)
    }

    /// What a node says that was a manager once, if it is asked for one.
    pub fn way_from(&self, host: Host) -> Option<Host> {
        let state = &self.hosts[host];
        state.manager.as_ref()?;
        let conn = state.worker.running.as_ref().and_then(|r| r.conn).filter(|c| c.session.is_some());
        conn.map(|c| c.manager).into_iter().chain(state.worker.managers.all()).find(|h| *h != host)
    }

    /// The worker knows a node of the cluster that is a manager, or was one and says who is. If all that
    /// it ever knew have left the cluster, nobody can tell it where the cluster is.
    pub fn can_ask(&self, host: Host) -> bool {
        let in_cluster = |h: Host| self.view().node(&self.hosts[h].node).is_some();
        self.hosts[host].worker.managers.all().any(in_cluster)
    }

    /// There is a session.
    pub fn registered(
        &mut self,
        host: Host,
        conn: u64,
        (session, term): (SessionId, u64),
        managers: Vec<Host>,
    ) {
        let life = self.hosts[host].life;
        let Some(current) = self.conn(host, conn) else { return };
        self.hosts[host].worker.managers.learn(managers);
        let Some(running) = self.working(host) else { return };
        running.conn = Some(Conn { session: Some(session), term, ..current });
        self.agent_in(host, Input::Connected(session, term));
        self.after(BEAT_MS, What::Beat { host, life, conn });
    }

    /// A leader says what is to be.
    pub fn told(&mut self, host: Host, session: SessionId, input: Input) {
        let of_session = |c: &Conn| c.session == Some(session);
        if let Some(Conn { term, .. }) = self.working(host).and_then(|r| r.conn).filter(of_session) {
            self.check_told(host, term);
        }
        self.agent_in(host, input);
    }

    /// The agent sends a heartbeat.
    pub fn beat(&mut self, host: Host, conn: u64) {
        let life = self.hosts[host].life;
        let Some(current) = self.conn(host, conn) else { return };
        let Some(session) = current.session else { return };
        let n = current.beats + 1;
        if let Some(running) = self.working(host) {
            running.conn = Some(Conn { beats: n, ..current });
        }
        self.send_stream(host, current.manager, conn, Body::Heartbeat { conn, session, n });
        self.follow_role(host, current.manager);
        self.after(BEAT_TIMEOUT_MS, What::Late { host, life, conn, wait: Wait::Beat(n) });
        self.after(BEAT_MS, What::Beat { host, life, conn });
    }

    /// The agent has waited for so long.
    pub fn late(&mut self, host: Host, conn: u64, wait: Wait) {
        let Some(current) = self.conn(host, conn) else { return };
        let late = match wait {
            Wait::Registered => current.session.is_none(),
            Wait::Beat(n) => current.answered.0 < n,
            Wait::Report(n) => current.answered.1 < n,
        };
        if late {
            self.lost(host, LostReason::Broken);
        }
    }

    /// A heartbeat was seen.
    pub fn beat_seen(&mut self, host: Host, conn: u64, n: u64) {
        if let Some(current) = self.conn(host, conn)
            && let Some(running) = self.working(host)
        {
            running.conn = Some(Conn { answered: (n, current.answered.1), ..current });
        }
    }

    fn report(&mut self, host: Host, statuses: Vec<(TaskId, TaskStatus)>) {
        self.call(host, |conn, session, n| Body::Report { conn, session, n, statuses });
    }

    /// Calls the manager, and waits so long for the answer.
    fn call(&mut self, host: Host, body: impl FnOnce(u64, SessionId, u64) -> Body) {
        let life = self.hosts[host].life;
        let Some(running) = self.working(host) else { return };
        let Some(current) = running.conn else { return };
        let Some(session) = current.session else { return };
        let n = current.reports + 1;
        running.conn = Some(Conn { reports: n, ..current });
        let conn = current.id;
        self.send_stream(host, current.manager, conn, body(conn, session, n));
        self.after(CALL_TIMEOUT_MS, What::Late { host, life, conn, wait: Wait::Report(n) });
    }

    fn report_networks(&mut self, host: Host, report: NetworkReport) {
        self.call(host, |conn, session, n| Body::ReportNetworks { conn, session, n, report });
    }

    /// The manager has taken a report on the networks.
    pub fn networks_reported(&mut self, host: Host, conn: u64, n: u64) {
        if self.answered_call(host, conn, n) {
            self.agent_in(host, Input::NetworksReported);
        }
    }

    /// The manager has taken a report.
    pub fn reported(&mut self, host: Host, conn: u64, n: u64, states: Vec<(TaskId, TaskState)>) {
        if self.answered_call(host, conn, n) {
            self.agent_in(host, Input::Reported(states));
        }
    }

    fn answered_call(&mut self, host: Host, conn: u64, n: u64) -> bool {
        let Some(current) = self.conn(host, conn) else { return false };
        if let Some(running) = self.working(host) {
            let answered = (current.answered.0, current.answered.1.max(n));
            running.conn = Some(Conn { answered, ..current });
        }
        true
    }

    /// The manager has closed the session, or the wish for one.
    pub fn closed(&mut self, host: Host, conn: u64, leader: Option<Host>) {
        if self.conn(host, conn).is_none() {
            return;
        }
        self.hosts[host].worker.managers.named(leader);
        self.lost(host, if leader.is_some() { LostReason::Redirected } else { LostReason::Broken });
    }

    fn lost(&mut self, host: Host, reason: LostReason) {
        let Some(running) = self.working(host) else { return };
        if let Some(conn) = running.conn.take() {
            self.send_stream(host, conn.manager, conn.id, Body::HungUp { conn: conn.id });
        }
        self.agent_in(host, Input::Lost(reason));
    }

    fn operate(&mut self, host: Host, task: &Arc<Task>, op: Op) {
        let number = self.new_conn();
        let life = self.hosts[host].life;
        let image = task.spec.container.image.clone();
        let worker = &mut self.hosts[host].worker;
        let took = worker.containers.time_of(task.id, op, &image, &mut self.dice);
        let Some(running) = &mut worker.running else { return };
        running.ops.insert(task.id, RunningOp { op, number, image, cancelled: false });
        if let Some(took) = took {
            self.after(took, What::OpDone { host, life, task: task.id, op: number });
        }
    }

    fn cancel(&mut self, host: Host, task: TaskId) {
        let life = self.hosts[host].life;
        let Some(op) = self.working(host).and_then(|r| r.ops.get_mut(&task)) else { return };
        op.cancelled = true;
        let op = op.number;
        self.after(1, What::OpDone { host, life, task, op });
    }

    /// An operation has ended.
    pub fn op_done(&mut self, host: Host, task: TaskId, number: u64) {
        let now = self.local_now(host);
        let worker = &mut self.hosts[host].worker;
        let Some(running) = &mut worker.running else { return };
        let Some(op) = running.ops.get(&task).filter(|o| o.number == number).cloned() else { return };
        running.ops.remove(&task);
        let outcome = if op.cancelled {
            Outcome::Cancelled
        } else {
            worker.containers.perform(task, op.op, &op.image, now, &mut self.dice)
        };
        let started = op.op == Op::Start && matches!(outcome, Outcome::Started(_));
        if started {
            self.started(host, task, &op.image);
        }
        self.note(|| format!("{host} {} {}: {outcome:?}", op.op.as_str(), task.short()));
        self.agent_in(host, Input::OpFinished(task, op.op, outcome));
    }

    fn started(&mut self, host: Host, task: TaskId, image: &str) {
        let starts = self.hosts[host].worker.containers.all.get(&task).map_or(0, |c| c.starts);
        self.check_started(host, task, starts);
        if let Some((after, exit)) = life(image) {
            self.after(after, What::Exit { host, task, exit });
        }
    }

    /// A container ends by itself.
    pub fn container_exits(&mut self, host: Host, task: TaskId, exit: Exit) {
        let at = self.local_now(host);
        let worker = &mut self.hosts[host].worker;
        if worker.containers.exit(task, Exit { at, ..exit }) {
            self.waited(host, task);
        }
    }

    /// A container is removed by somebody else.
    pub fn container_vanishes(&mut self, host: Host, task: TaskId) {
        if self.hosts[host].worker.containers.vanish(task) {
            self.waited(host, task);
        }
    }

    /// The agent's wait for a container is over.
    fn waited(&mut self, host: Host, task: TaskId) {
        let life = self.hosts[host].life;
        let Some(running) = self.working(host) else { return };
        if let Some(op) = running.ops.get(&task).filter(|o| o.op == Op::Wait && !o.cancelled) {
            let op = op.number;
            self.after(1, What::OpDone { host, life, task, op });
        }
    }

    /// A container of this host that runs, by chance.
    pub fn some_container(&mut self, host: Host) -> Option<TaskId> {
        let worker = &self.hosts[host].worker;
        let count = worker.containers.running().count() as u64;
        let at = usize::try_from(self.dice.below(count)).unwrap_or(0);
        worker.containers.running().nth(at).copied()
    }

    /// How a task that has not ended stands on a host, by its agent, or by its disk while that does not run.
    pub fn unended_on(&self, host: Host, task: &TaskId) -> Option<TaskState> {
        let worker = &self.hosts[host].worker;
        if worker.ended.contains(task) {
            return None;
        }
        let state = match &worker.running {
            Some(running) => running.agent.task(*task).map(|e| e.task().status.state),
            None => worker.journal.get(task).map(|t| t.status.state),
        };
        state.filter(|state| !state.is_terminal())
    }

    /// Wait that began while the container ran and whose container has ended meanwhile.
    pub fn is_running(&self, host: Host, task: &TaskId) -> bool {
        let container = self.hosts[host].worker.containers.all.get(task);
        container.is_some_and(|c| c.state == FoundState::Running)
    }
}
