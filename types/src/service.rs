//! A service: what the user wants running.

use std::sync::Arc;

use crate::endpoint::{Endpoint, EndpointSpec};
use crate::id::ServiceId;
use crate::meta::{Annotations, Meta};
use crate::policy::UpdatePolicy;
use crate::task::TaskSpec;
use crate::time::Timestamp;

/// A service as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// Grows by one when [`ServiceSpec::task`] changes: tasks carry the number they were made from.
    pub spec_version: u64,
    /// The spec before the last change: what a rollback returns to.
    pub previous_spec: Option<Box<ServiceSpec>>,
    /// Its virtual addresses and published ports. Written by the allocator.
    pub endpoint: Endpoint,
    /// How the last change is getting on.
    pub update_status: Option<UpdateStatus>,
}

/// What the user wants of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceSpec {
    /// Name and labels of the service.
    pub annotations: Annotations,
    /// The template of its tasks. Shared with each task made from it.
    pub task: Arc<TaskSpec>,
    /// How many tasks, and where.
    pub mode: Mode,
    /// How a change of `task` is rolled out.
    pub update: UpdatePolicy,
    /// How it is reached.
    pub endpoint: EndpointSpec,
}

/// How many tasks a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// So many, anywhere.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on every node that fits.
    Global,
}

impl Mode {
    /// The word that `service ls` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Replicated { .. } => "replicated",
            Mode::Global => "global",
        }
    }
}

impl Default for Mode {
    fn default() -> Self {
        Mode::Replicated { replicas: 1 }
    }
}

/// How the roll-out of a change is getting on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; zero while it runs.
    pub completed_at: Timestamp,
    /// For people.
    pub message: String,
}

/// Where a roll-out stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum UpdateState {
    #[default]
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

impl UpdateState {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            UpdateState::Updating => "updating",
            UpdateState::Paused => "paused",
            UpdateState::Completed => "completed",
            UpdateState::RollbackStarted => "rollback_started",
            UpdateState::RollbackPaused => "rollback_paused",
            UpdateState::RollbackCompleted => "rollback_completed",
        }
    }
}
