//! The cluster itself: its settings, its certificate authority, its join tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use crate::defaults;
use crate::id::{ClusterId, NodeId};
use crate::meta::{Annotations, Meta};
use crate::time::Timestamp;

/// The cluster as stored. There is one, called `default`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// Its id: the O of every certificate.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// Settings.
    pub spec: ClusterSpec,
    /// The root of all certificates.
    pub root_ca: RootCa,
    /// What a node shows to be let in.
    pub join_tokens: JoinTokens,
    /// Grows each time that the nodes are to make other tunnel keys.
    pub key_epoch: u64,
    /// When it grew last.
    pub key_epoch_at: Timestamp,
    /// Removed nodes whose certificates may not have expired yet, and when they will have.
    pub removed_nodes: BTreeMap<NodeId, Timestamp>,
}

/// Settings of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Name and labels.
    pub annotations: Annotations,
    /// Ended tasks kept in each slot; negative keeps all.
    pub task_history_limit: i64,
    /// Time between two heartbeats of an agent.
    pub heartbeat_period: Duration,
    /// Life of a node's certificate.
    pub cert_expiry: Duration,
    /// Log entries between two snapshots.
    pub snapshot_interval: u64,
    /// Old snapshots kept beside the newest.
    pub max_snapshots: u64,
    /// Where subnets of networks come from that name none.
    pub address_pools: Vec<IpNet>,
    /// Prefix length of those subnets.
    pub subnet_size: u8,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// Time after which nodes make other keys for their tunnels.
    pub key_rotation: Duration,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            annotations: Annotations { name: "default".into(), ..Annotations::default() },
            task_history_limit: defaults::TASK_HISTORY_LIMIT,
            heartbeat_period: defaults::HEARTBEAT_PERIOD,
            cert_expiry: defaults::CERT_EXPIRY,
            snapshot_interval: defaults::SNAPSHOT_INTERVAL,
            max_snapshots: 0,
            address_pools: vec![defaults::address_pool()],
            subnet_size: defaults::SUBNET_SIZE,
            data_path_port: defaults::DATA_PATH_PORT,
            key_rotation: defaults::KEY_ROTATION,
        }
    }
}

/// The certificate authority. The key is a secret: it is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RootCa {
    /// Certificate, PEM.
    pub cert_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// Join tokens. Secrets: never printed by accident.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct JoinTokens {
    /// Lets a worker in.
    pub worker: String,
    /// Lets a manager in.
    pub manager: String,
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokens(..)")
    }
}
