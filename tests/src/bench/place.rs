//! Where benches write: a real disk, because what is measured includes fsync.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A directory that goes away with the value; below `SWARM_BENCH_DIR`, or else `/var/tmp`.
pub(crate) fn directory() -> Result<TempDir> {
    let set = std::env::var_os("SWARM_BENCH_DIR").filter(|dir| !dir.is_empty());
    let parent = set.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let made = tempfile::Builder::new().prefix("swarm-bench-").tempdir_in(&parent);
    made.with_context(|| format!("make a directory in {}", parent.display()))
}
