//! How many placements the scheduler decides in a second, on one core.
//!
//! `cargo run --release -p swarm-manager-core --example schedule_bench [TASKS] [NODES]`
//!
//! Three measures: the choice alone; the scheduler's part of a plan (the choice, and writing it into
//! the plan); the whole way from a service to assigned tasks in the store. All in CPU time.

#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::context::Context;
use swarm_manager_core::control_loop::{ControlLoop, Wake};
use swarm_manager_core::orchestrator::Orchestrator;
use swarm_manager_core::plan::Plan;
use swarm_manager_core::reason::Reason;
use swarm_manager_core::scheduler::choose::choose;
use swarm_manager_core::scheduler::node_info::NodeTable;
use swarm_manager_core::scheduler::{GroupKey, Scheduler};
use swarm_manager_core::store::{Draft, Event, Store, Transaction};
use swarm_types::id::{IdSource, Seed};
use swarm_types::node::{Node, NodeState};
use swarm_types::placement::{Constraint, Platform};
use swarm_types::resources::{NANO_CPU, Resources};
use swarm_types::service::{Mode, Service, ServiceSpec};
use swarm_types::task::{Task, TaskSpec};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn node(n: u64) -> Node {
    let mut node = Node { id: format!("node{n:06}").into(), ..Node::default() };
    node.description.hostname = format!("host{n}");
    node.description.platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
    node.description.resources = Resources { nano_cpus: 64 * NANO_CPU, memory_bytes: 256 << 30 };
    node.status.state = NodeState::Ready;
    let labels = &mut node.spec.annotations.labels;
    labels.insert("zone".into(), ["a", "b", "c"][usize::try_from(n % 3).unwrap_or(0)].into());
    labels.insert("disk".into(), if n.is_multiple_of(2) { "ssd" } else { "hdd" }.into());
    node
}

fn service(replicas: u64, constrained: bool) -> Service {
    let mut task = TaskSpec::default();
    task.container.image = "image:1".into();
    if constrained {
        let texts = ["node.labels.zone!=c", "node.labels.disk==ssd", "node.role==worker"];
        task.placement.constraints = texts.iter().filter_map(|t| Constraint::parse(t).ok()).collect();
        task.resources.reservations = Resources { nano_cpus: NANO_CPU / 1000, memory_bytes: 1 << 20 };
    }
    let mut spec = ServiceSpec { task: Arc::new(task), ..ServiceSpec::default() };
    spec.annotations.name = "web".into();
    spec.mode = Mode::Replicated { replicas };
    Service { id: "service".into(), spec, spec_version: 1, ..Service::default() }
}

/// Applies while a reader holds the view of before, as the API's readers do.
fn commit(store: &mut Store, transaction: Transaction) -> Vec<Event> {
    let published = store.view();
    let version = published.version() + 1;
    store.apply_owned(version, transaction).expect("the bench's transactions apply")
}

#[derive(Default)]
struct Measured {
    decided: usize,
    choosing: Duration,
    observing: Duration,
    applying: Duration,
    whole: Duration,
    longest_plan: Duration,
}

fn run(name: &str, nodes: u64, replicas: u64, constrained: bool) {
    let mut store = Store::default();
    let mut draft = Draft::new(store.view(), NOW);
    for n in 0..nodes {
        draft.put_node(node(n));
    }
    draft.put_service(service(replicas, constrained));
    commit(&mut store, draft.into_transaction());
    let measured = place_all(&mut store);
    report(name, &measured, &store);
}

/// Passes of orchestrator and scheduler until nothing is left to do.
fn place_all(store: &mut Store) -> Measured {
    let mut ids = IdSource::new(Seed(1));
    let mut orchestrator = Orchestrator::restore(&store.view());
    let mut scheduler = Scheduler::restore(&store.view());
    let mut m = Measured::default();
    let start = Instant::now();
    loop {
        let pass = Instant::now();
        let mut plan = Plan::new(store.view(), NOW);
        let mut ctx = Context { now: NOW, ids: &mut ids };
        let mut wake = orchestrator.plan(&mut plan, &mut ctx);
        allocate(&mut plan);
        let (observed, _) = timed(|| plan.fresh().iter().for_each(|e| scheduler.observe(e)));
        let before = plan.reasons().len();
        let (chosen, woken) = timed(|| scheduler.plan(&mut plan, &mut ctx));
        wake = wake.min(woken);
        m.decided += plan.reasons().len() - before;
        m.choosing += chosen;
        m.longest_plan = m.longest_plan.max(pass.elapsed());
        let (transaction, _) = plan.into_parts();
        let (applied, events) = timed(|| commit(store, transaction));
        m.applying += applied;
        let (again, _) = timed(|| {
            for event in &events {
                orchestrator.observe(event);
                scheduler.observe(event);
            }
        });
        m.observing += observed + again;
        if wake == Wake::Never {
            break;
        }
    }
    m.whole = start.elapsed();
    m
}

/// CPU time of this thread: the machine may be busy with other things.
struct Instant(Duration);

impl Instant {
    fn now() -> Instant {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        Instant(Duration::from_nanos(ns))
    }
    fn elapsed(&self) -> Duration {
        Instant::now().0.saturating_sub(self.0)
    }
}

/// Only the choice: 20 000 at a time, as in a plan, over nodes that fill up.
fn choose_only(name: &str, nodes: u64, tasks: usize, constrained: bool) {
    let mut table = NodeTable::default();
    (0..nodes).for_each(|n| table.put_node(&Arc::new(node(n))));
    let service = service(0, constrained);
    let group = GroupKey { service: service.id, spec_version: 1 };
    let (mut left, mut chosen) = (tasks, 0);
    let (time, ()) = timed(|| {
        while left > 0 {
            let batch = left.min(20_000);
            chosen += choose(&mut table, &service.spec.task, false, &group, batch, NOW).len();
            left -= batch;
        }
    });
    let rate = u128::try_from(chosen).unwrap_or(0) * 1_000_000 / time.as_micros().max(1);
    println!("{name:<40} decided {chosen:>8}  {rate:>8}/s  {:>6} ms", time.as_millis());
}

fn timed<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let out = f();
    (start.elapsed(), out)
}

/// What the allocator does: NEW -> PENDING.
fn allocate(plan: &mut Plan) {
    let new: Vec<Arc<Task>> = plan
        .fresh()
        .iter()
        .filter_map(|e| match e {
            Event::Created(swarm_manager_core::store::Object::Task(t)) => Some(t.clone()),
            _ => None,
        })
        .collect();
    for task in new {
        let mut task = Arc::unwrap_or_clone(task);
        task.status.state = TaskState::Pending;
        plan.put_task(task, Reason::Allocated);
    }
}

fn report(name: &str, m: &Measured, store: &Store) {
    let rate = |d: Duration| u128::try_from(m.decided).unwrap_or(0) * 1_000_000 / d.as_micros().max(1);
    let view = store.view();
    let placed = view.tasks().filter(|t| t.status.state == TaskState::Assigned).count();
    println!(
        "{name:<34} placed {placed:>8}  scheduler {:>8}/s  with events {:>8}/s  spec to store {:>7}/s  \
         choose {:>6} ms  apply {:>6} ms  longest pass {:>5} ms  total {:>6} ms  rss {} MiB",
        rate(m.choosing),
        rate(m.choosing + m.observing),
        rate(m.whole),
        m.choosing.as_millis(),
        m.applying.as_millis(),
        m.longest_plan.as_millis(),
        m.whole.as_millis(),
        rss_mib(),
    );
}

/// Resident memory of this process, from the kernel.
fn rss_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0);
    (pages * 4096) >> 20
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let tasks = args.next().unwrap_or(1_000_000);
    let nodes = args.next().unwrap_or(5_000);
    choose_only("choice alone, plain", nodes, 500_000, false);
    choose_only("choice alone, 3 constraints, resources", nodes, 500_000, true);
    run("100 000 tasks, plain", nodes, 100_000, false);
    run("100 000 tasks, 3 constraints, resources", nodes, 100_000, true);
    run(&format!("{tasks} tasks, plain"), nodes, tasks, false);
}
