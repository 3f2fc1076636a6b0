//! Images on the cluster's nodes.

use std::sync::Arc;

use swarm_manager_core::store::View;
use swarm_proto::v1;
use tonic::{Status, Streaming};
use v1::command::Command;
use v1::load_image_request::Message;

use crate::images::{self, ProgressStream};
use crate::manager::Shared;

pub(super) async fn load(
    shared: &Arc<Shared>,
    view: &View,
    mut chunks: Streaming<v1::LoadImageRequest>,
) -> Result<ProgressStream, Status> {
    let header = match chunks.message().await?.and_then(|m| m.message) {
        Some(Message::Header(header)) => header,
        Some(Message::Chunk(_)) | None => {
            return Err(Status::invalid_argument("the header of an archive comes before its bytes"));
        }
    };
    let nodes = images::nodes(view, &header.nodes)?;
    let id = shared.new_id();
    let transfer = shared.transfers.receive(id.clone(), &mut chunks).await?;
    let command = Command::LoadImage(v1::LoadImage { transfer_id: id });
    Ok(images::everywhere(&shared.commands, view, nodes, &command, transfer))
}

pub(super) fn pull(
    shared: &Shared,
    view: &View,
    request: v1::PullImageRequest,
) -> Result<ProgressStream, Status> {
    let nodes = images::nodes(view, &request.nodes)?;
    let command = Command::PullImage(v1::PullImage { image: request.image, auth: request.auth });
    Ok(images::everywhere(&shared.commands, view, nodes, &command, ()))
}

pub(super) fn remove(
    shared: &Shared,
    view: &View,
    request: v1::RemoveImageRequest,
) -> Result<ProgressStream, Status> {
    let nodes = images::nodes(view, &request.nodes)?;
    let command = v1::RemoveNodeImage { image: request.image, force: request.force };
    Ok(images::everywhere(&shared.commands, view, nodes, &Command::RemoveImage(command), ()))
}

pub(super) async fn list(
    shared: &Shared,
    view: &View,
    request: &v1::ListImagesRequest,
) -> Result<v1::ListImagesResponse, Status> {
    let nodes = images::nodes(view, &request.nodes)?;
    Ok(v1::ListImagesResponse { nodes: images::list(&shared.commands, nodes).await })
}
