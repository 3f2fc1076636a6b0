//! Drives `core::Leader` for as long as this manager leads: inputs go in, effects are done. A term
//! starts with a new value made from the store, and ends with dropping it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm_manager_core::dispatcher::CloseReason;
use swarm_manager_core::leader::{Effect, Input, Leader, Proposal};
use swarm_manager_core::reason::Reason;
use swarm_manager_core::store::{Event, Key, Object};
use swarm_manager_raft::node::ProposeError;
use swarm_proto::v1::session_message::Message;
use swarm_types::id::NodeId;
use swarm_types::network_set::NetworkProblem;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::alarm::Alarm;
use crate::codec;
use crate::forward::Target;
use crate::manager::Shared;
use crate::roles;
use crate::state::{Applied, Rejected, Verdict};

/// Inputs taken in before effects are looked at: bounds the time until the next one is done.
const BATCH: usize = 256;

/// The way to the leader's driver, for the fronts.
pub(crate) struct LeaderLine {
    inputs: Mutex<Option<mpsc::UnboundedSender<Input>>>,
    /// The term in which this manager leads, while its driver runs.
    leading: watch::Sender<Option<u64>>,
}

impl Default for LeaderLine {
    fn default() -> Self {
        LeaderLine { inputs: Mutex::new(None), leading: watch::channel(None).0 }
    }
}

impl LeaderLine {
    /// Tells the leader; nobody, if this manager does not lead.
    pub(crate) fn tell(&self, input: Input) {
        if let Some(inputs) = self.inputs.lock().expect("no code panics while it holds the line").as_ref() {
            // A driver that is just ending needs no input.
            let _ended = inputs.send(input);
        }
    }

    /// The term in which this manager leads, if its driver runs.
    pub(crate) fn term(&self) -> Option<u64> {
        *self.leading.borrow()
    }

    /// Waits until the driver of a manager that has just been elected runs.
    pub(crate) async fn ready(&self, patience: Duration) -> Target {
        let mut leading = self.leading.subscribe();
        match tokio::time::timeout(patience, leading.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Target::Here,
            Ok(Err(_)) | Err(_) => {
                Target::Nowhere("this manager was elected and cannot begin to lead".into())
            }
        }
    }

    fn open(&self, term: u64) -> mpsc::UnboundedReceiver<Input> {
        let (sender, inputs) = mpsc::unbounded_channel();
        *self.inputs.lock().expect("no code panics while it holds the line") = Some(sender);
        self.leading.send_replace(Some(term));
        inputs
    }

    fn close(&self) {
        self.leading.send_replace(None);
        *self.inputs.lock().expect("no code panics while it holds the line") = None;
    }
}

/// Leads whenever this manager is elected, until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut status = shared.raft.watch();
    loop {
        let elected = tokio::select! {
            () = stop.cancelled() => return,
            elected = status.wait_for(|s| s.is_leader() || s.stopped) => match elected {
                Ok(status) if !status.stopped => status.term,
                Ok(_) | Err(_) => return,
            },
        };
        let span = tracing::info_span!("leader", term = elected);
        tokio::select! {
            () = stop.cancelled() => {}
            () = lead(&shared, elected).instrument(span) => {}
        }
        shared.leader.close();
        shared.state.detach_leader();
        shared.sessions.close_all("this manager does not lead any more");
        shared.commands.clear();
        shared.passing.clear();
        shared.network_problems.clear();
    }
}

/// Leads for one term.
async fn lead(shared: &Arc<Shared>, term: u64) {
    let mut status = shared.raft.watch();
    let over = |s: &swarm_manager_raft::node::Status| !s.is_leader() || s.term != term || s.stopped;
    // All that earlier terms have committed must be in the view first.
    tokio::select! {
        _ = status.wait_for(over) => return,
        barrier = shared.raft.read_barrier() => if let Err(e) = barrier {
            tracing::warn!(error = %e, "elected, but cannot read the log");
            return;
        },
    }
    tracing::info!("this manager leads");
    let (view, events) = shared.state.attach_leader();
    let inputs = shared.leader.open(term);
    let core = Leader::new(&view, shared.now(), shared.new_seed());
    drop(view);
    let driver = Driver {
        shared: shared.clone(),
        core,
        proposals: JoinSet::new(),
        steps: JoinSet::new(),
        roles_due: true,
        alarm: Alarm::default(),
        seen: 0,
        own: None,
        parked: BTreeSet::new(),
    };
    let mut ending = shared.raft.watch();
    tokio::select! {
        _ = ending.wait_for(over) => tracing::info!("this manager leads no longer"),
        () = driver.run(inputs, events) => {}
    }
}

type Outcome = (u64, Result<Verdict, ProposeError>);

struct Driver {
    shared: Arc<Shared>,
    core: Leader,
    /// At most one: core's.
    proposals: JoinSet<Outcome>,
    /// At most one: a change of somebody's role or membership.
    steps: JoinSet<()>,
    /// A node or the group has changed since roles were looked at.
    roles_due: bool,
    alarm: Alarm,
    /// Newest log index whose events core has seen.
    seen: u64,
    /// Index of core's proposal, while its events have not come yet.
    own: Option<u64>,
    parked: BTreeSet<&'static str>,
}

impl Driver {
    async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut events: mpsc::UnboundedReceiver<Vec<Applied>>,
    ) {
        let mut members = self.shared.raft.watch();
        self.handle(Input::Tick);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.step_roles();
            tokio::select! {
                biased;
                applied = events.recv() => match applied {
                    Some(applied) => self.applied(applied),
                    None => return,
                },
                Some(done) = self.proposals.join_next() => if !self.proposed(done) {
                    return;
                },
                n = inputs.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        return;
                    }
                    for input in batch.drain(..) {
                        self.handle(input);
                    }
                }
                () = self.alarm.rings(|| self.shared.now()) => {
                    self.alarm.clear();
                    self.handle(Input::Tick);
                }
                Some(_) = self.steps.join_next() => self.roles_due = true,
                changed = members.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.roles_due = true;
                    let shared = &self.shared;
                    shared.sessions.tell_all(|node| Message::ClusterChanged(shared.cluster_changed(node)));
                }
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let view = self.shared.state.view();
        let now = self.shared.now();
        for effect in self.core.handle(&view, input, now) {
            self.perform(effect);
        }
        self.report_parked();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Propose(proposal) => self.propose(proposal),
            Effect::Send(node, session, message) => {
                self.shared.sessions.tell(&node, &session, Message::Assignments((&message).into()));
            }
            Effect::SendNetworks(node, session, message) => {
                self.shared.sessions.tell(&node, &session, Message::Networks((&message).into()));
            }
            Effect::NetworkProblems(node, problems) => self.network_problems(node, problems),
            Effect::Close(node, session, reason) => {
                let why = close_words(reason);
                tracing::info!(node.id = %node, reason = why, "session closed");
                self.shared.sessions.close(&node, &session, why.to_owned());
            }
            Effect::WakeAt(at) => self.alarm.set(at),
        }
    }

    fn network_problems(&self, node: NodeId, problems: Vec<NetworkProblem>) {
        for problem in &problems {
            let (subject, text) = (&problem.subject, &problem.text);
            tracing::warn!(node.id = %node, subject, problem = text, "a node's networks are not as wanted");
        }
        if problems.is_empty() {
            tracing::info!(node.id = %node, "the node's networks are as wanted again");
        }
        self.shared.network_problems.note(node, problems);
    }

    fn propose(&mut self, proposal: Proposal) {
        diary(&proposal);
        let shared = self.shared.clone();
        let entry = codec::encode(&proposal.transaction);
        self.proposals.spawn(async move {
            match shared.raft.propose(entry).await {
                Ok(applied) => (applied.index, Ok(crate::manager::verdict(applied))),
                Err(e) => (0, Err(e)),
            }
        });
    }

    /// Tells core how its proposal ended. False if nobody can say: then core must begin anew, for a
    /// plan that may still be applied must not be made a second time.
    fn proposed(&mut self, done: Result<Outcome, tokio::task::JoinError>) -> bool {
        match done {
            Ok((index, Ok(Ok(())))) if index <= self.seen => {
                self.handle(Input::Committed { events: Vec::new(), own: true });
            }
            // Its events are on their way.
            Ok((index, Ok(Ok(())))) => self.own = Some(index),
            Ok((_, Ok(Err(Rejected::Refused(why))))) => {
                tracing::debug!(reason = %why, "plan refused: deciding anew");
                self.handle(Input::Refused);
            }
            Ok((_, Ok(Err(e @ Rejected::Unreadable(_))))) => {
                tracing::error!(error = %e, "own plan cannot be read back");
                self.handle(Input::Lost);
            }
            Ok((_, Err(e @ ProposeError::Unknown { .. }))) => {
                tracing::warn!(error = %e, "fate of a plan is unknown: leading anew");
                return false;
            }
            Ok((_, Err(e))) => {
                tracing::warn!(error = %e, "plan was not committed");
                self.handle(Input::Lost);
            }
            Err(e) => {
                tracing::error!(error = %e, "proposing ended badly");
                return false;
            }
        }
        true
    }

    fn applied(&mut self, applied: Vec<Applied>) {
        for Applied { index, events } in applied {
            self.seen = index;
            let own = self.own == Some(index);
            if own {
                self.own = None;
            }
            self.shared.passing.settle(&events);
            self.tell_nodes(&events);
            self.roles_due |= events.iter().any(|e| matches!(e.key(), Key::Node(_)));
            self.handle(Input::Committed { events, own });
        }
    }

    /// Nodes hear what concerns themselves.
    fn tell_nodes(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::Updated { old: Object::Node(old), new: Object::Node(new) }
                    if old.role != new.role || old.spec != new.spec =>
                {
                    let changed = self.shared.cluster_changed(&new.id);
                    self.shared.sessions.tell_node(&new.id, Message::ClusterChanged(changed));
                }
                Event::Updated { old: Object::Cluster(old), new: Object::Cluster(new) }
                    if old.spec != new.spec =>
                {
                    let shared = &self.shared;
                    shared.sessions.tell_all(|node| Message::ClusterChanged(shared.cluster_changed(node)));
                }
                Event::Created(_) | Event::Updated { .. } | Event::Deleted(_) => {}
            }
        }
    }

    /// Brings roles and the group's membership together, one step at a time.
    fn step_roles(&mut self) {
        if !self.roles_due || !self.steps.is_empty() {
            return;
        }
        let view = self.shared.state.view();
        let all_here = !self.core.misses_a_node(&view);
        // While a node is missed some steps wait: looked at again when anything happens.
        self.roles_due = !all_here;
        if let Some(step) = roles::next(&self.shared, &view, all_here) {
            let shared = self.shared.clone();
            self.steps.spawn(async move { roles::perform(&shared, step).await });
        }
    }

    fn report_parked(&mut self) {
        for (name, panic) in self.core.parked() {
            if self.parked.insert(name) {
                tracing::error!(
                    room = name,
                    panic,
                    "a control loop failed and is parked until the next election"
                );
            }
        }
    }
}

fn close_words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Replaced => "the node has registered anew",
        CloseReason::NodeRemoved => "the node was removed from the cluster",
        CloseReason::UnknownSession => "there is no such session: register anew",
        CloseReason::Silent => "the node was silent for too long: register anew",
    }
}

/// What an operator wants to find in the log of the night.
fn diary(proposal: &Proposal) {
    for (key, reason) in &proposal.reasons {
        match (key, reason) {
            (Key::Node(node), Reason::NodeSilent | Reason::NodeNotBack) => {
                tracing::warn!(node.id = %node, reason = %reason, "node is down");
            }
            (Key::Node(node), Reason::NodeLeft) => tracing::info!(node.id = %node, "node said good-bye"),
            (Key::Service(_), _) => tracing::info!(object = %key, reason = %reason, "service moved on"),
            _ => tracing::debug!(object = %key, reason = %reason, "decided"),
        }
    }
}
