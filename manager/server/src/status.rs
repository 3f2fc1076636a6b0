//! The one place where an error becomes a gRPC status.

use swarm_manager_core::control::{Denied, DeniedKind};
use swarm_manager_raft::node::ProposeError;
use swarm_proto::convert::Malformed;
use tonic::Status;

/// What a user's command was refused for.
pub(crate) fn denied(denied: &Denied) -> Status {
    let text = denied.to_string();
    match denied.kind() {
        DeniedKind::NotFound => Status::not_found(text),
        DeniedKind::AlreadyExists => Status::already_exists(text),
        DeniedKind::FailedPrecondition => Status::failed_precondition(text),
        DeniedKind::InvalidArgument => Status::invalid_argument(text),
        DeniedKind::Aborted => Status::aborted(text),
    }
}

/// A request with a field that is missing or wrong.
pub(crate) fn malformed(malformed: Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

/// A write that did not make it into the log.
pub(crate) fn propose(error: &ProposeError) -> Status {
    Status::unavailable(error.to_string())
}
