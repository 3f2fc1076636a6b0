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
use swarm_types::task::Task;

use super::filter::{self, FilterReason, Summary};
use super::node_info::NodeInfo;
use crate::store::View;

/// Why no node could hold a task of the service's current template, even if all its tasks there
/// were stopped first; none if one could.
pub fn no_room_for(view: &View, service: &Service) -> Option<String> {
    let spec = &service.spec.task;
    let mut summary = Summary::default();
    for node in view.nodes() {
        // The cheap filters first: adding up what a node's tasks hold is not.
        let reason = filter::ready(node).or_else(|| filter::placement(spec, node)).or_else(|| {
            let others = info(view, node, |t| t.service != service.id);
            filter::resources(spec, others.free())
        });
        summary.add(reason?.kind());
    }
    Some(summary.to_string())
}

/// For each node, why `task` may not go to it. Nodes that it could go to are left out.
pub fn explain(view: &View, task: &Task) -> Vec<(NodeId, FilterReason)> {
    let only = task.node;
    let nodes = view.nodes().filter(|n| only.is_empty() || n.id == only);
    let reason = |node: &Arc<Node>| {
        let info = info(view, node, |t| t.id != task.id);
        filter::check(&task.spec, &task.service, &info).map(|reason| (node.id, reason))
    };
    nodes.filter_map(reason).collect()
}

fn info(view: &View, node: &Arc<Node>, counts: impl Fn(&Task) -> bool) -> NodeInfo {
    let mut info = NodeInfo::new(node.clone());
    view.tasks_on_node(&node.id).filter(|t| counts(t)).for_each(|t| info.add(t));
    info
}
