//! Whole clusters in this process: the shipped daemon with real gRPC, TLS and disk; only the
//! containers are not real.
//!
//! Every host has a runtime, a folder, a socket and a loopback address of its own; [`Host::kill`]
//! drops its runtime, which is what a `kill -9` looks like from outside. All hosts of a cluster share
//! a [`TestClock`], which runs as the real one does and can be moved forward.

mod clock;
mod host;
mod log;
pub mod wire;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm_proto::v1;
use swarm_types::cluster::ClusterSpec;
use swarm_types::container::ContainerSpec;
use swarm_types::meta::Annotations;
use swarm_types::policy::RestartPolicy;
use swarm_types::service::{Mode, ServiceSpec};
use swarm_types::task::TaskSpec;
use tempfile::TempDir;
use tonic::Status;

pub use clock::TestClock;
pub use host::{Control, Host, Local};
pub use log::{CapturedLog, capture};

/// How long a condition may take to come true. Nobody waits for it but a test that fails, so it is long enough
/// for a machine that has ten times as much to do as it can.
pub const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);
/// Swarm's. A node of a machine that is busy is then not taken for a dead one.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);

/// Waits until `check` gives something; fails the test with `what` and its last objection if it does
/// not within [`PATIENCE`].
pub async fn eventually<T, F>(what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let last = match check().await {
            Ok(found) => return found,
            Err(objection) => objection,
        };
        assert!(tokio::time::Instant::now() < end, "{what}: not within {PATIENCE:?}: {last}");
        tokio::time::sleep(STEP).await;
    }
}

/// The next free loopback address of this process.
pub fn next_ip() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(last < 250, "a test program has 250 hosts at most");
    Ipv4Addr::new(127, high | 1, low, last)
}

/// Some hosts that make one cluster.
pub struct Cluster {
    /// The hosts, the first managers first; the first one founded the cluster.
    pub hosts: Vec<Host>,
    /// Moves the clocks of all of them.
    pub clock: Arc<TestClock>,
    /// How many of the hosts are managers from the start.
    managers: usize,
    /// Parts of WARN and ERROR lines that the test provokes.
    expected: Mutex<Vec<String>>,
    dir: TempDir,
}

impl Cluster {
    /// Starts `managers` and `workers` and waits until all of them are ready. That a node is gone takes them a
    /// while to see: a test that waits for it asks for the default settings.
    pub async fn start(managers: usize, workers: usize) -> Cluster {
        Cluster::with(managers, workers, patient()).await
    }

    /// As [`Cluster::start`], with settings.
    pub async fn with(managers: usize, workers: usize, spec: ClusterSpec) -> Cluster {
        capture();
        let dir = TempDir::with_prefix("swarm-cluster-").expect("a folder for the test");
        let clock = Arc::new(TestClock::default());
        let mut cluster = Cluster { hosts: Vec::new(), clock, managers, expected: Mutex::default(), dir };
        for n in 0..managers + workers {
            let name = match n < managers {
                true => format!("m{}", n + 1),
                false => format!("w{}", n + 1 - managers),
            };
            cluster.add(&name).await;
        }
        let first = &cluster.hosts[0];
        let request = v1::InitRequest {
            advertise_addr: first.addr(),
            listen_addr: first.addr(),
            spec: Some((&spec).into()),
            ..v1::InitRequest::default()
        };
        first.local().init(request).await.expect("init");
        let tokens = cluster.tokens().await;
        for (n, host) in cluster.hosts.iter().enumerate().skip(1) {
            let token = if n < managers { &tokens.manager } else { &tokens.worker };
            host.join(token, &[first.addr()]).await.expect("join");
        }
        cluster.all_ready(managers + workers).await;
        cluster
    }

    /// A WARN or ERROR line of a daemon that contains one of these is no failure of this test.
    pub fn expect_log(&self, parts: &[&str]) {
        let mut expected = self.expected.lock().expect("no test panics while it holds the list");
        expected.extend(parts.iter().map(|p| (*p).to_owned()));
    }

    /// The WARN and ERROR lines of the daemons of this cluster that no test expects, and that do not just say
    /// what the test did: that a node whose daemon it ended is down, if that took longer than the grace.
    fn complaints(&self) -> Vec<String> {
        let name = self.dir.path().file_name().map(|n| n.to_string_lossy().into_owned());
        let expected = self.expected.lock().expect("no test panics while it holds the list");
        let mut lines = capture().lines_with(&name.unwrap_or_default());
        lines.retain(|line| [" WARN ", " ERROR "].iter().any(|level| line.contains(level)));
        lines.retain(|line| !expected.iter().any(|part| line.contains(part)));
        lines.retain(|line| !self.hosts.iter().any(|host| host.explains(line)));
        lines
    }

    /// Adds a host that runs the daemon and is in no cluster yet; its place in `hosts`.
    pub async fn add(&mut self, name: &str) -> usize {
        let mut host = Host::new(name, self.dir.path().join(name), TestClock::beside(self.clock.clone()));
        host.start().await;
        self.hosts.push(host);
        self.hosts.len() - 1
    }

    /// The join tokens, asked of the first host that runs.
    pub async fn tokens(&self) -> v1::GetJoinTokensResponse {
        let answer = self.any().control().get_join_tokens(v1::GetJoinTokensRequest {}).await;
        answer.expect("join tokens").into_inner()
    }

    /// The first manager that runs.
    pub fn any(&self) -> &Host {
        let running = self.hosts[..self.managers].iter().find(|h| h.is_running());
        running.expect("a manager runs")
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|h| h.name == name).expect("a host of this name")
    }

    /// A host by its name.
    pub fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts.iter_mut().find(|h| h.name == name).expect("a host of this name")
    }

    /// All nodes, as the cluster sees them.
    pub async fn nodes(&self) -> Result<Vec<v1::NodeEntry>, Status> {
        let answer = self.any().control().list_nodes(v1::ListNodesRequest {}).await;
        Ok(answer?.into_inner().nodes)
    }

    /// Waits until `count` nodes are ready, and all managers reachable.
    pub async fn all_ready(&self, count: usize) {
        eventually("all nodes are ready", || async {
            let nodes = self.nodes().await.map_err(|e| e.message().to_owned())?;
            let ready = nodes.iter().filter(|n| is_ready(n)).count();
            if ready == count { Ok(()) } else { Err(format!("{ready} of {count}")) }
        })
        .await;
    }

    /// Waits until one of the running managers leads and says so; its name.
    pub async fn leader(&self) -> String {
        eventually("there is a leader", || async {
            for host in self.hosts.iter().filter(|h| h.is_running()) {
                if host.info().await.is_leader {
                    return Ok(host.name.clone());
                }
            }
            Err("none of the hosts leads".to_owned())
        })
        .await
    }

    /// A running manager that does not lead.
    pub async fn follower(&self) -> String {
        let leader = self.leader().await;
        let other = self.hosts[..self.managers].iter().find(|h| h.is_running() && h.name != leader);
        other.expect("more than one manager").name.clone()
    }
}

impl Drop for Cluster {
    /// A daemon that complains fails the test, unless the test expects it; one that fails anyway shows it.
    fn drop(&mut self) {
        let complaints = self.complaints().join("\n");
        if std::thread::panicking() {
            eprintln!("{complaints}");
        } else {
            assert!(complaints.is_empty(), "the daemons complained:\n{complaints}");
        }
    }
}

/// Settings of a cluster whose test is not about how soon a node is missed.
pub fn patient() -> ClusterSpec {
    ClusterSpec { heartbeat_period: HEARTBEAT_PERIOD, ..ClusterSpec::default() }
}

/// It answers and, if it is a manager, the others hear it.
pub fn is_ready(entry: &v1::NodeEntry) -> bool {
    let ready = v1::node_status::State::Ready as i32;
    let answers = entry.node.as_ref().and_then(|n| n.status.as_ref()).is_some_and(|s| s.state == ready);
    answers && entry.manager.as_ref().is_none_or(|m| m.reachable)
}

/// A service of `replicas` tasks of `image`; what ends is replaced soon.
pub fn service(name: &str, image: &str, replicas: u64) -> v1::ServiceSpec {
    let task = TaskSpec {
        container: ContainerSpec { image: image.into(), ..ContainerSpec::default() },
        restart: RestartPolicy { delay: Duration::from_millis(50), ..RestartPolicy::default() },
        ..TaskSpec::default()
    };
    let spec = ServiceSpec {
        annotations: Annotations { name: name.into(), ..Annotations::default() },
        task: Arc::new(task),
        mode: Mode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    (&spec).into()
}
