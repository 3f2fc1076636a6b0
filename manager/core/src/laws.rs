//! Laws: what holds for every control loop, in worlds that nobody thought of (architecture §5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use swarm_types::endpoint::{EndpointMode, Port, PublishMode};
use swarm_types::id::{IdSource, NodeId, Seed};
use swarm_types::network::{AttachmentSpec, NetworkSpec, SubnetSpec};
use swarm_types::node::{Availability, NodeState};
use swarm_types::policy::{RestartCondition, UpdateOrder};
use swarm_types::resources::Resources;
use swarm_types::service::{Mode, ServiceSpec};
use swarm_types::task::{Task, TaskSpec};
use swarm_types::task_state::TaskState;
use swarm_types::testing::{node, service};

use crate::allocator::tests::History;
use crate::allocator::{Allocator, subnet};
use crate::context::Context;
use crate::control;
use crate::control::cluster::Founding;
use crate::control_loop::ControlLoop;
use crate::enforcer::Enforcer;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::slot::{Slot, numbered};
use crate::plan::Plan;
use crate::reaper::Reaper;
use crate::restart::Restart;
use crate::scheduler::Scheduler;
use crate::store::{Event, View};
use crate::update::Update;
use crate::world::{Loops, World};

#[derive(Debug, Clone)]
enum Op {
    Service { name: u8, replicas: u8, image: u8, shape: u8, reach: u8 },
    RemoveService(u8),
    Node { name: u8, label: bool },
    NodeState(u8, u8),
    Availability(u8, u8),
    RemoveNode(u8),
    End { nth: u8, state: u8 },
    Agents,
    Pass,
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0u8..3, 0u8..6, 0u8..3, 0u8..8, 0u8..64).prop_map(|(name, replicas, image, shape, reach)| {
            Op::Service { name, replicas, image, shape, reach }
        }),
        1 => (0u8..3).prop_map(Op::RemoveService),
        2 => (0u8..4, any::<bool>()).prop_map(|(name, label)| Op::Node { name, label }),
        2 => (0u8..4, 0u8..3).prop_map(|(n, s)| Op::NodeState(n, s)),
        2 => (0u8..4, 0u8..3).prop_map(|(n, s)| Op::Availability(n, s)),
        1 => (0u8..4).prop_map(Op::RemoveNode),
        3 => (any::<u8>(), 0u8..3).prop_map(|(nth, state)| Op::End { nth, state }),
        4 => Just(Op::Agents),
        5 => Just(Op::Pass),
        2 => (0u16..20_000).prop_map(Op::Wait),
    ]
}

fn name(n: u8) -> String {
    format!("n{n}")
}

fn spec(n: u8, replicas: u8, image: u8, shape: u8, reach: u8) -> swarm_types::service::ServiceSpec {
    let mut builder = service(&format!("s{n}")).image(&format!("i{image}"));
    // The mode of a service never changes.
    builder = if n == 2 { builder.global() } else { builder.replicas(replicas.into()) };
    if shape & 1 != 0 {
        builder = builder.reserve(1, 1024);
    }
    if shape & 2 != 0 {
        builder = builder.constraint("node.labels.x==y");
    }
    builder
        .with(|spec, task| {
            reaches(spec, task, reach);
            if shape & 4 != 0 {
                spec.update.order = UpdateOrder::StartFirst;
                task.placement.max_replicas_per_node = 2;
                task.restart.condition = RestartCondition::OnFailure;
                task.restart.max_attempts = 2;
            }
        })
        .build()
}

/// On no, one or two networks, the first of which is soon full; with ports that others want too.
fn reaches(spec: &mut ServiceSpec, task: &mut TaskSpec, reach: u8) {
    for (bit, network) in [(1, "small"), (2, "large")] {
        if reach & bit != 0 {
            task.networks.push(AttachmentSpec { network: network.into(), ..AttachmentSpec::default() });
        }
    }
    let port = |published, mode| Port { published, mode, target: 80, ..Port::default() };
    match reach >> 2 & 3 {
        0 => {}
        1 => spec.endpoint.ports = vec![port(8080, PublishMode::Ingress), port(0, PublishMode::Ingress)],
        2 => spec.endpoint.ports = vec![port(0, PublishMode::Ingress); 2],
        _ => spec.endpoint.ports = vec![port(8081, PublishMode::Host)],
    }
    if reach & 16 != 0 && reach >> 2 & 3 != 1 && reach >> 2 & 3 != 2 {
        spec.endpoint.mode = EndpointMode::Dnsrr;
    }
}

/// A world with a cluster, an ingress network, a network of five addresses and a large one.
fn world(nodes: &[&str]) -> World {
    let mut world = World::new(&[]);
    world.change(|d| {
        control::cluster::found(d, Founding { cluster: "c".into(), node: "m".into(), ..Founding::default() })
            .unwrap();
        for (id, net) in [("small", "192.168.0.0/29"), ("large", "192.168.8.0/22")] {
            let asked = SubnetSpec {
                subnet: net.parse().unwrap(),
                gateway: None,
                range: None,
                reserved: BTreeMap::new(),
            };
            let mut spec = NetworkSpec { subnets: vec![asked], ..NetworkSpec::default() };
            spec.annotations.name = id.into();
            let network = subnet::network(d, id.into(), spec).unwrap();
            d.put_network(network);
        }
        d.delete_node(&"m".into());
    });
    nodes.iter().for_each(|n| world.node(node(n)));
    world
}

fn perform(world: &mut World, op: &Op) {
    match *op {
        Op::Service { name, replicas, image, shape, reach } => {
            world.service(spec(name, replicas, image, shape, reach));
        }
        Op::RemoveService(n) => {
            if let Some(id) = world.view().service_by_name(&format!("s{n}")).map(|s| s.id) {
                world.change(|d| control::service::remove(d, &id).unwrap());
            }
        }
        Op::Node { name: n, label } => {
            if world.view().node(&name(n).into()).is_none() {
                let mut node = node(&name(n));
                if label {
                    node.spec.annotations.labels.insert("x".into(), "y".into());
                }
                world.node(node);
            }
        }
        Op::NodeState(n, state) => {
            let states = [NodeState::Ready, NodeState::Down, NodeState::Unknown];
            world.set_state(&name(n), states[usize::from(state)]);
        }
        Op::Availability(n, to) => {
            let all = [Availability::Active, Availability::Pause, Availability::Drain];
            world.edit_node(&name(n), |node| node.spec.availability = all[usize::from(to)]);
        }
        Op::RemoveNode(n) => world.change(|d| {
            let _not_there = control::node::remove(d, &name(n).into(), true);
        }),
        Op::End { nth, state } => end(world, nth, state),
        Op::Agents => {
            world.agents();
        }
        Op::Pass => {
            world.pass();
        }
        Op::Wait(ms) => world.now = world.now.plus(Duration::from_millis(ms.into())),
    }
}

fn end(world: &mut World, nth: u8, state: u8) {
    let view = world.view();
    let running: Vec<_> = view.tasks().filter(|t| t.status.state.consumes_resources()).collect();
    if let Some(task) = running.get(usize::from(nth) % running.len().max(1)) {
        let states = [TaskState::Complete, TaskState::Failed, TaskState::Rejected];
        world.set_task(task, states[usize::from(state)]);
    }
}

/// What a loop plans on a view, as text and as a transaction.
fn plan_of(mut looped: impl ControlLoop, world: &World) -> String {
    let mut plan = Plan::new(world.view(), world.now).with_room_for(world.room);
    let mut ids = IdSource::new(Seed(9));
    looped.plan(&mut plan, &mut Context { now: world.now, ids: &mut ids });
    let text = plan.to_string();
    format!("{text}{:#?}", plan.into_parts().0.changes)
}

/// Laws 1, 3 and 5 for one loop that grew up in `world`.
fn check_loop<L: ControlLoop + Clone>(which: &str, grown: &L, world: &World) {
    let view = world.view();
    let restored = plan_of(L::restore(&view), world);
    assert_eq!(plan_of(L::restore(&view), world), restored, "{which}: same in, same out");
    assert_eq!(plan_of(grown.clone(), world), restored, "{which}: grown equals restored");
    let mut told_again = grown.clone();
    let events = latest(&view, &world.last_events);
    events.iter().chain(events.iter().rev()).for_each(|e| told_again.observe(e));
    assert_eq!(plan_of(told_again, world), restored, "{which}: deaf to repetition");
}

/// The events that still describe what is there.
fn latest(view: &View, events: &[Event]) -> Vec<Event> {
    let mut last = BTreeMap::new();
    events.iter().for_each(|e| {
        last.insert(e.key(), e.clone());
    });
    last.into_values().filter(|e| view.get(&e.key()).as_ref() == e.now()).collect()
}

fn check_loops(world: &World) {
    let Loops { enforcer, orchestrator, restart, update, allocator, scheduler, reaper } = &world.loops;
    check_loop::<Enforcer>("enforcer", enforcer, world);
    check_loop::<Orchestrator>("orchestrator", orchestrator, world);
    check_loop::<Restart>("restart", restart, world);
    check_loop::<Update>("update", update, world);
    check_loop::<Allocator>("allocator", allocator, world);
    check_loop::<Scheduler>("scheduler", scheduler, world);
    check_loop::<Reaper>("reaper", reaper, world);
}

/// Law 4: never more than the specs allow, after a pass that was not cut short.
fn check_bounds(world: &World) {
    let view = world.view();
    for service in view.services() {
        let tasks: Vec<_> = view.tasks_of_service(&service.id).collect();
        if let Mode::Replicated { replicas } = service.spec.mode {
            let mut slots: Vec<_> = tasks.iter().map(|t| t.slot).collect();
            slots.dedup();
            let active =
                slots.iter().filter(|&&s| Slot::read(&view, &service.id, numbered(s)).is_active()).count();
            assert_eq!(active as u64, replicas, "active slots of {}", service.id);
        }
    }
    for node in view.nodes() {
        let used = reserved(&view, &node.id);
        assert!(node.description.resources.covers(used), "{} has too little for {used:?}", node.id);
    }
}

fn reserved(view: &View, node: &NodeId) -> Resources {
    let held = view.tasks_on_node(node).filter(|t| t.status.state.consumes_resources());
    held.fold(Resources::default(), |sum, t| sum.plus(t.spec.resources.reservations))
}

/// Law 6: the scheduler without heap, cache or memory.
fn dumb_twin(view: &View, now: swarm_types::time::Timestamp) -> Vec<(String, String)> {
    use crate::scheduler::{GroupKey, filter, node_info::NodeInfo, room::needs_encryption, score::Score};
    let waits = |t: &&Arc<Task>| t.status.state == TaskState::Pending && t.is_wanted();
    let mut waiting: Vec<Arc<Task>> = view.tasks().filter(waits).cloned().collect();
    // First those that are bound to a node, by node; then group by group, slot by slot.
    waiting.sort_by_key(|t| (t.node.is_empty(), t.node, GroupKey::of(t), t.slot, t.id));
    waiting.sort_by_key(|t| if t.node.is_empty() { None } else { Some((t.node, t.id)) });
    waiting.sort_by_key(|t| t.node.is_empty());
    let mut infos: Vec<NodeInfo> = view.nodes().map(|n| NodeInfo::new(n.clone())).collect();
    for info in &mut infos {
        view.tasks_on_node(&info.id())
            .filter(|t| t.status.state != TaskState::Pending)
            .for_each(|t| info.add(t));
    }
    let mut placed = Vec::new();
    for task in waiting {
        let fits = |(_, info): &(usize, &NodeInfo)| {
            (task.node.is_empty() || task.node == info.id())
                && filter::check(&task.spec, needs_encryption(view, &task.spec), &task.service, info)
                    .is_none()
        };
        let score = |(i, info): (usize, &NodeInfo)| Score::of(info, i, &GroupKey::of(&task), now);
        if let Some(best) = infos.iter().enumerate().filter(fits).map(score).min() {
            let mut done = Task::clone(&task);
            done.status.state = TaskState::Assigned;
            infos[best.node].add(&done);
            placed.push((task.id.to_string(), infos[best.node].id().to_string()));
        }
    }
    placed.sort();
    placed
}

fn scheduler_of(world: &World) -> Vec<(String, String)> {
    let view = world.view();
    let mut plan = Plan::new(view.clone(), world.now);
    let mut ids = IdSource::new(Seed(9));
    Scheduler::restore(&view).plan(&mut plan, &mut Context { now: world.now, ids: &mut ids });
    let assigned = |t: &&Arc<Task>| {
        t.status.state == TaskState::Assigned && view.task(&t.id).unwrap().status.state == TaskState::Pending
    };
    let mut placed: Vec<_> =
        plan.tasks().filter(assigned).map(|t| (t.id.to_string(), t.node.to_string())).collect();
    placed.sort();
    placed
}

/// Takes all nodes from waiting or assigned tasks, so that the scheduler has work to do alone.
fn unplace(world: &mut World) {
    let tasks: Vec<_> =
        world.view().tasks().filter(|t| t.status.state == TaskState::Assigned).cloned().collect();
    world.change(|d| {
        for task in tasks {
            let mut again = Task::clone(&task);
            again.id = format!("again-{}", task.id.short()).into();
            again.status.state = TaskState::Pending;
            again.node = if again.slot == 0 { task.node } else { NodeId::default() };
            d.put_task(again);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loops_obey(ops in prop::collection::vec(op(), 1..60), room in prop_oneof![Just(20_000usize), 3usize..12]) {
        let mut world = world(&["n0", "n1"]);
        let mut history = History::default();
        world.room = room;
        for op in &ops {
            perform(&mut world, op);
            check_loops(&world);
            history.check(&world.view(), world.now);
            if matches!(op, Op::Pass) && room == 20_000 {
                check_bounds(&world);
            }
        }
        // Law 2: with time and agents it comes to rest, and then plans nothing.
        world.settle(Duration::from_secs(3 * 24 * 3600));
        check_loops(&world);
        check_bounds(&world);
        prop_assert!(!world.pass(), "not idle at rest: {}", world.last_plan);
        world.loops = Loops::restore(&world.view());
        prop_assert!(!world.pass(), "a new leader is not idle: {}", world.last_plan);
    }

    #[test]
    fn scheduler_agrees_with_its_dumb_twin(ops in prop::collection::vec(op(), 1..40)) {
        let mut world = world(&["n0", "n1", "n2"]);
        for op in &ops {
            perform(&mut world, op);
        }
        world.pass();
        unplace(&mut world);
        prop_assert_eq!(scheduler_of(&world), dumb_twin(&world.view(), world.now));
    }
}

/// Found by the law of bounds: the pass that replaces a task in the millisecond in which it was made.
#[test]
fn a_task_that_is_replaced_at_once_is_the_older_one() {
    let mut world = world(&["n0", "n1"]);
    for n in 0..20 {
        let once = service(&format!("once{n}")).replicas(1).with(|_, task| {
            task.restart.condition = RestartCondition::OnFailure;
        });
        world.service(once.build());
        world.pass();
        let view = world.view();
        let id = view.service_by_name(&format!("once{n}")).expect("made").id;
        let wanted = |view: &View| view.tasks_of_service(&id).find(|task| task.is_wanted()).cloned();
        let task = wanted(&view).expect("a task");
        let node_name = task.node.to_string();
        world.change(|d| drop(control::node::remove(d, &task.node, true)));
        world.pass();
        world.node(node(&node_name));
        let view = world.view();
        let newest = wanted(&view).expect("another");
        let slot = Slot::read(&view, &task.service, numbered(1));
        assert_eq!(slot.newest().map(|task| task.id), Some(newest.id), "made in one millisecond");
    }
}
