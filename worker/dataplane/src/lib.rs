//! The data plane of a node: I make the networks that managers speak of real, and keep them so.
//!
//! [`DataPlane`] owns the planner (what the kernel is to have), the driver of the kernel (that it has
//! it), the names (sockets in the sandboxes), the encrypted tunnel and its keys, and the ports of this
//! node that services have. It is told of sets and of tasks, and tells what cannot be.
//!
//! Nothing is torn down when it goes away: a later one takes over what it finds. What it must know of
//! the tasks that run is in one small file for each ([`record`]).
//!
//! In reading order:

mod plane;

mod engine;

mod facts;
mod hold;
mod keys;
mod names;
mod proxy;
mod record;
mod site;
mod sys;
mod tunnel;

pub use plane::{DataPlane, OpenError, Settings};
