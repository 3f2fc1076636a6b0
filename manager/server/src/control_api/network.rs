//! Networks.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use swarm_manager_core::control;
use swarm_manager_core::store::View;
use swarm_proto::v1;
use swarm_types::id::{NetworkId, NodeId};
use swarm_types::network::NetworkSpec;
use swarm_types::node::{Node, NodeState};
use tonic::Status;
use v1::command::Command;

use crate::commands::{Answer, CommandHub};
use crate::manager::Shared;
use crate::status::{denied, malformed};

/// A node that compares its kernel with what it wants needs no longer, unless it hangs.
const CHECK_PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn create(
    shared: &Shared,
    request: v1::CreateNetworkRequest,
) -> Result<v1::CreateNetworkResponse, Status> {
    let spec = request.spec.ok_or_else(|| Status::invalid_argument("spec: missing"))?;
    let spec: NetworkSpec = spec.try_into().map_err(malformed)?;
    let id = shared.write(|draft, context| control::network::create(draft, spec.clone(), context)).await?;
    tracing::info!(network.id = %id, network.name = spec.annotations.name, "network created");
    let view = shared.state.view();
    let warnings = view.network(&id).map(|n| control::network::warnings(&view, n));
    Ok(v1::CreateNetworkResponse { network_id: id.to_string(), warnings: warnings.unwrap_or_default() })
}

pub(super) fn list(view: &View) -> v1::ListNetworksResponse {
    v1::ListNetworksResponse { networks: view.networks().map(|n| n.as_ref().into()).collect() }
}

pub(super) fn get(
    shared: &Shared,
    view: &View,
    request: &v1::GetNetworkRequest,
) -> Result<v1::GetNetworkResponse, Status> {
    let network = control::resolve::network(view, &request.reference).map_err(|e| denied(&e))?;
    let tasks: Vec<_> = control::network::tasks_on(view, &network.id).collect();
    let everywhere = network.spec.ingress;
    let on: BTreeSet<NodeId> = tasks.iter().map(|t| t.node).collect();
    // Every node takes part in the ingress network.
    let nodes = view.nodes().filter(|n| everywhere || on.contains(&n.id));
    Ok(v1::GetNetworkResponse {
        network: Some(network.as_ref().into()),
        services: control::network::services_on(view, &network.id).map(|s| s.as_ref().into()).collect(),
        tasks: tasks.iter().map(|t| super::task::shown(shared, t)).collect(),
        nodes: nodes.map(|n| n.as_ref().into()).collect(),
    })
}

pub(super) async fn remove(
    shared: &Shared,
    request: v1::RemoveNetworkRequest,
) -> Result<v1::RemoveNetworkResponse, Status> {
    shared.barrier().await?;
    let view = shared.state.view();
    let id = control::resolve::network(&view, &request.reference).map_err(|e| denied(&e))?.id;
    shared.write(|draft, _| control::network::remove(draft, &id)).await?;
    tracing::info!(network.id = %id, "network removed");
    Ok(v1::RemoveNetworkResponse { network_id: id.to_string() })
}

/// Asks every node to compare; each answers for itself, as soon as it can.
pub(super) fn check(
    shared: &Shared,
    view: &View,
    request: &v1::CheckNetworksRequest,
) -> Result<BoxStream<'static, Result<v1::NodeNetworkCheck, Status>>, Status> {
    let network: NetworkId = match request.network.as_str() {
        "" => NetworkId::default(),
        reference => control::resolve::network(view, reference).map_err(|e| denied(&e))?.id,
    };
    let each: Vec<_> =
        view.nodes().map(|node| Box::pin(check_node(&shared.commands, view, node, network))).collect();
    let answers: stream::FuturesUnordered<_> = each.into_iter().collect();
    Ok(answers.map(Ok).boxed())
}

fn check_node(
    hub: &CommandHub,
    view: &View,
    node: &Node,
    network: NetworkId,
) -> impl Future<Output = v1::NodeNetworkCheck> + Send + use<> {
    let command = v1::CheckNodeNetworks { network_id: network.to_string() };
    let running = hub.run(node.id, Command::CheckNetworks(command));
    let asked = view.networks().filter(|n| network == NetworkId::default() || n.id == network);
    let hidden = control::site::problems(asked.map(AsRef::as_ref), node);
    let blank = v1::NodeNetworkCheck {
        node_id: node.id.to_string(),
        node_name: node.display_name().to_owned(),
        problems: hidden.iter().map(Into::into).collect(),
        ..v1::NodeNetworkCheck::default()
    };
    let down = node.status.state != NodeState::Ready;
    let failed = move |why: String, blank: v1::NodeNetworkCheck| v1::NodeNetworkCheck { error: why, ..blank };
    async move {
        let mut running = match running {
            Ok(running) => running,
            Err(_) if down => return failed("the node is down".into(), blank),
            Err(e) => return failed(e.to_string(), blank),
        };
        let answer = async {
            while let Some(next) = running.next().await {
                match next {
                    Answer::Report(report) if report.done => return Some(report),
                    Answer::Report(_) | Answer::Logs(_) => {}
                }
            }
            None
        };
        match tokio::time::timeout(CHECK_PATIENCE, answer).await {
            Ok(Some(report)) => v1::NodeNetworkCheck {
                differences: report.differences,
                problems: blank.problems.into_iter().chain(report.problems).collect(),
                error: report.error,
                node_id: blank.node_id,
                node_name: blank.node_name,
            },
            Ok(None) => failed("the node went away".into(), blank),
            Err(_) => failed(format!("the node did not answer within {CHECK_PATIENCE:?}"), blank),
        }
    }
}
