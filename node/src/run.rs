//! The daemon from its start to its end.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use swarm_manager_server::serve::calls;
use swarm_proto::v1::local_node_server::LocalNodeServer;
use swarm_types::time::Clock;
use swarm_worker_agent::executor::Executor;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::active::Machine;
use crate::args::Args;
use crate::clock::SystemClock;
use crate::listen::{bind_local, serve_local};
use crate::local_api::LocalApi;
use crate::node::Node;
use crate::state_dir::StateDir;
use crate::switch::{ManagerCalls, Switch};

/// What a daemon needs to know of its place on the machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything that must survive a reboot is kept.
    pub state_dir: PathBuf,
    /// The local socket.
    pub socket: PathBuf,
    /// Group that may use it, besides root.
    pub socket_group: String,
    /// The name that other nodes see.
    pub hostname: String,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("swarmd")
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let hostname = hostname(args)?;
        let executor = crate::executor::open(args, &hostname, clock.clone()).await?;
        let settings = Settings {
            state_dir: args.state_dir.clone(),
            socket: args.socket.clone(),
            socket_group: args.socket_group.clone(),
            hostname,
        };
        let mut signals = JoinSet::new();
        let stopping = stop.clone();
        signals.spawn(async move {
            let waited = wait_for_signal().await;
            stopping.cancel();
            waited
        });
        run(settings, executor, clock, stop).await
    })
}

fn hostname(args: &Args) -> anyhow::Result<String> {
    match &args.hostname {
        Some(name) => Ok(name.clone()),
        None => Ok(nix::unistd::gethostname().context("read the host name")?.to_string_lossy().into_owned()),
    }
}

/// Runs a node until `stop`; its containers go on.
///
/// # Errors
/// If its folder or socket cannot be used.
pub async fn run(
    settings: Settings,
    executor: Arc<dyn Executor>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (state, _lock) = StateDir::open_patiently(&settings.state_dir).await?;
    let manager_calls = ManagerCalls::default();
    let remote = Switch { local: None, manager: manager_calls.clone() };
    let machine = Machine {
        state,
        clock,
        executor,
        hostname: settings.hostname.clone(),
        manager_calls: manager_calls.clone(),
        remote_calls: Arc::new(ArcSwap::from_pointee(calls(remote))),
    };
    let node = Node::new(machine, stop.clone());
    let local = Routes::new(LocalNodeServer::new(LocalApi(node.clone()))).prepare();
    let local = Switch { local: Some(calls(local)), manager: manager_calls };
    let listener = bind_local(&settings.socket, &settings.socket_group)
        .with_context(|| format!("open the local socket {}", settings.socket.display()))?;
    let turn = node.first_turn().await;
    let mut parts = JoinSet::new();
    parts.spawn(serve_local(listener, Arc::new(ArcSwap::from_pointee(calls(local))), stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %settings.socket.display(), "swarmd started");
    let resuming = node.clone();
    parts.spawn(async move {
        resuming.resume(turn).await;
        resuming.keep_up().await;
    });
    stop.cancelled().await;
    tracing::info!("swarmd stops; containers go on");
    node.pause().await;
    parts.shutdown().await;
    match std::fs::remove_file(&settings.socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("remove the local socket"),
        _ => Ok(()),
    }
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
