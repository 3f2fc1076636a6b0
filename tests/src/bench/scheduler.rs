//! The scheduler alone: `manager/core/examples/schedule_bench.rs`, run once, its lines read.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Order;
use super::program;
use super::sample::Sample;
use super::table::{Row, Target, Unit};

/// The example's lines, and what is asked of them.
const LINES: &[(&str, &str, Option<f64>)] = &[
    ("100 000 tasks, plain", "scheduler", Some(200_000.0)),
    ("100 000 tasks, 3 constraints, resources", "scheduler", Some(100_000.0)),
    ("100 000 tasks, plain", "spec to store", None),
];

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let example = example(order)?;
    let mut texts = Vec::new();
    for _ in 0..order.times(3, 1) {
        texts.push(program::output(Command::new(&example).args(["100000", "5000"]))?);
    }
    let mut rows = Vec::new();
    for (line, word, target) in LINES {
        let rates: Vec<f64> = texts.iter().filter_map(|text| rate(text, line, word)).collect();
        if rates.is_empty() {
            anyhow::bail!("{} prints no `{word}` for `{line}`", example.display());
        }
        let name = match *word {
            "scheduler" => format!("scheduler, 5 000 nodes, {line}"),
            _ => format!("  spec to store: {line}"),
        };
        let row = Row::new(name, Unit::PerSecond, Sample::of(rates));
        rows.push(row.target(target.map_or(Target::None, Target::AtLeast)));
    }
    Ok(rows)
}

fn example(order: &Order) -> Result<PathBuf> {
    let file = order.programs.join("examples/schedule_bench");
    file.exists()
        .then_some(file)
        .with_context(|| "build it: `cargo build --release -p swarm-manager-core --example schedule_bench`")
}

/// Reads `LINE … WORD  123456/s …`.
fn rate(text: &str, line: &str, word: &str) -> Option<f64> {
    let rest = text
        .lines()
        .find_map(|l| l.strip_prefix(line).filter(|rest| rest.trim_start().starts_with("placed")))?;
    let figure = rest.split_once(&format!("{word} "))?.1.trim_start();
    figure.split_once("/s")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_examples_lines() {
        let text = "100 000 tasks, plain               placed   100000  scheduler   612345/s  with events   \
                    5/s  spec to store   78901/s\n";
        assert_eq!(rate(text, "100 000 tasks, plain", "scheduler"), Some(612_345.0));
        assert_eq!(rate(text, "100 000 tasks, plain", "spec to store"), Some(78_901.0));
        assert_eq!(rate(text, "100 000 tasks, pl", "scheduler"), None);
    }
}
