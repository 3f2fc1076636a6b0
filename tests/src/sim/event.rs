//! What happens in the simulated world, and the messages on its net.

use bytes::Bytes;
use swarm_types::assignment::AssignmentsMessage;
use swarm_types::id::{SessionId, TaskId};
use swarm_types::network_set::NetworksMessage;
use swarm_types::node::NodeDescription;
use swarm_types::task::TaskStatus;
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;
use swarm_worker_core::networks::NetworkReport;
use swarm_worker_core::observed::Exit;

use super::command::{Answer, Command};
use super::disk::Snapshot;
use super::net::Host;

/// Something that happens. `life` names the process that it is meant for: another one ignores it.
#[derive(Debug, Clone)]
pub enum What {
    /// The manager's logical clock.
    Tick { host: Host, life: u64 },
    /// A message arrives.
    Deliver { from: Host, to: Host, body: Body },
    /// The manager's write is durable (or failed).
    DiskDone { host: Host, life: u64 },
    /// The manager's snapshot is durable.
    SnapshotDone { host: Host, life: u64 },
    /// The leader asked to be woken.
    LeaderWake { host: Host, life: u64, at: Timestamp },
    /// The agent asked to be woken.
    AgentWake { host: Host, life: u64, at: Timestamp },
    /// A kernel agrees with what it was asked for.
    KernelAgrees { host: Host, life: u64, turn: u64 },
    /// The agent dials.
    Dial { host: Host, life: u64, conn: u64 },
    /// The agent sends a heartbeat.
    Beat { host: Host, life: u64, conn: u64 },
    /// The agent has waited long enough.
    Late { host: Host, life: u64, conn: u64, wait: Wait },
    /// An operation on a container has ended.
    OpDone { host: Host, life: u64, task: TaskId, op: u64 },
    /// A container ends by itself.
    Exit { host: Host, task: TaskId, exit: Exit },
    /// The user waits no longer.
    GiveUp { ask: u64 },
    /// The user asks (again).
    Ask { ask: u64 },
    /// A process that was stopped goes on.
    Resume { host: Host, life: u64 },
    /// A host boots.
    Boot { host: Host },
    /// A connection that has lost a message is broken at last.
    Break { host: Host, conn: u64 },
    /// The kernel tries again to send what a cut held up.
    Resend { from: Host, to: Host, conn: u64, tries: u64 },
    /// The next fault.
    Fault,
    /// The user's next idea.
    Idea,
}

/// What an agent waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// To be registered.
    Registered,
    /// The answer to a heartbeat.
    Beat(u64),
    /// The answer to a report.
    Report(u64),
}

/// A message.
#[derive(Debug, Clone)]
pub enum Body {
    /// Between managers.
    Raft(Bytes),
    /// A snapshot and the message that announces it.
    RaftSnapshot { message: Bytes, content: Box<Snapshot> },
    /// Whether a snapshot arrived.
    SnapshotSent { to: u64, arrived: bool },
    /// A manager cannot be reached.
    Unreachable { raft_id: u64 },
    /// An agent wants a session.
    Register { conn: u64, description: Box<NodeDescription> },
    /// It has one.
    Registered { conn: u64, session: SessionId, term: u64, managers: Vec<Host> },
    /// The managers are these now.
    Managers { conn: u64, managers: Vec<Host> },
    /// What the node is to have.
    Assign { conn: u64, session: SessionId, message: AssignmentsMessage },
    /// What there is of the networks.
    Networks { session: SessionId, message: NetworksMessage },
    /// How the networks are.
    ReportNetworks { conn: u64, session: SessionId, n: u64, report: NetworkReport },
    /// It was taken.
    NetworksReported { conn: u64, n: u64 },
    /// The session, or the wish for one, is over.
    Close { conn: u64, leader: Option<Host> },
    /// The agent's side of the connection is closed.
    HungUp { conn: u64 },
    /// The node leaves the cluster.
    Goodbye { conn: u64, session: SessionId },
    /// A sign of life.
    Heartbeat { conn: u64, session: SessionId, n: u64 },
    /// It was seen.
    HeartbeatSeen { conn: u64, n: u64 },
    /// How tasks are.
    Report { conn: u64, session: SessionId, n: u64, statuses: Vec<(TaskId, TaskStatus)> },
    /// It was taken.
    Reported { conn: u64, n: u64, states: Vec<(TaskId, TaskState)> },
    /// A user's command.
    Ask { ask: u64, command: Box<Command> },
    /// Its outcome.
    Answer { ask: u64, answer: Answer },
    /// A manager wants to take part, or to know whether it still does under its number (0: it has none).
    JoinGroup { raft_id: u64 },
    /// It does not.
    Outside { raft_id: u64 },
    /// It may, under this number.
    Joined { raft_id: u64 },
}
