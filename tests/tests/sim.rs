//! The simulator on many seeds, and that it can be trusted to replay them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use swarm_tests::sim::run::run;

/// Seeds of one test run. `SIM_SEEDS` asks for another number.
const SEEDS: u64 = 300;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `SIM_BASE` asks for other seeds; the failing ones are printed with all that is needed to replay them.
#[test]
fn nothing_breaks_on_any_seed() {
    let (base, seeds) = (number("SIM_BASE", 1_000_000), number("SIM_SEEDS", SEEDS));
    let next = AtomicU64::new(0);
    let broken = Mutex::new(Vec::new());
    // What no run must reach, but all of them together: else the faults do not get to where they belong.
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
                        broken.lock().unwrap().push(outcome.to_string());
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{} of {seeds} seeds:\n{}", broken.len(), broken.join("\n"));
    if seeds >= SEEDS {
        assert!(resyncs.into_inner() > seeds / 10, "no agent missed a message and asked for all of them");
        assert!(joined.into_inner() > seeds / 10, "no machine joined");
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [7, 8] {
        let (one, two) = (run(seed, false), run(seed, true));
        assert_eq!((one.hash, one.steps), (two.hash, two.steps), "telling it changes nothing either");
        assert!(one.steps > 1000 && one.done > 0, "something happened: {one}");
    }
    assert_ne!(run(7, false).hash, run(8, false).hash);
}
