//! Planner: from what the node was told to what its kernel is to have.
//!
//! It keeps the plan of every network, service and task, and makes anew what changed: of a thousand
//! services one. A planner that saw every change plans the same as a new one (`laws`).
//!
//! Reads:   the set, the node's tasks, facts about the host.
//! Writes:  a [`Plan`], and what cannot be as it is wanted.
//! Never:   plans before a manager has said which node this is: an empty plan would tear all down.
//! Start:   [`Planner::plan`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::Port;
use swarm_types::id::{NetworkId, ServiceId, TaskId};
use swarm_types::network::{Attachment, NetworkDriver};
use swarm_types::network_set::{NetworkProblem, NetworkSet};

use super::address::{self, WAY_OUT};
use super::ground::{Facts, Ground};
use super::host::{self, Host};
use super::kernel::{Namespace, Place, Plan};
use super::macvlan;
use super::part::{Lead, Part, seats};
use super::port::{self, PortKey};
use super::task;

/// A task of this node that has a namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalTask {
    /// Which.
    pub id: TaskId,
    /// Its places on networks, in order; the ingress network last.
    pub attachments: Vec<Attachment>,
    /// Its host-mode ports, each with the port that this node gave it.
    pub ports: Vec<Port>,
}

/// What came of planning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// What the kernel is to have.
    pub plan: Plan,
    /// What cannot be as it is wanted; sorted.
    pub problems: Vec<NetworkProblem>,
    /// What each task's `resolv.conf` is to name; tasks without names are not in it.
    pub resolvers: BTreeMap<TaskId, IpAddr>,
    /// Networks of tasks that this node has not been told of: a task may come before its networks do.
    pub unknown: BTreeMap<TaskId, Vec<NetworkId>>,
}

/// Plans, and keeps what it planned.
#[derive(Debug, Default)]
pub struct Planner {
    ground: Option<Ground>,
    tasks: BTreeMap<TaskId, Arc<LocalTask>>,
    parts: BTreeMap<NetworkId, Part>,
    /// What the host's part was made of, beside the ground and the ingress network.
    outside: (BTreeSet<u32>, BTreeSet<String>),
    denied: Vec<NetworkProblem>,
    /// Which service has which port.
    held: BTreeMap<PortKey, ServiceId>,
    planned: Planned,
}

/// What is new since the last plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News<'a> {
    pub(crate) ground: bool,
    pub(crate) tasks: &'a BTreeSet<TaskId>,
}

impl Planner {
    /// A planner that has planned nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the kernel is to have now; none until a manager has said which node this is. What did not
    /// change since the last plan is the same `Arc` as there.
    pub fn plan(
        &mut self,
        set: &NetworkSet,
        tasks: &BTreeMap<TaskId, Arc<LocalTask>>,
        facts: &Facts,
    ) -> Option<Planned> {
        let own = set.own.as_ref()?;
        if self.ground.as_ref().is_some_and(|ground| ground.own.node != own.node) {
            *self = Self::default();
        }
        let same = self.ground.as_ref().is_some_and(|ground| ground.is(own, &set.peers, facts));
        let ground = match self.ground.take() {
            Some(ground) if same => ground,
            _ => Ground { own: own.clone(), peers: set.peers.clone(), facts: facts.clone() },
        };
        let changed = self.changed_tasks(tasks);
        let news = News { ground: !same, tasks: &changed };
        let (mut host, mut seating, mut leads) = (news.ground, false, Vec::new());
        let gone = self.parts.keys().filter(|id| !set.networks.contains_key(id)).copied().collect::<Vec<_>>();
        for id in gone {
            self.planned.plan.namespaces.remove(&Place::Sandbox(id));
            self.parts.remove(&id);
            (seating, host) = (true, true);
        }
        for (id, entry) in &set.networks {
            let part = self.parts.entry(*id).or_default();
            let did = part.update(&ground, set, entry, &self.tasks, news);
            host |= did.ports || did.network;
            seating |= did.network;
            leads.extend(did.leads);
            match &part.namespace {
                Some(ns) => drop(self.planned.plan.namespaces.insert(Place::Sandbox(*id), ns.clone())),
                None => drop(self.planned.plan.namespaces.remove(&Place::Sandbox(*id))),
            }
        }
        if host {
            self.host(&ground);
        } else if !leads.is_empty() {
            self.lead(&leads);
        }
        if seating || news.ground || !changed.is_empty() {
            self.seat(&ground, if seating || news.ground { None } else { Some(&changed) });
        }
        if host || seating || !changed.is_empty() {
            self.planned.problems = self.problems(&ground);
        }
        self.ground = Some(ground);
        Some(self.planned.clone())
    }

    /// Takes over the node's tasks; says which are new, gone or different.
    fn changed_tasks(&mut self, tasks: &BTreeMap<TaskId, Arc<LocalTask>>) -> BTreeSet<TaskId> {
        let gone = self.tasks.keys().filter(|id| !tasks.contains_key(id));
        let other = tasks.iter().filter(|(id, task)| self.tasks.get(id) != Some(task)).map(|(id, _)| id);
        let changed: BTreeSet<_> = gone.chain(other).copied().collect();
        for id in &changed {
            match tasks.get(id) {
                Some(task) => drop(self.tasks.insert(*id, task.clone())),
                None => drop(self.tasks.remove(id)),
            }
        }
        changed
    }

    /// The host's namespace.
    fn host(&mut self, ground: &Ground) {
        let networks = self.parts.values().filter_map(|part| part.network.as_ref());
        let encrypted = networks.clone().filter(|n| n.encrypted && n.vni != 0).map(|n| n.vni).collect();
        let private = networks.filter(|n| n.driver == NetworkDriver::Macvlan).map(|n| macvlan::parent(n));
        let private = private.filter(|(_, ours)| *ours).map(|(name, _)| name).collect();
        self.outside = (encrypted, private);
        let ingress = self.parts.values().find(|part| part.is_ingress());
        let none = BTreeMap::new();
        let (held, denied) = port::settle(ingress.map_or(&none, |part| &part.claims));
        let ingress = ingress.and_then(|part| part.sandbox(ground));
        let host = Host { ground, ingress, encrypted: &self.outside.0, private: &self.outside.1 };
        let mut ns = host.namespace(&held);
        self.denied = denied
            .into_iter()
            .map(|(key, wants, has)| NetworkProblem {
                subject: format!("port {key}"),
                text: format!("wanted by service `{}`, held by service `{}`", wants.name, has.name),
            })
            .collect();
        let old = self.planned.plan.namespaces.get(&Place::Host);
        old.into_iter().for_each(|old| ns.share(old));
        self.held = held.iter().map(|(key, claim)| (*key, claim.holder.service)).collect();
        put(&mut self.planned.plan, Place::Host, ns);
    }

    /// Ports that the host has lead elsewhere.
    fn lead(&mut self, leads: &[Lead]) {
        let Some(host) = self.planned.plan.namespaces.get(&Place::Host) else { return };
        let mut ns = (**host).clone();
        for lead in leads.iter().filter(|lead| self.held.get(&lead.port) == Some(&lead.service)) {
            ns.replace_chain(lead.version.family(), host::TABLE, &lead.port.chain(), &lead.chain);
        }
        put(&mut self.planned.plan, Place::Host, ns);
    }

    /// The tasks' namespaces: those that changed, or all.
    fn seat(&mut self, ground: &Ground, only: Option<&BTreeSet<TaskId>>) {
        let all: BTreeSet<TaskId> = match only {
            Some(changed) => changed.clone(),
            None => self.tasks.keys().copied().collect(),
        };
        let gone = |place: &Place| matches!(place, Place::Task(id) if !self.tasks.contains_key(id));
        self.planned.plan.namespaces.retain(|place, _| !gone(place));
        self.planned.resolvers.retain(|id, _| self.tasks.contains_key(id));
        self.planned.unknown.retain(|id, _| self.tasks.contains_key(id));
        for id in all {
            let Some(task) = self.tasks.get(&id) else { continue };
            let (seats, unknown) = seats(task, |network| self.parts.get(&network)?.network.clone());
            if unknown.is_empty() {
                self.planned.unknown.remove(&id);
            } else {
                self.planned.unknown.insert(id, unknown);
            }
            match task::resolver(ground, &seats) {
                Some(addr) => drop(self.planned.resolvers.insert(id, addr)),
                None => drop(self.planned.resolvers.remove(&id)),
            }
            put(&mut self.planned.plan, Place::Task(id), task::namespace(ground, id, &seats));
        }
    }

    fn problems(&self, ground: &Ground) -> Vec<NetworkProblem> {
        let mut problems = self.denied.clone();
        for part in self.parts.values() {
            part.problems(ground, &mut problems);
        }
        problems.sort();
        problems.dedup();
        problems
    }
}

/// The place of a task's device on the ingress network, and of others.
pub(crate) fn device(ingress: bool, n: usize) -> String {
    if ingress { WAY_OUT.into() } else { address::eth(n) }
}

/// Keeps the old value if it is the same.
fn put(plan: &mut Plan, place: Place, ns: Namespace) {
    if plan.namespaces.get(&place).is_none_or(|old| **old != ns) {
        plan.namespaces.insert(place, Arc::new(ns));
    }
}

#[cfg(test)]
mod tests;
