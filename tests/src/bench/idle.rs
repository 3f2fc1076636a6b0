//! What a cluster costs that does nothing: memory and CPU of the daemon as a leader, a manager and a
//! worker, and memory of a container's supervisor.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Order;
use super::cluster::{Rig, sleepers};
use super::cpu;
use super::docker;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let rig = Rig::up(order, 1).await?;
    let leader = rig.leader().await?;
    let api = rig.api(&leader);
    let follower = rig.managers().into_iter().find(|host| *host != leader).context("three managers")?;
    let hosts = [("leader", leader), ("manager", follower), ("worker", "w1".to_owned())];
    // what start-up costs is not what idling costs
    tokio::time::sleep(Duration::from_secs(3)).await;
    let span = Duration::from_secs(order.times(30, 10) as u64);
    let mut before = Vec::new();
    for (_, host) in &hosts {
        let pid = rig.cluster.daemon_pid(host).with_context(|| format!("{host} runs"))?;
        before.push((pid, cpu::of_process(pid)?, Instant::now()));
    }
    tokio::time::sleep(span).await;
    let docker = if order.peers { Some(docker::idle(span).await?) } else { None };
    let mut rows = Vec::new();
    for ((role, _), (pid, used, since)) in hosts.iter().zip(before) {
        let elapsed = since.elapsed();
        let percent = (cpu::of_process(pid)? - used) / elapsed.as_secs_f64() * 100.0;
        rows.push(memory_row(role, pid, docker.as_ref().map(|idle| idle.memory_mib))?);
        let peer = match &docker {
            Some(idle) => Peer::Now("dockerd + containerd", Sample::one(idle.percent)),
            None => Peer::Earlier("dockerd + containerd", 0.85),
        };
        rows.push(
            Row::new(format!("  its CPU, over {} s", elapsed.as_secs()), Unit::Percent, Sample::one(percent))
                .peer(peer)
                .target(Target::AtMost(1.0)),
        );
    }
    let mut world = api.watch().await?;
    let service = api.create(sleepers("idle", 20)).await.context("create")?;
    let all = |world: &super::api::World| world.running(&service).count() == 20;
    world.until("all running", Duration::from_secs(60), all).await?;
    let shims: Vec<i32> =
        rig.processes().into_iter().filter(|pid| cpu::program(*pid) == "swarmd-shim").collect();
    let sizes = shims.iter().map(|pid| cpu::memory(*pid, "Pss")).collect::<Result<Vec<_>>>()?;
    let row = Row::new("memory (PSS) of a container's supervisor", Unit::MiB, Sample::of(sizes));
    rows.push(row.peer(Peer::Earlier("containerd-shim", 2.6)).target(Target::AtMost(1.0)));
    rig.clear(&api, &mut world, &service).await?;
    Ok(rows)
}

fn memory_row(role: &str, pid: i32, docker: Option<f64>) -> Result<Row> {
    let peer = match docker {
        Some(mib) => Peer::Now("dockerd + containerd", Sample::one(mib)),
        None => Peer::Earlier("dockerd + containerd", 122.0),
    };
    let rss = cpu::memory(pid, "Rss")?;
    let row = Row::new(format!("idle {role}: memory (RSS)"), Unit::MiB, Sample::one(rss));
    Ok(row.peer(peer).target(Target::AtMost(40.0)))
}
