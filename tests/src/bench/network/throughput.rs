//! Bytes of one connection from a task on one host to a task on another, against those between the hosts
//! themselves (a pair of devices and a bridge, without any network of ours).

use std::time::Duration;

use anyhow::{Context, Result};

use super::spot::at;
use super::stage::{HOST_SINK, SINK, Stage};
use crate::bench::Order;
use crate::bench::sample::Sample;
use crate::bench::table::{Peer, Row, Target, Unit};

pub(crate) async fn run(order: &Order, stage: &Stage) -> Result<Vec<Row>> {
    let ways = [
        ("raw", stage.host("w1"), at(stage.host_addr("w2")?, HOST_SINK)),
        ("clear", stage.task("far")?, at(stage.addr("web", "app")?, SINK)),
        ("encrypted", stage.task("far")?, at(stage.addr("web", "secret")?, SINK)),
    ];
    let lasts = Duration::from_millis(order.times(1500, 800) as u64);
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for (name, from, to) in &ways {
        from.pour(*to, Duration::from_millis(50)).await.with_context(|| format!("the first, {name}"))?;
    }
    for _ in 0..order.times(5, 3) {
        for ((name, from, to), rates) in ways.iter().zip(&mut rates) {
            rates.push(from.pour(*to, lasts).await.with_context(|| (*name).to_owned())?);
        }
    }
    let [raw, clear, encrypted] = rates.map(Sample::of);
    let row =
        |name, ours| Row::new(name, Unit::GigabitsPerSecond, ours).peer(Peer::Now("raw veth", raw.clone()));
    Ok(vec![
        row("overlay, 1 TCP connection", clear).target(Target::RatioAtLeast(0.75)),
        row("  encrypted, in user space", encrypted),
    ])
}
