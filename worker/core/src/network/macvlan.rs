//! Macvlan: tasks with MAC addresses of their own on a device of the node (option `parent`).
//!
//! The site's network does the rest: there is no sandbox, no virtual address, nothing between the
//! tasks and the site. Without `parent` the device is a private one of the node, as Docker's.
//!
//! Reads:   the network's options.
//! Writes:  a task's device; the private device of the host.
//! Never:   checks what a task sends: that is the site's.
//! Start:   [`plug`].

use std::collections::BTreeSet;

use swarm_types::id::TaskId;
use swarm_types::network_set::NetworkPart;

use super::address::{self, MAIN};
use super::ground::Ground;
use super::kernel::{Link, LinkKind, Namespace, Route, Way};
use super::task::{self, Seat};

/// The option that names the host's device.
pub const PARENT: &str = "parent";

/// The device of the host that a network stands on, and whether it is ours.
pub(crate) fn parent(network: &NetworkPart) -> (String, bool) {
    match network.options.get(PARENT).filter(|parent| !parent.is_empty()) {
        Some(parent) => (parent.clone(), false),
        None => (address::private_parent(network.id), true),
    }
}

/// A task's device. Without addresses of ours the task is to ask the site for one.
pub(crate) fn plug(
    ground: &Ground,
    task: TaskId,
    n: usize,
    seat: &Seat,
    ns: &mut Namespace,
    routes: &mut BTreeSet<Route>,
) {
    let Seat { network, addrs, device } = seat;
    let kind = LinkKind::Macvlan { parent: parent(network).0 };
    let mac = Some(address::task_mac(task, addrs));
    ns.links.insert(device.clone(), Link { kind, mac, mtu: network.mtu });
    task::settings(ground, seat, ns);
    for (version, subnet, _) in ground.subnets(network) {
        let Some(addr) = version.first(addrs) else { continue };
        ns.addrs.insert((device.clone(), task::seen(addr, subnet)));
        let way = Way::Device { name: device.clone(), via: None };
        routes.insert(Route { table: MAIN, to: subnet, way, src: Some(addr), metric: task::metric(n) });
    }
}
