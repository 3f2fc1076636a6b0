//! Networks of a node, made real: I make the kernel agree with a plan, and keep it so.
//!
//! The plan ([`swarm_worker_core::network::kernel::Plan`]) says what every network namespace of the
//! node is to have. [`Kernel`] compares it with what is there, changes the difference, and looks again
//! whenever somebody else changes something. Nothing is torn down when it goes away: a later one takes
//! over what it finds.
//!
//! Everything is netlink, written by hand: long-lived sockets in each namespace, one batch for all
//! changes of a kind, and one transaction for all rules of a namespace.

mod check;
mod conntrack;
mod engine;
mod kernel;
mod link;
mod links;
mod namespace;
mod netlink;
mod news;
mod nft;
mod probe;
mod room;
mod route;
mod socket;
mod sync;
mod sys;
mod sysctl;
mod thread;
mod words;

pub use kernel::{Applied, Connections, Difference, Kernel, KernelError, Settings};
