//! Allocator: gives nodes, services and tasks what they need of the networks.
//!
//! Reads:   the cluster, networks, nodes, services, tasks.
//! Writes:  Node.index, Node.entry; Service.endpoint; Task.attachments with Task.status NEW ->
//!          PENDING, or the reason why it waits; Network.released; Cluster.key_epoch; the ingress
//!          network of a cluster that is older than networks.
//! Never:   looks at where a task may run; takes a virtual address away while its network is wanted.
//! Start:   [`Allocator::plan`](crate::control_loop::ControlLoop::plan).
//!
//! A service without networks and ports, and its tasks, cost nothing here. What an address costs does
//! not depend on how many are taken: always the lowest free one is given.

pub mod address;
pub(crate) mod endpoint;
mod node;
pub mod port;
mod range;
pub mod subnet;
mod task;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::cluster::Cluster;
use swarm_types::id::{NetworkId, NodeId, ServiceId, TaskId};
use swarm_types::network::Network;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object, View};
use address::{Addresses, Owner, Releases, free_again};
use node::Indexes;
use port::Ports;
use waiting::{Blocker, Waiting};

/// The loop. Its books are what networks, nodes, services and tasks say that they have; besides it
/// remembers what to look at next, and who waits for what.
#[derive(Debug, Clone, Default)]
pub struct Allocator {
    addresses: Addresses,
    ports: Ports,
    indexes: Indexes,
    dirty: Dirty,
    /// Services that cannot have all they want, and why.
    blocked: BTreeMap<ServiceId, String>,
    waiting: Waiting,
    /// Nodes for which the ingress network had no address.
    without_entry: BTreeSet<NodeId>,
}

/// What to look at.
#[derive(Debug, Clone, Default)]
struct Dirty {
    /// The ingress network is another: all nodes.
    ingress: bool,
    /// Ports were given back.
    ports: bool,
    networks: BTreeSet<NetworkId>,
    nodes: BTreeSet<NodeId>,
    services: BTreeSet<ServiceId>,
    tasks: BTreeSet<TaskId>,
}

/// The plan has no room.
struct Full;

fn is_new(task: &Task) -> bool {
    task.status.state == TaskState::New && task.is_wanted()
}

impl ControlLoop for Allocator {
    fn restore(view: &View) -> Allocator {
        let mut this = Allocator::default();
        this.dirty.ingress = true;
        view.networks().for_each(|n| this.put_network(n.id, Some(n)));
        for node in view.nodes() {
            this.indexes.put(node.id, node.index);
            this.dirty.nodes.insert(node.id);
        }
        view.services().for_each(|s| this.put_service(s));
        view.tasks().for_each(|t| this.put_task(t));
        this
    }

    fn observe(&mut self, event: &Event) {
        match (event.latest(), event.now().is_some()) {
            (Object::Cluster(_), _) => {}
            (Object::Network(network), there) => {
                self.dirty.ingress |= network.spec.ingress
                    && !matches!(event, Event::Updated { old: Object::Network(old), .. } if old.subnets == network.subnets);
                self.put_network(network.id, there.then_some(network));
            }
            (Object::Node(node), true) => {
                self.indexes.put(node.id, node.index);
                if node.index == 0 || node.entry.is_empty() {
                    self.dirty.nodes.insert(node.id);
                }
            }
            (Object::Node(node), false) => {
                self.indexes.put(node.id, 0);
                self.addresses.put(Owner::Node(node.id), Vec::new());
                self.without_entry.remove(&node.id);
            }
            (Object::Service(service), true) => self.put_service(service),
            (Object::Service(service), false) => {
                self.dirty.ports |= self.ports.put(service.id, &[]);
                self.addresses.put(Owner::Service(service.id), Vec::new());
                self.blocked.remove(&service.id);
                // Its tasks may go on: what it did not get they need no longer.
                self.waiting.open(Blocker::Service(service.id));
            }
            (Object::Task(task), true) => self.put_task(task),
            (Object::Task(task), false) => {
                if !task.attachments.is_empty() {
                    self.addresses.put(Owner::Task(task.id), Vec::new());
                }
                self.waiting.forget(&task.id);
            }
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        self.addresses.expire(ctx.now);
        let keys = self.look_at_cluster(plan, ctx);
        if self.look_at_all(plan, ctx).is_err() {
            return Wake::Now;
        }
        self.addresses.next_end().map_or(Wake::Never, Wake::At).min(keys)
    }
}

impl Allocator {
    fn put_network(&mut self, id: NetworkId, network: Option<&Arc<Network>>) {
        self.addresses.put_network(id, network);
        if network.is_some_and(|n| !n.released.is_empty()) {
            self.dirty.networks.insert(id);
        }
    }

    fn put_service(&mut self, service: &Service) {
        self.dirty.ports |= self.ports.put(service.id, &service.endpoint.ports);
        self.addresses.put(Owner::Service(service.id), endpoint::held(&service.endpoint));
        if endpoint::concerns_us(service) {
            self.dirty.services.insert(service.id);
        } else {
            // Its new spec wants nothing: whoever waited for it need not.
            self.blocked.remove(&service.id);
            self.waiting.open(Blocker::Service(service.id));
        }
    }

    fn put_task(&mut self, task: &Task) {
        if !task.attachments.is_empty() {
            self.addresses.put_task(task);
        }
        if is_new(task) {
            self.dirty.tasks.insert(task.id);
        } else if !self.waiting.is_empty() {
            self.waiting.forget(&task.id);
        }
    }

    fn look_at_all(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Result<(), Full> {
        self.open();
        while let Some(id) = self.dirty.networks.first().copied() {
            self.prune(plan, ctx, &id)?;
            self.dirty.networks.remove(&id);
        }
        self.look_at_nodes(plan, ctx)?;
        self.open();
        while let Some(id) = self.dirty.services.first().copied() {
            self.look_at_service(plan, ctx, id)?;
            self.dirty.services.remove(&id);
            // What it gave back another may have at once.
            self.open();
        }
        self.look_at_tasks(plan, ctx)
    }

    /// What became free may be had by those that wait for it.
    fn open(&mut self) {
        let freed = self.addresses.take_freed();
        if !freed.is_empty() || std::mem::take(&mut self.dirty.ports) {
            self.dirty.services.extend(self.blocked.keys());
            self.dirty.nodes.append(&mut self.without_entry);
        }
        for network in freed {
            self.waiting.open(Blocker::Network(network));
            self.dirty.networks.insert(network);
        }
    }

    /// Forgets what was released of a network when all of it is free again.
    fn prune(&mut self, plan: &mut Plan, ctx: &Context<'_>, id: &NetworkId) -> Result<(), Full> {
        let Some(network) = plan.network(id) else { return Ok(()) };
        let over = network.released.values().all(|at| free_again(*at) <= ctx.now);
        if network.released.is_empty() || !over {
            return Ok(());
        }
        if plan.is_full() {
            return Err(Full);
        }
        let network = Network { released: Default::default(), ..Network::clone(network) };
        self.write_network(plan, network, Reason::AddressesFree);
        Ok(())
    }

    fn write_network(&mut self, plan: &mut Plan, network: Network, why: Reason) {
        let id = network.id;
        plan.put_network(network, why);
        let network = plan.network(&id).cloned();
        self.put_network(id, network.as_ref());
    }

    /// Writes down that nobody has these any more.
    fn release(&mut self, plan: &mut Plan, ctx: &Context<'_>, releases: Releases) {
        for network in releases.networks(plan, ctx.now) {
            self.write_network(plan, network, Reason::AddressesReleased);
        }
    }

    /// Counts the keys of the tunnels on; says when to do it next. What a cluster of before there were
    /// networks lacks is made, once: its keys were never counted.
    fn look_at_cluster(&mut self, plan: &mut Plan, ctx: &Context<'_>) -> Wake {
        let Some(cluster) = plan.cluster().cloned() else { return Wake::Never };
        let due = cluster.key_epoch_at.plus(cluster.spec.key_rotation);
        if cluster.key_epoch > 0 && due > ctx.now {
            return Wake::At(due);
        }
        if cluster.key_epoch == 0 && plan.ingress_network().is_none() {
            // Without room for it in the pools a user has to say where.
            if let Ok(ingress) = subnet::ingress(plan, cluster.id) {
                self.write_network(plan, ingress, Reason::IngressMade);
                self.dirty.ingress = true;
                self.waiting.open(Blocker::Ingress);
            }
        }
        let (epoch, at) = (cluster.key_epoch + 1, ctx.now);
        let due = at.plus(cluster.spec.key_rotation);
        let cluster = Cluster { key_epoch: epoch, key_epoch_at: at, ..Cluster::clone(&cluster) };
        plan.put_cluster(cluster, Reason::KeysDue);
        Wake::At(due)
    }
}

#[cfg(test)]
pub(crate) mod tests;
