//! Control loop: one concern of the leader, deciding again and again from what is.
//!
//! Reads:   nothing: a trait, and when to wake.
//! Writes:  nothing.
//! Never:   sleeps; remembers what [`ControlLoop::restore`] could not rebuild.
//! Start:   [`ControlLoop`].

use swarm_types::time::Timestamp;

use crate::context::Context;
use crate::plan::Plan;
use crate::store::{Event, View};

/// One concern of the leader.
pub trait ControlLoop {
    /// Rebuilds all that this loop remembers from the store alone: what a new leader does, and what
    /// happens after a plan was refused.
    fn restore(view: &View) -> Self
    where
        Self: Sized;

    /// Marks what an event makes dirty. Cheap; decides nothing.
    ///
    /// Called with committed events, its own plans' included, and, just before [`Self::plan`], with
    /// what the loops before it have planned in the same pass. So one change may be seen twice.
    fn observe(&mut self, event: &Event);

    /// Decides for what is dirty, reading through `plan`, which has what earlier loops planned in
    /// this pass. Same view, same time, same ids: same plan. What finds no room (see
    /// [`Plan::is_full`]) stays dirty, and [`Wake::Now`] is returned.
    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake;
}

/// When a loop wants to plan again even if nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wake {
    /// When something happens.
    #[default]
    Never,
    /// At this time.
    At(Timestamp),
    /// At once: there is more to do, the plan was full.
    Now,
}

impl Wake {
    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Wake) -> Wake {
        match (self, other) {
            (Wake::Now, _) | (_, Wake::Now) => Wake::Now,
            (Wake::Never, wake) | (wake, Wake::Never) => wake,
            (Wake::At(a), Wake::At(b)) => Wake::At(a.min(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_wake_wins() {
        let (early, late) = (Wake::At(Timestamp(1)), Wake::At(Timestamp(2)));
        assert_eq!(late.min(early), early);
        assert_eq!(Wake::Never.min(late), late);
        assert_eq!(late.min(Wake::Now), Wake::Now);
        assert_eq!(Wake::Never.min(Wake::Never), Wake::Never);
    }
}
