//! A hundred nodes in one process: the shipped daemon with real gRPC, mutual TLS and log; only containers
//! and kernels are not real.
//!
//! `bench simulated-nodes DISK MEMORY MANAGERS NODES DEATHS` lets tasks die one after the other and prints
//! how many milliseconds each took until the last node had it applied. Managers keep their state on
//! disk, where fsync counts; workers keep theirs in memory: a hundred of them do not share a disk.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::{join_all, try_join_all};
use hyper_util::rt::TokioIo;
use swarm_node::SystemClock;
use swarm_node::run::{Settings, run as daemon};
use swarm_proto::v1;
use swarm_proto::v1::local_node_client::LocalNodeClient;
use swarm_types::container::ContainerSpec;
use swarm_types::id::TaskId;
use swarm_types::meta::Annotations;
use swarm_types::network_set::NetworkSet;
use swarm_types::policy::RestartPolicy;
use swarm_types::service::{Mode, ServiceSpec};
use swarm_types::task::TaskSpec;
use swarm_worker_agent::fake::FakeExecutor;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::bench::api::Api;

pub(crate) const WORD: &str = "simulated-nodes";
const LIMIT: Duration = Duration::from_secs(60);
const NETWORK: &str = "app";

pub(crate) fn run(words: &[String]) -> Result<()> {
    let [disk, memory, managers, nodes, deaths] = words else {
        bail!("{WORD} DISK MEMORY MANAGERS NODES DEATHS");
    };
    let number = |word: &String| word.parse::<usize>().with_context(|| format!("read `{word}`"));
    let (managers, nodes, deaths) = (number(managers)?, number(nodes)?, number(deaths)?);
    // a second one is as good as the first
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start tokio")?;
    let ended = runtime.block_on(async {
        let cluster = Cluster::start(Path::new(disk), Path::new(memory), managers, nodes).await?;
        cluster.deploy().await?;
        for n in 0..deaths {
            println!("{}", cluster.death(n).await?.as_secs_f64() * 1000.0);
        }
        Ok(())
    });
    // nothing of it outlives the process, and nobody waits for its end
    runtime.shutdown_background();
    ended
}

/// A machine with its daemon.
struct Host {
    executor: Arc<FakeExecutor>,
    socket: PathBuf,
    addr: String,
    _daemon: JoinSet<()>,
}

impl Host {
    async fn start(n: usize, dir: PathBuf) -> Result<Host> {
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let name = format!("n{n}");
        let settings = Settings {
            state_dir: dir.join("state"),
            socket: dir.join("sock"),
            socket_group: "swarm".into(),
            hostname: name.clone(),
        };
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let addr = Ipv4Addr::new(127, high | 1, low, u8::try_from(n + 1).context("at most 250 nodes")?);
        let (executor, socket) = (FakeExecutor::new(&name), settings.socket.clone());
        let running =
            daemon(settings, executor.clone(), Arc::new(SystemClock::default()), CancellationToken::new());
        let mut daemons = JoinSet::new();
        daemons.spawn(async move {
            if let Err(error) = running.await {
                eprintln!("{name}: {error:#}");
            }
        });
        let host = Host { executor, socket, addr: format!("{addr}:2377"), _daemon: daemons };
        let end = Instant::now() + LIMIT;
        while let Err(error) = host.local().info(v1::InfoRequest {}).await {
            if Instant::now() > end {
                return Err(error).with_context(|| format!("wait for the daemon of n{n}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(host)
    }

    fn local(&self) -> LocalNodeClient<Channel> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://swarmd");
        LocalNodeClient::new(endpoint.connect_with_connector_lazy(connector))
    }

    async fn join(&self, token: &str, first: &str) -> Result<()> {
        let request = v1::JoinRequest {
            token: token.into(),
            remote_addrs: vec![first.into()],
            advertise_addr: self.addr.clone(),
            listen_addr: self.addr.clone(),
            availability: v1::Availability::Active.into(),
            ..v1::JoinRequest::default()
        };
        self.local().join(request).await.with_context(|| format!("join {}", self.addr)).map(drop)
    }

    fn set(&self) -> watch::Receiver<Arc<NetworkSet>> {
        self.executor.fake_networks().set()
    }
}

struct Cluster {
    hosts: Vec<Host>,
    api: Api,
}

impl Cluster {
    async fn start(disk: &Path, memory: &Path, managers: usize, nodes: usize) -> Result<Cluster> {
        let mut hosts = Vec::new();
        for n in 0..nodes {
            let dir = if n < managers { disk } else { memory };
            hosts.push(Host::start(n, dir.join(format!("n{n}"))).await?);
        }
        let first = &hosts[0];
        let spec = swarm_types::cluster::ClusterSpec::default();
        let request = v1::InitRequest {
            advertise_addr: first.addr.clone(),
            listen_addr: first.addr.clone(),
            spec: Some((&spec).into()),
            ..v1::InitRequest::default()
        };
        first.local().init(request).await.context("init")?;
        let api = Api::at(&first.socket);
        let tokens = api.control.clone().get_join_tokens(v1::GetJoinTokensRequest {}).await?.into_inner();
        for host in &hosts[1..managers] {
            host.join(&tokens.manager, &first.addr).await?;
        }
        for some in hosts[managers..].chunks(10) {
            try_join_all(some.iter().map(|host| host.join(&tokens.worker, &first.addr))).await?;
        }
        Ok(Cluster { hosts, api })
    }

    /// A network, and a service with a task on each node: all take part, and go on taking part.
    async fn deploy(&self) -> Result<()> {
        self.joined().await?;
        let spec = v1::NetworkSpec {
            annotations: Some(v1::Annotations { name: NETWORK.into(), ..v1::Annotations::default() }),
            subnets: vec![v1::SubnetSpec { subnet: "10.77.0.0/16".into(), ..v1::SubnetSpec::default() }],
            // a way out would be through the ingress network, which is encrypted: without a kernel nobody does that
            internal: true,
            not_encrypted: true,
            ..v1::NetworkSpec::default()
        };
        self.api.control.clone().create_network(v1::CreateNetworkRequest { spec: Some(spec) }).await?;
        let task = TaskSpec {
            container: ContainerSpec { image: "none".into(), ..ContainerSpec::default() },
            restart: RestartPolicy { delay: Duration::ZERO, ..RestartPolicy::default() },
            ..TaskSpec::default()
        };
        let spec = ServiceSpec {
            annotations: Annotations { name: "web".into(), ..Annotations::default() },
            task: Arc::new(task),
            mode: Mode::Global,
            ..ServiceSpec::default()
        };
        let mut spec: v1::ServiceSpec = (&spec).into();
        let attachment = v1::AttachmentSpec { network_id: NETWORK.into(), ..v1::AttachmentSpec::default() };
        spec.task.as_mut().context("a task's spec")?.networks = vec![attachment];
        self.api.create(spec).await.context("create a service")?;
        self.settle().await
    }

    /// Waits until every node has its session: one that has joined is not there before.
    async fn joined(&self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            let listed = self.api.control.clone().list_nodes(v1::ListNodesRequest::default()).await;
            let nodes = listed.context("list nodes")?.into_inner().nodes;
            let ready = |entry: &&v1::NodeEntry| {
                let status = entry.node.as_ref().and_then(|node| node.status.as_ref());
                status.is_some_and(|status| status.state() == v1::node_status::State::Ready)
            };
            let ready = nodes.iter().filter(ready).count();
            if ready == self.hosts.len() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{ready} of {} nodes are ready", self.hosts.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every node leads to as many tasks as there are nodes.
    async fn settle(&self) -> Result<()> {
        let count = self.hosts.len();
        let all = self.hosts.iter().map(|host| async move {
            host.set().wait_for(|set| serving(set).count() == count).await.map(drop)
        });
        let settled = tokio::time::timeout(LIMIT, join_all(all)).await;
        settled.with_context(|| {
            let counts = self.hosts.iter().map(|host| serving(&host.set().borrow()).count());
            format!("{count} nodes do not lead to {count} tasks, but to {:?}", counts.collect::<Vec<_>>())
        })?;
        Ok(())
    }

    /// A container ends with an error; the time until no node leads to it.
    async fn death(&self, n: usize) -> Result<Duration> {
        self.settle().await?;
        let hosts = self.hosts.iter().cycle().skip(n * 37 % self.hosts.len()).take(self.hosts.len());
        let victim = hosts.flat_map(|host| host.executor.running().into_iter().map(move |task| (host, task)));
        let (host, task) = victim.into_iter().next().context("a task that runs")?;
        let known = |host: &Host| serving(&host.set().borrow()).any(|id| id == task);
        ensure!(self.hosts.iter().all(known), "not every node leads to {task} while it runs");
        let gone = self.hosts.iter().map(|host| {
            let mut set = host.set();
            async move {
                let gone = set.wait_for(|set| !serving(set).any(|id| id == task)).await;
                gone.map(drop).map(|()| Instant::now())
            }
        });
        let gone: Vec<_> = gone.collect();
        let began = Instant::now();
        if !host.executor.exit(task, 1) {
            bail!("the task {task} does not run");
        }
        let seen = tokio::time::timeout(LIMIT, try_join_all(gone)).await;
        let seen = seen.context("a dead task is still called")??;
        let last = seen.into_iter().max().context("nodes")?;
        Ok(last.duration_since(began))
    }
}

/// The tasks that new connections are led to.
fn serving(set: &NetworkSet) -> impl Iterator<Item = TaskId> + '_ {
    let named = set.networks.values().filter(|entry| entry.network.name == NETWORK);
    let endpoints = named.flat_map(|entry| entry.endpoints.values());
    endpoints.filter(|endpoint| endpoint.serving).map(|endpoint| endpoint.task)
}
