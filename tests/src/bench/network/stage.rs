//! Where traffic is measured: a manager, two workers and a client outside, with services on networks
//! that are not encrypted and on one that is.
//!
//! Containers only hold the namespaces (`sleep`): in them, and on the hosts for comparison, run servers
//! and clients of our own. `web` serves on w2; `near` calls from w2, `far` from w1, `client` from outside.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use swarm_proto::v1;

use super::spot::Spot;
use crate::bench::cluster::{self, Rig};
use crate::bench::program::{self, Running};
use crate::bench::{Order, api::World};

const LIMIT: Duration = Duration::from_secs(60);
/// In tasks.
pub(crate) const PAGE: u16 = 80;
pub(crate) const SINK: u16 = 90;
/// On hosts.
pub(crate) const HOST_PAGE: u16 = 8180;
pub(crate) const HOST_SINK: u16 = 8190;
/// The service's, on all hosts.
pub(crate) const PUBLISHED: u16 = 8080;

/// Up as long as the value lives.
pub(crate) struct Stage {
    /// Before the cluster, which is taken down last.
    servers: Vec<Running>,
    swarmctl: PathBuf,
    rig: Rig,
    tasks: BTreeMap<String, v1::Task>,
    /// Names of networks by their ids.
    networks: BTreeMap<String, String>,
}

impl Stage {
    pub(crate) async fn up(order: &Order) -> Result<Stage> {
        let rig = Rig::of(order, 1, 2).await?;
        let swarmctl = order.programs.join("swarmctl");
        let (servers, tasks, networks) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut stage = Stage { servers, swarmctl, rig, tasks, networks };
        stage.furnish().await?;
        stage.forget_soon()?;
        for (spot, page, sink) in [(stage.task("web")?, PAGE, SINK), (stage.host("w2"), HOST_PAGE, HOST_SINK)]
        {
            stage.servers.push(spot.serve(page, sink)?);
        }
        Ok(stage)
    }

    /// Makes the networks and services.
    async fn furnish(&mut self) -> Result<()> {
        let image = cluster::image_name();
        self.ctl("network rm -f ingress")?;
        for line in [
            "network create --ingress --opt encrypted=false ingress",
            "network create --opt encrypted=false app",
            "network create --opt encrypted=true secret",
        ] {
            let id = self.ctl(line)?.trim().to_owned();
            let name = line.rsplit(' ').next().unwrap_or_default();
            self.networks.insert(id, name.to_owned());
        }
        for (name, host, more) in [
            ("web", "w2", &*format!("--network secret -p {PUBLISHED}:{PAGE}")),
            ("near", "w2", ""),
            ("far", "w1", "--network secret"),
        ] {
            let on = format!("--constraint node.hostname=={host} --network app {more}");
            self.ctl(&format!(
                "service create -d --name {name} --stop-signal SIGKILL {on} {image} sleep 86400"
            ))?;
        }
        let mut world = self.rig.api("m1").watch().await?;
        world.until("web, near and far run", LIMIT, |world| tasks(world).len() == 3).await?;
        self.tasks = tasks(&world);
        Ok(())
    }

    /// Every namespace there is.
    fn forget_soon(&self) -> Result<()> {
        for name in ["w1", "w2", "client"] {
            self.host(name).forget_soon()?;
        }
        for name in ["w1", "w2"] {
            for inner in self.inner(name)? {
                inner.forget_soon()?;
            }
        }
        Ok(())
    }

    /// A host's own namespace.
    pub(crate) fn host(&self, name: &str) -> Spot {
        Spot::file(&PathBuf::from(format!("/run/netns/swarm-{}-{name}", cluster::NAME)))
    }

    /// The namespaces that a host's daemon made.
    pub(crate) fn inner(&self, host: &str) -> Result<Vec<Spot>> {
        let daemon = self.rig.cluster.daemon_pid(host).with_context(|| format!("{host} has no daemon"))?;
        let dir = self.rig.cluster.state_dir(host).with_file_name("run/netns");
        // they are mounts, which only the host sees
        let dir = PathBuf::from(format!("/proc/{daemon}/root{}", dir.display()));
        let entries = std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
        Ok(entries.flatten().map(|entry| Spot::file(&entry.path())).collect())
    }

    /// The namespace of the task of a service.
    pub(crate) fn task(&self, service: &str) -> Result<Spot> {
        let status = self.tasks.get(service).and_then(|task| task.status.as_ref());
        let container = status.and_then(|status| status.container.as_ref());
        let pid = container.map(|container| container.pid).filter(|pid| *pid > 0);
        Ok(Spot::of_process(pid.with_context(|| format!("{service} has no process"))?))
    }

    /// The address of the task of a service on a network.
    pub(crate) fn addr(&self, service: &str, network: &str) -> Result<Ipv4Addr> {
        let task = self.tasks.get(service).with_context(|| format!("no task of {service}"))?;
        let on = |a: &&v1::Attachment| self.networks.get(&a.network_id).is_some_and(|name| name == network);
        let attachment = task.attachments.iter().find(on);
        let addr = attachment.and_then(|attachment| attachment.addrs.first());
        let addr = addr.with_context(|| format!("{service} has no address on {network}"))?;
        plain(addr)
    }

    /// The virtual address of a service on a network.
    pub(crate) fn vip(&self, service: &str, network: &str) -> Result<Ipv4Addr> {
        let text = self.ctl(&format!("service inspect {service}"))?;
        let inspected: Value = serde_json::from_str(&text).context("read service inspect")?;
        let vips = inspected[0]["Endpoint"]["VirtualIPs"].as_array().cloned().unwrap_or_default();
        let named = |vip: &&Value| {
            vip["NetworkID"].as_str().and_then(|id| self.networks.get(id)).is_some_and(|name| name == network)
        };
        let addr = vips.iter().find(named).and_then(|vip| vip["Addr"].as_str());
        plain(addr.with_context(|| format!("{service} has no virtual address on {network}"))?)
    }

    /// The address of a host below the networks.
    pub(crate) fn host_addr(&self, name: &str) -> Result<Ipv4Addr> {
        let host = self.rig.cluster.hosts().iter().find(|host| host.name == name);
        Ok(host.with_context(|| format!("no host {name}"))?.address)
    }

    /// Process ids of the servers: the one in the task, the one on its host.
    pub(crate) fn servers(&self) -> [u32; 2] {
        [self.servers[0].0.id(), self.servers[1].0.id()]
    }

    fn ctl(&self, line: &str) -> Result<String> {
        let host = format!("unix://{}", self.rig.cluster.socket("m1").display());
        let mut command = Command::new(&self.swarmctl);
        command.arg("--host").arg(host).args(line.split_whitespace()).env_remove("SWARM_CONTEXT");
        program::output(&mut command)
    }
}

/// The tasks that run, by service name.
fn tasks(world: &World) -> BTreeMap<String, v1::Task> {
    let ids: Vec<&str> = world.tasks.values().map(|task| task.service_id.as_str()).collect();
    let running = ids.into_iter().flat_map(|id| world.running(id));
    running.filter_map(|task| Some((task.service_annotations.as_ref()?.name.clone(), task.clone()))).collect()
}

/// An address, with or without the length of its subnet.
fn plain(text: &str) -> Result<Ipv4Addr> {
    let addr = text.split('/').next().unwrap_or_default();
    addr.parse().map_err(|_| anyhow!("`{text}` is no IPv4 address"))
}
