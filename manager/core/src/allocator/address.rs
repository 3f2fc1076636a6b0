//! Address: which addresses of each network are taken, by whom, and until when.
//!
//! Reads:   networks, nodes, services, tasks, as they change.
//! Writes:  its own books.
//! Never:   counts a holder twice, whatever order and number of events it sees; remembers what the
//!          store does not say.
//! Start:   [`Addresses`].
//!
//! What a live task, a service or a node has is taken. What one had is taken until its quarantine is
//! over, so that a late packet meets nobody (Swarm reuses at once, swarm.md B9 and D24): a task that
//! ended and is still stored says itself since when; for all others [`Network::released`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use swarm_types::defaults;
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::network::{Network, Subnet};
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use super::range::RangeSet;
use crate::store::View;

/// Ends of quarantines are rounded up to this, so that many end at once.
const GRAIN_MS: u64 = 250;

/// When an address that was given back at `at` may be given out again.
pub fn free_again(at: Timestamp) -> Timestamp {
    let end = at.plus(defaults::ADDRESS_QUARANTINE);
    Timestamp(end.0.div_ceil(GRAIN_MS).saturating_mul(GRAIN_MS))
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Its entry into the ingress network.
    Node(NodeId),
    /// Its virtual addresses.
    Service(ServiceId),
    /// Its attachments.
    Task(TaskId),
    /// Nobody any more.
    Released(NetworkId, IpAddr),
}

/// What one owner has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Hold {
    addrs: Vec<(NetworkId, IpAddr)>,
    /// None: until it is given back.
    until: Option<Timestamp>,
}

/// One network's books.
#[derive(Debug, Clone, Default)]
struct Pool {
    network: Option<Arc<Network>>,
    used_v4: RangeSet,
    used_v6: RangeSet,
    /// More holders than one: how many more. (A task that ended long ago, and the one that has its
    /// address now.)
    again: BTreeMap<IpAddr, u32>,
}

/// The books of all networks.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pools: BTreeMap<NetworkId, Pool>,
    holds: BTreeMap<Owner, Hold>,
    ends: BTreeSet<(Timestamp, Owner)>,
    freed: BTreeSet<NetworkId>,
}

/// The number of an address within its family.
pub fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number in the family of `like`.
pub fn addr_of(number: u128, like: &IpNet) -> Option<IpAddr> {
    match like {
        IpNet::V4(_) => Some(IpAddr::V4(u32::try_from(number).ok()?.into())),
        IpNet::V6(_) => Some(IpAddr::V6(number.into())),
    }
}

/// The numbers that hosts of a subnet may have: not the network's own, and in IPv4 not the last.
fn hosts(net: &IpNet) -> (u128, u128) {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    match net {
        IpNet::V4(_) => (first.saturating_add(1), last.saturating_sub(1)),
        IpNet::V6(_) => (first.saturating_add(1), last),
    }
}

impl Pool {
    fn used(&mut self, addr: IpAddr) -> &mut RangeSet {
        if addr.is_ipv4() { &mut self.used_v4 } else { &mut self.used_v6 }
    }
    fn take(&mut self, addr: IpAddr) {
        let used = self.used(addr);
        if used.contains(number(addr)) {
            *self.again.entry(addr).or_default() += 1;
        } else {
            used.insert(number(addr));
        }
    }
    /// True if it is free now.
    fn give(&mut self, addr: IpAddr) -> bool {
        match self.again.get_mut(&addr) {
            Some(1) => drop(self.again.remove(&addr)),
            Some(more) => *more -= 1,
            None => {
                self.used(addr).remove(number(addr));
                return true;
            }
        }
        false
    }
    fn lowest_free(&self, subnet: &Subnet) -> Option<IpAddr> {
        let (first, last) = hosts(&subnet.net);
        let first = first.max(number(subnet.range.network()));
        let last = last.min(number(subnet.range.broadcast()));
        let used = if subnet.net.addr().is_ipv4() { &self.used_v4 } else { &self.used_v6 };
        addr_of(used.lowest_free(first, last)?, &subnet.net)
    }
    fn is_empty(&self) -> bool {
        self.network.is_none() && self.used_v4 == RangeSet::default() && self.used_v6 == RangeSet::default()
    }
}

/// What nobody gets of a network.
fn kept(network: &Network) -> impl Iterator<Item = IpAddr> {
    network.subnets.iter().flat_map(|s| std::iter::once(s.gateway).chain(s.reserved.iter().copied()))
}

impl Addresses {
    /// A network is new, another, or gone.
    pub fn put_network(&mut self, id: NetworkId, network: Option<&Arc<Network>>) {
        let pool = self.pools.entry(id).or_default();
        let old = std::mem::replace(&mut pool.network, network.cloned());
        if old.as_ref().map(|n| &n.subnets) != network.map(|n| &n.subnets) {
            for addr in old.iter().flat_map(|old| kept(old)) {
                pool.give(addr);
            }
            network.into_iter().flat_map(|new| kept(new)).for_each(|addr| pool.take(addr));
            self.freed.insert(id);
        }
        let (old, new) = (old.map(|n| n.released.clone()).unwrap_or_default(), network.map(|n| &n.released));
        for addr in old.keys().filter(|addr| !new.is_some_and(|new| new.contains_key(addr))) {
            self.set(Owner::Released(id, *addr), Hold::default());
        }
        for (addr, at) in new.into_iter().flatten() {
            let hold = Hold { addrs: vec![(id, *addr)], until: Some(free_again(*at)) };
            self.set(Owner::Released(id, *addr), hold);
        }
        if self.pools.get(&id).is_some_and(Pool::is_empty) {
            self.pools.remove(&id);
        }
    }

    /// What a task has, whatever it had before.
    pub fn put_task(&mut self, task: &Task) {
        let ended = task.status.state.is_terminal();
        let addrs = |a: &swarm_types::network::Attachment| {
            let network = a.network;
            a.addrs.clone().into_iter().map(move |addr| (network, addr))
        };
        let addrs: Vec<_> = task.attachments.iter().flat_map(addrs).collect();
        let until = ended.then(|| free_again(task.status.applied_at));
        self.set(Owner::Task(task.id), Hold { addrs, until });
    }

    /// What somebody has who gives it back, whatever it had before; nothing: it is gone.
    pub fn put(&mut self, owner: Owner, addrs: Vec<(NetworkId, IpAddr)>) {
        self.set(owner, Hold { addrs, until: None });
    }

    fn set(&mut self, owner: Owner, hold: Hold) {
        let before = match self.holds.get(&owner) {
            None if hold.addrs.is_empty() => return,
            Some(before) if *before == hold => return,
            _ => self.holds.remove(&owner).unwrap_or_default(),
        };
        for (network, addr) in &hold.addrs {
            self.pools.entry(*network).or_default().take(*addr);
        }
        self.give(owner, &before);
        if hold.addrs.is_empty() {
            return;
        }
        self.ends.extend(hold.until.map(|until| (until, owner)));
        self.holds.insert(owner, hold);
    }

    fn give(&mut self, owner: Owner, hold: &Hold) {
        if let Some(until) = hold.until {
            self.ends.remove(&(until, owner));
        }
        for (network, addr) in &hold.addrs {
            let Some(pool) = self.pools.get_mut(network) else { continue };
            if pool.give(*addr) {
                self.freed.insert(*network);
            }
            if pool.is_empty() {
                self.pools.remove(network);
            }
        }
    }

    /// Frees what has been in quarantine long enough.
    pub fn expire(&mut self, now: Timestamp) {
        while let Some((until, owner)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, owner));
            if let Some(hold) = self.holds.remove(&owner) {
                self.give(owner, &hold);
            }
            if let Owner::Released(network, _) = owner {
                self.freed.insert(network);
            }
        }
    }

    /// When the next quarantine ends.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Networks of which something became free since this was asked last.
    pub fn take_freed(&mut self) -> BTreeSet<NetworkId> {
        std::mem::take(&mut self.freed)
    }

    /// One free address of each of the network's families, the lowest (they are not taken by that).
    ///
    /// # Errors
    /// The first subnet that has none.
    pub fn free(&self, network: &Network) -> Result<Vec<IpAddr>, IpNet> {
        let empty = Pool::default();
        let pool = self.pools.get(&network.id).unwrap_or(&empty);
        network.subnets.iter().map(|subnet| pool.lowest_free(subnet).ok_or(subnet.net)).collect()
    }

    /// How many owners have something, or had it a moment ago.
    #[cfg(test)]
    pub fn owners(&self) -> usize {
        self.holds.len()
    }
}

/// Addresses that are given back, to be written with what gives them back, in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Releases {
    addrs: BTreeMap<NetworkId, BTreeMap<IpAddr, Timestamp>>,
}

impl Releases {
    /// Nobody has `addrs` since `at`.
    pub fn add(&mut self, network: NetworkId, addrs: &[IpAddr], at: Timestamp) {
        let released = self.addrs.entry(network).or_default();
        released.extend(addrs.iter().map(|addr| (*addr, at)));
    }

    /// A task is to be forgotten: what it had stays in quarantine without it.
    pub fn add_task(&mut self, task: &Task, now: Timestamp) {
        let ended = task.status.state.is_terminal();
        let at = if ended { task.status.applied_at.min(now) } else { now };
        if free_again(at) <= now {
            return;
        }
        for attachment in task.attachments.iter().filter(|a| !a.addrs.is_empty()) {
            self.add(attachment.network, &attachment.addrs, at);
        }
    }

    /// The networks as they are to be written. What is free again is left out.
    pub fn networks(self, view: &View, now: Timestamp) -> Vec<Network> {
        let write = |(id, addrs)| {
            let mut network = Network::clone(view.network(&id)?);
            network.released.retain(|_, at| free_again(*at) > now);
            network.released.extend(addrs);
            Some(network)
        };
        self.addrs.into_iter().filter_map(write).collect()
    }
}
