//! CPU time and memory of processes and control groups.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const TICKS_PER_SECOND: f64 = 100.0;

/// The v2 hierarchy; on a hybrid machine it lies beside the v1 ones.
pub(crate) fn unified() -> PathBuf {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() { hybrid.to_owned() } else { PathBuf::from("/sys/fs/cgroup") }
}

/// CPU seconds of everything that ever ran in a v2 group, what ended included.
pub(crate) fn of_group(path: &str) -> Result<f64> {
    let file = unified().join(path).join("cpu.stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let micros: f64 = usage.and_then(|n| n.trim().parse().ok()).context("no usage_usec in cpu.stat")?;
    Ok(micros / 1e6)
}

/// Processes in a v2 group and below.
pub(crate) fn processes(path: &str) -> Vec<i32> {
    let mut found = Vec::new();
    let mut dirs = vec![unified().join(path)];
    while let Some(dir) = dirs.pop() {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found
}

/// CPU seconds of a process, by now.
pub(crate) fn of_process(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("look at {pid}"))?;
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// CPU seconds of the threads that these processes have now, to the nanosecond, and of the kernel's threads
/// that take packets in when programs do not get to it. Packets are otherwise taken in on the account of
/// whoever sends them.
pub(crate) fn of_traffic(pids: &[u32]) -> Result<f64> {
    let mut total = softirq_threads().iter().map(|pid| of_thread(*pid, *pid)).sum::<Result<f64>>()?;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("look at {pid}"))?;
        let ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        total += ids.map(|id| of_thread(*pid, id)).sum::<Result<f64>>()?;
    }
    Ok(total)
}

fn of_thread(pid: u32, id: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/task/{id}/schedstat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let nanos: f64 = text.split(' ').next().and_then(|n| n.parse().ok()).context("no time in schedstat")?;
    Ok(nanos / 1e9)
}

fn softirq_threads() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| program(pid.cast_signed()).starts_with("ksoftirqd/")).collect()
}

/// Memory of a process in MiB: `Rss` or `Pss` of all its mappings.
pub(crate) fn memory(pid: i32, kind: &str) -> Result<f64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
    let kib: f64 = line
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .with_context(|| format!("no {kind} in {file}"))?;
    Ok(kib / 1024.0)
}

/// The program's name of a process.
pub(crate) fn program(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
