//! The cluster.

use std::time::Duration;

use swarm_types::cluster::{Cluster, ClusterSpec, JoinTokens, RootCa};
use swarm_types::id::NodeId;
use swarm_types::time::Timestamp;

use super::network::{net, short, texts};
use super::{Malformed, id, ms, nested, required};
use crate::v1;

impl From<&ClusterSpec> for v1::ClusterSpec {
    fn from(s: &ClusterSpec) -> Self {
        v1::ClusterSpec {
            annotations: Some((&s.annotations).into()),
            task_history_limit: s.task_history_limit,
            heartbeat_period_ms: ms(s.heartbeat_period),
            cert_expiry_ms: ms(s.cert_expiry),
            snapshot_interval: s.snapshot_interval,
            max_snapshots: s.max_snapshots,
            address_pools: texts(&s.address_pools),
            subnet_size: s.subnet_size.into(),
            data_path_port: s.data_path_port.into(),
            key_rotation_ms: ms(s.key_rotation),
        }
    }
}

impl TryFrom<v1::ClusterSpec> for ClusterSpec {
    type Error = Malformed;
    fn try_from(s: v1::ClusterSpec) -> Result<Self, Malformed> {
        // Clusters of before there were networks have none of these.
        let default = ClusterSpec::default();
        let pools = s.address_pools.iter().map(|text| net(text, "address_pools"));
        let pools = pools.collect::<Result<Vec<_>, Malformed>>()?;
        let subnet_size = u8::try_from(s.subnet_size).map_err(|e| Malformed::new("subnet_size", e))?;
        let data_path_port = short(s.data_path_port, "data_path_port")?;
        Ok(ClusterSpec {
            annotations: required(s.annotations, "annotations")?.into(),
            task_history_limit: s.task_history_limit,
            heartbeat_period: Duration::from_millis(s.heartbeat_period_ms),
            cert_expiry: Duration::from_millis(s.cert_expiry_ms),
            snapshot_interval: s.snapshot_interval,
            max_snapshots: s.max_snapshots,
            address_pools: if pools.is_empty() { default.address_pools } else { pools },
            subnet_size: if subnet_size == 0 { default.subnet_size } else { subnet_size },
            data_path_port: if data_path_port == 0 { default.data_path_port } else { data_path_port },
            key_rotation: match s.key_rotation_ms {
                0 => default.key_rotation,
                ms => Duration::from_millis(ms),
            },
        })
    }
}

/// For the log only: it holds the cluster's secrets. Answers go through [`v1::Cluster::public`].
impl From<&Cluster> for v1::Cluster {
    fn from(c: &Cluster) -> Self {
        v1::Cluster {
            id: c.id.to_string(),
            meta: Some(c.meta.into()),
            spec: Some((&c.spec).into()),
            root_cert_pem: c.root_ca.cert_pem.clone(),
            root_key_pem: c.root_ca.key_pem.clone(),
            worker_token: c.join_tokens.worker.clone(),
            manager_token: c.join_tokens.manager.clone(),
            key_epoch: c.key_epoch,
            key_epoch_at_ms: c.key_epoch_at.0,
            removed_nodes: c.removed_nodes.iter().map(|(n, t)| (n.to_string(), t.0)).collect(),
        }
    }
}

impl v1::Cluster {
    /// The cluster without its key and tokens: what may leave the managers.
    pub fn public(cluster: &Cluster) -> Self {
        v1::Cluster {
            root_key_pem: String::new(),
            worker_token: String::new(),
            manager_token: String::new(),
            ..cluster.into()
        }
    }
}

impl TryFrom<v1::Cluster> for Cluster {
    type Error = Malformed;
    fn try_from(c: v1::Cluster) -> Result<Self, Malformed> {
        let removed = c
            .removed_nodes
            .iter()
            .map(|(node, at)| Ok((id::<NodeId>(node, "removed_nodes")?, Timestamp(*at))))
            .collect::<Result<_, Malformed>>()?;
        Ok(Cluster {
            id: id(&c.id, "id")?,
            meta: required(c.meta, "meta")?.into(),
            spec: nested(c.spec, "spec")?,
            root_ca: RootCa { cert_pem: c.root_cert_pem, key_pem: c.root_key_pem },
            join_tokens: JoinTokens { worker: c.worker_token, manager: c.manager_token },
            key_epoch: c.key_epoch,
            key_epoch_at: Timestamp(c.key_epoch_at_ms),
            removed_nodes: removed,
        })
    }
}
