//! Networks of a node: what the kernel is to have, as plain values.
//!
//! Reads:   what the node was told ([`swarm_types::network_set::NetworkSet`]), its own tasks.
//! Writes:  plans of namespaces ([`kernel::Plan`]), which `worker/network` makes real.
//! Never:   asks the kernel anything.
//! Start:   [`planner::Planner::plan`], [`kernel::Plan`].

pub mod firewall;
pub mod kernel;

pub mod planner;

mod part;

pub mod bridge;
mod host;
mod ingress;
pub mod macvlan;
mod sandbox;
pub mod task;

pub mod address;
pub mod ground;
mod members;
pub mod port;
mod reach;
mod service;

mod text;
pub mod trace;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
mod laws;
