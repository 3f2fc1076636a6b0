//! Services (of no task) that are created in a second through the API, one after another and by eight
//! clients at once.

use std::time::Instant;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::Order;
use super::api::Api;
use super::cluster::{Rig, sleepers};
use super::docker;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let (one, eight) = ours(order).await?;
    let (peer_one, peer_eight) = match order.peers {
        true => {
            let (one, eight) = docker::rate(order).await?;
            (Peer::Now("docker", one), Peer::Now("docker", eight))
        }
        false => (Peer::Earlier("docker", 209.0), Peer::Earlier("docker", 250.0)),
    };
    Ok(vec![
        Row::new("services created, 1 client", Unit::PerSecond, one)
            .peer(peer_one)
            .target(Target::RatioAtLeast(10.0)),
        Row::new("services created, 8 clients", Unit::PerSecond, eight)
            .peer(peer_eight)
            .target(Target::RatioAtLeast(10.0)),
    ])
}

async fn ours(order: &Order) -> Result<(Sample, Sample)> {
    let rig = Rig::up(order, 1).await?;
    let socket = rig.cluster.socket(&rig.leader().await?);
    let (mut one, mut eight) = (Vec::new(), Vec::new());
    for _ in 0..order.times(3, 1) {
        one.push(created(&socket, 1, order.times(1000, 400)).await?);
        eight.push(created(&socket, 8, order.times(4000, 1600)).await?);
    }
    Ok((Sample::of(one), Sample::of(eight)))
}

/// Each client has a connection of its own.
async fn created(socket: &std::path::Path, clients: usize, count: usize) -> Result<f64> {
    let apis: Vec<Api> = (0..clients).map(|_| Api::at(socket)).collect();
    for api in &apis {
        api.nodes().await.context("connect")?;
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (client, api) in apis.iter().cloned().enumerate() {
        tasks.spawn(async move {
            for n in 0..count / clients {
                api.create(sleepers(&format!("rate-{client}-{n}"), 0)).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client")?.context("create")?;
    }
    let rate = (count / clients * clients) as f64 / began.elapsed().as_secs_f64();
    for (client, api) in apis.iter().cloned().enumerate() {
        tasks.spawn(async move {
            for n in 0..count / clients {
                api.remove(&format!("rate-{client}-{n}")).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client")?.context("remove")?;
    }
    Ok(rate)
}
