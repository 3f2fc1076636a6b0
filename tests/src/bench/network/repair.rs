//! Somebody flushes all rules of a host and of its networks: until all of them are there again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::spot::{Spot, at};
use super::stage::{PUBLISHED, Stage};
use crate::bench::Order;
use crate::bench::sample::Sample;
use crate::bench::table::{Row, Target, Unit};

const LIMIT: Duration = Duration::from_secs(60);
const HOST: &str = "w2";

pub(crate) async fn run(order: &Order, stage: &Stage) -> Result<Vec<Row>> {
    let mut spots = stage.inner(HOST)?;
    spots.push(stage.host(HOST));
    let wanted = spots.iter().map(rules).collect::<Result<Vec<_>>>()?;
    ensure!(wanted.iter().any(|rules| !rules.is_empty()), "there are rules that could be flushed");
    let mut took = Vec::new();
    for _ in 0..order.times(5, 3) {
        let began = Instant::now();
        for spot in &spots {
            spot.shell("nft flush ruleset")?;
        }
        for (spot, wanted) in spots.iter().zip(&wanted) {
            while rules(spot)? != *wanted {
                ensure!(began.elapsed() < LIMIT, "the rules of {spot:?} are not repaired");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        took.push(began.elapsed().as_secs_f64());
    }
    let published = at(stage.host_addr(HOST)?, PUBLISHED);
    stage.host("client").reach(published).await.context("call the port after the repair")?;
    let row = Row::new("nft flush ruleset -> repaired, the longest", Unit::Seconds, Sample::of(took));
    Ok(vec![row.p99().target(Target::AtMost(2.0))])
}

/// Rules of a namespace, as words in an order that does not depend on their making.
fn rules(spot: &Spot) -> Result<Vec<String>> {
    let text = spot.shell("nft -s list ruleset")?;
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.sort();
    Ok(words)
}
