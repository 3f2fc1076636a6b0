//! Commands that come down the session: images to load, pull, list and remove, networks to check, logs
//! to send up.
//!
//! A command lives no longer than its session: whoever asked is told by the manager.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::FutureExt;
use swarm_proto::v1;
use swarm_types::id::{NodeId, SessionId};
use tonic::transport::Channel;
use tracing::debug;
use v1::command::Command;
use v1::dispatcher_client::DispatcherClient;

use crate::executor::{ExecError, Executor, ImageInfo, RegistryAuth};
use crate::logs;
use crate::task_states::TaskStates;

/// What a command is performed with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: DispatcherClient<Channel>,
    pub(crate) session: SessionId,
    pub(crate) node: NodeId,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) states: Arc<TaskStates>,
}

/// Performs one command and tells the manager what came of it.
pub(crate) async fn perform(mut context: Context, id: String, command: Command) {
    if let Command::StreamLogs(request) = command {
        return stream_logs(context, id, request).await;
    }
    let work = std::panic::AssertUnwindSafe(command_itself(&mut context, command)).catch_unwind().await;
    let mut report = match work {
        Ok(Ok(report)) => report,
        Ok(Err(e)) => v1::ReportCommandRequest { error: e.to_string(), ..Default::default() },
        Err(_) => v1::ReportCommandRequest { error: "the command panicked".into(), ..Default::default() },
    };
    report.session_id = context.session.to_string();
    report.command_id.clone_from(&id);
    report.done = true;
    if let Err(status) = context.client.report_command(report).await {
        debug!(command.id = id, error = %status, "nobody took the result of a command");
    }
}

async fn command_itself(
    context: &mut Context,
    command: Command,
) -> Result<v1::ReportCommandRequest, ExecError> {
    let executor = Arc::clone(&context.executor);
    let images = executor.images();
    let names = |names: Vec<String>| v1::ReportCommandRequest { names, ..Default::default() };
    match command {
        Command::LoadImage(load) => {
            let archive = fetch(context, load.transfer_id).await?;
            let loaded = images.load(archive).await?;
            Ok(names(loaded.into_iter().flat_map(loaded_names).collect()))
        }
        Command::PullImage(pull) => {
            let pulled = match pull.auth {
                None => images.pull(pull.image).await?,
                Some(v1::RegistryAuth { username, password }) => {
                    images.pull_as(pull.image, RegistryAuth { username, password }).await?
                }
            };
            Ok(names(vec![name(pulled)]))
        }
        Command::RemoveImage(remove) => Ok(names(images.remove(remove.image, remove.force).await?)),
        Command::ListImages(v1::ListNodeImages {}) => Ok(v1::ReportCommandRequest {
            images: images.list().await?.iter().map(wire_image).collect(),
            ..Default::default()
        }),
        Command::CheckNetworks(check) => check_networks(executor.as_ref(), &check.network_id).await,
        Command::StreamLogs(_) | Command::Cancel(_) => {
            Err(ExecError::Fatal("a command for another place".into()))
        }
    }
}

/// Differences and problems of one network, or of all.
async fn check_networks(
    executor: &dyn Executor,
    network: &str,
) -> Result<v1::ReportCommandRequest, ExecError> {
    let bad = |e| ExecError::Fatal(format!("check networks: {e}"));
    let network = if network.is_empty() { None } else { Some(network.parse().map_err(bad)?) };
    let differences = executor.networks().check(network).await?;
    let problems = executor.networks().status().borrow().problems.clone();
    Ok(v1::ReportCommandRequest {
        differences: differences.iter().map(Into::into).collect(),
        problems: problems.iter().map(Into::into).collect(),
        ..Default::default()
    })
}

/// The archive that waits at the manager under this name.
async fn fetch(
    context: &mut Context,
    transfer_id: String,
) -> Result<crate::executor::ArchiveStream, ExecError> {
    let request = v1::FetchArchiveRequest { session_id: context.session.to_string(), transfer_id };
    let chunks = context.client.fetch_archive(request).await;
    let chunks = chunks.map_err(|s| ExecError::Temporary(format!("fetch archive: {}", s.message())))?;
    let bytes = |chunk: Result<v1::ArchiveChunk, tonic::Status>| match chunk {
        Ok(chunk) => Ok(chunk.data),
        Err(status) => Err(std::io::Error::other(format!("fetch archive: {}", status.message()))),
    };
    Ok(chunks.into_inner().map(bytes).boxed())
}

async fn stream_logs(mut context: Context, id: String, request: v1::StreamLogs) {
    let request = logs::Request {
        session: context.session.to_string(),
        command: id.clone(),
        node: context.node.to_string(),
        tasks: request.task_ids.iter().filter_map(|t| t.parse().ok()).collect(),
        options: logs::options(request.options),
    };
    let messages = logs::messages(context.executor, context.states, request);
    if let Err(status) = context.client.publish_logs(messages).await {
        debug!(command.id = id, error = %status, "the reader of logs has gone");
    }
}

/// Every name that an archive gave an image, or else its id.
fn loaded_names(image: ImageInfo) -> Vec<String> {
    if image.tags.is_empty() { vec![name(image)] } else { image.tags }
}

/// The name that people know an image by.
fn name(image: ImageInfo) -> String {
    image.tags.into_iter().next().or_else(|| image.digests.into_iter().next()).unwrap_or(image.id)
}

fn wire_image(image: &ImageInfo) -> v1::ImageInfo {
    v1::ImageInfo {
        id: image.id.clone(),
        tags: image.tags.clone(),
        digests: image.digests.clone(),
        size_bytes: image.size,
        created_at_ms: image.created.as_millis(),
        platform: Some((&image.platform).into()),
    }
}
