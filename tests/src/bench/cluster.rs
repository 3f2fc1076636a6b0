//! A cluster of hosts with the release binaries, to measure on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use swarm_deploy_dev::{Cluster, Places, Programs, Role, Settings, demo_image};
use swarm_proto::v1;

use super::Order;
use super::api::{Api, World};
use super::cpu;
use super::place;

pub(crate) const NAME: &str = "bench";
const IMAGE: &str = "bench:1";
const SETTLE: Duration = Duration::from_secs(60);

/// Up as long as the value lives.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    places: Places,
}

impl Rig {
    /// Three managers and as many workers, every node ready, an image on each.
    pub(crate) async fn up(order: &Order, workers: usize) -> Result<Rig> {
        Rig::of(order, 3, workers).await
    }

    /// So many managers and workers, every node ready, an image on each.
    pub(crate) async fn of(order: &Order, managers: usize, workers: usize) -> Result<Rig> {
        let programs =
            Programs { swarmd: order.programs.join("swarmd"), swarmctl: order.programs.join("swarmctl") };
        let settings = Settings { managers, workers, ..Settings::new(NAME, programs) };
        let places = settings.places.clone();
        let cluster = Cluster::up(&settings, &mut |_| ()).context("start a cluster to measure on")?;
        let rig = Rig { cluster, places };
        let dir = place::directory()?;
        let archive = dir.path().join("image.tar");
        image(&archive)?;
        rig.api("m1").load(&archive).await?;
        Ok(rig)
    }

    pub(crate) fn api(&self, host: &str) -> Api {
        Api::at(&self.cluster.socket(host))
    }

    /// Names of the hosts that have a daemon, managers first.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let nodes = self.cluster.hosts().iter().filter(|host| host.role != Role::Client);
        nodes.map(|host| host.name.clone()).collect()
    }

    pub(crate) fn managers(&self) -> Vec<String> {
        self.hosts().into_iter().filter(|host| host.starts_with('m')).collect()
    }

    /// The host that leads, as soon as every node is ready and every manager reachable.
    pub(crate) async fn leader(&self) -> Result<String> {
        let end = Instant::now() + SETTLE;
        let mut apis: Vec<Api> = self.managers().iter().map(|host| self.api(host)).collect();
        loop {
            apis.rotate_left(1);
            let asked = tokio::time::timeout(Duration::from_secs(2), apis[0].nodes()).await;
            if let Ok(Ok(nodes)) = asked
                && let Some(leader) = whole(&nodes, self.hosts().len())
            {
                return Ok(leader);
            }
            if Instant::now() >= end {
                bail!("wait for a whole cluster: not in {} s", SETTLE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Boots a host that was killed, and waits until the cluster is whole.
    pub(crate) async fn revive(&self, host: &str) -> Result<()> {
        self.cluster.start(host).with_context(|| format!("start {host}"))?;
        self.leader().await.map(drop)
    }

    /// CPU seconds that all hosts used so far, containers and what ended included.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu::of_group(&format!("swarm-dev/{NAME}"))
    }

    /// Every process of every host.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        cpu::processes(&format!("swarm-dev/{NAME}")).into_iter().collect()
    }

    /// Removes a service and waits until its tasks and their processes are gone.
    pub(crate) async fn clear(&self, api: &Api, world: &mut World, service: &str) -> Result<()> {
        api.remove(service).await.context("remove the service")?;
        world.until("no task", SETTLE, |world| !world.has_tasks_of(service)).await?;
        let end = Instant::now() + SETTLE;
        while self.processes().iter().any(|pid| cpu::program(*pid) == "swarmd-shim") {
            if Instant::now() >= end {
                bail!("wait for the end of the supervisors: not in {} s", SETTLE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(&self.places, NAME) {
            eprintln!("remove the cluster: {error}");
        }
    }
}

/// Writes the image that both we and the peers run.
pub(crate) fn image(archive: &Path) -> Result<()> {
    demo_image(&PathBuf::from("/bin/busybox"), archive, IMAGE)
        .context("make the image (busybox-static is needed)")
}

pub(crate) fn image_name() -> &'static str {
    IMAGE
}

/// The leader's name, if all is well.
fn whole(nodes: &[v1::NodeEntry], count: usize) -> Option<String> {
    let ready = |entry: &&v1::NodeEntry| {
        let status = entry.node.as_ref().and_then(|node| node.status.as_ref());
        let reachable = entry.manager.as_ref().is_none_or(|manager| manager.reachable);
        reachable && status.is_some_and(|status| status.state() == v1::node_status::State::Ready)
    };
    if nodes.iter().filter(ready).count() != count {
        return None;
    }
    let leader = nodes.iter().find(|entry| entry.manager.as_ref().is_some_and(|manager| manager.leader));
    leader.and_then(hostname)
}

fn hostname(entry: &v1::NodeEntry) -> Option<String> {
    Some(entry.node.as_ref()?.description.as_ref()?.hostname.clone())
}

/// A service of so many sleepers that end at once when they are told to.
pub(crate) fn sleepers(name: &str, replicas: u64) -> v1::ServiceSpec {
    let container = v1::ContainerSpec {
        image: IMAGE.to_owned(),
        args: ["sleep", "86400"].map(str::to_owned).to_vec(),
        stop_signal: "SIGKILL".to_owned(),
        ..v1::ContainerSpec::default()
    };
    let task = v1::TaskSpec {
        restart: Some(v1::RestartPolicy { delay_ms: 5000, ..v1::RestartPolicy::default() }),
        container: Some(container),
        limits: Some(v1::Limits::default()),
        reservations: Some(v1::Resources::default()),
        placement: Some(v1::Placement::default()),
        ..v1::TaskSpec::default()
    };
    v1::ServiceSpec {
        annotations: Some(v1::Annotations { name: name.to_owned(), ..v1::Annotations::default() }),
        task: Some(task),
        update: Some((&swarm_types::policy::UpdatePolicy::default()).into()),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedMode { replicas })),
        endpoint: None,
    }
}
