//! [`Status`]: what the agent knows of the cluster and of itself, for `info` and for the daemon.

use swarm_types::id::SessionId;
use swarm_types::node::Node;

/// What the agent knows. Kept up to date in a watch channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The manager that it is registered with, `host:port`; none while it is cut off.
    pub manager: Option<String>,
    /// The session there.
    pub session: Option<SessionId>,
    /// Why the last session ended, or why there is none; none while there is one.
    pub error: Option<String>,
    /// `host:port` of every manager that it knows; the leader first, as far as it knows.
    pub managers: Vec<String>,
    /// This node, as the managers see it (its role, its availability).
    pub node: Option<Node>,
    /// The cluster's root certificate, PEM; empty before a manager told it.
    pub root_cert_pem: String,
    /// Tasks on this node, ended ones whose containers are kept included.
    pub tasks: usize,
    /// Statuses that no manager has taken yet.
    pub owed: usize,
}
