//! Real daemons on hosts that are network namespaces, with real containers: the scenarios of the
//! reference, each a function with its name, several to a cluster. Run as root by `cargo xtask test hosts`.
#![allow(clippy::unwrap_used)] // all of this is test

mod ask;
mod churn;
mod compare;
mod images;
mod joining;
mod leader;
mod logs;
mod loss;
mod luck;
mod managers;
mod network_choice;
mod network_churn;
mod network_death;
mod network_harm;
mod network_keys;
mod network_names;
mod network_partition;
mod network_sctp;
mod network_update;
mod networks;
mod placement;
mod probe;
mod process;
mod scaling;
mod steady;
