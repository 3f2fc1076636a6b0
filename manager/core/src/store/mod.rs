//! Store: the cluster's objects, changed only by applying transactions in the log's order.
//!
//! Reads:   nothing but itself.
//! Writes:  every object's [`Meta`](swarm_types::meta::Meta); the rest comes from transactions.
//! Never:   knows why something changes; panics on what a transaction holds; iterates unordered.
//! Start:   [`Store::apply`].

mod draft;
mod event;
mod index;
mod objects;
#[allow(clippy::module_inception)]
mod store;
mod table;
mod transaction;
mod view;

pub use draft::{Checkpoint, Draft};
pub use event::{Event, Object};
pub use index::SlotKey;
pub use objects::{Record, records};
pub use store::{Refused, Store};
pub use transaction::{Change, Key, SpecSource, Transaction};
pub use view::View;

#[cfg(test)]
mod tests;
