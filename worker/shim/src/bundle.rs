//! Bundle: where the files of one container are.

use std::path::{Path, PathBuf};

/// The directory of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle(PathBuf);

impl Bundle {
    /// The bundle at `dir` (absolute).
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }
    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }
    /// What to run.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }
    /// The proof of life of the supervisor.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    /// Written once the first process runs.
    pub fn started(&self) -> PathBuf {
        self.0.join("started.json")
    }
    /// Written if it never ran.
    pub fn error(&self) -> PathBuf {
        self.0.join("error.json")
    }
    /// Written when it has ended.
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }
    /// Last words of the supervisor itself.
    pub fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }
    /// Where the root is mounted, in the container's mount namespace only.
    pub fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }
    /// What the container changes.
    pub fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }
    /// Scratch room of the overlay.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }
    /// Short names for layers, used when their paths are too long for one mount call.
    pub fn short_layers(&self) -> PathBuf {
        self.0.join("l")
    }
    /// The directory of the log files.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}
