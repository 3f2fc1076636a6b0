//! A worker as one value: what to do next for each task of this node.
//!
//! Reads:   assignments, outcomes of operations, what was found on the node.
//! Writes:  effects; `Task.status` from ACCEPTED.
//! Never:   reaches a clock, a file, a socket or a log.
//! Start:   [`agent::Agent::handle`].
//!
//! In reading order:

pub mod agent;
pub mod step;

pub mod assignments;
pub mod backoff;
pub mod entry;
pub mod observed;
pub mod reporter;

pub mod network;
pub mod networks;

pub mod container;
pub mod image_config;
pub mod template;

#[cfg(test)]
mod laws;
