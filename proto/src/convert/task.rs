//! Tasks, what they are made from, what was seen of them.

use std::sync::Arc;
use std::time::Duration;

use swarm_types::container::{ContainerNetwork, ContainerSpec, Mount, MountKind, Propagation};
use swarm_types::meta::Annotations;
use swarm_types::network::{Attachment, AttachmentSpec};
use swarm_types::placement::{Constraint, Placement, Platform};
use swarm_types::resources::{Limits, Requirements, Resources};
use swarm_types::task::{Attempt, ContainerStatus, Task, TaskSpec, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use super::network::ports;
use super::{Malformed, id, ms, nested, required};
use crate::v1;
use v1::mount::Kind;

impl From<&TaskSpec> for v1::TaskSpec {
    fn from(s: &TaskSpec) -> Self {
        v1::TaskSpec {
            container: Some((&s.container).into()),
            limits: Some(v1::Limits {
                nano_cpus: s.resources.limits.nano_cpus,
                memory_bytes: s.resources.limits.memory_bytes,
                pids: s.resources.limits.pids,
            }),
            reservations: Some(s.resources.reservations.into()),
            restart: Some((&s.restart).into()),
            placement: Some((&s.placement).into()),
            force_update: s.force_update,
            networks: s.networks.iter().map(Into::into).collect(),
            host_ports: s.host_ports.iter().map(Into::into).collect(),
            gateway: s.gateway,
        }
    }
}

impl TryFrom<v1::TaskSpec> for TaskSpec {
    type Error = Malformed;
    fn try_from(s: v1::TaskSpec) -> Result<Self, Malformed> {
        let limits = required(s.limits, "limits")?;
        let networks: Result<_, Malformed> = s.networks.into_iter().map(AttachmentSpec::try_from).collect();
        Ok(TaskSpec {
            container: nested(s.container, "container")?,
            resources: Requirements {
                limits: Limits {
                    nano_cpus: limits.nano_cpus,
                    memory_bytes: limits.memory_bytes,
                    pids: limits.pids,
                },
                reservations: required(s.reservations, "reservations")?.into(),
            },
            restart: nested(s.restart, "restart")?,
            placement: nested(s.placement, "placement")?,
            force_update: s.force_update,
            networks: networks.map_err(|e| e.within("networks"))?,
            host_ports: ports(s.host_ports)?,
            gateway: s.gateway,
        })
    }
}

impl From<Resources> for v1::Resources {
    fn from(r: Resources) -> Self {
        v1::Resources { nano_cpus: r.nano_cpus, memory_bytes: r.memory_bytes }
    }
}

impl From<v1::Resources> for Resources {
    fn from(r: v1::Resources) -> Self {
        Resources { nano_cpus: r.nano_cpus, memory_bytes: r.memory_bytes }
    }
}

impl From<&Platform> for v1::Platform {
    fn from(p: &Platform) -> Self {
        v1::Platform { os: p.os.clone(), architecture: p.architecture.clone() }
    }
}

impl From<v1::Platform> for Platform {
    fn from(p: v1::Platform) -> Self {
        Platform { os: p.os, architecture: p.architecture }
    }
}

impl From<&Placement> for v1::Placement {
    fn from(p: &Placement) -> Self {
        v1::Placement {
            constraints: p.constraints.iter().map(ToString::to_string).collect(),
            platforms: p.platforms.iter().map(Into::into).collect(),
            max_replicas_per_node: p.max_replicas_per_node,
        }
    }
}

impl TryFrom<v1::Placement> for Placement {
    type Error = Malformed;
    fn try_from(p: v1::Placement) -> Result<Self, Malformed> {
        let parse = |text: &String| Constraint::parse(text).map_err(|e| Malformed::new("constraints", e));
        Ok(Placement {
            constraints: p.constraints.iter().map(parse).collect::<Result<_, _>>()?,
            platforms: p.platforms.into_iter().map(Into::into).collect(),
            max_replicas_per_node: p.max_replicas_per_node,
        })
    }
}

impl From<&ContainerSpec> for v1::ContainerSpec {
    fn from(c: &ContainerSpec) -> Self {
        let network = match c.network {
            ContainerNetwork::Loopback => v1::ContainerNetwork::Loopback,
            ContainerNetwork::Bridge => v1::ContainerNetwork::Bridge,
            ContainerNetwork::Host => v1::ContainerNetwork::Host,
        };
        v1::ContainerSpec {
            image: c.image.clone(),
            entrypoint: c.entrypoint.clone(),
            args: c.args.clone(),
            env: c.env.clone(),
            hostname: c.hostname.clone(),
            dir: c.dir.clone(),
            user: c.user.clone(),
            labels: c.labels.clone(),
            mounts: c.mounts.iter().map(Into::into).collect(),
            stop_signal: c.stop_signal.clone(),
            stop_grace_period_ms: c.stop_grace_period.map(ms),
            read_only: c.read_only,
            network: network.into(),
        }
    }
}

impl TryFrom<v1::ContainerSpec> for ContainerSpec {
    type Error = Malformed;
    fn try_from(c: v1::ContainerSpec) -> Result<Self, Malformed> {
        let network = v1::ContainerNetwork::try_from(c.network).map_err(|e| Malformed::new("network", e))?;
        let mounts = c.mounts.into_iter().map(Mount::try_from).collect::<Result<_, _>>();
        Ok(ContainerSpec {
            image: c.image,
            entrypoint: c.entrypoint,
            args: c.args,
            env: c.env,
            hostname: c.hostname,
            dir: c.dir,
            user: c.user,
            labels: c.labels,
            mounts: mounts.map_err(|e: Malformed| e.within("mounts"))?,
            stop_signal: c.stop_signal,
            stop_grace_period: c.stop_grace_period_ms.map(Duration::from_millis),
            read_only: c.read_only,
            network: match network {
                v1::ContainerNetwork::Loopback => ContainerNetwork::Loopback,
                v1::ContainerNetwork::Bridge => ContainerNetwork::Bridge,
                v1::ContainerNetwork::Host => ContainerNetwork::Host,
            },
        })
    }
}

impl From<&Mount> for v1::Mount {
    fn from(m: &Mount) -> Self {
        let kind = match &m.kind {
            MountKind::Bind { propagation, recursive } => Kind::Bind(v1::BindOptions {
                propagation: propagation.as_str().into(),
                non_recursive: !recursive,
            }),
            MountKind::Tmpfs { size_bytes, mode } => {
                Kind::Tmpfs(v1::TmpfsOptions { size_bytes: *size_bytes, mode: *mode })
            }
        };
        v1::Mount {
            source: m.source.clone(),
            target: m.target.clone(),
            read_only: m.read_only,
            kind: Some(kind),
        }
    }
}

impl TryFrom<v1::Mount> for Mount {
    type Error = Malformed;
    fn try_from(m: v1::Mount) -> Result<Self, Malformed> {
        let kind = match required(m.kind, "kind")? {
            Kind::Bind(b) => MountKind::Bind {
                propagation: Propagation::parse(&b.propagation).ok_or_else(|| {
                    Malformed::new("propagation", format!("unknown word `{}`", b.propagation))
                })?,
                recursive: !b.non_recursive,
            },
            Kind::Tmpfs(t) => MountKind::Tmpfs { size_bytes: t.size_bytes, mode: t.mode },
        };
        Ok(Mount { kind, source: m.source, target: m.target, read_only: m.read_only })
    }
}

impl From<&Task> for v1::Task {
    fn from(t: &Task) -> Self {
        v1::Task { spec: Some(t.spec.as_ref().into()), ..without_spec(t) }
    }
}

/// A task as it goes into the log where its spec is known already: see `store.proto`.
pub(super) fn without_spec(t: &Task) -> v1::Task {
    v1::Task {
        id: t.id.to_string(),
        meta: Some(t.meta.into()),
        service_id: t.service.to_string(),
        service_annotations: Some(t.service_annotations.as_ref().into()),
        slot: t.slot,
        node_id: t.node.to_string(),
        spec: None,
        spec_version: t.spec_version,
        desired_state: t.desired_state.number(),
        status: Some((&t.status).into()),
        attempt_count: t.attempt.count,
        attempt_window_start_ms: t.attempt.window_start.0,
        start_after_ms: t.start_after.0,
        attachments: t.attachments.iter().map(Into::into).collect(),
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Malformed;
    fn try_from(mut t: v1::Task) -> Result<Self, Malformed> {
        let spec = Arc::new(nested(t.spec.take(), "spec")?);
        with_spec(t, spec)
    }
}

/// The task that `wire`, which has no spec, and `spec` make.
pub(super) fn with_spec(t: v1::Task, spec: Arc<TaskSpec>) -> Result<Task, Malformed> {
    let attachments: Result<_, Malformed> = t.attachments.into_iter().map(Attachment::try_from).collect();
    Ok(Task {
        id: id(&t.id, "id")?,
        meta: required(t.meta, "meta")?.into(),
        service: id(&t.service_id, "service_id")?,
        service_annotations: Arc::new(Annotations::from(required(
            t.service_annotations,
            "service_annotations",
        )?)),
        slot: t.slot,
        node: id(&t.node_id, "node_id")?,
        spec,
        spec_version: t.spec_version,
        desired_state: state(t.desired_state, "desired_state")?,
        status: nested(t.status, "status")?,
        attempt: Attempt { count: t.attempt_count, window_start: Timestamp(t.attempt_window_start_ms) },
        start_after: Timestamp(t.start_after_ms),
        attachments: attachments.map_err(|e| e.within("attachments"))?,
    })
}

fn state(number: u32, field: &str) -> Result<TaskState, Malformed> {
    TaskState::from_number(number).ok_or_else(|| Malformed::new(field, format!("{number} is no task state")))
}

impl From<&TaskStatus> for v1::TaskStatus {
    fn from(s: &TaskStatus) -> Self {
        v1::TaskStatus {
            state: s.state.number(),
            at_ms: s.at.0,
            applied_at_ms: s.applied_at.0,
            message: s.message.clone(),
            err: s.err.clone(),
            container: s.container.as_ref().map(|c| v1::ContainerStatus {
                container_id: c.container_id.clone(),
                pid: c.pid,
                exit_code: c.exit_code,
                oom_killed: c.oom_killed,
                ports: c.ports.iter().map(Into::into).collect(),
            }),
        }
    }
}

fn container_status(c: v1::ContainerStatus) -> Result<ContainerStatus, Malformed> {
    Ok(ContainerStatus {
        container_id: c.container_id,
        pid: c.pid,
        exit_code: c.exit_code,
        oom_killed: c.oom_killed,
        ports: ports(c.ports).map_err(|e| e.within("container"))?,
    })
}

impl TryFrom<v1::TaskStatus> for TaskStatus {
    type Error = Malformed;
    fn try_from(s: v1::TaskStatus) -> Result<Self, Malformed> {
        Ok(TaskStatus {
            state: state(s.state, "state")?,
            at: Timestamp(s.at_ms),
            applied_at: Timestamp(s.applied_at_ms),
            message: s.message,
            err: s.err,
            container: s.container.map(container_status).transpose()?,
        })
    }
}
