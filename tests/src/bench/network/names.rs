//! Names: `worker/dns/examples/dns_bench.rs`, run once, its figures read.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bench::sample::Sample;
use crate::bench::table::{Row, Target, Unit};
use crate::bench::{Order, program};

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let example = order.programs.join("examples/dns_bench");
    if !example.exists() {
        bail!(
            "{} is missing: `cargo xtask bench` builds it (`cargo build --release -p swarm-worker-dns \
             --features testing --example dns_bench`)",
            example.display()
        );
    }
    let text = program::output(Command::new(&example).arg(order.times(5, 3).to_string()))?;
    let figures: Value = serde_json::from_str(&text).context("read what dns_bench says")?;
    let figure = |name: &str| figures[name].as_f64().with_context(|| format!("no {name} in {figures}"));
    Ok(vec![
        Row::new(
            "names: answers for each second of a core",
            Unit::PerSecond,
            sample(figure("answers_per_core_second")?),
        )
        .target(Target::AtLeast(20_000.0)),
        Row::new("  time to answer at 20 000/s, p99", Unit::Milliseconds, sample(figure("p99_us")? / 1000.0))
            .target(Target::AtMost(1.0)),
    ])
}

fn sample(value: f64) -> Sample {
    Sample::one(value)
}
