//! `swarmctl info`.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_proto::v1::{InfoRequest, InfoResponse};
use swarm_types::time::Timestamp;

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;
use crate::output::template::Template;
use crate::output::{self, human};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// json, or a Go template of fields such as {{.Swarm.LocalNodeState}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    let info = client.local().info(InfoRequest {}).await?.into_inner();
    match args.format.as_deref() {
        None | Some("") => output::text(&sheet(&info, crate::system::now())),
        Some("json") => output::line(&object(&info).to_string()),
        Some(template) => output::line(&Template::parse(template)?.render(&object(&info), false)?),
    }
    output::warnings(&info.warnings);
    Ok(())
}

fn object(info: &InfoResponse) -> Value {
    let cluster = info.cluster.as_ref().map(|spec| {
        json!({
            "ID": info.cluster_id,
            "TaskHistoryRetentionLimit": spec.task_history_limit,
            "HeartbeatPeriod": spec.heartbeat_period_ms.saturating_mul(1_000_000),
            "NodeCertExpiry": spec.cert_expiry_ms.saturating_mul(1_000_000),
            "SnapshotInterval": spec.snapshot_interval,
            "KeepOldSnapshots": spec.max_snapshots,
            "DefaultAddrPool": spec.address_pools,
            "SubnetSize": spec.subnet_size,
            "DataPathPort": spec.data_path_port,
        })
    });
    // A node of no cluster has no certificate.
    let cert_ends = Timestamp(info.cert_expires_at_ms);
    let cert_ends = (!cert_ends.is_zero()).then(|| cert_ends.to_string()).unwrap_or_default();
    json!({
        "Name": info.hostname, "ServerVersion": info.version, "OSType": info.os,
        "Architecture": info.architecture, "KernelVersion": info.kernel, "NCPU": info.cpus,
        "MemTotal": info.memory_bytes, "CgroupVersion": info.cgroup_version, "StateDir": info.state_dir,
        "Swarm": {
            "LocalNodeState": info.state, "Error": info.error, "NodeID": info.node_id,
            "NodeAddr": info.node_addr, "ControlAvailable": info.is_manager, "Leader": info.is_leader,
            "RemoteManagers": info.managers, "Nodes": info.node_count, "Managers": info.manager_count,
            "ClusterID": info.cluster_id, "CertExpiresAt": cert_ends,
            "Cluster": cluster,
        },
        "Warnings": info.warnings,
    })
}

fn sheet(info: &InfoResponse, now: Timestamp) -> String {
    let mut out = String::new();
    let mut line = |depth: usize, key: &str, value: &dyn std::fmt::Display| {
        let value = value.to_string();
        if !value.is_empty() {
            writeln!(out, "{:depth$}{key}: {value}", "").expect("memory can be written to");
        }
    };
    line(0, "Server Version", &info.version);
    line(0, "Swarm", &info.state);
    if !info.error.is_empty() {
        line(1, "Error", &info.error);
    }
    if !info.node_id.is_empty() {
        line(1, "NodeID", &info.node_id);
        line(1, "Is Manager", &info.is_manager);
    }
    if info.is_manager {
        line(1, "Is Leader", &info.is_leader);
        line(1, "ClusterID", &info.cluster_id);
        line(1, "Managers", &info.manager_count);
        line(1, "Nodes", &info.node_count);
    }
    if let Some(cluster) = &info.cluster {
        let time = |ms| human::go_duration(Duration::from_millis(ms));
        line(1, "Default Address Pool", &cluster.address_pools.join("  "));
        line(1, "SubnetSize", &cluster.subnet_size);
        line(1, "Data Path Port", &cluster.data_path_port);
        line(1, "Task History Retention Limit", &cluster.task_history_limit);
        line(1, "Snapshot Interval", &cluster.snapshot_interval);
        line(1, "Old Snapshots Kept", &cluster.max_snapshots);
        line(1, "Heartbeat Period", &time(cluster.heartbeat_period_ms));
        line(1, "Certificate Expiry Duration", &time(cluster.cert_expiry_ms));
    }
    if info.cert_expires_at_ms > 0 {
        let left = Timestamp(info.cert_expires_at_ms).since(now);
        line(1, "This Node's Certificate Expires In", &human::duration(left));
    }
    if !info.node_addr.is_empty() {
        line(1, "Node Address", &info.node_addr);
    }
    if !info.managers.is_empty() {
        line(1, "Manager Addresses", &info.managers.join(" "));
    }
    line(0, "Name", &info.hostname);
    line(0, "Operating System", &info.os);
    line(0, "Architecture", &info.architecture);
    line(0, "Kernel Version", &info.kernel);
    line(0, "CPUs", &info.cpus);
    line(0, "Total Memory", &human::binary(info.memory_bytes));
    line(0, "Cgroup Version", &info.cgroup_version);
    line(0, "State Directory", &info.state_dir);
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn managers_show_the_cluster() {
        let info = InfoResponse {
            version: "0.1.0".into(),
            hostname: "m1".into(),
            state: "active".into(),
            node_id: "n1".into(),
            is_manager: true,
            cluster_id: "c1".into(),
            managers: vec!["10.0.0.1:2377".into()],
            node_count: 5,
            manager_count: 3,
            cluster: Some((&swarm_types::cluster::ClusterSpec::default()).into()),
            memory_bytes: 8 << 30,
            cert_expires_at_ms: 86_400_000 * 90,
            ..InfoResponse::default()
        };
        expect![[r#"
            Server Version: 0.1.0
            Swarm: active
             NodeID: n1
             Is Manager: true
             Is Leader: false
             ClusterID: c1
             Managers: 3
             Nodes: 5
             Default Address Pool: 10.0.0.0/8
             SubnetSize: 24
             Data Path Port: 4789
             Task History Retention Limit: 5
             Snapshot Interval: 10000
             Old Snapshots Kept: 0
             Heartbeat Period: 1s
             Certificate Expiry Duration: 2160h0m0s
             This Node's Certificate Expires In: 3 months
             Manager Addresses: 10.0.0.1:2377
            Name: m1
            CPUs: 0
            Total Memory: 8GiB
        "#]]
        .assert_eq(&sheet(&info, Timestamp(0)));
        let cluster = &object(&info)["Swarm"]["Cluster"];
        assert_eq!(cluster["HeartbeatPeriod"], 1_000_000_000);
        assert_eq!(cluster["DefaultAddrPool"], json!(["10.0.0.0/8"]));
        assert_eq!(object(&info)["Swarm"]["CertExpiresAt"], "1970-04-01T00:00:00.000Z");
        assert_eq!(object(&InfoResponse::default())["Swarm"]["CertExpiresAt"], "", "there is none");
        assert_eq!((&cluster["SubnetSize"], &cluster["DataPathPort"]), (&json!(24), &json!(4789)));
    }
}
