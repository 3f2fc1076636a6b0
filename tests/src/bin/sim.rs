//! `cargo xtask sim [SEED] [--seeds N]`: one seed with the end of its story, or N fresh ones.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use swarm_tests::sim::run::{Outcome, run};

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut seed = None;
    let mut seeds = 300;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => {
                seeds = words.next().context("--seeds needs a number")?.parse().context("--seeds")?
            }
            word => seed = Some(word.parse().with_context(|| format!("`{word}` is not a seed"))?),
        }
    }
    match seed {
        Some(seed) => Ok(one(seed)),
        None => Ok(many(seeds)),
    }
}

fn one(seed: u64) -> ExitCode {
    let outcome = run(seed, true);
    outcome.story.iter().for_each(|line| println!("{line}"));
    println!("{outcome}");
    if outcome.broken.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(seeds: u64) -> ExitCode {
    // Chance comes from outside here, and is printed: a failure names its seed.
    #[allow(clippy::disallowed_methods)]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let base = u64::try_from(now.as_millis()).unwrap_or_default() * 1000;
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let bad: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    let (resyncs, joined) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= seeds {
                        return;
                    }
                    let outcome = run(base + n, false);
                    resyncs.fetch_add(outcome.resyncs, Ordering::Relaxed);
                    joined.fetch_add(outcome.joined as u64, Ordering::Relaxed);
                    if outcome.broken.is_some() {
                        println!("{outcome}");
                        bad.lock().expect("no thread panics while it holds this").push(outcome);
                    }
                }
            });
        }
    });
    let bad = bad.into_inner().expect("no thread panics while it holds this").len();
    let took = began.elapsed();
    let (resyncs, joined) = (resyncs.into_inner(), joined.into_inner());
    println!("{resyncs} times an agent asked for its whole set anew, {joined} machines joined");
    println!("{seeds} seeds from {base}: {bad} broken, {:.1} seeds/s", seeds as f64 / took.as_secs_f64());
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
