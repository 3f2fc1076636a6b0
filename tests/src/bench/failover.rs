//! The leader loses its power, or is stopped in order: for how long is no write accepted?
//!
//! Two clients, each at one of the other managers, write all the time. What counts is the longest time
//! around the event between two accepted writes of either: it holds the time from the kill to the next
//! accepted write, and a little more.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;

use super::Order;
use super::api::Api;
use super::cluster::{Rig, sleepers};
use super::etcd;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};

/// A client gives up on a call and asks again after this.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);
/// Writes go on for so long after they are accepted again: a second gap would be seen.
const AFTER: Duration = Duration::from_millis(1500);
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let rig = Rig::up(order, 1).await?;
    let (mut lost, mut handed) = (Vec::new(), Vec::new());
    for round in 0..order.times(20, 5) {
        let leader = rig.leader().await?;
        let gap = gap(&rig, &leader, round, || rig.cluster.kill(&leader).context("kill the leader")).await?;
        lost.push(gap.as_secs_f64());
        rig.revive(&leader).await?;
    }
    for round in 0..order.times(10, 3) {
        let leader = rig.leader().await?;
        let pid = rig.cluster.daemon_pid(&leader).context("the leader runs")?;
        let stop = || kill(Pid::from_raw(pid), Signal::SIGTERM).context("stop the leader");
        let gap = gap(&rig, &leader, 1000 + round, stop).await?;
        handed.push(gap.as_secs_f64() * 1000.0);
        await_end(pid).await?;
        rig.revive(&leader).await?;
    }
    drop(rig);
    let lost = Sample::of(lost);
    let peer = match order.peers {
        true => Peer::Now("etcd", etcd::failover(order.times(3, 1)).await?),
        false => Peer::Earlier("etcd", 1.74),
    };
    Ok(vec![
        Row::new("leader killed -> next write accepted, p50", Unit::Seconds, lost.clone()).peer(peer),
        Row::new("leader killed -> next write accepted, p99", Unit::Seconds, lost)
            .p99()
            .peer(Peer::Earlier("docker", 10.7))
            .target(Target::AtMost(1.5)),
        Row::new("leader stopped -> next write accepted", Unit::Milliseconds, Sample::of(handed))
            .target(Target::AtMost(200.0)),
    ])
}

async fn gap(rig: &Rig, leader: &str, round: usize, act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let others = rig.managers().into_iter().filter(|host| host != leader);
    let apis: Vec<Api> = others.map(|host| rig.api(&host)).collect();
    let accepted: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let mut writers = JoinSet::new();
    for (n, api) in apis.iter().cloned().enumerate() {
        writers.spawn(write(api, format!("f{round}w{n}"), Arc::clone(&accepted)));
    }
    let count = || accepted.lock().expect("no writer panics").len();
    await_so("writes before the event", || count() >= 20).await?;
    let began = Instant::now();
    // for as long as this takes, the clients go on writing on the other threads
    tokio::task::block_in_place(act)?;
    let resumed = || {
        let accepted = accepted.lock().expect("no writer panics");
        accepted.last().is_some_and(|last| last.duration_since(began) > AFTER)
    };
    await_so("writes after the event", resumed).await?;
    writers.shutdown().await;
    let accepted = accepted.lock().expect("no writer panics").clone();
    let longest = accepted.windows(2).filter(|pair| pair[1] > began).map(|pair| pair[1] - pair[0]).max();
    Ok(longest.unwrap_or_default())
}

/// Writes, each time something new; what it wrote before the last one is removed again.
async fn write(api: Api, name: String, accepted: Arc<Mutex<Vec<Instant>>>) {
    let mut n = 0_u64;
    loop {
        n += 1;
        let spec = sleepers(&format!("{name}n{n}"), 0);
        match tokio::time::timeout(PATIENCE, api.create(spec)).await {
            Ok(Ok(id)) => {
                accepted.lock().expect("no writer panics").push(Instant::now());
                tokio::time::sleep(PAUSE).await;
                // one that is not removed harms nobody
                tokio::time::timeout(PATIENCE, api.remove(&id)).await.ok();
            }
            Ok(Err(_)) => tokio::time::sleep(PAUSE).await,
            Err(_) => {}
        }
    }
}

async fn await_so(what: &str, so: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !so() {
        if Instant::now() >= end {
            bail!("wait for {what}: not in {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn await_end(pid: i32) -> Result<()> {
    await_so("the daemon to end", || kill(Pid::from_raw(pid), None).is_err()).await
}
