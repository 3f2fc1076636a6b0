//! A host loses its power -> the cluster knows it is down -> its tasks run elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use swarm_proto::v1;

use super::Order;
use super::api::World;
use super::cluster::{Rig, sleepers};
use super::docker;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};

const TASKS: u64 = 12;
const LIMIT: Duration = Duration::from_secs(60);
const VICTIM: &str = "w1";

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let (down, replaced) = ours(order).await?;
    let (peer_down, peer_replaced) = match order.peers && !order.quick {
        true => {
            let (down, replaced) = docker::loss(TASKS).await?;
            (Peer::Now("docker", down), Peer::Now("docker", replaced))
        }
        false => (Peer::Earlier("docker", 12.7), Peer::Earlier("docker", 18.2)),
    };
    Ok(vec![
        Row::new("worker killed -> Down", Unit::Seconds, down).peer(peer_down).target(Target::AtMost(5.0)),
        Row::new("worker killed -> its tasks run elsewhere", Unit::Seconds, replaced)
            .peer(peer_replaced)
            .target(Target::AtMost(6.0)),
    ])
}

async fn ours(order: &Order) -> Result<(Sample, Sample)> {
    let rig = Rig::up(order, 1).await?;
    let api = rig.api(&rig.leader().await?);
    let mut world = api.watch().await?;
    let (mut downs, mut replacements) = (Vec::new(), Vec::new());
    for round in 0..order.times(5, 1) {
        let service = api.create(sleepers(&format!("loss{round}"), TASKS)).await.context("create")?;
        let running = |world: &World| world.running(&service).count() as u64 == TASKS;
        world.until("all running", LIMIT, running).await?;
        let began = Instant::now();
        rig.cluster.kill(VICTIM).context("kill a host")?;
        let seen = world.until("the host is down", LIMIT, |world| is_down(world)).await?;
        downs.push(seen.duration_since(began).as_secs_f64());
        let elsewhere = |world: &World| {
            let dead = victim(world).map(|node| node.id.clone()).unwrap_or_default();
            world.running(&service).filter(|task| task.node_id != dead).count() as u64 == TASKS
        };
        let seen = world.until("replacements run", LIMIT, elsewhere).await?;
        replacements.push(seen.duration_since(began).as_secs_f64());
        rig.revive(VICTIM).await?;
        world.until("the host is back", LIMIT, |world| !is_down(world)).await?;
        rig.clear(&api, &mut world, &service).await?;
    }
    Ok((Sample::of(downs), Sample::of(replacements)))
}

fn victim(world: &World) -> Option<&v1::Node> {
    let name = |node: &&v1::Node| node.description.as_ref().is_some_and(|d| d.hostname == VICTIM);
    world.nodes.values().find(name)
}

fn is_down(world: &World) -> bool {
    let status = victim(world).and_then(|node| node.status.as_ref());
    status.is_some_and(|status| status.state() == v1::node_status::State::Down)
}
