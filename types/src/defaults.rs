//! Every default of the cluster, nowhere else. Docker Swarm's (swarm.md B2) unless said.

use std::time::Duration;

/// Port of the managers' gRPC.
pub const LISTEN_PORT: u16 = 2377;
/// Time between two heartbeats of an agent (Swarm: 5 s; ours is shorter, so that a dead node is
/// seen within 5 s).
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// Heartbeats that may be missed before a node is Down (Swarm: 3 of 5 s).
pub const HEARTBEAT_GRACE: u32 = 4;
/// Ended tasks kept in each slot.
pub const TASK_HISTORY_LIMIT: i64 = 5;
/// Life of a node's certificate: 90 days.
pub const CERT_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Shortest life of a node's certificate.
pub const MIN_CERT_EXPIRY: Duration = Duration::from_secs(3600);
/// Log entries between two snapshots.
pub const SNAPSHOT_INTERVAL: u64 = 10_000;
/// Time between a task's end and its replacement's start.
pub const RESTART_DELAY: Duration = Duration::from_secs(5);
/// How long a new task is watched by an update.
pub const UPDATE_MONITOR: Duration = Duration::from_secs(5);
/// Time between the stop signal and SIGKILL.
pub const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// After a node has been Down for so long its tasks are given up as ORPHANED.
pub const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A removed node's certificate is refused until it has expired, and for so long after.
pub const REMOVED_NODE_SLACK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a restart waits for the old task to stop.
pub const RESTART_WAIT_OLD: Duration = Duration::from_secs(60);
/// So many failures of a service on a node within [`FAILURE_WINDOW`] make the scheduler avoid it.
pub const MAX_FAILURES: u32 = 5;
/// See [`MAX_FAILURES`].
pub const FAILURE_WINDOW: Duration = Duration::from_secs(300);
/// Most replicas that one service may ask for.
pub const MAX_REPLICAS: u64 = 10_000_000;
/// Managers that one cluster may have: each more makes every write slower, and three or five are enough.
pub const MAX_MANAGERS: usize = 7;

/// Where subnets come from (Swarm's pool).
pub fn address_pool() -> ipnet::IpNet {
    ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8))
}
/// Subnet of the ingress network, unless it is made with another one. Swarm's holds 253 tasks; this
/// one 65 thousand.
pub fn ingress_subnet() -> ipnet::IpNet {
    ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 255, 0, 0), 16))
}
/// Addresses of the nodes in the tunnel: this and the node's number.
pub fn tunnel_net() -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 127, 0, 0), 16)
}
/// Prefix length of subnets from the pools.
pub const SUBNET_SIZE: u8 = 24;
/// UDP port of VXLAN.
pub const DATA_PATH_PORT: u16 = 4789;
/// UDP port of the tunnel.
pub const TUNNEL_PORT: u16 = 4790;
/// Life of the tunnels' keys.
pub const KEY_ROTATION: Duration = Duration::from_secs(12 * 3600);
/// Shortest life of the tunnels' keys: a change takes several messages between managers and nodes.
pub const MIN_KEY_ROTATION: Duration = Duration::from_secs(1);
/// Time before a freed address may be given out again.
pub const ADDRESS_QUARANTINE: Duration = Duration::from_secs(10);
/// Published ports that the managers choose from.
pub const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Least VXLAN network identifier.
pub const FIRST_VNI: u32 = 4096;
/// A task that is to stop waits at most so long until every node has taken it out of its rules.
pub const WITHDRAW_PATIENCE: Duration = Duration::from_secs(2);
/// Once they have, what was sent to it before has this long to come: no event says that no packet is under
/// way any more.
pub const WITHDRAW_SETTLE: Duration = Duration::from_millis(100);
