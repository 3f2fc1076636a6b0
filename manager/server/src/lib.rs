//! A manager's drivers: they answer calls, keep the log, and do what `core` decides. Nothing is
//! decided here.
//!
//! Reading order: [`manager`] (what runs together), [`state`] (the log's entries become views and
//! events), [`leader`] (drives core while this manager leads), [`control_api`], [`dispatcher`],
//! [`ca`], [`raft_api`] (the fronts), [`authorize`] and [`forward`] (what stands before them).

mod alarm;
pub mod authorize;
pub mod ca;
pub mod codec;
pub mod commands;
pub mod control_api;
pub mod dispatcher;
pub mod forward;
mod gate;
pub mod images;
pub mod leader;
pub mod logs;
pub mod manager;
mod network_problems;
mod passing;
pub mod peer;
pub mod raft_api;
mod roles;
pub mod serve;
pub mod state;
mod status;
pub mod transport;
pub mod watch;

pub use manager::{Manager, ManagerError, Settings, Start};
pub use peer::Peer;
pub use serve::{Calls, serve_connection};
pub use swarm_manager_core::control::cluster::Founding;
pub use transport::Peers;
