//! Reach: the routes of a sandbox: which node each address of a network is on.
//!
//! Reads:   the tasks of a network, the other nodes, the sandbox's own routes.
//! Writes:  the routes, changed where something changed and shared otherwise.
//! Never:   has two routes to one address: the kernel would keep neither for sure.
//! Start:   [`Reach::take`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::id::{NodeId, TaskId};
use swarm_types::network_set::TaskEndpoint;

use super::address::{self, MAIN, VXLAN, Version};
use super::kernel::{Route, Way};

/// The nodes that can be reached, and their numbers.
pub(crate) type Reachable = BTreeMap<NodeId, u16>;

/// Routes of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Who says that it has an address: those that serve first, then by id. There is one, unless an
    /// address went to another task faster than the news of it.
    owners: BTreeMap<IpAddr, BTreeSet<(bool, TaskId, NodeId)>>,
    /// What there is, by address.
    remote: BTreeMap<IpAddr, Route>,
    /// Routes that are the sandbox's own.
    fixed: BTreeSet<Route>,
    all: Arc<BTreeSet<Route>>,
}

impl Reach {
    /// The routes.
    pub(crate) fn routes(&self) -> &Arc<BTreeSet<Route>> {
        &self.all
    }

    /// A task other than this one is said to have the address.
    pub(crate) fn is_of_another(&self, addr: IpAddr, task: TaskId) -> bool {
        self.owners.get(&addr).is_some_and(|owners| owners.iter().any(|(_, owner, _)| *owner != task))
    }

    /// Tasks came, changed and went.
    pub(crate) fn learn(
        &mut self,
        old: Option<&TaskEndpoint>,
        new: Option<&TaskEndpoint>,
        touched: &mut Touched,
    ) {
        if old.zip(new).is_some_and(|(a, b)| a.addrs == b.addrs && a.node == b.node && a.serving == b.serving)
        {
            return;
        }
        for task in old.into_iter() {
            for addr in &task.addrs {
                if let Some(owners) = self.owners.get_mut(addr) {
                    owners.remove(&owner(task));
                    if owners.is_empty() {
                        self.owners.remove(addr);
                    }
                }
                touched.0.insert(*addr);
            }
        }
        for task in new.into_iter() {
            for addr in &task.addrs {
                self.owners.entry(*addr).or_default().insert(owner(task));
                touched.0.insert(*addr);
            }
        }
    }

    /// Makes the routes of what was touched, and of the sandbox's own routes if they are given.
    pub(crate) fn take(&mut self, touched: Touched, nodes: &Reachable, fixed: Option<BTreeSet<Route>>) {
        let fixed = fixed.unwrap_or_else(|| self.fixed.clone());
        let own: BTreeSet<_> = fixed.iter().map(|route| route.to).collect();
        let before: BTreeSet<_> = self.fixed.iter().map(|route| route.to).collect();
        let moved = own.symmetric_difference(&before).filter(|net| net.prefix_len() == net.max_prefix_len());
        let addrs: BTreeSet<_> = touched.0.into_iter().chain(moved.map(|net| net.addr())).collect();
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for addr in addrs {
            let route = self.way(addr, nodes).filter(|route| !own.contains(&route.to));
            if self.remote.get(&addr) == route.as_ref() {
                continue;
            }
            gone.extend(self.remote.remove(&addr));
            come.extend(route.clone());
            self.remote.extend(route.map(|route| (addr, route)));
        }
        gone.extend(self.fixed.difference(&fixed).cloned());
        come.extend(fixed.difference(&self.fixed).cloned());
        if !gone.is_empty() || !come.is_empty() {
            let all = Arc::make_mut(&mut self.all);
            for route in &gone {
                all.remove(route);
            }
            all.extend(come);
        }
        self.fixed = fixed;
    }

    /// Nodes changed: every address has to be looked at.
    pub(crate) fn touch_all(&self, mut touched: Touched) -> Touched {
        touched.0.extend(self.owners.keys().chain(self.remote.keys()));
        touched
    }

    fn way(&self, addr: IpAddr, nodes: &Reachable) -> Option<Route> {
        let index = self.owners.get(&addr)?.iter().find_map(|(_, _, node)| nodes.get(node))?;
        let via = Some(address::label(Version::of(addr), *index));
        let way = Way::Device { name: VXLAN.into(), via };
        Some(Route { table: MAIN, to: address::host_net(addr), way, src: None, metric: 0 })
    }
}

/// Addresses whose routes have to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Touched(BTreeSet<IpAddr>);

fn owner(task: &TaskEndpoint) -> (bool, TaskId, NodeId) {
    (!task.serving, task.task, task.node)
}
