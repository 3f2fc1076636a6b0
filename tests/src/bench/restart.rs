//! A container is killed -> its replacement runs, with a restart delay of 0.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Order;
use super::cluster::{Rig, sleepers};
use super::docker;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let ours = ours(order).await?;
    let peer = match order.peers {
        true => Peer::Now("docker", docker::restart(order).await?),
        false => Peer::Earlier("docker", 0.68),
    };
    let row = Row::new("container killed -> its replacement runs, delay 0", Unit::Seconds, ours);
    Ok(vec![row.peer(peer).target(Target::AtMost(0.1))])
}

async fn ours(order: &Order) -> Result<Sample> {
    let rig = Rig::up(order, 1).await?;
    let api = rig.api(&rig.leader().await?);
    let mut world = api.watch().await?;
    let mut spec = sleepers("restart", 4);
    if let Some(restart) = spec.task.as_mut().and_then(|task| task.restart.as_mut()) {
        restart.delay_ms = 0;
    }
    let service = api.create(spec).await.context("create")?;
    let all = |world: &super::api::World| world.running(&service).count() == 4;
    world.until("all running", LIMIT, all).await?;
    let mut took = Vec::new();
    for _ in 0..order.times(20, 5) {
        let task = world.running(&service).next().context("four run")?;
        let (id, slot) = (task.id.clone(), task.slot);
        let container = task.status.as_ref().and_then(|status| status.container.as_ref());
        let pid = container.map(|container| container.pid).context("a running task has a process")?;
        let began = Instant::now();
        kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL).context("kill the container")?;
        let replaced =
            |world: &super::api::World| world.running(&service).any(|t| t.slot == slot && t.id != id);
        let seen = world.until("a replacement", LIMIT, replaced).await?;
        took.push(seen.duration_since(began).as_secs_f64());
        world.until("all running", LIMIT, all).await?;
    }
    rig.clear(&api, &mut world, &service).await?;
    Ok(Sample::of(took))
}
