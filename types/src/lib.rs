//! The nouns of the cluster: objects, specs, ids and states, and which values of them are valid.
//!
//! Stands on nothing of ours, does no IO, knows no serialisation. In reading order:

pub mod id;
pub mod time;

pub mod meta;
pub mod resources;

pub mod container;
pub mod container_signal;
pub mod placement;
pub mod policy;
pub mod service;

pub mod task;
pub mod task_state;

pub mod endpoint;
pub mod network;
pub mod site;

pub mod cluster;
pub mod node;

pub mod assignment;
pub mod network_set;

pub mod defaults;
pub mod valid;

#[cfg(feature = "testing")]
pub mod testing;
