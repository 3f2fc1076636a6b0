//! Services.

use std::sync::Arc;

use swarm_manager_core::control;
use swarm_manager_core::store::View;
use swarm_proto::v1;
use swarm_types::id::ServiceId;
use swarm_types::service::{Mode, Service, ServiceSpec};
use swarm_types::task_state::TaskState;
use tonic::Status;

use crate::manager::Shared;
use crate::status::{denied, malformed};

/// The service that a reference names.
pub(super) fn resolve<'a>(view: &'a View, reference: &'a str) -> Result<&'a Arc<Service>, Status> {
    control::resolve::service(view, reference).map_err(|e| denied(&e))
}

fn spec_in(spec: Option<v1::ServiceSpec>) -> Result<ServiceSpec, Status> {
    let spec = spec.ok_or_else(|| Status::invalid_argument("spec: missing"))?;
    spec.try_into().map_err(malformed)
}

pub(super) async fn create(
    shared: &Shared,
    request: v1::CreateServiceRequest,
) -> Result<v1::CreateServiceResponse, Status> {
    let spec = spec_in(request.spec)?;
    let id = shared.write(|draft, context| control::service::create(draft, spec.clone(), context)).await?;
    tracing::info!(service.id = %id, service.name = spec.annotations.name, "service created");
    let warnings = control::reach::warnings(&shared.state.view(), &spec);
    Ok(v1::CreateServiceResponse { service_id: id.to_string(), warnings })
}

pub(super) async fn update(
    shared: &Shared,
    request: v1::UpdateServiceRequest,
) -> Result<v1::UpdateServiceResponse, Status> {
    let id: ServiceId =
        request.service_id.parse().map_err(|_| Status::invalid_argument("service_id: malformed"))?;
    let version = request.version;
    if request.rollback {
        shared.write(|draft, _| control::service::rollback(draft, &id, version)).await?;
    } else {
        let spec = spec_in(request.spec)?;
        shared.write(|draft, _| control::service::update(draft, &id, version, spec.clone())).await?;
    }
    tracing::info!(service.id = %id, rollback = request.rollback, "service updated");
    let view = shared.state.view();
    let service = view.service(&id);
    let warnings = service.map(|s| control::reach::warnings(&view, &s.spec)).unwrap_or_default();
    Ok(v1::UpdateServiceResponse { service: service.map(|s| s.as_ref().into()), warnings })
}

pub(super) async fn remove(
    shared: &Shared,
    request: v1::RemoveServiceRequest,
) -> Result<v1::RemoveServiceResponse, Status> {
    shared.barrier().await?;
    let id = resolve(&shared.state.view(), &request.reference)?.id;
    shared.write(|draft, _| control::service::remove(draft, &id)).await?;
    tracing::info!(service.id = %id, "service removed");
    Ok(v1::RemoveServiceResponse { service_id: id.to_string() })
}

pub(super) fn list(view: &View) -> v1::ListServicesResponse {
    v1::ListServicesResponse { services: view.services().map(|s| entry(view, s)).collect() }
}

pub(super) fn get(view: &View, request: &v1::GetServiceRequest) -> Result<v1::GetServiceResponse, Status> {
    let service = resolve(view, &request.reference)?;
    Ok(v1::GetServiceResponse { entry: Some(entry(view, service)) })
}

fn entry(view: &View, service: &Arc<Service>) -> v1::ServiceEntry {
    let (mut running, mut wanted) = (0, 0);
    for task in view.tasks_of_service(&service.id).filter(|t| t.desired_state <= TaskState::Running) {
        wanted += 1;
        running += u64::from(task.status.state == TaskState::Running);
    }
    let desired_tasks = match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global => wanted,
    };
    v1::ServiceEntry { service: Some(service.as_ref().into()), running_tasks: running, desired_tasks }
}
