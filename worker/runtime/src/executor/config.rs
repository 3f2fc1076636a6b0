//! What a supervisor is told of a container: the plan, the image and the links as one configuration.

use swarm_types::container::{ContainerNetwork, MountKind, Propagation};
use swarm_types::container_signal;
use swarm_worker_agent::executor::TaskLinks;
use swarm_worker_core::container::ContainerPlan;
use swarm_worker_core::image_config::{ImageConfig, Process};
use swarm_worker_shim::config::{
    ContainerConfig, FileMount, Limits, Mount, Network, Propagation as ShimPropagation,
};

use super::GRACE_LABEL;
use crate::image::Image;

pub(super) fn image_config(image: &Image) -> ImageConfig {
    let config = &image.config;
    ImageConfig {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        dir: config.working_dir.clone(),
        user: config.user.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
    }
}

pub(super) fn config(
    plan: &ContainerPlan,
    process: Process,
    image: &Image,
    files: Vec<FileMount>,
    links: TaskLinks,
) -> ContainerConfig {
    let mut labels = process.labels;
    labels.insert(GRACE_LABEL.into(), plan.stop_grace_period.as_millis().to_string());
    ContainerConfig {
        layers: image.layers.iter().rev().cloned().collect(),
        args: process.args,
        env: process.env,
        cwd: process.dir,
        user: process.user,
        hostname: plan.hostname.clone(),
        read_only: plan.read_only,
        mounts: plan.mounts.iter().map(mount).collect(),
        files,
        limits: Limits {
            nano_cpus: plan.limits.nano_cpus,
            memory_bytes: plan.limits.memory_bytes,
            pids: plan.limits.pids,
        },
        network: match plan.network {
            ContainerNetwork::Loopback | ContainerNetwork::Bridge => {
                links.namespace.map_or(Network::None, Network::Namespace)
            }
            ContainerNetwork::Host => Network::Host,
        },
        // Checked when the spec was accepted; an image may still name one that is none.
        stop_signal: container_signal::number(&process.stop_signal).unwrap_or(15),
        labels,
        ..ContainerConfig::default()
    }
}

fn mount(mount: &swarm_types::container::Mount) -> Mount {
    match &mount.kind {
        MountKind::Bind { propagation, recursive } => Mount::Bind {
            source: mount.source.clone().into(),
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation: match propagation {
                Propagation::RPrivate => ShimPropagation::Rprivate,
                Propagation::Private => ShimPropagation::Private,
                Propagation::RShared => ShimPropagation::Rshared,
                Propagation::Shared => ShimPropagation::Shared,
                Propagation::RSlave => ShimPropagation::Rslave,
                Propagation::Slave => ShimPropagation::Slave,
            },
            non_recursive: !recursive,
        },
        MountKind::Tmpfs { size_bytes, mode } => {
            Mount::Tmpfs { target: mount.target.clone(), size_bytes: *size_bytes, mode: *mode }
        }
    }
}
