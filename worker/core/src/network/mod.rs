//! Networks of a node: what the kernel is to have, as plain values.
//!
//! Reads:   what the node was told ([`swarm_types::network_set::NetworkSet`]), its own tasks.
//! Writes:  plans of namespaces ([`kernel::Plan`]), which `worker/network` makes real.
//! Never:   asks the kernel anything.
//! Start:   [`kernel`].

pub mod firewall;
pub mod kernel;
