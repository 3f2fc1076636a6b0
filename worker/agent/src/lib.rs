//! The agent of a node: keeps the session with a manager and performs what `swarm-worker-core` decides.
//!
//! In reading order:

pub mod executor;

mod agent;
mod driver;
mod operation;

mod commands;
mod log_source;
mod logs;
mod managers;
mod network_file;
mod session;
mod task_states;

pub mod dial;
pub mod journal;
pub mod status;

#[cfg(feature = "testing")]
pub mod fake;

pub use agent::{Agent, Handle, RunError, Settings};
pub use dial::{DialError, Dialer};
pub use status::Status;
