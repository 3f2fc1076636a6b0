//! One machine with its daemon.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_identity::credentials::Credentials;
use swarm_node::run::{Settings, run};
use swarm_proto::v1;
use swarm_proto::v1::control_client::ControlClient;
use swarm_proto::v1::local_node_client::LocalNodeClient;
use swarm_types::id::{NodeId, TaskId};
use swarm_worker_agent::fake::FakeExecutor;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::clock::TestClock;
use super::{eventually, next_ip};

/// The managers' API.
pub type Control = ControlClient<Channel>;
/// The API of one machine.
pub type Local = LocalNodeClient<Channel>;

/// One machine with its daemon.
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its containers, which outlive the daemon.
    pub executor: Arc<FakeExecutor>,
    dir: PathBuf,
    addr: String,
    /// Its own clock.
    pub clock: Arc<TestClock>,
    running: Option<Running>,
    /// The nodes that it was when its daemon was ended.
    ended: BTreeSet<NodeId>,
}

struct Running {
    runtime: Runtime,
    daemon: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Host {
    pub(super) fn new(name: &str, dir: PathBuf, clock: TestClock) -> Host {
        let addr = format!("{}:2377", next_ip());
        Host {
            name: name.into(),
            executor: FakeExecutor::new(name),
            dir,
            addr,
            clock: Arc::new(clock),
            running: None,
            ended: BTreeSet::new(),
        }
    }

    /// `host:port` of its manager, if it is one.
    pub fn addr(&self) -> String {
        self.addr.clone()
    }

    /// Its state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its local socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// True while the daemon runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the daemon; returns when it answers.
    pub async fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let cluster = self.dir.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("{}/{}", cluster.unwrap_or_default(), self.name))
            .enable_all()
            .build()
            .expect("a runtime");
        let settings = Settings {
            state_dir: self.state_dir(),
            socket: self.socket(),
            socket_group: "swarm".into(),
            hostname: self.name.clone(),
        };
        let stop = CancellationToken::new();
        let daemon = runtime.spawn(run(settings, self.executor.clone(), self.clock.clone(), stop.clone()));
        self.running = Some(Running { runtime, daemon, stop });
        eventually(&format!("the daemon of {} answers", self.name), || async {
            let info = self.local().info(v1::InfoRequest {}).await;
            info.map(drop).map_err(|e| e.message().to_owned())
        })
        .await;
    }

    /// Ends the daemon as SIGTERM does.
    pub async fn stop(&mut self) {
        let Running { runtime, daemon, stop } = self.running.take().expect("it runs");
        self.ended.extend(self.node());
        stop.cancel();
        daemon.await.expect("the daemon did not panic").expect("the daemon ended well");
        end(runtime).await;
    }

    /// Ends the daemon as SIGKILL does: nothing of it does anything any more.
    pub async fn kill(&mut self) {
        let Running { runtime, .. } = self.running.take().expect("it runs");
        self.ended.extend(self.node());
        end(runtime).await;
        // Its consensus thread sees only now that nobody is left.
        let lock = self.state_dir().join("manager/raft/lock");
        eventually("the log is closed", || async {
            match File::open(&lock) {
                Ok(file) => file.try_lock().map_err(|e| e.to_string()),
                Err(_) => Ok(()),
            }
        })
        .await;
    }

    /// The node that it is, if it is in a cluster.
    fn node(&self) -> Option<NodeId> {
        let text = std::fs::read_to_string(self.state_dir().join("certs/node.pem")).ok()?;
        Some(Credentials::from_pem(&text).ok()?.identity().ok()?.node)
    }

    /// This line says that the host's node is down, and its daemon was ended.
    pub(super) fn explains(&self, line: &str) -> bool {
        line.contains("node is down") && self.ended.iter().any(|node| line.contains(node.as_str()))
    }

    /// A connection to its local socket.
    pub fn channel(&self) -> Channel {
        let socket = self.socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://swarmd").connect_with_connector_lazy(connector)
    }

    /// The API of this machine.
    pub fn local(&self) -> Local {
        Local::new(self.channel())
    }

    /// The managers' API, through this machine.
    pub fn control(&self) -> Control {
        Control::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    /// What it says of itself.
    pub async fn info(&self) -> v1::InfoResponse {
        self.local().info(v1::InfoRequest {}).await.expect("info").into_inner()
    }

    /// Joins the cluster whose managers are at `addrs`.
    ///
    /// # Errors
    /// What the daemon answers.
    pub async fn join(&self, token: &str, addrs: &[String]) -> Result<v1::JoinResponse, Status> {
        let request = v1::JoinRequest {
            token: token.into(),
            remote_addrs: addrs.to_vec(),
            advertise_addr: self.addr(),
            listen_addr: self.addr(),
            availability: v1::Availability::Active.into(),
            ..v1::JoinRequest::default()
        };
        Ok(self.local().join(request).await?.into_inner())
    }

    /// The certificate and key that it holds now.
    pub fn credentials(&self) -> Credentials {
        // Read as a thief would: to open the store of a daemon that runs is to clean up after it.
        let text = std::fs::read_to_string(self.state_dir().join("certs/node.pem")).expect("its credentials");
        Credentials::from_pem(&text).expect("good credentials")
    }

    /// The tasks whose containers run here.
    pub fn running_tasks(&self) -> Vec<TaskId> {
        self.executor.running()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(Running { runtime, .. }) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

async fn end(runtime: Runtime) {
    let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5)));
    ended.await.expect("the runtime ended");
}
