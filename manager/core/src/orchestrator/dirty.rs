//! Dirty: is this task made from another template than the service has now?
//!
//! Reads:   a task and its service.
//! Writes:  nothing.
//! Never:   looks at states or times.
//! Start:   [`is_dirty`].

use std::sync::Arc;

use swarm_types::service::Service;
use swarm_types::task::Task;

/// True if an update has to replace the task. Another version number alone is not enough: a change
/// and its rollback leave tasks whose template is the wanted one.
pub fn is_dirty(task: &Task, service: &Service) -> bool {
    task.spec_version != service.spec_version
        && !Arc::ptr_eq(&task.spec, &service.spec.task)
        && task.spec != service.spec.task
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::testing::service;

    #[test]
    fn only_another_template_makes_dirty() {
        let spec = service("web").build();
        let mut s = Service { id: "s".into(), spec: spec.clone(), spec_version: 1, ..Service::default() };
        let task = Task { spec: spec.task.clone(), spec_version: 1, ..Task::default() };
        assert!(!is_dirty(&task, &s));
        s.spec = service("web").image("image:2").build();
        s.spec_version = 2;
        assert!(is_dirty(&task, &s));
        s.spec = service("web").build();
        s.spec_version = 3;
        assert!(!is_dirty(&task, &s), "rolled back: equal again");
    }
}
