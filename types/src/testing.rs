//! Builders for tests: `service("web").replicas(3)`.

use std::sync::Arc;

use crate::node::{Availability, Node, NodeState, Role};
use crate::placement::{Constraint, Platform};
use crate::policy::RestartPolicy;
use crate::resources::{NANO_CPU, Resources};
use crate::service::{Mode, ServiceSpec};
use crate::task::TaskSpec;

/// Builds a [`ServiceSpec`].
pub struct SpecBuilder {
    spec: ServiceSpec,
    task: TaskSpec,
}

/// A replicated service of one task of image `image:1`.
pub fn service(name: &str) -> SpecBuilder {
    let mut builder = SpecBuilder { spec: ServiceSpec::default(), task: TaskSpec::default() };
    builder.spec.annotations.name = name.into();
    builder.task.container.image = "image:1".into();
    builder
}

impl SpecBuilder {
    /// How many tasks.
    pub fn replicas(mut self, replicas: u64) -> Self {
        self.spec.mode = Mode::Replicated { replicas };
        self
    }
    /// One task on every node.
    pub fn global(mut self) -> Self {
        self.spec.mode = Mode::Global;
        self
    }
    /// Another image.
    pub fn image(mut self, image: &str) -> Self {
        self.task.container.image = image.into();
        self
    }
    /// A constraint; panics if it is none.
    pub fn constraint(mut self, text: &str) -> Self {
        self.task.placement.constraints.push(Constraint::parse(text).expect("constraint of a test"));
        self
    }
    /// CPUs and MiB to keep for each task.
    pub fn reserve(mut self, cpus: u64, mib: u64) -> Self {
        self.task.resources.reservations = Resources { nano_cpus: cpus * NANO_CPU, memory_bytes: mib << 20 };
        self
    }
    /// Another restart policy.
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.task.restart = policy;
        self
    }
    /// Anything else.
    pub fn with(mut self, change: impl FnOnce(&mut ServiceSpec, &mut TaskSpec)) -> Self {
        change(&mut self.spec, &mut self.task);
        self
    }
    /// The spec.
    pub fn build(mut self) -> ServiceSpec {
        self.spec.task = Arc::new(self.task);
        self.spec
    }
}

/// A worker that is ready and has 4 CPUs and 8 GiB; its id and host name are `name`.
pub fn node(name: &str) -> Node {
    let mut node = Node { id: name.into(), ..Node::default() };
    node.description.hostname = name.into();
    node.description.platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
    node.description.resources = Resources { nano_cpus: 4 * NANO_CPU, memory_bytes: 8 << 30 };
    node.description.network.encryption = "kernel".into();
    node.status.state = NodeState::Ready;
    node
}

/// As [`node`], a manager.
pub fn manager(name: &str) -> Node {
    let mut node = node(name);
    node.role = Role::Manager;
    node.spec.role = Role::Manager;
    node
}

/// As [`node`], drained.
pub fn drained(name: &str) -> Node {
    let mut node = node(name);
    node.spec.availability = Availability::Drain;
    node
}
