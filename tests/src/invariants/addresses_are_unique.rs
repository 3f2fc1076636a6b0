//! On each network an address has one holder: a live task, a service, or a node; and nobody has it
//! before it has been free for the quarantine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use swarm_manager_core::store::View;
use swarm_types::defaults;
use swarm_types::id::NetworkId;
use swarm_types::time::Timestamp;

/// Who had each address last, and until when.
#[derive(Debug, Default)]
pub struct AddressesAreUnique {
    last: BTreeMap<(NetworkId, IpAddr), (String, Timestamp)>,
}

impl AddressesAreUnique {
    /// Looks at a state of the store.
    ///
    /// # Errors
    /// Who has an address that is not theirs.
    pub fn check(&mut self, view: &View) -> Result<(), String> {
        let now = view.newest_time();
        // One that ended had its addresses until then, not until it was written.
        for task in view.tasks().filter(|t| !t.is_live()) {
            for place in task.attachments.iter().flat_map(|a| a.addrs.iter().map(|addr| (a.network, *addr))) {
                if let Some((who, until)) = self.last.get_mut(&place)
                    && *who == format!("task {}", task.id)
                {
                    *until = task.status.applied_at.min(*until);
                }
            }
        }
        let mut seen = BTreeMap::new();
        for (place, who) in holders(view) {
            if let Some(other) = seen.insert(place, who.clone()) {
                return Err(format!("{who} and {other} have {}", place.1));
            }
            let before = self.last.insert(place, (who.clone(), now));
            if let Some((other, until)) = before.filter(|(other, _)| *other != who)
                && now.since(until) < defaults::ADDRESS_QUARANTINE
            {
                return Err(format!("{who} has {} {:?} after {other}", place.1, now.since(until)));
            }
        }
        Ok(())
    }
}

fn holders(view: &View) -> Vec<((NetworkId, IpAddr), String)> {
    let mut all = Vec::new();
    for task in view.tasks().filter(|t| t.is_live() && !t.attachments.is_empty()) {
        for attachment in &task.attachments {
            let mine = |addr: &IpAddr| ((attachment.network, *addr), format!("task {}", task.id));
            all.extend(attachment.addrs.iter().map(mine));
        }
    }
    for service in view.services() {
        for (network, addrs) in &service.endpoint.vips {
            all.extend(addrs.iter().map(|addr| ((*network, *addr), format!("service {}", service.id))));
        }
    }
    let ingress = view.ingress_network().map(|n| n.id);
    for node in view.nodes() {
        let mine = |addr: &IpAddr| Some(((ingress?, *addr), format!("node {}", node.id)));
        all.extend(node.entry.iter().filter_map(mine));
    }
    all
}
