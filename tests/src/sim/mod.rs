//! The simulator: shipped managers and agents in a world of one queue and one seed.
//!
//! Time passes from event to event. Whatever happens by chance is drawn from the seed, so the same
//! seed gives the same story on the same code: see [`Sim::hash`].

pub mod clock;
pub mod command;
pub mod containers;
pub mod disk;
pub mod event;
pub mod faults;
pub mod host;
pub mod known;
pub mod manager;
pub mod net;
mod networks;
pub mod run;
pub mod user;
pub mod worker;
pub mod workload;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use swarm_manager_core::store::View;
use swarm_types::id::{IdSource, Seed};
use swarm_types::time::Timestamp;

use crate::invariants::Invariants;
use event::{Body, What};
use host::Host as HostState;
use net::{Host, Net};

/// Lines of the story that are kept.
const STORY: usize = 20_000;
/// The kernel sends what was held up again after so long, so many times.
const RESEND_MS: u64 = 200;
const RESENDS: u64 = 50;

/// Something that must never be, was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which of the invariants.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
    /// After so many events.
    pub step: u64,
    /// At this time, in milliseconds since the start.
    pub at_ms: u64,
}

struct Queued {
    at: u64,
    number: u64,
    what: What,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The world.
pub struct Sim {
    /// Milliseconds since the start.
    pub now_ms: u64,
    /// Where chance comes from.
    pub dice: IdSource,
    /// All machines.
    pub hosts: Vec<HostState>,
    /// Which host a member of the group is.
    pub raft_ids: BTreeMap<u64, Host>,
    /// What connects them.
    pub net: Net,
    /// What is watched.
    pub invariants: Invariants,
    /// What was seen that must not be.
    pub broken: Option<Broken>,
    /// The user.
    pub user: user::User,
    /// Log entries between two snapshots.
    pub snapshot_every: u64,
    /// Plans that leaders have proposed.
    pub proposals: u64,
    /// How often an agent asked for a whole set anew, for a message of it was missing.
    pub resyncs: u64,
    /// What goes wrong.
    pub faults: faults::Faults,
    /// Tell the story in words.
    pub is_told: bool,
    story: VecDeque<String>,
    queue: BinaryHeap<Reverse<Queued>>,
    number: u64,
    steps: u64,
    hash: u64,
    conns: u64,
    streams: BTreeMap<(Host, Host, u64), u64>,
    held: BTreeMap<(Host, Host, u64), VecDeque<Body>>,
    newest: View,
}

impl Sim {
    /// An empty world.
    pub fn new(seed: u64) -> Sim {
        Sim {
            now_ms: 0,
            dice: IdSource::new(Seed(seed)),
            hosts: Vec::new(),
            raft_ids: BTreeMap::new(),
            net: Net::default(),
            invariants: Invariants::default(),
            broken: None,
            user: user::User::default(),
            snapshot_every: 1000,
            proposals: 0,
            resyncs: 0,
            faults: faults::Faults::default(),
            is_told: false,
            story: VecDeque::new(),
            queue: BinaryHeap::new(),
            number: 0,
            steps: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            conns: 0,
            streams: BTreeMap::new(),
            held: BTreeMap::new(),
            newest: View::default(),
        }
    }

    /// Lets `what` happen after so many milliseconds.
    pub fn after(&mut self, ms: u64, what: What) {
        self.number += 1;
        let at = self.now_ms.saturating_add(ms);
        self.queue.push(Reverse(Queued { at, number: self.number, what }));
    }

    /// The next thing happens. False if nothing is left, or something is broken.
    pub fn step(&mut self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let Some(Reverse(next)) = self.queue.pop() else { return false };
        self.now_ms = next.at;
        self.steps += 1;
        self.mix(next.at);
        self.mix(next.number);
        self.happen(next.what);
        self.broken.is_none()
    }

    /// Lets things happen until the time `ms`.
    pub fn run_until(&mut self, ms: u64) {
        while self.queue.peek().is_some_and(|Reverse(q)| q.at <= ms) {
            if !self.step() {
                return;
            }
        }
        self.now_ms = self.now_ms.max(ms);
    }

    /// Lets things happen until `done`, at most for so many milliseconds. True if it came.
    pub fn run_while(&mut self, ms: u64, mut done: impl FnMut(&mut Sim) -> bool) -> bool {
        let end = self.now_ms + ms;
        loop {
            if done(self) {
                return true;
            }
            if self.now_ms >= end || self.broken.is_some() {
                return false;
            }
            let next = (self.now_ms + 20).min(end);
            self.run_until(next);
        }
    }

    fn happen(&mut self, what: What) {
        if let Some((host, life)) = meant_for(&what) {
            let state = &mut self.hosts[host];
            if state.life != life || !state.up {
                return;
            }
            if state.paused {
                return state.backlog.push(what);
            }
        }
        match what {
            What::Tick { host, life } => {
                if self.raft_in(host, manager::RaftIn::Tick) {
                    self.after(manager::TICK_MS, What::Tick { host, life });
                }
            }
            What::Deliver { from, to, body } => self.deliver(from, to, body),
            What::DiskDone { host, .. } => {
                self.disk_done(host);
                self.pump(host);
            }
            What::SnapshotDone { host, .. } => self.snapshot_done(host),
            What::LeaderWake { host, at, .. } => self.leader_wake(host, at),
            What::AgentWake { host, at, .. } => self.agent_wake(host, at),
            What::KernelAgrees { host, turn, .. } => self.kernel_agrees(host, turn),
            What::Dial { host, conn, .. } => self.dial(host, conn),
            What::Beat { host, conn, .. } => self.beat(host, conn),
            What::Late { host, conn, wait, .. } => self.late(host, conn, wait),
            What::OpDone { host, task, op, .. } => self.op_done(host, task, op),
            What::Exit { host, task, exit } => self.container_exits(host, task, exit),
            What::GiveUp { ask } => self.give_up(ask),
            What::Ask { ask } => self.ask(ask),
            What::Resume { host, life } => {
                if self.hosts[host].life == life {
                    self.resume(host);
                }
            }
            What::Boot { host } => self.boot(host),
            What::Break { host, conn } => self.broke(host, conn),
            What::Resend { from, to, conn, tries } => self.resend(from, to, conn, tries),
            What::Fault => self.next_fault(),
            What::Idea => self.next_idea(),
        }
    }

    fn deliver(&mut self, from: Host, to: Host, body: Body) {
        if to == self.hosts.len() {
            if let Body::Answer { ask, answer } = body {
                self.answered(ask, from, answer);
            }
            return;
        }
        if !self.hosts[to].up {
            return self.refuse(from, to, &body);
        }
        if self.hosts[to].paused {
            return self.hosts[to].backlog.push(What::Deliver { from, to, body });
        }
        self.take(from, to, body);
    }

    fn take(&mut self, from: Host, to: Host, body: Body) {
        use manager::RaftIn;
        match body {
            Body::Raft(message) => {
                self.raft_in(to, RaftIn::Message(message));
            }
            Body::RaftSnapshot { message, content } => {
                self.raft_in(to, RaftIn::Snapshot(message, content, from));
            }
            Body::SnapshotSent { to: id, arrived } => {
                self.raft_in(to, RaftIn::SnapshotSent { to: id, arrived });
            }
            Body::Unreachable { raft_id } => {
                self.raft_in(to, RaftIn::Unreachable(raft_id));
            }
            Body::Register { conn, description } => self.register(to, from, conn, description),
            Body::Registered { conn, session, term, managers } => {
                self.registered(to, conn, (session, term), managers);
            }
            Body::Managers { conn, managers } => self.told_managers(to, conn, managers),
            Body::Assign { conn: _, session, message } => {
                self.told(to, session, swarm_worker_core::agent::Input::Assigned(session, message));
            }
            Body::Networks { session, message } => {
                self.told(to, session, swarm_worker_core::agent::Input::Networks(session, message));
            }
            Body::ReportNetworks { conn, session, n, report } => {
                if self.take_network_report(to, from, (conn, session), report) {
                    self.send_stream(to, from, conn, Body::NetworksReported { conn, n });
                }
            }
            Body::NetworksReported { conn, n } => self.networks_reported(to, conn, n),
            Body::Close { conn, leader } => self.closed(to, conn, leader),
            Body::HungUp { conn } => self.hung_up(to, from, conn),
            Body::Goodbye { conn, session } => self.goodbye(to, from, conn, session),
            Body::Heartbeat { conn, session, n } => self.heartbeat(to, from, conn, session, n),
            Body::HeartbeatSeen { conn, n } => self.beat_seen(to, conn, n),
            Body::Report { conn, session, n, statuses } => {
                self.take_report(to, from, (conn, session, n), statuses);
            }
            Body::Reported { conn, n, states } => self.reported(to, conn, n, states),
            Body::Ask { ask, command } => {
                self.write(to, Some((from, ask)), command, 0);
                self.pump(to);
            }
            Body::Answer { .. } => {}
            Body::JoinGroup { raft_id } => self.join_group(to, from, raft_id),
            Body::Outside { raft_id } => self.outside(to, raft_id),
            Body::Joined { raft_id } => self.joined(to, raft_id),
        }
    }

    /// A message that is simply gone if the net does not like it.
    pub fn send_datagram(&mut self, from: Host, to: Host, raft_id: u64, body: Body) {
        let snapshot = matches!(body, Body::RaftSnapshot { .. });
        let twice = !snapshot && self.dice.below(1000) < self.net.twice_permille;
        if twice && let Some(ms) = self.net.datagram(from, to, &mut self.dice) {
            self.after(ms, What::Deliver { from, to, body: body.clone() });
        }
        match self.net.datagram(from, to, &mut self.dice) {
            Some(ms) => self.after(ms, What::Deliver { from, to, body }),
            None if snapshot => {
                let body = Body::SnapshotSent { to: raft_id, arrived: false };
                self.after(500, What::Deliver { from: to, to: from, body });
            }
            None => {}
        }
    }

    /// A message of a connection that is not what it should be: something on the way loses some, says some
    /// twice, and lets some overtake others. Sooner or later such a connection breaks.
    pub fn send_unruly(&mut self, from: Host, to: Host, conn: u64, body: Body) {
        if self.dice.below(1000) >= self.net.unruly_permille {
            return self.send_stream(from, to, conn, body);
        }
        let late = 1 + self.dice.below(2000);
        match self.dice.below(3) {
            0 => {
                let breaks = self.dice.below(10_000);
                self.after(breaks, What::Break { host: to, conn });
            }
            1 => {
                self.send_stream(from, to, conn, body.clone());
                self.after(late, What::Deliver { from, to, body });
            }
            _ => self.after(late, What::Deliver { from, to, body }),
        }
    }

    /// A message of a connection: it comes in order or not at all.
    pub fn send_stream(&mut self, from: Host, to: Host, conn: u64, body: Body) {
        let key = (from, to, conn);
        if self.held.contains_key(&key) || !self.net.reaches(from, to) {
            // The kernel sends it again until it comes through, or nobody wants it any more.
            let held = self.held.entry(key).or_default();
            held.push_back(body);
            if held.len() == 1 {
                self.after(RESEND_MS, What::Resend { from, to, conn, tries: 0 });
            }
            return;
        }
        self.send_now(from, to, conn, body);
    }

    /// The kernel tries again to send what a cut held up.
    fn resend(&mut self, from: Host, to: Host, conn: u64, tries: u64) {
        let dead = !self.hosts[from].up || tries >= RESENDS;
        if !dead && !self.net.reaches(from, to) {
            return self.after(RESEND_MS, What::Resend { from, to, conn, tries: tries + 1 });
        }
        let held = self.held.remove(&(from, to, conn)).unwrap_or_default();
        if !dead {
            held.into_iter().for_each(|body| self.send_now(from, to, conn, body));
        }
    }

    fn send_now(&mut self, from: Host, to: Host, conn: u64, body: Body) {
        let Some(ms) = self.net.stream(from, to, &mut self.dice) else { return };
        let last = self.streams.entry((from, to, conn)).or_default();
        *last = (*last).max(self.now_ms + ms);
        let wait = *last - self.now_ms;
        self.after(wait, What::Deliver { from, to, body });
    }

    /// A message of a call of its own.
    pub fn send(&mut self, from: Host, to: Host, body: Body) {
        if let Some(ms) = self.net.stream(from, to, &mut self.dice) {
            self.after(ms, What::Deliver { from, to, body });
        }
    }

    /// A process that does not run answers nothing; its kernel says so.
    fn refuse(&mut self, from: Host, to: Host, body: &Body) {
        if !self.hosts[to].has_power {
            return;
        }
        let id = self.hosts[to].manager.as_ref().map(|m| m.raft_id);
        match body {
            Body::Raft(_) => {
                if let Some(raft_id) = id {
                    self.send(to, from, Body::Unreachable { raft_id });
                }
            }
            Body::RaftSnapshot { .. } => {
                self.send(to, from, Body::SnapshotSent { to: id.unwrap_or_default(), arrived: false });
            }
            Body::Register { conn, .. }
            | Body::Heartbeat { conn, .. }
            | Body::Report { conn, .. }
            | Body::ReportNetworks { conn, .. } => {
                self.send_stream(to, from, *conn, Body::Close { conn: *conn, leader: None });
            }
            Body::Ask { ask, .. } => {
                let answer = command::Answer::Elsewhere(None);
                self.send(to, from, Body::Answer { ask: *ask, answer });
            }
            _ => {}
        }
    }

    /// The time on a host's own clock.
    pub fn local_now(&mut self, host: Host) -> Timestamp {
        self.hosts[host].clock.read(self.now_ms)
    }

    /// The host that has this number in the group.
    pub fn host_of(&self, raft_id: u64) -> Option<Host> {
        self.raft_ids.get(&raft_id).copied()
    }

    fn new_conn(&mut self) -> u64 {
        self.conns += 1;
        self.conns
    }

    fn dice_for_reads(&mut self) -> u64 {
        self.dice.next_u64()
    }

    /// Everything that any manager has applied, at its newest.
    pub fn view(&self) -> &View {
        &self.newest
    }

    /// Something must never be, and is.
    pub fn broken(&mut self, invariant: &'static str, text: String) {
        self.note(|| format!("BROKEN {invariant}: {text}"));
        let (step, at_ms) = (self.steps, self.now_ms);
        self.broken.get_or_insert(Broken { invariant, text, step, at_ms });
    }

    /// Tells what happens, if anybody listens.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.is_told {
            let line = format!("{:>8} {}", self.now_ms, line());
            if self.story.len() == STORY {
                self.story.pop_front();
            }
            self.story.push_back(line);
        }
    }

    /// The last lines of the story.
    pub fn story(&self) -> impl Iterator<Item = &str> {
        self.story.iter().map(String::as_str)
    }

    /// How many things have happened.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A number that stands for all that has happened.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The newest store.
    pub fn set_newest(&mut self, view: &View) {
        self.newest = view.clone();
    }

    /// An entry was applied: part of the story.
    pub fn mix_applied(&mut self, host: Host, index: u64, data: u64) {
        self.mix(host as u64);
        self.mix(index);
        self.mix(data);
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

/// The process that something is meant for.
fn meant_for(what: &What) -> Option<(Host, u64)> {
    match what {
        What::Tick { host, life }
        | What::DiskDone { host, life }
        | What::SnapshotDone { host, life }
        | What::LeaderWake { host, life, .. }
        | What::AgentWake { host, life, .. }
        | What::KernelAgrees { host, life, .. }
        | What::Dial { host, life, .. }
        | What::Beat { host, life, .. }
        | What::Late { host, life, .. }
        | What::OpDone { host, life, .. } => Some((*host, *life)),
        What::Deliver { .. }
        | What::Exit { .. }
        | What::GiveUp { .. }
        | What::Ask { .. }
        | What::Resume { .. }
        | What::Boot { .. }
        | What::Break { .. }
        | What::Resend { .. }
        | What::Fault
        | What::Idea => None,
    }
}
