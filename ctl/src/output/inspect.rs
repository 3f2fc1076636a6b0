//! Objects as `inspect` prints them: Docker's field names and units (durations in nanoseconds).

use std::time::Duration;

use serde_json::{Map, Value, json};
use swarm_proto::v1;
use swarm_types::container::{ContainerSpec, Mount, MountKind};
use swarm_types::meta::{Labels, Meta};
use swarm_types::network::Network;
use swarm_types::node::Node;
use swarm_types::policy::{FailureAction, RestartPolicy, UpdateOrder, UpdatePolicy};
use swarm_types::resources::{Requirements, Resources};
use swarm_types::service::{Mode, Service, ServiceSpec};
use swarm_types::task::{Task, TaskSpec};

use super::endpoint;

/// A service; `networks` are those that it has addresses on, as far as they are known.
pub(crate) fn service(service: &Service, networks: &[Network]) -> Value {
    let mut out = head(service.id, &service.meta);
    out.insert("Spec".into(), spec(&service.spec));
    if let Some(previous) = &service.previous_spec {
        out.insert("PreviousSpec".into(), spec(previous));
    }
    out.insert("Endpoint".into(), endpoint::service(service, networks));
    if let Some(status) = &service.update_status {
        let mut update = Map::new();
        update.insert("State".into(), status.state.as_str().into());
        update.insert("StartedAt".into(), status.started_at.to_string().into());
        if !status.completed_at.is_zero() {
            update.insert("CompletedAt".into(), status.completed_at.to_string().into());
        }
        update.insert("Message".into(), status.message.clone().into());
        out.insert("UpdateStatus".into(), Value::Object(update));
    }
    Value::Object(out)
}

/// A service's spec.
pub(crate) fn spec(spec: &ServiceSpec) -> Value {
    json!({
        "Name": spec.annotations.name,
        "Labels": labels(&spec.annotations.labels),
        "TaskTemplate": template(&spec.task),
        "Mode": match spec.mode {
            Mode::Replicated { replicas } => json!({"Replicated": {"Replicas": replicas}}),
            Mode::Global => json!({"Global": {}}),
        },
        "UpdateConfig": update(&spec.update),
        "EndpointSpec": endpoint::spec(&spec.endpoint),
    })
}

/// A task, and why nodes do not fit if it waits for one; `networks` are those that it is on, as far as
/// they are known.
pub(crate) fn task(task: &Task, unfit: &[v1::NodeReason], networks: &[Network]) -> Value {
    let mut out = head(task.id, &task.meta);
    out.insert("Name".into(), task.name().into());
    out.insert("Labels".into(), json!({}));
    out.insert("Spec".into(), template(&task.spec));
    out.insert("ServiceID".into(), task.service.to_string().into());
    if task.slot > 0 {
        out.insert("Slot".into(), task.slot.into());
    }
    out.insert("NodeID".into(), task.node.to_string().into());
    let mut status = Map::new();
    status.insert("Timestamp".into(), task.status.at.to_string().into());
    status.insert("State".into(), task.status.state.as_str().into());
    status.insert("Message".into(), task.status.message.clone().into());
    text(&mut status, "Err", &task.status.err);
    if let Some(container) = &task.status.container {
        let container = json!({
            "ContainerID": container.container_id, "PID": container.pid,
            "ExitCode": container.exit_code, "OOMKilled": container.oom_killed,
        });
        status.insert("ContainerStatus".into(), container);
    }
    let ports = task.status.container.as_ref().map(|c| c.ports.as_slice()).unwrap_or_default();
    if !ports.is_empty() {
        status.insert(
            "PortStatus".into(),
            json!({"Ports": ports.iter().map(endpoint::port).collect::<Vec<_>>()}),
        );
    }
    out.insert("Status".into(), Value::Object(status));
    out.insert("Network".into(), endpoint::connected(&task.spec).into());
    if !task.attachments.is_empty() {
        out.insert("NetworksAttachments".into(), endpoint::attachments(task, networks));
    }
    out.insert("DesiredState".into(), task.desired_state.as_str().into());
    out.insert("Attempt".into(), task.attempt.count.into());
    if !unfit.is_empty() {
        let reasons = unfit.iter();
        let reasons: Vec<_> = reasons
            .map(|r| json!({"NodeID": r.node_id, "Hostname": r.node_name, "Reason": r.reason}))
            .collect();
        out.insert("UnfitNodes".into(), reasons.into());
    }
    Value::Object(out)
}

/// A node, and what it could not do of its networks.
pub(crate) fn node(
    node: &Node,
    manager: Option<&v1::ManagerStatus>,
    problems: &[v1::NetworkProblem],
) -> Value {
    let mut out = head(node.id, &node.meta);
    let mut spec = Map::new();
    text(&mut spec, "Name", &node.spec.annotations.name);
    spec.insert("Labels".into(), labels(&node.spec.annotations.labels));
    spec.insert("Role".into(), node.spec.role.as_str().into());
    spec.insert("Availability".into(), node.spec.availability.as_str().into());
    out.insert("Spec".into(), Value::Object(spec));
    let about = &node.description;
    let description = json!({
        "Hostname": about.hostname,
        "Platform": {"Architecture": about.platform.architecture, "OS": about.platform.os},
        "Resources": amounts(about.resources),
        "Engine": {"EngineVersion": about.engine_version, "Labels": labels(&about.engine_labels)},
        "MissingControllers": about.missing_controllers,
    });
    out.insert("Description".into(), description);
    out.insert("Network".into(), endpoint::node(node, problems));
    let mut status = Map::new();
    status.insert("State".into(), node.status.state.as_str().into());
    text(&mut status, "Message", &node.status.message);
    status.insert("Addr".into(), node.status.addr.clone().into());
    out.insert("Status".into(), Value::Object(status));
    if let Some(manager) = manager {
        let mut status = Map::new();
        if manager.leader {
            status.insert("Leader".into(), true.into());
        }
        let reachable = if manager.reachable { "reachable" } else { "unreachable" };
        status.insert("Reachability".into(), reachable.into());
        status.insert("Addr".into(), manager.addr.clone().into());
        out.insert("ManagerStatus".into(), Value::Object(status));
    }
    Value::Object(out)
}

fn head(id: impl ToString, meta: &Meta) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("ID".into(), id.to_string().into());
    out.insert("Version".into(), json!({"Index": meta.version}));
    out.insert("CreatedAt".into(), meta.created_at.to_string().into());
    out.insert("UpdatedAt".into(), meta.updated_at.to_string().into());
    out
}

fn template(task: &TaskSpec) -> Value {
    let mut out = json!({
        "ContainerSpec": container(&task.container),
        "Resources": resources(&task.resources),
        "RestartPolicy": restart(&task.restart),
        "Placement": {
            "Constraints": task.placement.constraints.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "MaxReplicas": task.placement.max_replicas_per_node,
            "Platforms": task.placement.platforms.iter()
                .map(|p| json!({"Architecture": p.architecture, "OS": p.os})).collect::<Vec<_>>(),
        },
        "ForceUpdate": task.force_update,
        "Runtime": "container",
    });
    let networks = endpoint::networks(task);
    if !networks.is_empty() {
        out["Networks"] = networks.into();
    }
    out
}

fn container(spec: &ContainerSpec) -> Value {
    let mut out = Map::new();
    text(&mut out, "Image", &spec.image);
    if !spec.labels.is_empty() {
        out.insert("Labels".into(), labels(&spec.labels));
    }
    list(&mut out, "Command", &spec.entrypoint);
    list(&mut out, "Args", &spec.args);
    text(&mut out, "Hostname", &spec.hostname);
    list(&mut out, "Env", &spec.env);
    text(&mut out, "Dir", &spec.dir);
    text(&mut out, "User", &spec.user);
    if spec.read_only {
        out.insert("ReadOnly".into(), true.into());
    }
    if !spec.mounts.is_empty() {
        out.insert("Mounts".into(), spec.mounts.iter().map(mount).collect());
    }
    text(&mut out, "StopSignal", &spec.stop_signal);
    let grace = spec.stop_grace_period.unwrap_or(swarm_types::defaults::STOP_GRACE_PERIOD);
    out.insert("StopGracePeriod".into(), nanos(grace));
    Value::Object(out)
}

fn mount(mount: &Mount) -> Value {
    let mut out = Map::new();
    let kind = if matches!(mount.kind, MountKind::Bind { .. }) { "bind" } else { "tmpfs" };
    out.insert("Type".into(), kind.into());
    text(&mut out, "Source", &mount.source);
    text(&mut out, "Target", &mount.target);
    if mount.read_only {
        out.insert("ReadOnly".into(), true.into());
    }
    match &mount.kind {
        MountKind::Bind { propagation, recursive } => {
            let options = json!({"Propagation": propagation.as_str(), "NonRecursive": !recursive});
            out.insert("BindOptions".into(), options);
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            out.insert("TmpfsOptions".into(), json!({"SizeBytes": size_bytes, "Mode": mode}));
        }
    }
    Value::Object(out)
}

fn resources(r: &Requirements) -> Value {
    let mut limits = Map::new();
    number(&mut limits, "NanoCPUs", r.limits.nano_cpus);
    number(&mut limits, "MemoryBytes", r.limits.memory_bytes);
    number(&mut limits, "Pids", r.limits.pids);
    json!({"Limits": limits, "Reservations": amounts(r.reservations)})
}

fn amounts(r: Resources) -> Value {
    let mut out = Map::new();
    number(&mut out, "NanoCPUs", r.nano_cpus);
    number(&mut out, "MemoryBytes", r.memory_bytes);
    Value::Object(out)
}

fn restart(policy: &RestartPolicy) -> Value {
    json!({
        "Condition": policy.condition.as_str(), "Delay": nanos(policy.delay),
        "MaxAttempts": policy.max_attempts, "Window": nanos(policy.window),
    })
}

fn update(policy: &UpdatePolicy) -> Value {
    json!({
        "Parallelism": policy.parallelism, "Delay": nanos(policy.delay),
        "FailureAction": action(policy.failure_action), "Monitor": nanos(policy.monitor),
        "MaxFailureRatio": f64::from(policy.max_failure_permille) / 1000.0,
        "Order": order(policy.order),
    })
}

/// Docker's word.
pub(crate) fn action(action: FailureAction) -> &'static str {
    match action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    }
}

/// Docker's word.
pub(crate) fn order(order: UpdateOrder) -> &'static str {
    match order {
        UpdateOrder::StopFirst => "stop-first",
        UpdateOrder::StartFirst => "start-first",
    }
}

/// Labels as an object.
pub(crate) fn labels(labels: &Labels) -> Value {
    labels.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect::<Map<_, _>>().into()
}

fn nanos(d: Duration) -> Value {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).into()
}

pub(super) fn text(out: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        out.insert(key.into(), value.into());
    }
}

pub(super) fn number(out: &mut Map<String, Value>, key: &str, value: u64) {
    if value > 0 {
        out.insert(key.into(), value.into());
    }
}

pub(super) fn list(out: &mut Map<String, Value>, key: &str, values: &[String]) {
    if !values.is_empty() {
        out.insert(key.into(), values.into());
    }
}
