//! Context: what a decision gets from outside besides the view: the time, and ids.
//!
//! Reads:   nothing.
//! Writes:  nothing.
//! Never:   reads a clock or a generator of the system.
//! Start:   [`Context`].

use swarm_types::id::IdSource;
use swarm_types::time::Timestamp;

/// What a decision gets from outside.
#[derive(Debug)]
pub struct Context<'a> {
    /// The leader's time; never runs backwards, and is never before the store's newest.
    pub now: Timestamp,
    /// Where ids and jitter come from.
    pub ids: &'a mut IdSource,
}
