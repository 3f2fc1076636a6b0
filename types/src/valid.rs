//! Which specs are valid. Pure checks, run by the command line before it sends and by the managers
//! before they accept.

mod endpoint;
mod network;

use std::time::Duration;

pub use endpoint::endpoint;
pub use network::{
    DATA_PATH_PORTS, LEAST_MTU_V6, LONGEST_PREFIX_V4, LONGEST_PREFIX_V6, MTU, PREDEFINED, SHORTEST_PREFIX,
    network, network_name,
};

use crate::cluster::ClusterSpec;
use crate::container::{ContainerSpec, Mount, MountKind};
use crate::defaults;
use crate::meta::Labels;
use crate::node::NodeSpec;
use crate::policy::RestartPolicy;
use crate::resources::Requirements;
use crate::service::{Mode, ServiceSpec};

/// A spec is not valid: which field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: {problem}")]
pub struct Invalid {
    /// Path of the field, e.g. `resources.limits.memory`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// The refusal of one field.
pub fn invalid<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { field: field.into(), problem: problem.into() })
}

/// Names of services: `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, at most 63 characters (Docker Swarm).
pub fn service_name(name: &str) -> Result<(), Invalid> {
    object_name(name)
}

fn object_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return invalid("name", "a name must be provided");
    }
    if name.len() > 63 {
        return invalid("name", format!("`{name}` has {} characters, 63 are allowed", name.len()));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let good = name.bytes().all(inner) && ends(name.bytes().next()) && ends(name.bytes().last());
    match good {
        true => Ok(()),
        false => invalid(
            "name",
            format!("`{name}`: use letters, digits, `-` and `_`, starting and ending with a letter or digit"),
        ),
    }
}

/// Checks all of a service's spec.
pub fn service(spec: &ServiceSpec) -> Result<(), Invalid> {
    service_name(&spec.annotations.name)?;
    labels("labels", &spec.annotations.labels)?;
    if let Mode::Replicated { replicas } = spec.mode
        && replicas > defaults::MAX_REPLICAS
    {
        return invalid("replicas", format!("{replicas} is more than {}", defaults::MAX_REPLICAS));
    }
    if spec.update.max_failure_permille > 1000 {
        return invalid("update-max-failure-ratio", "must be between 0 and 1");
    }
    if spec.mode == Mode::Global && spec.task.placement.max_replicas_per_node > 0 {
        return invalid("replicas-max-per-node", "can only be used with replicated services");
    }
    container(&spec.task.container)?;
    resources(&spec.task.resources)?;
    restart(&spec.task.restart)?;
    endpoint(&spec.endpoint)?;
    endpoint::attachments(&spec.task, &spec.endpoint.ports)
}

/// Checks all of a node's spec.
pub fn node(spec: &NodeSpec) -> Result<(), Invalid> {
    labels("labels", &spec.annotations.labels)
}

/// Checks all of a cluster's settings.
pub fn cluster(spec: &ClusterSpec) -> Result<(), Invalid> {
    if spec.cert_expiry < defaults::MIN_CERT_EXPIRY {
        return invalid("cert-expiry", "a certificate must live for at least 1h0m0s");
    }
    if spec.heartbeat_period.is_zero() || spec.heartbeat_period > Duration::from_secs(3600) {
        return invalid("dispatcher-heartbeat", "must be more than 0 and at most 1h0m0s");
    }
    if spec.snapshot_interval == 0 {
        return invalid("snapshot-interval", "must be at least 1");
    }
    if spec.key_rotation < defaults::MIN_KEY_ROTATION {
        return invalid("key-rotation", "a tunnel's key must live for at least 1s");
    }
    network::pools(spec)?;
    network::data_path_port(spec.data_path_port)
}

fn container(spec: &ContainerSpec) -> Result<(), Invalid> {
    image(&spec.image)?;
    labels("container-label", &spec.labels)?;
    for env in &spec.env {
        if env.is_empty() || env.starts_with('=') {
            return invalid("env", format!("`{env}` has no name"));
        }
    }
    for text in spec.env.iter().chain(&spec.args).chain(&spec.entrypoint) {
        no_nul("command or env", text)?;
    }
    if spec.hostname.len() > 253 {
        return invalid("hostname", "longer than 253 characters");
    }
    no_nul("hostname", &spec.hostname)?;
    no_nul("user", &spec.user)?;
    if !spec.dir.is_empty() && !spec.dir.starts_with('/') {
        return invalid("workdir", format!("`{}` is not an absolute path", spec.dir));
    }
    no_nul("workdir", &spec.dir)?;
    signal(&spec.stop_signal)?;
    mounts(&spec.mounts)
}

fn image(image: &str) -> Result<(), Invalid> {
    if image.is_empty() {
        return invalid("image", "an image must be named");
    }
    if image.len() > 4096 || image.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return invalid("image", "invalid reference format");
    }
    Ok(())
}

fn mounts(mounts: &[Mount]) -> Result<(), Invalid> {
    let mut targets = std::collections::BTreeSet::new();
    for mount in mounts {
        if !mount.target.starts_with('/') || mount.target.trim_end_matches('/').is_empty() {
            return invalid("mount", format!("target `{}` must be an absolute path below /", mount.target));
        }
        no_nul("mount", &mount.target)?;
        no_nul("mount", &mount.source)?;
        match &mount.kind {
            MountKind::Bind { .. } if !mount.source.starts_with('/') => {
                return invalid("mount", format!("bind source `{}` must be an absolute path", mount.source));
            }
            MountKind::Tmpfs { .. } if !mount.source.is_empty() => {
                return invalid("mount", "a tmpfs has no source");
            }
            MountKind::Tmpfs { mode, .. } if *mode > 0o7777 => {
                return invalid("mount", format!("tmpfs-mode {mode:o} is not a file mode"));
            }
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
        }
        if !targets.insert(mount.target.trim_end_matches('/')) {
            return invalid("mount", format!("duplicate mount point: {}", mount.target));
        }
    }
    Ok(())
}

fn signal(name: &str) -> Result<(), Invalid> {
    match name.is_empty() || crate::container_signal::number(name).is_some() {
        true => Ok(()),
        false => invalid("stop-signal", format!("`{name}` is not a signal")),
    }
}

fn resources(r: &Requirements) -> Result<(), Invalid> {
    // Docker's floors: 0.001 CPU and 4 MiB.
    for (field, nano) in [("limit-cpu", r.limits.nano_cpus), ("reserve-cpu", r.reservations.nano_cpus)] {
        if nano != 0 && nano < 1_000_000 {
            return invalid(field, "must be at least 0.001");
        }
        if nano > 1_000_000 * crate::resources::NANO_CPU {
            return invalid(field, "more than a million CPUs");
        }
    }
    for (field, bytes) in
        [("limit-memory", r.limits.memory_bytes), ("reserve-memory", r.reservations.memory_bytes)]
    {
        if bytes != 0 && bytes < 4 << 20 {
            return invalid(field, "must be at least 4MiB");
        }
        if bytes > 1 << 60 {
            return invalid(field, "more than 1 EiB");
        }
    }
    if r.limits.pids > 1 << 22 {
        return invalid("limit-pids", "more than the kernel allows (4194304)");
    }
    Ok(())
}

fn restart(policy: &RestartPolicy) -> Result<(), Invalid> {
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    if policy.delay > century || policy.window > century {
        return invalid("restart-delay", "longer than a century");
    }
    Ok(())
}

fn labels(field: &str, labels: &Labels) -> Result<(), Invalid> {
    for key in labels.keys() {
        if key.is_empty() {
            return invalid(field, "a label needs a name");
        }
        no_nul(field, key)?;
    }
    Ok(())
}

fn no_nul(field: &str, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') { invalid(field, "holds a NUL byte") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskSpec;
    use std::sync::Arc;

    fn spec(change: impl FnOnce(&mut ServiceSpec, &mut TaskSpec)) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        let mut task = TaskSpec::default();
        spec.annotations.name = "web".into();
        task.container.image = "nginx:1".into();
        change(&mut spec, &mut task);
        spec.task = Arc::new(task);
        spec
    }
    fn field(change: impl FnOnce(&mut ServiceSpec, &mut TaskSpec)) -> String {
        service(&spec(change)).err().map(|e| e.field).unwrap_or_default()
    }

    #[test]
    fn the_plain_spec_is_valid() {
        assert_eq!(service(&spec(|_, _| ())), Ok(()));
        assert_eq!(cluster(&ClusterSpec::default()), Ok(()));
    }

    #[test]
    fn names_follow_swarm() {
        for good in ["a", "web", "a-b", "a_b", "9", "a--b", &"x".repeat(63)] {
            assert!(service_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a.b", "ä", &"x".repeat(64)] {
            assert!(service_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        assert_eq!(field(|s, _| s.mode = Mode::Replicated { replicas: u64::MAX }), "replicas");
        assert_eq!(field(|_, t| t.container.image.clear()), "image");
        assert_eq!(field(|_, t| t.container.env = vec!["=x".into()]), "env");
        assert_eq!(field(|_, t| t.container.dir = "x".into()), "workdir");
        assert_eq!(field(|_, t| t.container.stop_signal = "SIGFOO".into()), "stop-signal");
        assert_eq!(field(|_, t| t.resources.limits.memory_bytes = 1), "limit-memory");
        assert_eq!(field(|_, t| t.resources.reservations.nano_cpus = 1), "reserve-cpu");
        assert_eq!(field(|_, t| t.container.mounts = vec![Mount::default()]), "mount");
        assert_eq!(
            field(|s, _| {
                s.annotations.labels.insert(String::new(), "x".into());
            }),
            "labels"
        );
    }

    #[test]
    fn certificates_live_an_hour_at_least() {
        let spec = ClusterSpec { cert_expiry: Duration::from_secs(60), ..ClusterSpec::default() };
        assert_eq!(cluster(&spec).unwrap_err().field, "cert-expiry");
    }

    #[test]
    fn keys_live_a_second_at_least() {
        let spec = ClusterSpec { key_rotation: Duration::from_millis(999), ..ClusterSpec::default() };
        assert_eq!(cluster(&spec).unwrap_err().field, "key-rotation");
        let spec = ClusterSpec { key_rotation: Duration::from_secs(1), ..ClusterSpec::default() };
        assert_eq!(cluster(&spec), Ok(()));
    }
}
