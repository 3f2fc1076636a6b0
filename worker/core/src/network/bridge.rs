//! Bridge: a network of each node for itself.
//!
//! It is a sandbox without a tunnel: the tasks of one node reach each other, and virtual addresses lead
//! to tasks of the same node only. Its way out is the tasks' `gw0`, as everywhere, and its ports are
//! published in host mode. The predefined `bridge` is `gw0` and nothing else.
//!
//! Reads:   a network's tasks.
//! Writes:  those of them that can be reached from here.
//! Never:   leads to another node.
//! Start:   [`reaches`].

use swarm_types::id::NodeId;
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::TaskEndpoint;

/// Whether a task can be reached from the node `own`.
pub fn reaches(driver: NetworkDriver, own: NodeId, task: &TaskEndpoint) -> bool {
    match driver {
        NetworkDriver::Overlay | NetworkDriver::Macvlan => true,
        NetworkDriver::Bridge => task.node == own,
    }
}
