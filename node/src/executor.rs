//! The runtime of this machine, opened with the daemon's settings.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use swarm_types::network_set::NetworkProblem;
use swarm_types::time::Clock;
use swarm_worker_agent::executor::{NetworkStatus, NoNetworks, TaskNetworks};
use swarm_worker_dataplane::{DataPlane, Settings as NetworkSettings};
use swarm_worker_runtime::executor::{ExecutorError, RuntimeExecutor, Settings};
use swarm_worker_runtime::image::OpenError;

use crate::args::Args;
use crate::connect::chain;
use crate::entropy;
use crate::state_dir::{LOOK_AGAIN, PATIENCE};

/// Opens it.
pub(crate) async fn open(
    args: &Args,
    hostname: &str,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<RuntimeExecutor>> {
    make_folder(&args.state_dir)?;
    let shim = shim(args)?;
    let settings = Settings {
        dir: args.state_dir.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        shim: shim.clone(),
        hostname: hostname.to_owned(),
        engine_labels: args.engine_labels(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        insecure_registries: args.insecure_registries.clone(),
    };
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (settings, clock) = (settings.clone(), clock.clone());
        let opened = tokio::task::spawn_blocking(move || RuntimeExecutor::open(settings, clock)).await;
        match opened.context("open the runtime")? {
            Ok(executor) => return Ok(Arc::new(executor.with_networks(networks(args, &shim)))),
            // A daemon that was killed holds its images until the system has taken it apart.
            Err(ExecutorError::Images(OpenError::InUse { .. })) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// The networks of this node, if it can have any. A node without them runs what needs none.
fn networks(args: &Args, shim: &Path) -> Arc<dyn TaskNetworks> {
    let state_dir = args.state_dir.join("network");
    let settings = NetworkSettings::new(&args.run_dir, state_dir, shim, entropy::fill);
    match DataPlane::open(settings) {
        Ok(networks) => Arc::new(networks),
        Err(e) => {
            let text = format!("this node has no networks: {}", chain(&e));
            tracing::warn!(
                error = text,
                "only containers without networks, or with the host's, can run here"
            );
            let problems = vec![NetworkProblem { subject: "networks".into(), text }];
            Arc::new(NoNetworks::because(NetworkStatus { problems, ..NetworkStatus::default() }))
        }
    }
}

/// Not for others: container layers hold set-user-id programs.
fn make_folder(dir: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("make the folder {}", dir.display()))
}

fn shim(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.shim {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().context("find this program")?;
    let shim = own.with_file_name("swarmd-shim");
    anyhow::ensure!(
        shim.exists(),
        "the supervisor {} is missing; say where it is with --shim",
        shim.display()
    );
    Ok(shim)
}
