//! Services: created, updated, rolled back, removed.
//!
//! Reads:   services.
//! Writes:  Service: birth, removal, `spec`, `previous_spec`, `spec_version`; resets `update_status`;
//!          Network.released of what a removed one had.
//! Never:   makes or stops tasks: the leader's loops follow.
//! Start:   [`create`].

use swarm_types::id::ServiceId;
use swarm_types::service::{Mode, Service, ServiceSpec, UpdateState, UpdateStatus};
use swarm_types::valid;

use super::{Denied, in_sequence, reach};
use crate::allocator::address::Releases;
use crate::context::Context;
use crate::store::Draft;

/// Creates a service.
///
/// # Errors
/// The spec is invalid; the name is taken (ignoring case); a network is not there; a port is in use by
/// another service; it publishes ports and there is no ingress network.
pub fn create(draft: &mut Draft, mut spec: ServiceSpec, ctx: &mut Context<'_>) -> Result<ServiceId, Denied> {
    valid::service(&spec)?;
    if let Some(other) = draft.service_by_name(&spec.annotations.name) {
        let name = other.spec.annotations.name.clone();
        return Err(Denied::AlreadyExists { kind: "service", name });
    }
    let id = ServiceId::new(ctx.ids.next_id());
    reach::complete(draft, &id, &mut spec)?;
    draft.put_service(Service { id, spec, spec_version: 1, ..Service::default() });
    Ok(id)
}

/// Gives a service another spec. `version` is that of the service that the spec was made from.
///
/// Tasks are replaced only if the template ([`ServiceSpec::task`]) differs. An equal spec changes
/// nothing, except that a paused roll-out goes on (as in Docker).
///
/// # Errors
/// No such service; it was changed since `version`; the spec is invalid; it has another name or
/// another kind of mode; what [`create`] refuses of networks and ports.
pub fn update(draft: &mut Draft, id: &ServiceId, version: u64, mut spec: ServiceSpec) -> Result<(), Denied> {
    let mut service = get(draft, id)?;
    in_sequence(service.meta.version, version)?;
    valid::service(&spec)?;
    if spec.annotations.name != service.spec.annotations.name {
        return Err(Denied::Unsupported("renaming services is not supported"));
    }
    if !same_kind(service.spec.mode, spec.mode) {
        return Err(Denied::Unsupported("service mode change is not allowed"));
    }
    reach::complete(draft, id, &mut spec)?;
    if is_paused(service.update_status.as_ref()) {
        service.update_status = None;
    }
    if spec != service.spec {
        replace_spec(&mut service, spec);
    }
    draft.put_service(service);
    Ok(())
}

/// Returns to the spec before the last update; that update's spec becomes the one before.
///
/// # Errors
/// No such service; it was changed since `version`; it was never updated; a network or port of then
/// is not to be had any more.
pub fn rollback(draft: &mut Draft, id: &ServiceId, version: u64) -> Result<(), Denied> {
    let mut service = get(draft, id)?;
    in_sequence(service.meta.version, version)?;
    let Some(previous) = service.previous_spec.take() else {
        let name = &service.spec.annotations.name;
        return Err(Denied::Precondition(format!("service {name} does not have a previous spec")));
    };
    let mut previous = *previous;
    reach::complete(draft, id, &mut previous)?;
    replace_spec(&mut service, previous);
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: draft.now(),
        message: "manually requested rollback".into(),
        ..UpdateStatus::default()
    });
    draft.put_service(service);
    Ok(())
}

/// Removes a service. Its tasks are stopped, and forgotten when they have.
///
/// # Errors
/// No such service.
pub fn remove(draft: &mut Draft, id: &ServiceId) -> Result<(), Denied> {
    let service = get(draft, id)?;
    let (mut releases, now) = (Releases::default(), draft.now());
    service.endpoint.vips.iter().for_each(|(network, addrs)| releases.add(*network, addrs, now));
    for network in releases.networks(draft, now) {
        draft.put_network(network);
    }
    draft.delete_service(id);
    Ok(())
}

/// Puts another spec in place, remembers the one before, and counts a change of the template, which
/// also begins another roll-out.
pub fn replace_spec(service: &mut Service, mut spec: ServiceSpec) {
    if spec.task == service.spec.task {
        spec.task = service.spec.task.clone();
    } else {
        service.spec_version += 1;
        service.update_status = None;
    }
    let before = std::mem::replace(&mut service.spec, spec);
    service.previous_spec = Some(Box::new(before));
}

fn get(draft: &Draft, id: &ServiceId) -> Result<Service, Denied> {
    draft.service(id).map(|service| Service::clone(service)).ok_or_else(|| Denied::not_found("service", id))
}

fn same_kind(a: Mode, b: Mode) -> bool {
    matches!((a, b), (Mode::Replicated { .. }, Mode::Replicated { .. }) | (Mode::Global, Mode::Global))
}

fn is_paused(status: Option<&UpdateStatus>) -> bool {
    let state = status.map(|status| status.state);
    matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused))
}

#[cfg(test)]
mod tests;
