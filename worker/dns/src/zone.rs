//! The names of one network: which name stands for which addresses. A plain value, made from what the
//! node was told; asking it reaches nothing outside.
//!
//! | Name | Stands for |
//! |---|---|
//! | `web`, an alias of it | the service's virtual addresses; with dnsrr, its serving tasks |
//! | `tasks.web` | its serving tasks |
//! | `web.3`, `web.3.<task id>`, the task's id or the first 12 characters of it | that task |
//! | any of these and `.<network>` | the same |
//!
//! The names are Docker's. Several services that share a name or an alias: the addresses of all. Only
//! tasks that are serving have names. The ingress network has none: its tasks do not reach each other.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::EndpointMode;
use swarm_types::id::{ServiceId, TaskId};
use swarm_types::network_set::{NetworkEntry, NetworkPart, ServiceEndpoint, TaskEndpoint};

/// The names of one network.
#[derive(Debug, Clone)]
pub struct Zone {
    network: Arc<NetworkPart>,
    /// `.<network>`, lower case.
    suffix: String,
    services: Vec<Named>,
    by_id: HashMap<ServiceId, usize>,
    /// Services by each of their names, lower case.
    names: HashMap<String, Vec<usize>>,
    tasks: BTreeMap<TaskId, Arc<TaskEndpoint>>,
    owners: HashMap<IpAddr, Owner>,
}

/// A service, and those of its tasks that new connections lead to.
#[derive(Debug, Clone)]
struct Named {
    endpoint: Arc<ServiceEndpoint>,
    serving: Vec<Arc<TaskEndpoint>>,
}

#[derive(Debug, Clone, Copy)]
enum Owner {
    Task(TaskId),
    Service(usize),
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    /// Services: `all_tasks` if their tasks were asked for whatever the mode.
    Services {
        /// Numbers of services of this zone.
        services: &'a [usize],
        /// The name was `tasks.<service>`.
        all_tasks: bool,
    },
    /// Tasks, all serving.
    Tasks(Vec<&'a TaskEndpoint>),
    /// There are names below it, and nothing at it (`tasks`, the network's name).
    Empty,
    /// It can only be a name of ours, and there is nothing of that name: not to be asked elsewhere.
    Missing,
}

/// Where a service location (SRV) leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the service or the task, qualified by the network's.
    pub name: String,
    /// Whose ports are meant.
    pub service: ServiceId,
    /// Share of new connections; 0 if there is nothing to choose from.
    pub weight: u16,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
}

impl Zone {
    /// The names of a network.
    pub fn new(entry: &NetworkEntry) -> Self {
        let mut zone = Self {
            network: entry.network.clone(),
            suffix: format!(".{}", entry.network.name.to_ascii_lowercase()),
            services: Vec::new(),
            by_id: HashMap::new(),
            names: HashMap::new(),
            tasks: entry.endpoints.clone(),
            owners: HashMap::with_capacity(entry.endpoints.len()),
        };
        for endpoint in entry.services.values() {
            zone.add_service(endpoint);
        }
        for task in entry.endpoints.values() {
            zone.owners.extend(task.addrs.iter().map(|addr| (*addr, Owner::Task(task.task))));
            if let Some(at) = zone.by_id.get(&task.service).filter(|_| task.serving) {
                zone.services[*at].serving.push(task.clone());
            }
        }
        zone
    }

    fn add_service(&mut self, endpoint: &Arc<ServiceEndpoint>) {
        let at = self.services.len();
        self.services.push(Named { endpoint: endpoint.clone(), serving: Vec::new() });
        self.by_id.insert(endpoint.service, at);
        self.owners.extend(endpoint.vips.iter().map(|addr| (*addr, Owner::Service(at))));
        for name in endpoint.aliases.iter().chain([&endpoint.name]) {
            let services = self.names.entry(name.to_ascii_lowercase()).or_default();
            if !services.contains(&at) {
                services.push(at);
            }
        }
    }

    /// The network.
    pub fn network(&self) -> &NetworkPart {
        &self.network
    }

    /// What a name stands for; none if it is not a name of this network. `name` is lower case, without
    /// the last dot.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        if self.network.ingress {
            return None;
        }
        let stripped = name.strip_suffix(self.suffix.as_str());
        self.here(name)
            .or_else(|| stripped.and_then(|name| self.here(name)))
            .or_else(|| self.has_names_below(name).then_some(Found::Empty))
            .or_else(|| self.is_ours(name).then_some(Found::Missing))
            .or_else(|| stripped.is_some_and(|name| self.is_ours(name)).then_some(Found::Missing))
    }

    fn here(&self, name: &str) -> Option<Found<'_>> {
        if let Some(services) = self.names.get(name) {
            return Some(Found::Services { services, all_tasks: false });
        }
        if let Some(services) = name.strip_prefix("tasks.").and_then(|name| self.names.get(name)) {
            return Some(Found::Services { services, all_tasks: true });
        }
        let tasks = self.tasks_called(name);
        (!tasks.is_empty()).then_some(Found::Tasks(tasks))
    }

    /// Serving tasks by their name, their container's name or their id.
    fn tasks_called(&self, name: &str) -> Vec<&TaskEndpoint> {
        let serving = |task: &&TaskEndpoint| task.serving;
        let Some((service, _)) = name.split_once('.') else {
            // the container's host name, unless the user chose another
            let is_id = name.len() == 12 || name.len() == 25;
            let from = TaskId::new(if is_id { name } else { "" });
            let mut range = self.tasks.range(from..).map(|(_, task)| &**task);
            let task = range.next().filter(|t| is_id && t.task.as_str().starts_with(name));
            return task.filter(serving).into_iter().collect();
        };
        let services = self.names.get(service).map_or(&[][..], Vec::as_slice);
        if let Some((rest, id)) = name.rsplit_once('.')
            && let Some(task) = self.tasks.get(&TaskId::new(id))
        {
            let is_it = task.serving && task.name.eq_ignore_ascii_case(rest);
            return is_it.then_some(&**task).into_iter().collect();
        }
        let tasks = services.iter().flat_map(|at| &self.services[*at].serving).map(|task| &**task);
        tasks.filter(|task| task.name.eq_ignore_ascii_case(name)).collect()
    }

    fn has_names_below(&self, name: &str) -> bool {
        let is_suffix = |of: &str| of.strip_prefix('.') == Some(name);
        !self.services.is_empty() && (name == "tasks" || is_suffix(&self.suffix))
    }

    /// It has the form of a task's name of a service that is here, or asks for tasks by a name that
    /// only we could know. Anything else below a service's name may be a domain of the world: a
    /// service may be called `dev`.
    fn is_ours(&self, name: &str) -> bool {
        let Some((first, rest)) = name.split_once('.') else { return false };
        let last = rest.rsplit('.').next().unwrap_or(rest);
        let number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
        let id = last.len() == 25 && last.bytes().all(|b| b.is_ascii_alphanumeric());
        (first == "tasks" && !rest.contains('.')) || (self.names.contains_key(first) && (number || id))
    }

    /// The addresses that a name stands for, of both families, each once, in no order that means
    /// something.
    pub fn addrs(&self, found: &Found<'_>) -> Vec<IpAddr> {
        let mut addrs = Vec::new();
        match found {
            Found::Services { services, all_tasks } => {
                for named in services.iter().map(|at| &self.services[*at]) {
                    match named.by_tasks() || *all_tasks {
                        true => addrs.extend(named.serving.iter().flat_map(|task| &task.addrs)),
                        false => addrs.extend(&named.endpoint.vips),
                    }
                }
            }
            Found::Tasks(tasks) => addrs.extend(tasks.iter().flat_map(|task| &task.addrs)),
            Found::Empty | Found::Missing => {}
        }
        addrs
    }

    /// Where a service location of this name leads: to each service's virtual addresses, or to each of
    /// its tasks.
    pub fn targets(&self, found: &Found<'_>) -> Vec<Target> {
        let mut targets = Vec::new();
        match found {
            Found::Services { services, all_tasks } => {
                for named in services.iter().map(|at| &self.services[*at]) {
                    match named.by_tasks() || *all_tasks {
                        true => targets.extend(named.serving.iter().map(|task| self.task_target(task))),
                        false => targets.push(Target {
                            name: self.qualified(&named.endpoint.name),
                            service: named.endpoint.service,
                            weight: 0,
                            addrs: named.endpoint.vips.clone(),
                        }),
                    }
                }
            }
            Found::Tasks(tasks) => targets.extend(tasks.iter().map(|task| self.task_target(task))),
            Found::Empty | Found::Missing => {}
        }
        targets
    }

    fn task_target(&self, task: &TaskEndpoint) -> Target {
        Target {
            name: self.task_name(task),
            service: task.service,
            weight: u16::try_from(task.weight).unwrap_or(u16::MAX),
            addrs: task.addrs.clone(),
        }
    }

    fn task_name(&self, task: &TaskEndpoint) -> String {
        self.qualified(&format!("{}.{}", task.name, task.task))
    }

    fn qualified(&self, name: &str) -> String {
        format!("{name}.{}", self.network.name)
    }

    /// The name of whoever has an address: a service of a virtual one, or a task, also one that is not
    /// serving (a server asks who calls before the caller is ready to be called).
    pub fn owner(&self, addr: IpAddr) -> Option<String> {
        match self.owners.get(&addr).filter(|_| !self.network.ingress)? {
            Owner::Task(id) => self.tasks.get(id).map(|task| self.task_name(task)),
            Owner::Service(at) => Some(self.qualified(&self.services[*at].endpoint.name)),
        }
    }

    /// Whether an address belongs to the network, used or not.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.network.subnets.iter().any(|(net, _)| net.contains(&addr))
    }

    /// The task that has an address.
    pub fn task_at(&self, addr: IpAddr) -> Option<TaskId> {
        match self.owners.get(&addr)? {
            Owner::Task(id) => Some(*id),
            Owner::Service(_) => None,
        }
    }

    /// Whether a task is on the network.
    pub fn has_task(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }
}

impl Named {
    /// Without a virtual address (not given yet, or none on this driver) its tasks are all there is.
    fn by_tasks(&self) -> bool {
        self.endpoint.mode == EndpointMode::Dnsrr || self.endpoint.vips.is_empty()
    }
}

#[cfg(test)]
mod tests;
