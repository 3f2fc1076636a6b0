//! What the cluster should do: decided here, from a view, a time and a seed, and from nothing else.
//!
//! No sockets, no files, no clock, no random numbers, no logs. In reading order:

pub mod store;

pub mod context;
pub mod control_loop;
pub mod plan;
pub mod reason;

pub mod control;

pub mod enforcer;
pub mod orchestrator;
pub mod restart;
pub mod update;

pub mod allocator;
pub mod scheduler;

pub mod reaper;

pub mod pace;

pub mod dispatcher;
pub mod role;

pub mod leader;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod world;
