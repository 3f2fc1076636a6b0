//! A leader on a perfect log, with agents that do at once what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::control;
use crate::dispatcher::CloseReason;
use crate::reason::Reason;
use crate::store::{Draft, Object, Refused, Store, Transaction};
use swarm_types::assignment::{AssignmentChange, AssignmentsKind, AssignmentsMessage};
use swarm_types::id::ServiceId;
use swarm_types::network_set::{NetworkSet, NetworksMessage};
use swarm_types::node::{Availability, NodeState, Role};
use swarm_types::service::ServiceSpec;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::testing;

/// What an agent was told, and in which session.
#[derive(Default)]
pub(super) struct Agent {
    pub(super) session: SessionId,
    pub(super) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(super) number: u64,
    pub(super) closed: Option<CloseReason>,
    /// What it was told of the networks.
    pub(super) networks: NetworkSet,
}

pub(super) struct Cluster {
    pub(super) store: Store,
    pub(super) leader: Leader,
    pub(super) now: Timestamp,
    pub(super) version: u64,
    pub(super) ids: IdSource,
    pub(super) agents: BTreeMap<NodeId, Agent>,
    pub(super) wake: Option<Timestamp>,
    /// Changes of each proposal.
    pub(super) proposals: Vec<Proposal>,
    /// Kernels agree at once with what their agents are told of the networks.
    pub(super) kernels: bool,
    /// Agents do what they are told.
    pub(super) obedient: bool,
    /// Nodes whose machine is off.
    pub(super) dead: BTreeSet<NodeId>,
    /// So many of a hundred proposals meet with an accident: they get lost, or their leader is
    /// deposed, and they may be applied or not.
    pub(super) lost_percent: u64,
    /// There is no leader.
    pub(super) deposed: bool,
    late: Vec<Transaction>,
}

impl Cluster {
    /// A drained manager `m`, and workers; all have registered.
    pub(super) fn new(nodes: &[&str]) -> Cluster {
        let store = Store::default();
        let mut cluster = Cluster {
            leader: Leader::new(&store.view(), Timestamp(1000), Seed(1)),
            store,
            now: Timestamp(1000),
            version: 0,
            ids: IdSource::new(Seed(2)),
            agents: BTreeMap::new(),
            wake: None,
            proposals: Vec::new(),
            kernels: true,
            obedient: true,
            dead: BTreeSet::new(),
            lost_percent: 0,
            deposed: false,
            late: Vec::new(),
        };
        cluster.command(|draft, _| {
            let availability = Availability::Drain;
            let founding =
                control::cluster::Founding { node: "m".into(), availability, ..Default::default() };
            control::cluster::found(draft, founding)
        });
        cluster.register("m");
        for node in nodes {
            let joining = control::cluster::Joining { node: (*node).into(), ..Default::default() };
            cluster.command(|draft, _| control::cluster::join(draft, &joining));
            cluster.register(node);
        }
        cluster
    }

    /// A user's command, committed.
    pub(super) fn command<T>(
        &mut self,
        run: impl FnOnce(&mut Draft, &mut Context<'_>) -> Result<T, control::Denied>,
    ) -> T {
        let mut draft = Draft::new(self.store.view(), self.now);
        let mut ctx = Context { now: self.now, ids: &mut self.ids };
        let out = run(&mut draft, &mut ctx).unwrap();
        self.commit(&draft.into_transaction(), false).unwrap();
        out
    }

    pub(super) fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        self.command(|draft, ctx| control::service::create(draft, spec, ctx))
    }

    fn commit(&mut self, transaction: &Transaction, own: bool) -> Result<(), Refused> {
        self.version += 1;
        let events = self.store.apply(self.version, transaction)?;
        self.input(Input::Committed { events, own });
        Ok(())
    }

    /// Gives an input and performs the effects, as the driver does, until nothing is left to do.
    pub(super) fn input(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front().filter(|_| !self.deposed) {
            for effect in self.leader.handle(&self.store.view(), input, self.now) {
                match effect {
                    Effect::Propose(proposal) => {
                        inputs.extend(self.propose(&proposal.transaction));
                        self.proposals.push(proposal);
                    }
                    Effect::Send(node, session, message) => {
                        inputs.extend(self.deliver(node, session, message));
                    }
                    Effect::Close(node, session, reason) => {
                        let agent = self.agents.entry(node).or_default();
                        if agent.session == session {
                            agent.closed = Some(reason);
                        }
                    }
                    Effect::SendNetworks(node, session, message) => {
                        inputs.extend(self.tell_networks(node, session, &message));
                    }
                    Effect::NetworkProblems(..) => {}
                    Effect::WakeAt(at) => self.wake = Some(at),
                }
            }
        }
    }

    fn propose(&mut self, transaction: &Transaction) -> Option<Input> {
        if self.ids.below(100) < self.lost_percent {
            if self.ids.below(2) == 0 {
                return Some(Input::Lost);
            }
            self.deposed = true;
            if self.ids.below(2) == 0 {
                self.late.push(transaction.clone());
            }
            return None;
        }
        self.version += 1;
        Some(match self.store.apply(self.version, transaction) {
            Ok(events) => Input::Committed { events, own: true },
            Err(_) => Input::Refused,
        })
    }

    /// Another leader, once all is applied that the one before has put into the log. All living
    /// agents register with it.
    pub(super) fn elect(&mut self) {
        for transaction in std::mem::take(&mut self.late) {
            self.version += 1;
            // What does not fit any more is refused, on all managers alike.
            drop(self.store.apply(self.version, &transaction));
        }
        self.deposed = false;
        let seed = Seed(self.ids.next_u64());
        self.leader = Leader::new(&self.store.view(), self.now, seed);
        self.input(Input::Tick);
        let agents: Vec<_> = self.agents.keys().filter(|id| !self.dead.contains(id)).copied().collect();
        for node in agents {
            self.register(node.as_str());
        }
    }

    /// What the agent answers to a message.
    fn deliver(&mut self, node: NodeId, session: SessionId, message: AssignmentsMessage) -> Option<Input> {
        if self.dead.contains(&node) {
            return None;
        }
        let agent = self.agents.entry(node).or_default();
        assert_eq!(agent.session, session, "sent on an old session");
        match message.kind {
            AssignmentsKind::Complete => agent.tasks.clear(),
            AssignmentsKind::Incremental { applies_to } => assert_eq!(applies_to, agent.number, "a gap"),
        }
        agent.number = message.results_in;
        let mut statuses = Vec::new();
        for change in message.changes {
            match change {
                AssignmentChange::Remove(id) => {
                    agent.tasks.remove(&id);
                }
                AssignmentChange::Update(task) => {
                    statuses.extend(answer(&task).map(|state| (task.id, says(state))));
                    agent.tasks.insert(task.id, task);
                }
            }
        }
        (self.obedient && !statuses.is_empty()).then_some(Input::Statuses(node, session, statuses))
    }

    /// What the agent answers to a message of the networks.
    fn tell_networks(
        &mut self,
        node: NodeId,
        session: SessionId,
        message: &NetworksMessage,
    ) -> Option<Input> {
        if self.dead.contains(&node) {
            return None;
        }
        let agent = self.agents.entry(node).or_default();
        assert_eq!(agent.session, session, "sent on an old session");
        if let AssignmentsKind::Incremental { applies_to } = message.kind {
            assert_eq!(applies_to, agent.networks.version, "a gap");
        }
        agent.networks.take(message);
        self.kernels.then(|| self.agrees(node))
    }

    /// The node's kernel agrees with all that it was told.
    pub(super) fn agrees(&self, node: NodeId) -> Input {
        let agent = &self.agents[&node];
        let report = NetworkReport { applied: agent.networks.version, ..NetworkReport::default() };
        Input::NetworkStatus(node, agent.session, report)
    }

    pub(super) fn register(&mut self, node: &str) -> SessionId {
        let session = SessionId::new(self.ids.next_id());
        let description = Box::new(testing::node(node).description);
        self.agents.insert(node.into(), Agent { session, ..Agent::default() });
        let input = SessionInput::Registered { session, description, addr: "10.0.0.1".into() };
        self.input(Input::Session(node.into(), input));
        session
    }

    /// Time passes; those who are named, and `m`, send heartbeats each second.
    pub(super) fn pass_time(&mut self, seconds: u64, beating: &[&str]) {
        for _ in 0..seconds {
            let until = Timestamp(self.now.0 + 1000);
            while let Some(at) = self.wake.filter(|at| *at <= until) {
                self.wake = None;
                self.now = self.now.max(at);
                self.input(Input::Tick);
            }
            self.now = until;
            for node in beating.iter().chain(&["m"]) {
                let session = self.agents[&NodeId::new(node)].session;
                self.input(Input::Session((*node).into(), SessionInput::Heartbeat { session }));
            }
        }
    }

    pub(super) fn report(&mut self, node: &str, task: TaskId, state: TaskState) {
        let session = self.agents[&NodeId::new(node)].session;
        self.input(Input::Statuses(node.into(), session, vec![(task, says(state))]));
    }

    /// Running and wanted tasks of a service: `slot@node`, in order.
    pub(super) fn running(&self, service: ServiceId) -> Vec<String> {
        let view = self.store.view();
        let up = |t: &&Arc<Task>| t.status.state == TaskState::Running && t.is_wanted();
        view.tasks_of_service(&service).filter(up).map(|t| format!("{}@{}", t.slot, t.node)).collect()
    }

    fn node_state(&self, node: &str) -> NodeState {
        self.store.view().node(&node.into()).unwrap().status.state
    }
}

fn says(state: TaskState) -> TaskStatus {
    TaskStatus { state, ..TaskStatus::default() }
}

/// How an obedient agent's task stands at once.
fn answer(task: &Task) -> Option<TaskState> {
    let state = match task.desired_state {
        TaskState::Running => TaskState::Running,
        TaskState::Shutdown | TaskState::Remove => TaskState::Shutdown,
        _ => return None,
    };
    (task.status.state < state && task.is_live()).then_some(state)
}

#[test]
fn from_a_spec_to_assigned_tasks_in_one_commit() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    cluster.obedient = false;
    let before = cluster.proposals.len();
    let web = cluster.create(testing::service("web").replicas(5).build());
    assert_eq!(cluster.proposals.len(), before + 1);
    let view = cluster.store.view();
    assert!(view.tasks_of_service(&web).all(|t| t.status.state == TaskState::Assigned));
    let mut counts: Vec<_> = ["n1", "n2", "n3"].map(|n| cluster.agents[&n.into()].tasks.len()).into();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 2]);
}

#[test]
fn three_replicas_run_and_survive_a_workers_death() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]);
    let web = cluster.create(testing::service("web").replicas(3).build());
    assert_eq!(cluster.running(web).len(), 3);
    cluster.pass_time(3, &["n1", "n2", "n3"]);
    // n3 dies without a word.
    cluster.pass_time(5, &["n1", "n2"]);
    assert_eq!(cluster.node_state("n3"), NodeState::Down);
    assert_eq!(cluster.agents[&"n3".into()].closed, Some(CloseReason::Silent));
    cluster.pass_time(6, &["n1", "n2"]);
    let running = cluster.running(web);
    assert_eq!(running.len(), 3);
    assert!(running.iter().all(|place| !place.ends_with("n3")), "{running:?}");
    // It comes back: its leftovers are stopped, nothing is moved back.
    cluster.register("n3");
    cluster.pass_time(10, &["n1", "n2", "n3"]);
    assert_eq!(cluster.running(web), running);
    let old = cluster.agents[&"n3".into()].tasks.values().filter(|t| t.is_wanted()).count();
    assert_eq!(old, 0);
}

#[test]
fn a_removed_service_leaves_nothing_behind() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    let web = cluster.create(testing::service("web").replicas(4).build());
    cluster.command(|draft, _| control::service::remove(draft, &web));
    cluster.pass_time(2, &["n1", "n2"]);
    assert_eq!(cluster.store.view().task_count(), 0);
    assert!(cluster.agents.values().all(|agent| agent.tasks.is_empty()), "agents were told to drop them");
}

#[test]
fn at_rest_nothing_is_proposed() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    cluster.create(testing::service("web").replicas(4).build());
    cluster.pass_time(30, &["n1", "n2"]);
    let before = cluster.proposals.len();
    cluster.pass_time(60, &["n1", "n2"]);
    assert_eq!(cluster.proposals.len(), before);
}

#[test]
fn a_new_leader_carries_on_without_writing() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    let web = cluster.create(testing::service("web").replicas(4).build());
    cluster.pass_time(10, &["n1", "n2"]);
    let running = cluster.running(web);
    let before = cluster.proposals.len();
    cluster.leader = Leader::new(&cluster.store.view(), cluster.now, Seed(9));
    cluster.input(Input::Tick);
    cluster.register("m");
    cluster.register("n1");
    cluster.pass_time(3, &["n1"]);
    cluster.register("n2");
    cluster.pass_time(20, &["n1", "n2"]);
    assert_eq!(cluster.running(web), running);
    assert_eq!(cluster.proposals.len(), before, "no storm of writes");
    assert_eq!(cluster.agents[&"n2".into()].tasks.len(), 2, "the complete set came");
}

#[test]
fn statuses_gather_while_a_commit_is_in_flight() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.obedient = false;
    cluster.create(testing::service("web").replicas(3).build());
    let (session, view) = (cluster.agents[&"n1".into()].session, cluster.store.view());
    let tasks: Vec<_> = view.tasks().map(|t| t.id).collect();
    let report = |leader: &mut Leader, n: usize, state| {
        let input = Input::Statuses("n1".into(), session, vec![(tasks[n], says(state))]);
        leader.handle(&view, input, Timestamp(2000))
    };
    let proposed = |effects: &[Effect]| -> Vec<usize> {
        let of = |e: &Effect| match e {
            Effect::Propose(p) => Some(p.transaction.changes.len()),
            _ => None,
        };
        effects.iter().filter_map(of).collect()
    };
    assert_eq!(proposed(&report(&mut cluster.leader, 0, TaskState::Preparing)), [0; 0]);
    assert_eq!(cluster.leader.live_status(&tasks[0]).unwrap().state, TaskState::Preparing);
    let first = report(&mut cluster.leader, 0, TaskState::Running);
    assert_eq!(proposed(&first), [1], "at once: nothing was in flight");
    assert_eq!(proposed(&report(&mut cluster.leader, 1, TaskState::Running)), [0; 0]);
    assert_eq!(proposed(&report(&mut cluster.leader, 2, TaskState::Running)), [0; 0]);
    let lost = cluster.leader.handle(&view, Input::Refused, Timestamp(2001));
    assert_eq!(proposed(&lost), [3], "all of them, with the refused one");
    let Some(Effect::Propose(again)) = lost.into_iter().find(|e| matches!(e, Effect::Propose(_))) else {
        panic!("a proposal")
    };
    cluster.commit(&again.transaction, true).unwrap();
    assert!(cluster.store.view().tasks().all(|t| t.status.state == TaskState::Running));
    assert_eq!(cluster.leader.live_status(&tasks[0]), None);
}

#[test]
fn a_report_of_a_forgotten_task_is_answered_with_remove() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.agents.get_mut(&"n1".into()).unwrap().tasks.insert("ghost".into(), Arc::default());
    cluster.report("n1", "ghost".into(), TaskState::Running);
    assert!(cluster.agents[&"n1".into()].tasks.is_empty());
    assert!(cluster.store.view().tasks().next().is_none());
}

#[test]
fn an_old_session_is_closed_and_not_heard() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.obedient = false;
    let web = cluster.create(testing::service("web").build());
    let task = cluster.store.view().tasks_of_service(&web).next().unwrap().id;
    let old = cluster.agents[&"n1".into()].session;
    cluster.register("n1");
    let statuses = vec![(task, says(TaskState::Running))];
    let view = cluster.store.view();
    let effects = cluster.leader.handle(&view, Input::Statuses("n1".into(), old, statuses), cluster.now);
    assert_eq!(effects, [Effect::Close("n1".into(), old, CloseReason::UnknownSession)]);
    assert_eq!(cluster.running(web).len(), 0);
}

#[test]
fn a_removed_node_is_sent_away_and_its_tasks_move() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    let web = cluster.create(testing::service("web").replicas(2).build());
    cluster.command(|draft, _| control::node::remove(draft, &"n2".into(), true));
    assert_eq!(cluster.agents[&"n2".into()].closed, Some(CloseReason::NodeRemoved));
    cluster.pass_time(8, &["n1"]);
    assert_eq!(cluster.running(web), ["1@n1", "2@n1"]);
}

#[test]
fn repeated_refusals_make_a_pause() {
    let mut cluster = Cluster::new(&["n1"]);
    cluster.obedient = false;
    let view = {
        cluster.create(testing::service("web").build());
        cluster.store.view()
    };
    let (session, task) = (cluster.agents[&"n1".into()].session, view.tasks().next().unwrap().id);
    let running = Input::Statuses("n1".into(), session, vec![(task, says(TaskState::Running))]);
    let now = Timestamp(9000);
    let proposes = |effects: Vec<Effect>| effects.iter().any(|e| matches!(e, Effect::Propose(_)));
    assert!(proposes(cluster.leader.handle(&view, running, now)));
    assert!(proposes(cluster.leader.handle(&view, Input::Refused, now)));
    assert!(proposes(cluster.leader.handle(&view, Input::Refused, now)));
    let effects = cluster.leader.handle(&view, Input::Refused, now);
    assert_eq!(effects, [Effect::WakeAt(now.plus(PAUSE))]);
    assert!(proposes(cluster.leader.handle(&view, Input::Tick, now.plus(PAUSE))));
}

/// Panics as soon as it sees a service called `bad`.
struct Fragile;

impl ControlLoop for Fragile {
    fn restore(_: &View) -> Fragile {
        Fragile
    }
    fn observe(&mut self, _: &Event) {}
    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        if plan.service_by_name("bad").is_some() {
            let id = TaskId::new(ctx.ids.next_id());
            plan.put_task(Task { id, ..Task::default() }, Reason::ScaledUp);
            panic!("cannot bear {}", "bad");
        }
        Wake::Never
    }
}

#[test]
fn a_loop_that_panics_is_parked_and_the_others_go_on() {
    let mut cluster = Cluster::new(&["n1"]);
    let mut loops = LOOPS.to_vec();
    loops.insert(0, ("fragile", |view| Box::new(Fragile::restore(view))));
    cluster.leader = Leader::with_loops(&cluster.store.view(), cluster.now, Seed(3), &loops);
    cluster.register("n1");
    let bad = cluster.create(testing::service("bad").build());
    assert_eq!(cluster.leader.parked()["fragile"], "cannot bear bad");
    assert_eq!(cluster.running(bad), ["1@n1"]);
    assert_eq!(cluster.store.view().task_count(), 1, "what it had planned is dropped");
}

#[test]
fn events_of_own_commits_make_incremental_messages_only() {
    let mut cluster = Cluster::new(&["n1"]);
    assert_eq!(cluster.agents[&"n1".into()].number, 1);
    let web = cluster.create(testing::service("web").build());
    assert_eq!(cluster.agents[&"n1".into()].number, 2, "assigned; its running says nothing new");
    assert_eq!(cluster.running(web), ["1@n1"]);
    let node = cluster.store.view().node(&"m".into()).unwrap().clone();
    assert_eq!(node.role, Role::Manager);
    let event = Event::Updated { old: Object::Node(node.clone()), new: Object::Node(node) };
    cluster.input(Input::Committed { events: vec![event], own: false });
    assert_eq!(cluster.agents[&"n1".into()].number, 2);
}

#[test]
fn a_thousand_tasks_and_a_change_of_leader_in_between() {
    let nodes: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let mut cluster = Cluster::new(&nodes);
    cluster.obedient = false;
    let web = cluster.create(testing::service("web").replicas(1000).build());
    assert_eq!(cluster.store.view().task_count_of_service(&web), 1000);
    cluster.leader = Leader::new(&cluster.store.view(), cluster.now, Seed(9));
    cluster.obedient = true;
    cluster.input(Input::Tick);
    for node in nodes.iter().chain(&["m"]) {
        cluster.register(node);
    }
    assert_eq!(cluster.running(web).len(), 1000);
    assert!(nodes.iter().all(|n| cluster.agents[&NodeId::new(n)].tasks.len() == 100));
    cluster.pass_time(10, &nodes);
    assert_eq!(cluster.store.view().task_count(), 1000);
}

#[test]
fn what_does_not_fit_into_one_plan_follows_at_once() {
    let mut cluster = Cluster::new(&["n1", "n2"]);
    let many = crate::plan::MAX_CHANGES as u64 + 500;
    let web = cluster.create(testing::service("web").replicas(many).build());
    let view = cluster.store.view();
    assert_eq!(view.task_count_of_service(&web) as u64, many);
    assert!(view.tasks_of_service(&web).all(|t| t.status.state == TaskState::Running));
    assert!(cluster.proposals.iter().all(|p| p.transaction.changes.len() <= crate::plan::MAX_CHANGES));
}
