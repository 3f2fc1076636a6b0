//! The cluster's settings as flags: of `init` and of `update`.

use std::time::Duration;

use swarm_types::cluster::ClusterSpec;

use crate::flags::duration;

#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub(crate) struct Settings {
    /// Ended tasks kept in each slot; -1 keeps all [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    task_history_limit: Option<i64>,
    /// Time between two heartbeats of a node [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    dispatcher_heartbeat: Option<Duration>,
    /// Life of a node's certificate, at least 1h [default: 2160h]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    cert_expiry: Option<Duration>,
    /// Log entries between two snapshots [default: 10000]
    #[arg(long, value_name = "N")]
    snapshot_interval: Option<u64>,
    /// Old snapshots kept beside the newest [default: 0]
    #[arg(long, value_name = "N")]
    max_snapshots: Option<u64>,
    /// Life of the keys of encrypted networks, at least 1s [default: 12h]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    key_rotation: Option<Duration>,
}

impl Settings {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Settings::default()
    }
    pub(crate) fn apply(&self, spec: &mut ClusterSpec) -> Result<(), swarm_types::valid::Invalid> {
        spec.task_history_limit = self.task_history_limit.unwrap_or(spec.task_history_limit);
        spec.heartbeat_period = self.dispatcher_heartbeat.unwrap_or(spec.heartbeat_period);
        spec.cert_expiry = self.cert_expiry.unwrap_or(spec.cert_expiry);
        spec.snapshot_interval = self.snapshot_interval.unwrap_or(spec.snapshot_interval);
        spec.max_snapshots = self.max_snapshots.unwrap_or(spec.max_snapshots);
        spec.key_rotation = self.key_rotation.unwrap_or(spec.key_rotation);
        swarm_types::valid::cluster(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_changes() {
        let mut spec = ClusterSpec::default();
        Settings { task_history_limit: Some(-1), ..Settings::default() }.apply(&mut spec).unwrap();
        assert_eq!(spec, ClusterSpec { task_history_limit: -1, ..ClusterSpec::default() });
        let short = Settings { cert_expiry: Some(Duration::from_secs(60)), ..Settings::default() };
        assert_eq!(short.apply(&mut spec).unwrap_err().field, "cert-expiry");
    }
}
