//! No two services have one published port, and no two live tasks one host port of a node.

use swarm_manager_core::allocator::port::collide;
use swarm_manager_core::store::View;
use swarm_types::endpoint::{Port, PublishMode};

/// Looks at all services and nodes.
///
/// # Errors
/// Whose port it is twice.
pub fn check(view: &View) -> Result<(), String> {
    let mut ingress: Vec<(Port, &str)> = Vec::new();
    for service in view.services() {
        let name = service.spec.annotations.name.as_str();
        for port in service.endpoint.ports.iter().filter(|p| p.mode == PublishMode::Ingress) {
            if let Some((_, other)) = ingress.iter().find(|(other, _)| collide(other, port)) {
                return Err(format!("{name} and {other} publish {}", port.published));
            }
            ingress.push((*port, name));
        }
    }
    for node in view.nodes() {
        let mut open: Vec<(Port, String)> = Vec::new();
        for task in view.tasks_on_node(&node.id).filter(|t| t.status.state.consumes_resources()) {
            for port in &task.spec.host_ports {
                if let Some((_, other)) = open.iter().find(|(other, _)| collide(other, port)) {
                    return Err(format!("{} and {other} open {} on {}", task.id, port.published, node.id));
                }
                open.push((*port, task.id.to_string()));
            }
        }
    }
    Ok(())
}
