//! Room: could a service's new template be placed at all, if its old tasks made way?
//!
//! Reads:   nodes and their tasks.
//! Writes:  nothing.
//! Never:   chooses a node.
//! Start:   [`no_room_for`], [`explain`].

use std::sync::Arc;

use swarm_types::id::NodeId;
use swarm_types::node::Node;
use swarm_types::service::Service;
use swarm_types::task::{Task, TaskSpec};

use super::filter::{self, FilterReason, Summary};
use super::node_info::NodeInfo;
use crate::control::reach::encrypts;
use crate::store::View;

/// Why no node could hold a task of the service's current template, even if all its tasks there
/// were stopped first; none if one could.
pub fn no_room_for(view: &View, service: &Service) -> Option<String> {
    let spec = &service.spec.task;
    let encrypted = needs_encryption(view, spec);
    let mut summary = Summary::default();
    for node in view.nodes() {
        // The cheap filters first: adding up what a node's tasks hold is not.
        let forever = filter::placement(spec, node).or_else(|| filter::encryption(encrypted, node));
        let reason = filter::ready(node).or(forever).or_else(|| {
            let others = info(view, node, |t| t.service != service.id);
            filter::check_totals(spec, &service.id, &others)
        });
        summary.add(reason?.kind());
    }
    Some(summary.to_string())
}

/// For each node, why `task` may not go to it. Nodes that it could go to are left out.
pub fn explain(view: &View, task: &Task) -> Vec<(NodeId, FilterReason)> {
    let (only, encrypted) = (task.node, needs_encryption(view, &task.spec));
    let nodes = view.nodes().filter(|n| only.is_empty() || n.id == only);
    let reason = |node: &Arc<Node>| {
        let info = info(view, node, |t| t.id != task.id);
        filter::check(&task.spec, encrypted, &task.service, &info).map(|reason| (node.id, reason))
    };
    nodes.filter_map(reason).collect()
}

/// A network of a task's is encrypted. The ingress network counts for those that have a place there.
pub fn needs_encryption(view: &View, spec: &TaskSpec) -> bool {
    if spec.networks.is_empty() && !spec.gateway {
        return false;
    }
    let ingress = if spec.gateway { view.ingress_network() } else { None };
    let on = spec.networks.iter().filter_map(|a| view.network(&a.network)).chain(ingress);
    on.into_iter().any(|network| encrypts(&network.spec))
}

fn info(view: &View, node: &Arc<Node>, counts: impl Fn(&Task) -> bool) -> NodeInfo {
    let mut info = NodeInfo::new(node.clone());
    view.tasks_on_node(&node.id).filter(|t| counts(t)).for_each(|t| info.add(t));
    info
}
