//! A thousand services of ten tasks on one network: what they add to a new connection to one of them, and
//! how long a change of one takes in the kernel.
//!
//! The shipped planner and kernel driver, in namespaces of the bench's own instead of a host's. One
//! service is real: its ten tasks are here, each with a server. The other 999, and their tasks on 19
//! other nodes, exist in what this node is told, and so in its rules and routes. The same namespaces
//! have one service and a thousand of them in turns.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::NetworkSet;
use swarm_worker_core::network::kernel::{Place, Plan};
use swarm_worker_core::network::planner::{LocalTask, Planner};
use swarm_worker_core::network::testing::{World, facts};
use swarm_worker_network::{Kernel, Settings};
use tempfile::TempDir;

use super::spot::{Kind, Spot, at};
use crate::bench::program::{self, Running};
use crate::bench::sample::Sample;
use crate::bench::table::{Peer, Row, Target, Unit};
use crate::bench::{Order, cpu, place};

const NAMESPACE: &str = "swarm-bench-scale";
const NETWORK: &str = "app";
const SERVICES: u32 = 1000;
const TASKS: u32 = 10;
const NODES: u32 = 20;
const PORT: u16 = 80;
const SINK: u16 = 90;
/// Virtual address of the first service.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let lab = Lab::open()?;
    let mut told = Told::of(SERVICES);
    let (one, many) = (Told::of(1).plan()?, told.plan()?);
    // the kernel drops what was learnt of a device that is new; so everything is made once before
    lab.apply(&many).await?;
    let servers = (0..TASKS).map(|n| lab.task(&task(0, n))?.serve(PORT, SINK)).collect::<Result<Vec<_>>>()?;
    let caller = lab.task("caller")?;
    lab.forget_soon()?;
    caller.reach(at(VIP, PORT)).await?;
    let pids: Vec<u32> = servers.iter().map(|server: &Running| server.0.id()).collect();
    let mut costs = [Vec::new(), Vec::new()];
    let lasts = Duration::from_millis(order.times(800, 500) as u64);
    for _ in 0..order.times(8, 4) {
        for (plan, costs) in [&one, &many].into_iter().zip(&mut costs) {
            lab.apply(plan).await?;
            caller.call(at(VIP, PORT), Kind::New, Duration::from_millis(100)).await?;
            let before = cpu::of_traffic(&pids)?;
            let calls = caller.call(at(VIP, PORT), Kind::New, lasts).await?;
            costs.push((cpu::of_traffic(&pids)? - before + calls.cpu) * 1e6 / calls.requests);
        }
    }
    let [with_one, with_many] = costs.map(Sample::of);
    let changes = changes(&lab, &mut told, order.times(200, 100)).await?;
    Ok(vec![
        Row::new("new connection with 1 000 services of 10 tasks: CPU", Unit::CpuMicroseconds, with_many)
            .peer(Peer::Now("with 1 service", with_one))
            .target(Target::RatioAtMost(1.05)),
        Row::new("one task less or more among 1 000 services: in the kernel", Unit::Milliseconds, changes)
            .target(Target::AtMost(2.0)),
    ])
}

/// Milliseconds in the kernel of changes of one task each.
async fn changes(lab: &Lab, told: &mut Told, count: usize) -> Result<Sample> {
    let mut took = Vec::new();
    lab.apply(&told.plan()?).await?;
    for n in 0..count {
        let (service, slot) = (u32::try_from(n)? * 7 % SERVICES, u32::try_from(n)? % TASKS);
        told.turn(&task(service, slot))?;
        took.push(lab.apply(&told.plan()?).await?.as_secs_f64() * 1000.0);
    }
    Ok(Sample::of(took))
}

/// Names of devices have the first letters of it, so that those tell.
fn task(service: u32, slot: u32) -> String {
    format!("{service:05}x{slot:03}")
}

/// What the node is told, and what of it is here.
struct Told {
    planner: Planner,
    set: NetworkSet,
    local: BTreeMap<TaskId, Arc<LocalTask>>,
}

impl Told {
    fn of(services: u32) -> Told {
        let nodes: Vec<String> = (1..=NODES).map(|n| format!("192.168.7.{n}")).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let mut world = World::new(&nodes, &["10.255.0.0/16"]);
        world.network(NETWORK, 4097, &["10.64.0.0/12"], |_| {});
        world.service("caller", NETWORK, &[], |_| {});
        world.task("caller", "caller", 1, &[(NETWORK, "10.67.255.250")]);
        for service in 0..services {
            let name = format!("service{service:05}");
            let vip = Ipv4Addr::from(u32::from(VIP) + service).to_string();
            world.service(&name, NETWORK, &[&vip], |_| {});
            for slot in 0..TASKS {
                let addr =
                    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 66, 0, 0)) + service * TASKS + slot + 2000);
                let node = if service == 0 { 1 } else { 2 + (service + slot) % (NODES - 1) };
                let node = u16::try_from(node).expect("few nodes");
                world.task(&task(service, slot), &name, node, &[(NETWORK, &addr.to_string())]);
            }
        }
        Told { planner: Planner::new(), set: world.set(1), local: world.local(1) }
    }

    fn plan(&mut self) -> Result<Plan> {
        let planned = self.planner.plan(&self.set, &self.local, &facts());
        Ok(planned.context("plan the network")?.plan)
    }

    /// A task that serves does not from now on, or the other way round.
    fn turn(&mut self, task: &str) -> Result<()> {
        let entry = self.set.networks.get_mut(&NetworkId::new(NETWORK)).context("the network")?;
        let endpoint = entry.endpoints.get_mut(&TaskId::new(task)).context("the task")?;
        let endpoint = Arc::make_mut(endpoint);
        endpoint.serving = !endpoint.serving;
        Ok(())
    }
}

/// A namespace that plays a host, and the kernel driver in it.
struct Lab {
    kernel: Kernel,
    folder: TempDir,
}

impl Lab {
    fn open() -> Result<Lab> {
        remove();
        let ip = |words: &str| program::run(Command::new("ip").args(words.split(' ')));
        let folder = place::directory()?;
        let host = Some(PathBuf::from(format!("/run/netns/{NAMESPACE}")));
        ip(&format!("netns add {NAMESPACE}"))?;
        let settings = Settings { host, ..Settings::new(folder.path()) };
        let lab = Lab { kernel: Kernel::open(settings).context("drive the kernel")?, folder };
        ip(&format!("-n {NAMESPACE} link set lo up"))?;
        // the other nodes: nobody is there, and nothing is sent to them
        ip(&format!("-n {NAMESPACE} link add eth0 type veth peer name others"))?;
        ip(&format!("-n {NAMESPACE} addr add 192.168.7.1/24 dev eth0"))?;
        ip(&format!("-n {NAMESPACE} link set eth0 up"))?;
        Ok(lab)
    }

    /// Makes it so; how long that took in the kernel.
    async fn apply(&self, plan: &Plan) -> Result<Duration> {
        let applied = self.kernel.apply(plan.clone()).await.context("apply a plan")?;
        ensure!(applied.problems.is_empty(), "apply a plan: {:?}", applied.problems);
        Ok(applied.in_kernel)
    }

    fn task(&self, name: &str) -> Result<Spot> {
        let path = self.kernel.path(Place::Task(TaskId::new(name))).context("a namespace")?;
        Ok(Spot::file(&path))
    }

    fn forget_soon(&self) -> Result<()> {
        let entries = std::fs::read_dir(self.folder.path()).context("list the namespaces")?;
        entries.flatten().try_for_each(|entry| Spot::file(&entry.path()).forget_soon())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let unmounted = program::run(Command::new("umount").arg("-l").arg(entry.path()));
            unmounted.unwrap_or_else(|error| eprintln!("remove a namespace: {error}"));
        }
        remove();
    }
}

fn remove() {
    if PathBuf::from("/run/netns").join(NAMESPACE).exists() {
        let removed = program::run(Command::new("ip").args(["netns", "del", NAMESPACE]));
        removed.unwrap_or_else(|error| eprintln!("remove the namespace {NAMESPACE}: {error}"));
    }
}
