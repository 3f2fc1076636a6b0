//! Create -> all RUNNING: 100 replicas of an image that is present, on four hosts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Order;
use super::cluster::{Rig, sleepers};
use super::docker;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};

const REPLICAS: u64 = 100;
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let (wall, cpu) = ours(order).await?;
    let peer = if order.peers { Some(docker::deploy(order, REPLICAS).await?) } else { None };
    let (peer_wall, peer_cpu) = match peer {
        Some((wall, cpu)) => (Peer::Now("docker", wall), Peer::Now("docker", cpu)),
        None => (Peer::Earlier("docker", 14.4), Peer::Earlier("docker", 0.27)),
    };
    Ok(vec![
        Row::new("create -> all running, 100 replicas, 4 hosts", Unit::Seconds, wall)
            .peer(peer_wall)
            .target(Target::RatioAtMost(0.2)),
        Row::new("  the same, CPU per container", Unit::CpuSeconds, cpu)
            .peer(peer_cpu)
            .target(Target::RatioAtMost(1.0 / 6.0)),
    ])
}

/// Wall seconds, and CPU seconds per container.
async fn ours(order: &Order) -> Result<(Sample, Sample)> {
    let rig = Rig::up(order, 1).await?;
    let api = rig.api(&rig.leader().await?);
    let mut world = api.watch().await?;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for round in 0..order.times(5, 2) {
        // each host has an idle process, which sleeps as well
        let idle = sleeping(&rig);
        let (before, began) = (rig.cpu()?, Instant::now());
        let service = api.create(sleepers(&format!("deploy{round}"), REPLICAS)).await.context("create")?;
        let all = |world: &super::api::World| world.running(&service).count() as u64 == REPLICAS;
        let seen = world.until("all running", LIMIT, all).await?;
        wall.push(seen.duration_since(began).as_secs_f64());
        cpu.push((rig.cpu()? - before) / REPLICAS as f64);
        let real = sleeping(&rig) - idle;
        ensure!(real as u64 == REPLICAS, "{REPLICAS} are said to run, {real} do");
        rig.clear(&api, &mut world, &service).await?;
    }
    Ok((Sample::of(wall), Sample::of(cpu)))
}

fn sleeping(rig: &Rig) -> usize {
    rig.processes().iter().filter(|pid| super::cpu::program(**pid) == "sleep").count()
}
