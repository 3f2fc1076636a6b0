//! Reason: why a plan changes something, in words for an operator.
//!
//! Reads:   nothing.
//! Writes:  nothing.
//! Never:   is stored: it goes to logs and dry runs, and to a status message where a user needs it.
//! Start:   [`Reason`].

use std::fmt;

/// Why a change is made. Closed and small: what differs from case to case stands in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Reason {
    // Tasks appear and go.
    ScaledUp,
    ScaledDown,
    ServiceRemoved,
    NodeFits,
    NodeGone,
    NodeDown,
    NodeDrained,
    NodeUnfit,
    HistoryFull,
    // Tasks move on.
    Allocated,
    Placed,
    NoNodeFits,
    DelayOver,
    Reported,
    // Tasks end and are replaced.
    TaskEnded,
    AttemptsUsedUp,
    SpecChanged,
    // Roll-outs.
    UpdateStarted,
    UpdatePaused,
    UpdateCompleted,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
    // Networks.
    NothingFree,
    EndpointGiven,
    AddressesReleased,
    AddressesFree,
    IngressMade,
    KeysDue,
    NodeNumbered,
    // Nodes.
    NodeRegistered,
    NodeSilent,
    NodeLeft,
    NodeNotBack,
}

impl Reason {
    /// In a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::ScaledUp => "scaled up",
            Reason::ScaledDown => "scaled down",
            Reason::ServiceRemoved => "service removed",
            Reason::NodeFits => "node fits",
            Reason::NodeGone => "node removed",
            Reason::NodeDown => "node down",
            Reason::NodeDrained => "node drained",
            Reason::NodeUnfit => "node no longer fits",
            Reason::HistoryFull => "history full",
            Reason::Allocated => "allocated",
            Reason::Placed => "placed",
            Reason::NoNodeFits => "no suitable node",
            Reason::DelayOver => "restart delay over",
            Reason::Reported => "reported by its node",
            Reason::TaskEnded => "task ended",
            Reason::AttemptsUsedUp => "restart attempts used up",
            Reason::SpecChanged => "spec changed",
            Reason::UpdateStarted => "update started",
            Reason::UpdatePaused => "update paused",
            Reason::UpdateCompleted => "update completed",
            Reason::RollbackStarted => "rollback started",
            Reason::RollbackPaused => "rollback paused",
            Reason::RollbackCompleted => "rollback completed",
            Reason::NothingFree => "nothing free on its networks",
            Reason::EndpointGiven => "ports and virtual addresses given",
            Reason::AddressesReleased => "addresses released",
            Reason::AddressesFree => "released addresses are free again",
            Reason::IngressMade => "ingress network made",
            Reason::KeysDue => "tunnel keys are due",
            Reason::NodeNumbered => "given a number and its entry",
            Reason::NodeRegistered => "node registered",
            Reason::NodeSilent => "heartbeat failure",
            Reason::NodeLeft => "node left",
            Reason::NodeNotBack => "node did not come back in time",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
