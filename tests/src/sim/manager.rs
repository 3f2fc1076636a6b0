//! A manager: the shipped consensus core, store and leader, driven as `manager/server` drives them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use swarm_manager_core::context::Context;
use swarm_manager_core::leader::{Effect, Input, Leader, SessionInput};
use swarm_manager_core::pace::Pace;
use swarm_manager_core::role::{Member as RoleMember, RoleStep, keeps_quorum, next_step};
use swarm_manager_core::store::{Draft, Store};
use swarm_manager_raft::core::{CoreSettings, EntryKind, Envelope, ReadState, Ready, Restored};
use swarm_manager_raft::{Change, Core, Member, MemberRole, Role as RaftRole, SnapshotMeta};
use swarm_manager_server::codec;
use swarm_types::id::{IdSource, NodeId, Seed, SessionId};
use swarm_types::node::{ManagerMembership, Node, NodeDescription, Role};
use swarm_types::time::Timestamp;

use super::Sim;
use super::command::{Answer, Command};
use super::disk::{Disk, Snapshot, Torn};
use super::event::{Body, What};
use super::net::Host;
use crate::invariants::watch::Done;

/// The period of the logical clock in milliseconds, as shipped.
pub const TICK_MS: u64 = 100;
/// Entries kept in the log behind a snapshot.
const KEEP: u64 = 10;
/// Reads for sessions have other numbers than those for a new leader.
const SESSION: u64 = 1 << 63;
/// A write is decided anew so often.
const ATTEMPTS: u32 = 50;

/// Who waits for an entry.
#[derive(Debug, Clone)]
pub enum Waiter {
    /// The leader of this election, which decided on this version of the store.
    Own(u64),
    /// A command: who asked, the number of the question, how often it was decided.
    Write { from: Option<(Host, u64)>, command: Box<Command>, attempts: u32 },
}

/// An agent that wants a session.
#[derive(Debug, Clone)]
pub struct Asking {
    from: Host,
    conn: u64,
    description: Box<NodeDescription>,
}

/// What the raft thread has yet to look at.
#[derive(Debug)]
pub enum RaftIn {
    Message(Bytes),
    Snapshot(Bytes, Box<Snapshot>, Host),
    SnapshotSent { to: u64, arrived: bool },
    Unreachable(u64),
    Tick,
}

/// A manager that leads.
pub struct Leading {
    /// The shipped leader.
    pub core: Leader,
    term: u64,
    inputs: VecDeque<Input>,
    wake: Option<Timestamp>,
    /// The session of each node: its id, its connection, its host.
    pub sessions: BTreeMap<NodeId, (SessionId, u64, Host)>,
    role_step: bool,
}

/// A process that manages.
pub struct Running {
    /// The shipped consensus core.
    pub core: Core,
    /// What is applied here.
    pub store: Store,
    inbox: VecDeque<RaftIn>,
    pending: Option<Ready>,
    incoming: Option<Snapshot>,
    batch: Vec<(Bytes, Waiter)>,
    waiting: BTreeMap<u64, (u64, Waiter)>,
    /// Elected, and waits until all of earlier terms is applied: term, number of the read, the index.
    barrier: Option<(u64, u64, Option<u64>)>,
    read_asked: bool,
    /// Agents that want a session, which the leader first makes sure it may give: by the number of the read.
    asking: BTreeMap<u64, Asking>,
    /// Those for which it has, once all up to this index is applied.
    granted: Vec<(u64, Asking)>,
    ticks: u64,
    pace: Pace,
    snapshot: Option<Snapshot>,
    /// While it leads.
    pub leading: Option<Leading>,
}

/// A manager's place on a host: its disk, and its process if that runs.
pub struct Manager {
    /// Its number in the group.
    pub raft_id: u64,
    /// What it wrote.
    pub disk: Disk,
    /// Its process.
    pub running: Option<Running>,
    /// It is no member any more.
    pub removed: bool,
}

impl Manager {
    /// A manager that finds this on its disk, and does not run yet.
    pub fn new(raft_id: u64, restored: Restored, snapshot: Snapshot) -> Manager {
        Manager { raft_id, disk: Disk::new(restored, snapshot), running: None, removed: false }
    }
    /// It leads.
    pub fn leading(&self) -> Option<&Leading> {
        self.running.as_ref()?.leading.as_ref()
    }
}

impl Sim {
    fn running(&mut self, host: Host) -> Option<&mut Running> {
        self.hosts[host].manager.as_mut()?.running.as_mut()
    }

    /// The manager's process of a host starts from its disk.
    pub fn start_manager(&mut self, host: Host) {
        let seed = Seed(self.dice.next_u64());
        let life = self.hosts[host].life;
        let Some(manager) = self.hosts[host].manager.as_mut().filter(|m| !m.removed) else { return };
        if manager.disk.restored().log_is_superseded() {
            manager.disk.reset_log();
        }
        let restored = manager.disk.restored();
        let store = manager.disk.snapshot.store();
        let core = match Core::new(CoreSettings::new(manager.raft_id, seed), restored) {
            Ok(core) => core,
            Err(e) => return self.broken("starts_from_its_disk", format!("host {host}: {e}")),
        };
        manager.running = Some(Running {
            core,
            store,
            inbox: VecDeque::new(),
            pending: None,
            incoming: None,
            batch: Vec::new(),
            waiting: BTreeMap::new(),
            barrier: None,
            read_asked: false,
            asking: BTreeMap::new(),
            granted: Vec::new(),
            ticks: 0,
            pace: Pace::default(),
            snapshot: None,
            leading: None,
        });
        let version = self.hosts[host].manager.as_ref().map_or(0, |m| m.disk.snapshot.meta.index);
        self.invariants.restarted(host, version);
        let first = self.dice.below(TICK_MS);
        self.after(first, What::Tick { host, life });
        self.pump(host);
    }

    /// Something for the raft thread. False if there is none.
    pub fn raft_in(&mut self, host: Host, input: RaftIn) -> bool {
        let Some(running) = self.running(host) else { return false };
        // After a stall time is not caught up.
        let again = matches!(input, RaftIn::Tick) && running.inbox.iter().any(|i| matches!(i, RaftIn::Tick));
        if !again {
            running.inbox.push_back(input);
            self.pump(host);
        }
        true
    }

    /// Something for the leader, if this manager leads.
    pub fn leader_in(&mut self, host: Host, input: Input) {
        if let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) {
            leading.inputs.push_back(input);
        }
        self.pump(host);
    }

    /// Does all that can be done now.
    pub fn pump(&mut self, host: Host) {
        loop {
            self.raft_process(host);
            let Some(running) = self.running(host) else { return };
            let Some(input) = running.leading.as_mut().and_then(|l| l.inputs.pop_front()) else { break };
            self.leader_handle(host, input);
            if self.broken.is_some() {
                return;
            }
        }
        self.step_roles(host);
    }

    fn raft_process(&mut self, host: Host) {
        loop {
            let Some(running) = self.running(host) else { return };
            if running.pending.is_some() {
                return;
            }
            let (unproposed, plans) = propose_batch(running);
            for (term, index, base) in plans {
                self.invariants.planned(term, index, base);
            }
            for waiter in unproposed {
                if let Waiter::Write { from, .. } = waiter {
                    self.answer(host, from, Answer::Elsewhere(None));
                }
            }
            let Some(running) = self.running(host) else { return };
            if let Some((_, number, None)) = running.barrier
                && !running.read_asked
            {
                running.read_asked = running.core.read_index(number);
            }
            if let Some(ready) = running.core.ready() {
                self.begin(host, ready);
                continue;
            }
            self.look_at_role(host);
            self.maybe_snapshot(host);
            let Some(running) = self.running(host) else { return };
            match running.inbox.pop_front() {
                Some(input) => self.raft_take(host, input),
                None => return,
            }
        }
    }

    fn raft_take(&mut self, host: Host, input: RaftIn) {
        let Some(running) = self.running(host) else { return };
        match input {
            // What is refused is old, strange, or for somebody who was removed.
            RaftIn::Message(message) => {
                let _refused = running.core.step(&message);
            }
            RaftIn::Snapshot(message, content, from) => {
                let to = running.core.id();
                running.incoming = Some(*content);
                let arrived = running.core.step_snapshot(&message).is_ok();
                self.send(host, from, Body::SnapshotSent { to, arrived });
            }
            RaftIn::SnapshotSent { to, arrived } => running.core.report_snapshot(to, arrived),
            RaftIn::Unreachable(id) => running.core.report_unreachable(id),
            RaftIn::Tick => {
                running.ticks += 1;
                if running.ticks.is_multiple_of(10) {
                    running.read_asked = false;
                }
                running.core.tick();
                for learner in running.core.caught_up_learners() {
                    // Refused while another change is under way.
                    let _later = running.core.propose_change(&Change::Promote(learner));
                }
            }
        }
    }

    fn begin(&mut self, host: Host, mut ready: Ready) {
        self.send_raft(host, std::mem::take(&mut ready.messages));
        let to_disk = ready.must_sync || !ready.entries.is_empty() || ready.snapshot.is_some();
        let took = self.hosts[host].fsync_ms;
        let life = self.hosts[host].life;
        let Some(running) = self.running(host) else { return };
        running.pending = Some(ready);
        if to_disk && took > 0 {
            let took = 1 + self.dice.below(took);
            self.after(took, What::DiskDone { host, life });
        } else {
            self.disk_done(host);
        }
    }

    /// What the raft thread wrote is durable, or could not be written.
    pub fn disk_done(&mut self, host: Host) {
        let Some(manager) = self.hosts[host].manager.as_mut() else { return };
        let Some(running) = manager.running.as_mut() else { return };
        let Some(mut ready) = running.pending.take() else { return };
        if manager.disk.full && !ready.entries.is_empty() {
            // A manager that cannot write ends: it can keep no promise.
            self.note(|| format!("disk of {host} is full"));
            return self.kill_manager(host, false);
        }
        let content = running.incoming.take();
        manager.disk.write(&ready, content.clone());
        if let (Some(_), Some(content)) = (&ready.snapshot, &content) {
            running.store = content.store();
        }
        let after = std::mem::take(&mut ready.persisted_messages);
        let reads = std::mem::take(&mut ready.read_states);
        let installed = ready.snapshot.as_ref().map(|s| s.index);
        self.send_raft(host, after);
        if let Some(index) = installed {
            self.invariants.restarted(host, index);
        }
        self.apply(host, &ready);
        let Some(running) = self.running(host) else { return };
        running.core.advance(ready);
        for read in reads {
            note_read(running, read);
        }
        self.look_at_role(host);
        self.grant(host);
        let Some(running) = self.running(host) else { return };
        if running.core.is_removed() {
            self.note(|| format!("{host} is no manager any more"));
            self.kill_manager(host, true);
        }
    }

    fn apply(&mut self, host: Host, ready: &Ready) {
        for entry in &ready.committed {
            let Some(running) = self.running(host) else { return };
            let waiter = running.waiting.remove(&entry.index).filter(|(term, _)| *term == entry.term);
            let waiter = waiter.map(|(_, waiter)| waiter);
            if entry.kind != EntryKind::Normal || entry.data.is_empty() {
                self.check_applied(host, entry, None);
                self.tell_managers(host);
                continue;
            }
            let transaction = codec::decode(&entry.data).expect("managers propose what they can read");
            let before = running.store.view();
            let verdict = running.store.apply(entry.index, &transaction);
            let view = running.store.view();
            let refused = verdict.is_err();
            let events = verdict.unwrap_or_default();
            let own = matches!(waiter, Some(Waiter::Own(_)));
            self.check_applied(
                host,
                entry,
                Some(Done { before: &before, view: &view, events: &events, refused }),
            );
            let Some(running) = self.running(host) else { return };
            if let Some(leading) = &mut running.leading {
                match (refused, own) {
                    (false, _) => leading.inputs.push_back(Input::Committed { events, own }),
                    (true, true) => leading.inputs.push_back(Input::Refused),
                    (true, false) => {}
                }
            }
            if let Some(Waiter::Write { from, command, attempts }) = waiter {
                self.written(host, from, command, attempts, (!refused).then_some(entry.index));
            }
        }
    }

    /// A command's entry was applied: at this index, or refused.
    fn written(
        &mut self,
        host: Host,
        from: Option<(Host, u64)>,
        command: Box<Command>,
        attempts: u32,
        done: Option<u64>,
    ) {
        match (done, from) {
            (Some(index), Some((to, ask))) => {
                self.invariants.acknowledged(index);
                self.send(host, to, Body::Answer { ask, answer: Answer::Done });
            }
            (None, _) if attempts < ATTEMPTS => self.write(host, from, command, attempts + 1),
            (_, from) => {
                if let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) {
                    leading.role_step &= from.is_some();
                }
            }
        }
    }

    /// Decides a command on the newest view and proposes it.
    pub fn write(&mut self, host: Host, from: Option<(Host, u64)>, command: Box<Command>, attempts: u32) {
        let now = self.manager_now(host);
        let mut ids = IdSource::new(Seed(self.dice.next_u64()));
        let hint = self.leader_hint(host);
        let leads = self.running(host).is_some_and(|r| r.leading.is_some());
        let Some(running) = self.running(host).filter(|_| leads) else {
            return self.answer(host, from, Answer::Elsewhere(hint));
        };
        let members = role_members(&running.core);
        let mut draft = Draft::new(running.store.view(), now);
        let mut ctx = Context { now: draft.now(), ids: &mut ids };
        match command.decide(&mut draft, &mut ctx, &members) {
            Err(denied) => self.answer(host, from, Answer::Denied(denied.to_string())),
            Ok(()) if draft.is_empty() => self.answer(host, from, Answer::Done),
            Ok(()) => {
                let bytes = codec::encode(&draft.into_transaction());
                let Some(running) = self.running(host) else { return };
                running.batch.push((bytes.into(), Waiter::Write { from, command, attempts }));
            }
        }
    }

    fn answer(&mut self, host: Host, from: Option<(Host, u64)>, answer: Answer) {
        match from {
            Some((to, ask)) => self.send(host, to, Body::Answer { ask, answer }),
            None => {
                if let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) {
                    leading.role_step = false;
                }
            }
        }
    }

    /// The time as this manager's process has it.
    pub fn manager_now(&mut self, host: Host) -> Timestamp {
        let clock = self.local_now(host);
        match self.running(host) {
            Some(running) => running.pace.read(clock, running.store.view().newest_time()),
            None => clock,
        }
    }

    /// Where this manager believes the leader to be.
    pub fn leader_hint(&mut self, host: Host) -> Option<Host> {
        let leader = self.running(host)?.core.leader()?;
        self.host_of(leader)
    }

    /// Begins or ends leading as the core says.
    fn look_at_role(&mut self, host: Host) {
        let number = self.dice_for_reads();
        let Some(running) = self.running(host) else { return };
        let (role, term) = (running.core.role(), running.core.term());
        if role != RaftRole::Leader {
            running.barrier = None;
            for (_, waiter) in std::mem::take(&mut running.batch) {
                if let Waiter::Write { from, .. } = waiter {
                    let hint = self.leader_hint(host);
                    self.answer(host, from, Answer::Elsewhere(hint));
                }
            }
            return self.stop_leading(host);
        }
        if running.leading.as_ref().is_some_and(|l| l.term != term) {
            self.stop_leading(host);
        }
        let Some(running) = self.running(host) else { return };
        match running.barrier {
            _ if running.leading.is_some() => {}
            Some((t, _, Some(index))) if t == term => {
                if running.core.applied() >= index {
                    self.lead(host, term);
                }
            }
            Some((t, _, None)) if t == term => {}
            _ => {
                running.barrier = Some((term, number, None));
                running.read_asked = false;
                self.note(|| format!("{host} is elected in term {term}"));
                self.check_elected(host, term);
            }
        }
    }

    fn lead(&mut self, host: Host, term: u64) {
        let now = self.manager_now(host);
        let seed = Seed(self.dice.next_u64());
        let Some(running) = self.running(host) else { return };
        running.barrier = None;
        let core = Leader::new(&running.store.view(), now, seed);
        let inputs = VecDeque::from([Input::Tick]);
        running.leading =
            Some(Leading { core, term, inputs, wake: None, sessions: BTreeMap::new(), role_step: false });
        self.note(|| format!("{host} leads in term {term}"));
    }

    fn stop_leading(&mut self, host: Host) {
        let hint = self.leader_hint(host);
        let Some(leading) = self.running(host).and_then(|r| r.leading.take()) else { return };
        self.note(|| format!("{host} leads no longer"));
        for (_, conn, to) in leading.sessions.into_values() {
            self.send_stream(host, to, conn, Body::Close { conn, leader: hint });
        }
        let Some(running) = self.running(host) else { return };
        let granted = std::mem::take(&mut running.granted).into_iter().map(|(_, asking)| asking);
        let waiting: Vec<_> = std::mem::take(&mut running.asking).into_values().chain(granted).collect();
        for Asking { from, conn, .. } in waiting {
            self.send_stream(host, from, conn, Body::Close { conn, leader: hint });
        }
    }

    fn leader_handle(&mut self, host: Host, input: Input) {
        let now = self.manager_now(host);
        let Some(running) = self.running(host) else { return };
        let view = running.store.view();
        let Some(leading) = &mut running.leading else { return };
        let effects = leading.core.handle(&view, input, now);
        if let Some((name, panic)) = leading.core.parked().iter().next() {
            let text = format!("{name} on host {host}: {panic}");
            return self.broken("no_loop_panics", text);
        }
        for effect in effects {
            self.leader_effect(host, effect, now);
        }
    }

    fn leader_effect(&mut self, host: Host, effect: Effect, now: Timestamp) {
        let life = self.hosts[host].life;
        let Some(running) = self.running(host) else { return };
        match effect {
            Effect::Propose(proposal) => {
                let bytes: Bytes = codec::encode(&proposal.transaction).into();
                running.batch.push((bytes, Waiter::Own(running.store.view().version())));
                self.proposals += 1;
                self.note(|| {
                    let why = proposal.reasons.iter().map(|(key, reason)| format!("{key}: {reason}"));
                    format!("{host} proposes {}", why.collect::<Vec<_>>().join(", "))
                });
            }
            Effect::Send(node, session, message) => {
                let Some(leading) = &running.leading else { return };
                if let Some(&(current, conn, to)) = leading.sessions.get(&node)
                    && current == session
                {
                    self.send_unruly(host, to, conn, Body::Assign { conn, session, message });
                }
            }
            Effect::SendNetworks(node, session, message) => {
                let Some(leading) = &running.leading else { return };
                if let Some(&(current, conn, to)) = leading.sessions.get(&node)
                    && current == session
                {
                    self.send_stream(host, to, conn, Body::Networks { session, message });
                }
            }
            Effect::NetworkProblems(..) => {}
            Effect::Close(node, session, _) => {
                let Some(leading) = &mut running.leading else { return };
                if let Some(&(current, conn, to)) = leading.sessions.get(&node)
                    && current == session
                {
                    leading.sessions.remove(&node);
                    self.send_stream(host, to, conn, Body::Close { conn, leader: None });
                }
            }
            Effect::WakeAt(at) => {
                if let Some(leading) = &mut running.leading {
                    leading.wake = Some(at);
                    let wait = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
                    self.after(wait, What::LeaderWake { host, life, at });
                }
            }
        }
    }

    /// The time that the leader asked for.
    pub fn leader_wake(&mut self, host: Host, at: Timestamp) {
        let now = self.manager_now(host);
        let life = self.hosts[host].life;
        let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) else { return };
        if leading.wake != Some(at) {
            return;
        }
        if now < at {
            // The driver sleeps again for what is left.
            let wait = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
            return self.after(wait, What::LeaderWake { host, life, at });
        }
        leading.wake = None;
        self.leader_in(host, Input::Tick);
    }

    /// An agent wants a session.
    pub fn register(&mut self, host: Host, from: Host, conn: u64, description: Box<NodeDescription>) {
        let hint = self.leader_hint(host).or_else(|| self.way_from(host)).filter(|h| *h != host);
        let leads =
            self.running(host).is_some_and(|r| r.leading.is_some() && r.core.read_index(conn | SESSION));
        match self.running(host).filter(|_| leads) {
            Some(running) => {
                running.asking.insert(conn | SESSION, Asking { from, conn, description });
                self.pump(host);
            }
            None => self.send_stream(host, from, conn, Body::Close { conn, leader: hint }),
        }
    }

    /// Gives sessions to those for which the leader has made sure that it leads.
    fn grant(&mut self, host: Host) {
        let Some(running) = self.running(host) else { return };
        let applied = running.core.applied();
        let (now, later) = std::mem::take(&mut running.granted).into_iter().partition(|(i, _)| *i <= applied);
        running.granted = later;
        let now: Vec<(u64, Asking)> = now;
        for (_, Asking { from, conn, description }) in now {
            self.open_session(host, from, conn, *description);
        }
    }

    fn open_session(&mut self, host: Host, from: Host, conn: u64, description: NodeDescription) {
        let hint = self.leader_hint(host).or_else(|| self.way_from(host)).filter(|h| *h != host);
        let session = SessionId::new(format!("s{conn}"));
        let managers = self.manager_hosts(host);
        let node = self.hosts[from].node;
        let addr = format!("10.0.0.{from}");
        let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) else {
            return self.send_stream(host, from, conn, Body::Close { conn, leader: hint });
        };
        leading.sessions.insert(node, (session, conn, from));
        let term = leading.term;
        self.send_stream(host, from, conn, Body::Registered { conn, session, term, managers });
        let input = SessionInput::Registered { session, description: Box::new(description), addr };
        if let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) {
            leading.inputs.push_back(Input::Session(node, input));
        }
    }

    /// True if this is the session that the node has with this leader; if not, the agent is told.
    pub fn session_is_current(&mut self, host: Host, from: Host, conn: u64, session: SessionId) -> bool {
        let hint = self.leader_hint(host).filter(|h| *h != host);
        let node = self.hosts[from].node;
        let leading = self.running(host).and_then(|r| r.leading.as_ref());
        let current = leading.and_then(|l| l.sessions.get(&node)).is_some_and(|(s, _, _)| *s == session);
        if !current {
            self.send_stream(host, from, conn, Body::Close { conn, leader: hint });
        }
        current
    }

    /// A node leaves.
    pub fn goodbye(&mut self, host: Host, from: Host, conn: u64, session: SessionId) {
        if self.session_is_current(host, from, conn, session) {
            let node = self.hosts[from].node;
            let ended = SessionInput::Ended { session, goodbye: true };
            self.leader_in(host, Input::Session(node, ended));
        }
    }

    /// An agent's connection is closed.
    pub fn hung_up(&mut self, host: Host, from: Host, conn: u64) {
        let node = self.hosts[from].node;
        let Some(leading) = self.running(host).and_then(|r| r.leading.as_mut()) else { return };
        let session = SessionId::new(format!("s{conn}"));
        if leading.sessions.get(&node).is_some_and(|(s, _, _)| *s == session) {
            leading.sessions.remove(&node);
        }
        let ended = SessionInput::Ended { session, goodbye: false };
        self.leader_in(host, Input::Session(node, ended));
    }

    /// The leader tells all nodes who the managers are.
    fn tell_managers(&mut self, host: Host) {
        let managers = self.manager_hosts(host);
        let Some(leading) = self.running(host).and_then(|r| r.leading.as_ref()) else { return };
        let all: Vec<(u64, Host)> = leading.sessions.values().map(|(_, conn, to)| (*conn, *to)).collect();
        for (conn, to) in all {
            self.send_stream(host, to, conn, Body::Managers { conn, managers: managers.clone() });
        }
    }

    /// The hosts that are managers, the leader first.
    pub fn manager_hosts(&mut self, host: Host) -> Vec<Host> {
        let Some(running) = self.running(host) else { return Vec::new() };
        let leader = running.core.leader();
        let mut ids: Vec<u64> = running.core.members().iter().map(|m| m.raft_id).collect();
        ids.sort_by_key(|id| (Some(*id) != leader, *id));
        ids.into_iter().filter_map(|id| self.host_of(id)).collect()
    }

    fn send_raft(&mut self, host: Host, messages: Vec<Envelope>) {
        for envelope in messages {
            let Some(to) = self.host_of(envelope.to) else { continue };
            let Some(manager) = self.hosts[host].manager.as_ref() else { return };
            let body = match &envelope.snapshot {
                None => Body::Raft(envelope.message),
                Some(meta) if *meta == manager.disk.snapshot.meta => {
                    let content = Box::new(manager.disk.snapshot.clone());
                    Body::RaftSnapshot { message: envelope.message, content }
                }
                Some(_) => {
                    let sent = RaftIn::SnapshotSent { to: envelope.to, arrived: false };
                    if let Some(running) = self.running(host) {
                        running.inbox.push_back(sent);
                    }
                    continue;
                }
            };
            self.send_datagram(host, to, envelope.to, body);
        }
    }

    fn maybe_snapshot(&mut self, host: Host) {
        let every = self.snapshot_every;
        let life = self.hosts[host].life;
        let took = 5 + self.dice_for_reads() % 50;
        let Some(running) = self.running(host) else { return };
        let (applied, last) = (running.core.applied(), running.core.snapshot().index);
        let due = applied - last >= every || running.core.wants_snapshot();
        if running.snapshot.is_some() || applied <= last || !due {
            return;
        }
        let Some(term) = running.core.term_at(applied) else { return };
        let meta = SnapshotMeta { index: applied, term, members: running.core.members().clone() };
        running.snapshot = Some(Snapshot::of(meta, &running.store.view()));
        self.after(took, What::SnapshotDone { host, life });
    }

    /// A snapshot is durable.
    pub fn snapshot_done(&mut self, host: Host) {
        let Some(manager) = self.hosts[host].manager.as_mut() else { return };
        let Some(running) = manager.running.as_mut() else { return };
        // The raft thread hears of it between two writes.
        if running.pending.is_some() {
            let life = self.hosts[host].life;
            return self.after(1, What::SnapshotDone { host, life });
        }
        let Some(snapshot) = running.snapshot.take() else { return };
        if snapshot.meta.index > running.core.snapshot().index {
            running.core.snapshotted(snapshot.meta.clone(), KEEP);
            manager.disk.snapshotted(snapshot, running.core.compacted());
        }
        self.pump(host);
    }

    /// The manager's process dies, perhaps in the middle of a write.
    pub fn tear_manager(&mut self, host: Host) {
        let torn = [Torn::Nothing, Torn::First, Torn::All][usize::try_from(self.dice.below(3)).unwrap_or(0)];
        if let Some(manager) = &mut self.hosts[host].manager {
            manager.disk.lose_unsynced();
            if let Some(running) = &mut manager.running
                && let Some(ready) = running.pending.take()
                && !manager.disk.full
            {
                manager.disk.tear(&ready, running.incoming.take(), torn);
            }
        }
        self.kill_manager(host, false);
    }

    /// The manager's process ends. With `removed`, for good.
    pub fn kill_manager(&mut self, host: Host, removed: bool) {
        self.stop_leading(host);
        if let Some(manager) = &mut self.hosts[host].manager {
            manager.running = None;
            manager.removed |= removed;
        }
    }

    /// The leader's driver brings roles and membership together, one step at a time.
    fn step_roles(&mut self, host: Host) {
        let Some(running) = self.running(host) else { return };
        if running.leading.as_ref().is_none_or(|l| l.role_step) || running.pending.is_some() {
            return;
        }
        let view = running.store.view();
        let note = running.core.members().iter().find_map(|m| {
            let noted = ManagerMembership { raft_id: m.raft_id, addr: m.address.clone() };
            let node = view.node(&m.node_id)?;
            (node.role == Role::Manager && node.manager.as_ref() != Some(&noted))
                .then_some((m.node_id, noted))
        });
        let members = role_members(&running.core);
        let all_here = running.leading.as_ref().is_some_and(|l| !l.core.misses_a_node(&view));
        let command = match note {
            Some((node, noted)) => Command::SetMembership(node, noted),
            None => match next_step(&view, &members, all_here) {
                None => return,
                Some(RoleStep::SetRole(node, role)) => Command::SetRole(node, role),
                Some(RoleStep::RemoveMember { raft_id, .. }) => {
                    // Refused while another change is under way: asked again at the next occasion.
                    if running.core.propose_change(&Change::Remove(raft_id)).is_ok() {
                        self.check_removal(host, raft_id);
                        self.raft_process(host);
                    }
                    return;
                }
                Some(RoleStep::TransferLeadership { to }) => {
                    running.core.transfer_leader(to);
                    return self.raft_process(host);
                }
            },
        };
        if let Some(leading) = &mut running.leading {
            leading.role_step = true;
        }
        self.write(host, None, Box::new(command), 0);
        self.raft_process(host);
    }

    /// A manager wants to take part, or to know whether it does.
    pub fn join_group(&mut self, host: Host, from: Host, raft_id: u64) {
        let node_id = self.hosts[from].node;
        let Some(running) = self.running(host) else { return };
        if let Some(known) = running.core.members().by_node(&node_id) {
            let raft_id = known.raft_id;
            return self.send(host, from, Body::Joined { raft_id });
        }
        let is_one = |n: &Node| n.role == Role::Manager && n.spec.role == Role::Manager;
        let may = running.store.view().node(&node_id).is_some_and(|n| is_one(n));
        if running.pending.is_some() || !may || running.leading.is_none() {
            return;
        }
        if raft_id != 0 {
            // The shipped leader makes sure that it still leads before it says so.
            if keeps_quorum(&role_members(&running.core), 0) {
                self.send(host, from, Body::Outside { raft_id });
            }
            return;
        }
        let raft_id = running.core.members().next_id();
        let member = Member { raft_id, node_id, address: format!("h{from}"), role: MemberRole::Learner };
        // Refused while another change is under way: the node asks again.
        if running.core.propose_change(&Change::Add(member)).is_ok() {
            self.raft_ids.insert(raft_id, from);
            self.pump(host);
        }
    }
}

/// The group as core wants to see it.
fn role_members(core: &Core) -> Vec<RoleMember> {
    let reachable = core.reachable();
    let voters = core.members().voters();
    let member = |member: &Member| RoleMember {
        raft_id: member.raft_id,
        node: member.node_id,
        votes: voters.contains(&member.raft_id),
        answers: reachable.contains(&member.raft_id),
        leads: core.leader() == Some(member.raft_id),
    };
    core.members().iter().map(member).collect()
}

/// Proposes what waits for it; gives back the commands for which that did not work, and for each plan its
/// term, its index and what it was decided on.
fn propose_batch(running: &mut Running) -> (Vec<Waiter>, Vec<(u64, u64, u64)>) {
    if running.batch.is_empty() || running.core.role() != RaftRole::Leader {
        return (Vec::new(), Vec::new());
    }
    let data = running.batch.iter().map(|(data, _)| data.clone()).collect();
    let batch = std::mem::take(&mut running.batch);
    match running.core.propose(data) {
        Ok(ids) => {
            let mut plans = Vec::new();
            for (id, (_, waiter)) in ids.into_iter().zip(batch) {
                if let Waiter::Own(base) = &waiter {
                    plans.push((id.term, id.index, *base));
                }
                running.waiting.insert(id.index, (id.term, waiter));
            }
            (Vec::new(), plans)
        }
        Err(_) => {
            let own = |(_, waiter): &(Bytes, Waiter)| matches!(waiter, Waiter::Own(_));
            if let Some(leading) = running.leading.as_mut().filter(|_| batch.iter().any(own)) {
                leading.inputs.push_back(Input::Lost);
            }
            (batch.into_iter().map(|(_, waiter)| waiter).collect(), Vec::new())
        }
    }
}

fn note_read(running: &mut Running, read: ReadState) {
    if let Some((_, number, index)) = &mut running.barrier
        && *number == read.ctx
    {
        *index = Some(read.index);
    }
    if let Some(asking) = running.asking.remove(&read.ctx) {
        running.granted.push((read.index, asking));
    }
}
