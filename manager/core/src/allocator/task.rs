//! Task: what a new task needs before a node is chosen for it.
//!
//! Reads:   new tasks, their services, networks.
//! Writes:  Task.attachments with Task.status NEW -> PENDING; Task.status.err of one that waits.
//! Never:   gives a task one address without the others that it needs.
//! Start:   [`Allocator::look_at_tasks`].

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use swarm_types::id::NetworkId;
use swarm_types::network::{Attachment, AttachmentSpec, Network};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use super::waiting::Blocker;
use super::{Allocator, Full, is_new};
use crate::context::Context;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Key, View};

/// Nothing is left of a subnet (D24).
pub(super) fn exhausted(network: &Network, subnet: &IpNet) -> String {
    let family = if subnet.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    format!("no available {family} addresses on network {} ({subnet})", network.spec.annotations.name)
}

/// A network, and how a task is attached to it.
type Wanted = (Arc<Network>, AttachmentSpec);

/// The networks of a task, the ingress network last if it has a place there.
///
/// # Errors
/// One of them is not there.
fn networks(view: &View, task: &Task) -> Result<Vec<Wanted>, (Blocker, String)> {
    let mut all = Vec::with_capacity(task.spec.networks.len() + 1);
    for spec in &task.spec.networks {
        let id = spec.network;
        let Some(network) = view.network(&id) else {
            return Err((Blocker::Network(id), format!("network {id} not found")));
        };
        all.push((network.clone(), spec.clone()));
    }
    if !task.spec.gateway {
        return Ok(all);
    }
    match view.ingress_network() {
        Some(ingress) => {
            all.push((ingress.clone(), AttachmentSpec { network: ingress.id, ..AttachmentSpec::default() }));
        }
        None if publishes(view, task) => {
            return Err((
                Blocker::Ingress,
                "published ports need an ingress network, and there is none".into(),
            ));
        }
        None => {}
    }
    Ok(all)
}

fn publishes(view: &View, task: &Task) -> bool {
    let ports = view.service(&task.service).is_some_and(|s| !s.spec.endpoint.ports.is_empty());
    ports || !task.spec.host_ports.is_empty()
}

impl Allocator {
    /// Gives the new tasks what they need, by id: those that were not looked at yet, and those whose
    /// wait may be over.
    pub(super) fn look_at_tasks(&mut self, plan: &mut Plan, ctx: &Context<'_>) -> Result<(), Full> {
        loop {
            let (new, again) = (self.dirty.tasks.first().copied(), self.waiting.first());
            let Some(id) = new.into_iter().chain(again).min() else { return Ok(()) };
            if plan.is_full() {
                return Err(Full);
            }
            match plan.task(&id).filter(|task| is_new(task)).cloned() {
                Some(task) => self.look_at_task(plan, ctx, &task),
                None => self.waiting.forget(&id),
            }
            self.dirty.tasks.remove(&id);
        }
    }

    fn look_at_task(&mut self, plan: &mut Plan, ctx: &Context<'_>, task: &Arc<Task>) {
        let attachments = match self.attachments(plan, task) {
            Ok(attachments) => attachments,
            Err((blocker, why)) => {
                self.waiting.put(task.id, blocker);
                return tell(plan, task, why);
            }
        };
        self.waiting.forget(&task.id);
        for attachment in attachments.iter().filter(|a| !a.addrs.is_empty()) {
            plan.require_unchanged(Key::Network(attachment.network));
        }
        let mut task = Task::clone(task);
        task.attachments = attachments;
        task.status.state = TaskState::Pending;
        task.status.at = ctx.now;
        task.status.applied_at = ctx.now;
        task.status.message = "pending task scheduling".into();
        task.status.err = String::new();
        if !task.attachments.is_empty() {
            self.addresses.put_task(&task);
        }
        plan.put_task(task, Reason::Allocated);
    }

    /// What a task gets, or what it has to wait for and why.
    fn attachments(&self, view: &View, task: &Task) -> Result<Vec<Attachment>, (Blocker, String)> {
        if task.spec.networks.is_empty() && !task.spec.gateway {
            return Ok(Vec::new());
        }
        if let Some(why) = self.blocked.get(&task.service) {
            return Err((Blocker::Service(task.service), why.clone()));
        }
        let attach = |(network, spec): (Arc<Network>, AttachmentSpec)| {
            let addrs: Result<Vec<IpAddr>, IpNet> = self.addresses.free(&network);
            let id: NetworkId = network.id;
            let addrs = addrs.map_err(|subnet| (Blocker::Network(id), exhausted(&network, &subnet)))?;
            Ok(Attachment { network: id, addrs, aliases: spec.aliases })
        };
        networks(view, task)?.into_iter().map(attach).collect()
    }
}

/// Says once why a task waits; the reason may change while it does, and a cluster without room must
/// not write a million tasks each time it does.
fn tell(plan: &mut Plan, task: &Task, why: String) {
    if task.status.err.is_empty() {
        let mut task = task.clone();
        task.status.message = "pending network allocation".into();
        task.status.err = why;
        plan.put_task(task, Reason::NothingFree);
    }
}
