//! What `info` tells.

use swarm_proto::v1;
use swarm_types::node::NodeDescription;
use swarm_types::resources::NANO_CPU;
use swarm_worker_runtime::cgroup::Controllers;

use crate::active::{Active, Machine};

/// What is known of the machine.
pub(crate) fn of_machine(machine: &Machine, description: &NodeDescription) -> v1::InfoResponse {
    let uname = nix::sys::utsname::uname();
    let kernel = uname.map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let cgroups = Controllers::probe().ok();
    let missing = &description.missing_controllers;
    let unlimited = |what: &String| format!("WARNING: no {what} limit support on this machine");
    v1::InfoResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: machine.hostname.clone(),
        os: description.platform.os.clone(),
        architecture: description.platform.architecture.clone(),
        kernel,
        cpus: description.resources.nano_cpus / NANO_CPU,
        memory_bytes: description.resources.memory_bytes,
        warnings: missing.iter().map(unlimited).collect(),
        cgroup_version: cgroups.as_ref().map_or("", Controllers::version).into(),
        state_dir: machine.state.path().display().to_string(),
        ..v1::InfoResponse::default()
    }
}

/// What is known of its place in the cluster.
pub(crate) fn of_active(info: &mut v1::InfoResponse, active: &Active) {
    let own = active.identity.own();
    info.state = "active".into();
    info.node_id = active.record.node().to_string();
    info.cluster_id = active.record.cluster().to_string();
    info.node_addr = active.record.advertise_addr.rsplit_once(':').map_or("", |(ip, _)| ip).to_owned();
    info.managers = active.managers();
    info.cert_expires_at_ms = own.expires.0;
    let agent = active.agent.status();
    let agent = agent.borrow();
    info.root_cert_pem.clone_from(&agent.root_cert_pem);
    let Some(role) = &active.manager else { return };
    let status = role.manager.raft().status();
    let view = role.manager.state().view();
    info.is_manager = true;
    info.is_leader = status.is_leader();
    info.node_count = u64::try_from(view.nodes().count()).unwrap_or(u64::MAX);
    info.manager_count = u64::try_from(status.members.len()).unwrap_or(u64::MAX);
    info.cluster = view.cluster().map(|c| (&c.spec).into());
    let quorum = status.quorum();
    if status.leader.is_none() {
        info.warnings.push(format!("WARNING: the swarm has no leader: {quorum}"));
    }
}
