//! The machine that it is measured on, and how busy it is.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::time::Instant;

use super::place;
use super::sample::Sample;

/// Facts that the figures depend on.
pub(crate) struct Machine {
    lines: Vec<String>,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        let os = read("/etc/os-release");
        let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("?");
        let lines = vec![
            format!("machine  {cores} cores, {}", model.trim_start_matches(['\t', ' ', ':'])),
            format!("memory   {} GiB", kib.unwrap_or_default() >> 20),
            format!("system   {}, Linux {}", os.trim_matches('"'), read("/proc/sys/kernel/osrelease").trim()),
            format!("disk     {}", fsync().unwrap_or_else(|error| format!("not measured: {error}"))),
            format!("load     {}", load()),
        ];
        Machine { lines }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

fn fsync() -> anyhow::Result<String> {
    let dir = place::directory()?;
    let mut file = File::create(dir.path().join("fsync"))?;
    let mut took = Vec::new();
    for _ in 0..200 {
        file.write_all(&[7; 512])?;
        let began = Instant::now();
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let took = Sample::of(took);
    let (p50, p99) = (took.median(), took.percentile(99));
    Ok(format!("512 B and fdatasync: p50 {p50:.2} ms, p99 {p99:.2} ms ({})", dir.path().display()))
}

/// Load averages of 1, 5 and 15 minutes, as text.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// The one of the last minute.
pub(crate) fn load1() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}
