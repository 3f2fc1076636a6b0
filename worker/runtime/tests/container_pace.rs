//! How long it takes to make containers. Prints figures and judges none:
//! `SWARM_TEST_SHIM=target/release/swarmd-shim cargo test -p swarm-worker-runtime --test container_pace -- --nocapture`.

#![allow(clippy::print_stdout, reason = "prints figures for people")]

mod support;

use std::time::{Duration, Instant};

use support::{Place, within};
use swarm_worker_runtime::container::ContainerConfig;
use swarm_worker_runtime::container::config::Limits;

const RUNS: usize = 30;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("few");
    println!(
        "{what:<24} mean {mean:>10.2?}  p50 {:>10.2?}  max {:>10.2?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

#[tokio::test]
async fn pace() {
    let place = Place::new();
    let limits = Limits { nano_cpus: 500_000_000, memory_bytes: 64 << 20, pids: 100 };
    let (mut start, mut kill, mut remove) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..RUNS {
        let (id, config) = (format!("c{n}"), ContainerConfig { limits, ..place.config(&["sleep", "1000"]) });
        let begun = Instant::now();
        place.begin(&id, config).await.expect("start");
        start.push(begun.elapsed());
    }
    let memory = memory_of(&support::processes_naming(&place.dir.path().display().to_string()));
    for n in 0..RUNS {
        let id = format!("c{n}");
        let begun = Instant::now();
        within(place.containers.kill(&id)).await.expect("kill");
        kill.push(begun.elapsed());
        place.containers.remove(&id).await.expect("remove");
        remove.push(begun.elapsed());
    }
    report("create + start", start);
    report("kill + wait", kill);
    report("kill + wait + remove", remove);
    println!("supervisor PSS KiB       {memory:?}");
    place.assert_clean();
}

/// Proportional set size of each process in KiB, least and most.
fn memory_of(pids: &[i32]) -> (u64, u64) {
    let pss = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default()
    };
    let all: Vec<u64> = pids.iter().map(pss).collect();
    (all.iter().copied().min().unwrap_or_default(), all.iter().copied().max().unwrap_or_default())
}
