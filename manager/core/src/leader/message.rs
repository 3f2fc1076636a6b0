//! Message: what comes to a leader and what it wants to be done.
//!
//! Reads:   nothing.
//! Writes:  nothing: plain values.
//! Never:   holds anything of the wire.
//! Start:   [`Input`], [`Effect`].

use swarm_types::assignment::AssignmentsMessage;
use swarm_types::id::{NodeId, SessionId, TaskId};
use swarm_types::network_set::{NetworkProblem, NetworksMessage};
use swarm_types::node::{NetworkDescription, NodeDescription};
use swarm_types::task::TaskStatus;
use swarm_types::time::Timestamp;

use crate::dispatcher::CloseReason;
use crate::reason::Reason;
use crate::store::{Event, Key, Transaction};

/// What happens to a leader. The view handed in with an input is never older than the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A transaction was applied: anybody's, or (`own`) the one proposed last. All of them come, in
    /// the order of the log.
    Committed {
        /// What it changed.
        events: Vec<Event>,
        /// It was the one that [`Effect::Propose`] gave out.
        own: bool,
    },
    /// The proposal was committed, but the store refused it: the world had changed.
    Refused,
    /// The proposal was not put into the log and never will be. A proposal whose fate is not known
    /// is *not* lost: an elected manager learns the fate of all that it appended, or it is deposed.
    /// The next [`Leader`](super::Leader) is made only when all entries of earlier terms are
    /// applied. (Else what is planned here again could come twice, under other ids.)
    Lost,
    /// The time of [`Effect::WakeAt`] has come.
    Tick,
    /// Something about the session of a node's agent.
    Session(NodeId, SessionInput),
    /// An agent says what its kernel made of what it was told of the networks.
    NetworkStatus(NodeId, SessionId, NetworkReport),
    /// An agent says how its tasks are.
    Statuses(NodeId, SessionId, Vec<(TaskId, TaskStatus)>),
}

/// What an agent says of the networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkReport {
    /// Number of the set that the kernel agrees with.
    pub applied: u64,
    /// But for these.
    pub problems: Vec<NetworkProblem>,
    /// The node's end of the networks, if it is another than it was when the session began.
    pub description: Option<NetworkDescription>,
}

/// What happens to the session of an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionInput {
    /// It begins. The driver drew the session's id.
    Registered {
        /// The new session.
        session: SessionId,
        /// The machine.
        description: Box<NodeDescription>,
        /// The address that it is seen under, without a port.
        addr: String,
    },
    /// A sign of life: any message on the session.
    Heartbeat {
        /// Which session.
        session: SessionId,
    },
    /// It is over.
    Ended {
        /// Which session.
        session: SessionId,
        /// The agent said that it goes.
        goodbye: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Put this into the log. One at a time: the next comes after its outcome is told.
    Propose(Proposal),
    /// Send this on a session.
    Send(NodeId, SessionId, AssignmentsMessage),
    /// Send this on a session.
    SendNetworks(NodeId, SessionId, NetworksMessage),
    /// Say this to whoever keeps watch: a node's networks have these problems now (none: all is well).
    NetworkProblems(NodeId, Vec<NetworkProblem>),
    /// End this session.
    Close(NodeId, SessionId, CloseReason),
    /// Give a [`Input::Tick`] at this time; replaces the wish before.
    WakeAt(Timestamp),
}

/// A transaction and why each of its changes is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What to put into the log.
    pub transaction: Transaction,
    /// For the driver's diary, in the order of decision.
    pub reasons: Vec<(Key, Reason)>,
}
