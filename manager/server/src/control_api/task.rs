//! Tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_manager_core::control::resolve;
use swarm_manager_core::scheduler;
use swarm_manager_core::store::View;
use swarm_proto::v1;
use swarm_types::id::NodeId;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use tonic::Status;

use crate::logs::Selection;
use crate::manager::Shared;
use crate::status::denied;

/// A task as users see it: with its passing state.
pub(super) fn shown(shared: &Shared, task: &Arc<Task>) -> v1::Task {
    match shared.passing.overlay(task) {
        Some(newer) => (&newer).into(),
        None => task.as_ref().into(),
    }
}

pub(super) fn list(
    shared: &Shared,
    view: &View,
    request: &v1::ListTasksRequest,
) -> Result<v1::ListTasksResponse, Status> {
    let mut tasks: Vec<&Arc<Task>> = Vec::new();
    for reference in &request.services {
        let service = resolve::service(view, reference).map_err(|e| denied(&e))?;
        tasks.extend(view.tasks_of_service(&service.id));
    }
    for reference in &request.nodes {
        let node = resolve::node(view, reference).map_err(|e| denied(&e))?;
        tasks.extend(view.tasks_on_node(&node.id));
    }
    if request.services.is_empty() && request.nodes.is_empty() {
        tasks.extend(view.tasks());
    }
    let ids: BTreeSet<NodeId> = tasks.iter().map(|t| t.node).filter(|n| !n.is_empty()).collect();
    let name = |id: &NodeId| view.node(id).map(|n| (id.to_string(), n.display_name().to_owned()));
    let node_names: BTreeMap<_, _> = ids.iter().filter_map(name).collect();
    Ok(v1::ListTasksResponse { tasks: tasks.into_iter().map(|t| shown(shared, t)).collect(), node_names })
}

pub(super) fn get(
    shared: &Shared,
    view: &View,
    request: &v1::GetTaskRequest,
) -> Result<v1::GetTaskResponse, Status> {
    let task = resolve::task(view, &request.reference).map_err(|e| denied(&e))?;
    let waits = task.status.state <= TaskState::Pending && task.desired_state <= TaskState::Running;
    let unfit = if waits { scheduler::explain(view, task) } else { Vec::new() };
    let unfit_nodes = unfit.into_iter().map(|(node, why)| v1::NodeReason {
        node_id: node.to_string(),
        node_name: view.node(&node).map(|n| n.display_name().to_owned()).unwrap_or_default(),
        reason: why.to_string(),
    });
    Ok(v1::GetTaskResponse { task: Some(shown(shared, task)), unfit_nodes: unfit_nodes.collect() })
}

/// What a request for logs is about.
pub(super) fn selection(view: &View, request: v1::LogsRequest) -> Result<Selection, Status> {
    let service = |r: &String| resolve::service(view, r).map(|s| s.id).map_err(|e| denied(&e));
    let task = |r: &String| resolve::task(view, r).map(|t| t.id).map_err(|e| denied(&e));
    let options = request.options.ok_or_else(|| Status::invalid_argument("options: missing"))?;
    Ok(Selection {
        services: request.services.iter().map(service).collect::<Result<_, _>>()?,
        tasks: request.tasks.iter().map(task).collect::<Result<_, _>>()?,
        options,
    })
}
