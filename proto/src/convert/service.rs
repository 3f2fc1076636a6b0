//! Services and their specs.

use std::sync::Arc;

use swarm_types::endpoint::{Endpoint, EndpointSpec};
use swarm_types::service::{Mode, Service, ServiceSpec, UpdateState, UpdateStatus};
use swarm_types::time::Timestamp;

use super::{Malformed, id, nested, required};
use crate::v1;
use v1::{service_spec::Mode as WireMode, update_status::State as WireState};

impl From<&ServiceSpec> for v1::ServiceSpec {
    fn from(s: &ServiceSpec) -> Self {
        v1::ServiceSpec {
            annotations: Some((&s.annotations).into()),
            task: Some(s.task.as_ref().into()),
            mode: Some(match s.mode {
                Mode::Replicated { replicas } => WireMode::Replicated(v1::ReplicatedMode { replicas }),
                Mode::Global => WireMode::Global(v1::GlobalMode {}),
            }),
            update: Some((&s.update).into()),
            endpoint: Some((&s.endpoint).into()),
        }
    }
}

impl TryFrom<v1::ServiceSpec> for ServiceSpec {
    type Error = Malformed;
    fn try_from(s: v1::ServiceSpec) -> Result<Self, Malformed> {
        Ok(ServiceSpec {
            annotations: required(s.annotations, "annotations")?.into(),
            task: Arc::new(nested(s.task, "task")?),
            mode: match required(s.mode, "mode")? {
                WireMode::Replicated(r) => Mode::Replicated { replicas: r.replicas },
                WireMode::Global(_) => Mode::Global,
            },
            update: nested(s.update, "update")?,
            endpoint: match s.endpoint {
                Some(endpoint) => EndpointSpec::try_from(endpoint).map_err(|e| e.within("endpoint"))?,
                None => EndpointSpec::default(),
            },
        })
    }
}

impl From<&Service> for v1::Service {
    fn from(s: &Service) -> Self {
        v1::Service {
            id: s.id.to_string(),
            meta: Some(s.meta.into()),
            spec: Some((&s.spec).into()),
            spec_version: s.spec_version,
            previous_spec: s.previous_spec.as_deref().map(Into::into),
            update_status: s.update_status.as_ref().map(Into::into),
            endpoint: Some((&s.endpoint).into()),
        }
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = Malformed;
    fn try_from(s: v1::Service) -> Result<Self, Malformed> {
        let previous =
            s.previous_spec.map(|p| ServiceSpec::try_from(p).map_err(|e| e.within("previous_spec")));
        Ok(Service {
            id: id(&s.id, "id")?,
            meta: required(s.meta, "meta")?.into(),
            spec: nested(s.spec, "spec")?,
            spec_version: s.spec_version,
            previous_spec: previous.transpose()?.map(Box::new),
            update_status: s.update_status.map(UpdateStatus::try_from).transpose()?,
            endpoint: s.endpoint.map(Endpoint::try_from).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<&UpdateStatus> for v1::UpdateStatus {
    fn from(s: &UpdateStatus) -> Self {
        let state = match s.state {
            UpdateState::Updating => WireState::Updating,
            UpdateState::Paused => WireState::Paused,
            UpdateState::Completed => WireState::Completed,
            UpdateState::RollbackStarted => WireState::RollbackStarted,
            UpdateState::RollbackPaused => WireState::RollbackPaused,
            UpdateState::RollbackCompleted => WireState::RollbackCompleted,
        };
        v1::UpdateStatus {
            state: state.into(),
            started_at_ms: s.started_at.0,
            completed_at_ms: s.completed_at.0,
            message: s.message.clone(),
        }
    }
}

impl TryFrom<v1::UpdateStatus> for UpdateStatus {
    type Error = Malformed;
    fn try_from(s: v1::UpdateStatus) -> Result<Self, Malformed> {
        let state = WireState::try_from(s.state).map_err(|e| Malformed::new("update_status.state", e))?;
        Ok(UpdateStatus {
            state: match state {
                WireState::Updating => UpdateState::Updating,
                WireState::Paused => UpdateState::Paused,
                WireState::Completed => UpdateState::Completed,
                WireState::RollbackStarted => UpdateState::RollbackStarted,
                WireState::RollbackPaused => UpdateState::RollbackPaused,
                WireState::RollbackCompleted => UpdateState::RollbackCompleted,
            },
            started_at: Timestamp(s.started_at_ms),
            completed_at: Timestamp(s.completed_at_ms),
            message: s.message,
        })
    }
}
