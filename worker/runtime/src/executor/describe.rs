//! What this machine is and has.

use swarm_types::node::NodeDescription;
use swarm_types::placement::Platform;
use swarm_types::resources::{NANO_CPU, Resources};

use super::Settings;
use crate::cgroup::Controllers;

/// Describes the machine.
pub(super) fn describe(settings: &Settings, controllers: &Controllers) -> NodeDescription {
    let missing = ["cpu", "memory", "pids"].into_iter().filter(|c| !controllers.has(c));
    NodeDescription {
        hostname: settings.hostname.clone(),
        platform: Platform { os: "linux".into(), architecture: std::env::consts::ARCH.into() },
        resources: Resources { nano_cpus: cpus() * NANO_CPU, memory_bytes: memory() },
        engine_version: settings.version.clone(),
        engine_labels: settings.engine_labels.clone(),
        missing_controllers: missing.map(str::to_owned).collect(),
        ..NodeDescription::default()
    }
}

fn cpus() -> u64 {
    let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(n).unwrap_or(1)
}

/// Bytes of memory, as `/proc/meminfo` says.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
