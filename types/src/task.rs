//! A task: one run of one container of a service in one slot on one node. Never moved, never
//! restarted: replaced.

use std::sync::Arc;

use crate::container::ContainerSpec;
use crate::endpoint::Port;
use crate::id::{NodeId, ServiceId, TaskId};
use crate::meta::{Annotations, Meta};
use crate::network::{Attachment, AttachmentSpec};
use crate::placement::Placement;
use crate::policy::RestartPolicy;
use crate::resources::Requirements;
use crate::task_state::TaskState;
use crate::time::Timestamp;

/// The template that tasks are made from. Immutable once a task has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskSpec {
    /// What runs.
    pub container: ContainerSpec,
    /// What it may use and what is kept for it.
    pub resources: Requirements,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Where it may run.
    pub placement: Placement,
    /// The networks that it is on.
    pub networks: Vec<AttachmentSpec>,
    /// The host-mode ports of the service's endpoint: each task opens them on its node, so another
    /// set makes another task. Written by managers; what a user says here is replaced.
    pub host_ports: Vec<Port>,
    /// It has a place on the ingress network: it publishes ports, or there is a way out for it.
    /// Written by managers; what a user says here is replaced.
    pub gateway: bool,
    /// Changed by `service update --force`: another number makes another task.
    pub force_update: u64,
}

/// A task as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// The service that it belongs to (the object may be gone already).
    pub service: ServiceId,
    /// Name and labels of the service when the task was made.
    pub service_annotations: Arc<Annotations>,
    /// Its place in a replicated service, from 1; 0 in a global one.
    pub slot: u64,
    /// The node it runs on; empty until one is chosen. Never changes after that.
    pub node: NodeId,
    /// What it was made from.
    pub spec: Arc<TaskSpec>,
    /// [`crate::service::Service::spec_version`] at that time.
    pub spec_version: u64,
    /// The furthest state that it may reach now; only grows.
    pub desired_state: TaskState,
    /// Its addresses: one entry for each of its networks, the ingress network last if it has to have
    /// one there (a way out, or published ports). Written by the allocator before a node is chosen.
    pub attachments: Vec<Attachment>,
    /// What was observed last; its state only grows.
    pub status: TaskStatus,
    /// Which restarts came before it.
    pub attempt: Attempt,
    /// Not to be started before this (a restart delay); zero means at once.
    pub start_after: Timestamp,
}

/// What was observed of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskStatus {
    /// How far it has come.
    pub state: TaskState,
    /// When the observer saw that, by the observer's clock. For people.
    pub at: Timestamp,
    /// When a manager took it in, by the leader's clock. For decisions.
    pub applied_at: Timestamp,
    /// What is going on, in a few words.
    pub message: String,
    /// Why it failed, or why it waits; empty if all is well.
    pub err: String,
    /// The container, once there is one.
    pub container: Option<ContainerStatus>,
}

/// What was observed of a task's container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerStatus {
    /// Its id on the node.
    pub container_id: String,
    /// Process id on the node; 0 when it does not run.
    pub pid: u32,
    /// Exit code; meaningful in final states only. Killed by signal n: 128 + n.
    pub exit_code: i32,
    /// It was killed for using more memory than its limit.
    pub oom_killed: bool,
    /// Its host-mode ports, each with the port that the node gave it.
    pub ports: Vec<Port>,
}

/// Which restarts came before a task, in its slot and for its spec. Travels from task to
/// replacement, so that no leader has to remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempt {
    /// Restarts so far (in the running window, if the policy has one).
    pub count: u64,
    /// When the window of `count` began.
    pub window_start: Timestamp,
}

impl Task {
    /// `service.slot.id`, or `service.node.id` in a global service: the container's name.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.name(), self.id)
    }
    /// `service.slot`, or `service.node` in a global service: what people call it.
    pub fn name(&self) -> String {
        match self.slot {
            0 => format!("{}.{}", self.service_annotations.name, self.node),
            slot => format!("{}.{slot}", self.service_annotations.name),
        }
    }
    /// It has not ended, or it has not been told to.
    pub fn is_live(&self) -> bool {
        !self.status.state.is_terminal()
    }
    /// It is meant to run, now or when its turn comes.
    pub fn is_wanted(&self) -> bool {
        self.desired_state <= TaskState::Running
    }
}
