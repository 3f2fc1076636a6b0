//! A local cluster of network namespaces, for people who want to try things and for tests on real hosts.
//!
//! Each host is a network, UTS and mount namespace held by one idle process, with its own `swarmd`;
//! the hosts hang on one switch, and a router leads to `client`, a host outside the cluster.
//!
//! Invariant: everything a cluster makes carries its name (cgroup `swarm-dev/N`, namespaces `swarm-N-*`,
//! directories `.../swarm-dev/N`), so [`Cluster::down`] finds it all even when no record of it is left.
//! Start: [`Cluster::up`].

mod boot;
mod cgroup;
mod cluster;
mod down;
mod error;
mod form;
mod image;
mod network;
mod place;
mod process;
mod program;
mod record;

pub use cluster::{Cluster, Programs, Settings, Step};
pub use down::leftovers;
pub use error::{DownError, HostError, OpenError, SystemError, UpError};
pub use image::{ImageError, demo_image};
pub use place::Places;
pub use record::{HostRecord, HostRow, HostState, Role};
