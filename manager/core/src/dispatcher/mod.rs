//! Dispatcher: what the leader knows of the nodes' agents, and what it tells them.
//!
//! Reads:   nodes, tasks, the cluster's heartbeat period.
//! Writes:  Node.description, Node.status; Task.status from ACCEPTED on.
//! Never:   chooses what a node shall do: it only passes that on.
//! Start:   [`Sessions`], [`Statuses`], [`Assignments`].

mod assignments;
mod networks;
mod sessions;
mod status;

pub use assignments::{Assignments, Delivery, is_assigned};
pub use networks::{Networks, NetworksDelivery};
pub use sessions::{Close, CloseReason, Registration, Sessions};
pub use status::{Statuses, Verdict};
