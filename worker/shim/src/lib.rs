//! What a container is started from, and the supervisor that starts it.
//!
//! One `swarmd-shim` process per container makes the container, is its parent, keeps its log and
//! writes down how it ended. It outlives the daemon. The two talk through files in the bundle:
//!
//! ```text
//! BUNDLE/config.json   ContainerConfig, written by the daemon before the start
//! BUNDLE/lock          flock held from the start until the supervisor is gone: the proof of life;
//!                      its content names the supervisor's process
//! BUNDLE/started.json  Started: the container's first process runs
//! BUNDLE/error.json    StartFailure: it never did
//! BUNDLE/exit.json     Exit: how it ended
//! BUNDLE/log/          what it wrote
//! ```
//!
//! The same program is the process of a node's encrypted tunnel ([`tunnel`]), which outlives the daemon, too.
//!
//! Invariant: a bundle whose lock file exists but is held by nobody, and which has neither
//! `exit.json` nor `error.json`, has lost its supervisor.

pub mod bundle;
pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod log;
pub mod record;
pub mod seccomp;
pub mod supervise;
pub mod tunnel;

mod exec;
mod init;
mod mounts;
mod rootfs;
mod sys;
mod user;
