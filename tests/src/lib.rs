//! The tests that stand on several rooms: simulator, invariants, scripted scenarios, clusters in one
//! process, clusters of real hosts.
//!
//! In reading order: [`sim`] plays the world, [`invariants`] watch it, [`scenario`] reads scripts,
//! [`harness`] runs real nodes without containers, [`hosts`] runs everything.

pub mod harness;
pub mod hosts;
pub mod invariants;
pub mod scenario;
pub mod sim;
