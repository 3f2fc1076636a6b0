//! Filter: may a task go to a node, and if not, why not.
//!
//! Reads:   a node, its totals, a task's spec.
//! Writes:  nothing.
//! Never:   prefers one node to another.
//! Start:   [`check`], [`FilterReason`], [`Summary`].
//!
//! The filters are asked in a fixed order (swarm.md B4): ready, resources, constraints, platform,
//! ports of the node, tasks on the node, encryption; the first that says no explains.

use std::fmt;

use swarm_types::endpoint::Port;
use swarm_types::id::ServiceId;
use swarm_types::node::{Availability, Node, NodeState};
use swarm_types::placement::{Constraint, Platform};
use swarm_types::resources::{NANO_CPU, Resources};
use swarm_types::task::TaskSpec;

use super::node_info::NodeInfo;

/// Why a task may not go to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterReason {
    /// The node does not answer, or there is no such node.
    NotReady(NodeState),
    /// The node is paused.
    Paused,
    /// The node is drained.
    Drained,
    /// Too little CPU is free.
    Cpu {
        /** Billionths of a CPU. */
        needs: u64,
        /** Likewise. */
        free: u64,
    },
    /// Too little memory is free.
    Memory {
        /** Bytes. */
        needs: u64,
        /** Bytes. */
        free: u64,
    },
    /// This constraint does not hold.
    Constraint(Constraint),
    /// The image has nothing for the node's platform.
    Platform(Platform),
    /// A task there has this port open, or is about to.
    HostPort(Port),
    /// The service has so many tasks there that no more are allowed.
    MaxReplicas(u64),
    /// The node cannot encrypt what leaves it, and a network of the task's wants that.
    Encryption,
}

/// The kinds of reasons, in the order of the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    NotReady,
    Paused,
    Drained,
    Cpu,
    Memory,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
    Encryption,
}

const KINDS: [Kind; 10] = [
    Kind::NotReady,
    Kind::Paused,
    Kind::Drained,
    Kind::Cpu,
    Kind::Memory,
    Kind::Constraint,
    Kind::Platform,
    Kind::HostPort,
    Kind::MaxReplicas,
    Kind::Encryption,
];

/// Why a task of `service` may not go to a node; none if it may. `encrypted`: a network of the task's is.
pub fn check(spec: &TaskSpec, encrypted: bool, service: &ServiceId, info: &NodeInfo) -> Option<FilterReason> {
    let Some(node) = info.node() else { return Some(FilterReason::NotReady(NodeState::Unknown)) };
    ready(node)
        .or_else(|| resources(spec, info.free()))
        .or_else(|| placement(spec, node))
        .or_else(|| host_ports(spec, info))
        .or_else(|| max_replicas(spec, info.tasks_of(service)))
        .or_else(|| encryption(encrypted, node))
}

/// The same as [`check`], for a node that passed it and of which only the totals have changed.
pub fn check_totals(spec: &TaskSpec, service: &ServiceId, info: &NodeInfo) -> Option<FilterReason> {
    resources(spec, info.free())
        .or_else(|| host_ports(spec, info))
        .or_else(|| max_replicas(spec, info.tasks_of(service)))
}

/// Does the node take tasks at all?
pub fn ready(node: &Node) -> Option<FilterReason> {
    if node.status.state != NodeState::Ready {
        return Some(FilterReason::NotReady(node.status.state));
    }
    match node.spec.availability {
        Availability::Active => None,
        Availability::Pause => Some(FilterReason::Paused),
        Availability::Drain => Some(FilterReason::Drained),
    }
}

/// Is enough free for what the task reserves?
pub fn resources(spec: &TaskSpec, free: Resources) -> Option<FilterReason> {
    let needs = spec.resources.reservations;
    if needs.nano_cpus > free.nano_cpus {
        return Some(FilterReason::Cpu { needs: needs.nano_cpus, free: free.nano_cpus });
    }
    let short = needs.memory_bytes > free.memory_bytes;
    short.then_some(FilterReason::Memory { needs: needs.memory_bytes, free: free.memory_bytes })
}

/// Do constraints and platform allow it? Depends on nothing but spec and node.
pub fn placement(spec: &TaskSpec, node: &Node) -> Option<FilterReason> {
    let placement = &spec.placement;
    if let Some(broken) = placement.constraints.iter().find(|c| !c.matches(node)) {
        return Some(FilterReason::Constraint(broken.clone()));
    }
    let platform = &node.description.platform;
    let runs = placement.platforms.is_empty() || placement.platforms.iter().any(|p| p.runs_on(platform));
    (!runs).then(|| FilterReason::Platform(platform.clone()))
}

/// True if constraints and platform allow it.
pub fn fits_forever(spec: &TaskSpec, node: &Node) -> bool {
    placement(spec, node).is_none()
}

/// A port of the node is opened once.
fn host_ports(spec: &TaskSpec, info: &NodeInfo) -> Option<FilterReason> {
    spec.host_ports.iter().find(|port| info.has_open(port)).map(|port| FilterReason::HostPort(*port))
}

/// Fail closed: a node that cannot encrypt gets no task that needs it.
pub fn encryption(encrypted: bool, node: &Node) -> Option<FilterReason> {
    (encrypted && node.description.network.encryption.is_empty()).then_some(FilterReason::Encryption)
}

fn max_replicas(spec: &TaskSpec, have: u32) -> Option<FilterReason> {
    let limit = spec.placement.max_replicas_per_node;
    (limit > 0 && u64::from(have) >= limit).then_some(FilterReason::MaxReplicas(limit))
}

impl FilterReason {
    /// Which filter said so.
    pub fn kind(&self) -> Kind {
        match self {
            FilterReason::NotReady(_) => Kind::NotReady,
            FilterReason::Paused => Kind::Paused,
            FilterReason::Drained => Kind::Drained,
            FilterReason::Cpu { .. } => Kind::Cpu,
            FilterReason::Memory { .. } => Kind::Memory,
            FilterReason::Constraint(_) => Kind::Constraint,
            FilterReason::Platform(_) => Kind::Platform,
            FilterReason::HostPort(_) => Kind::HostPort,
            FilterReason::MaxReplicas(_) => Kind::MaxReplicas,
            FilterReason::Encryption => Kind::Encryption,
        }
    }
}

impl fmt::Display for FilterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilterReason::NotReady(state) => write!(f, "not ready: node is {}", state.as_str()),
            FilterReason::Paused => f.write_str("paused"),
            FilterReason::Drained => f.write_str("drained"),
            FilterReason::Cpu { needs, free } => {
                write!(f, "insufficient CPU: needs {}, {} free", cpus(*needs), cpus(*free))
            }
            FilterReason::Memory { needs, free } => {
                write!(f, "insufficient memory: needs {}, {} free", bytes(*needs), bytes(*free))
            }
            FilterReason::Constraint(broken) => write!(f, "constraint not satisfied: {broken}"),
            FilterReason::Platform(p) => write!(f, "unsupported platform: {}/{}", p.os, p.architecture),
            FilterReason::HostPort(port) => {
                write!(f, "host-mode port already in use: {}/{}", port.published, port.protocol.as_str())
            }
            FilterReason::MaxReplicas(limit) => write!(f, "max replicas per node reached: {limit}"),
            FilterReason::Encryption => f.write_str("cannot encrypt: a network of the task is encrypted"),
        }
    }
}

/// `1.5` CPUs: up to three digits after the point, none that say nothing. Rounded down.
fn cpus(nano: u64) -> String {
    decimal(nano / NANO_CPU, nano % NANO_CPU / (NANO_CPU / 1000), 3)
}

/// `1.5 GiB`: the largest unit of which there is at least one. Rounded down.
fn bytes(n: u64) -> String {
    let (shift, unit) = match n {
        n if n >= 1 << 30 => (30, "GiB"),
        n if n >= 1 << 20 => (20, "MiB"),
        n if n >= 1 << 10 => (10, "KiB"),
        _ => return format!("{n} B"),
    };
    let tenths = ((n & ((1 << shift) - 1)) * 10) >> shift;
    format!("{} {unit}", decimal(n >> shift, tenths, 1))
}

fn decimal(whole: u64, fraction: u64, digits: usize) -> String {
    let text = format!("{whole}.{fraction:0digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How many nodes failed each filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    counts: [u32; KINDS.len()],
}

impl Summary {
    /// One more node.
    pub fn add(&mut self, kind: Kind) {
        self.counts[kind as usize] += 1;
    }
    /// One less.
    pub fn remove(&mut self, kind: Kind) {
        self.counts[kind as usize] -= 1;
    }
}

impl FromIterator<Kind> for Summary {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        let mut summary = Summary::default();
        kinds.into_iter().for_each(|kind| summary.add(kind));
        summary
    }
}

impl fmt::Display for Summary {
    /// `no suitable node (2 not ready; scheduling constraints not satisfied on 3 nodes)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = KINDS
            .iter()
            .zip(self.counts)
            .filter(|(_, n)| *n > 0)
            .map(|(kind, n)| sentence(*kind, n))
            .collect();
        match parts.as_slice() {
            [] => f.write_str("no suitable node (the cluster has no nodes)"),
            parts => write!(f, "no suitable node ({})", parts.join("; ")),
        }
    }
}

fn sentence(kind: Kind, n: u32) -> String {
    let on = format!("on {n} node{}", if n == 1 { "" } else { "s" });
    match kind {
        Kind::NotReady => format!("{n} not ready"),
        Kind::Paused => format!("{n} paused"),
        Kind::Drained => format!("{n} drained"),
        Kind::Cpu => format!("{n} insufficient CPU"),
        Kind::Memory => format!("{n} insufficient memory"),
        Kind::Constraint => format!("scheduling constraints not satisfied {on}"),
        Kind::Platform => format!("unsupported platform {on}"),
        Kind::HostPort => format!("host-mode port already in use {on}"),
        Kind::MaxReplicas => format!("max replicas per node reached {on}"),
        Kind::Encryption => format!("encryption not available {on}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::testing::{drained, node, service};

    #[test]
    fn reasons_speak_of_amounts_and_names() {
        let spec = service("web").reserve(1, 4096).build().task;
        let free = Resources { nano_cpus: 2 * NANO_CPU, memory_bytes: 3 << 29 };
        let reason = resources(&spec, free).unwrap();
        assert_eq!(reason.to_string(), "insufficient memory: needs 4 GiB, 1.5 GiB free");
        let reason = resources(&spec, Resources { nano_cpus: NANO_CPU / 4, ..free }).unwrap();
        assert_eq!(reason.to_string(), "insufficient CPU: needs 1, 0.25 free");
        assert_eq!(bytes(1000), "1000 B");
        let spec = service("web").constraint("node.labels.zone==a").build().task;
        let reason = placement(&spec, &node("w1")).unwrap();
        assert_eq!(reason.to_string(), "constraint not satisfied: node.labels.zone==a");
        assert_eq!(ready(&drained("w1")), Some(FilterReason::Drained));
    }

    #[test]
    fn the_summary_counts_in_the_order_of_the_filters() {
        use Kind::{Constraint, Memory, NotReady};
        let kinds = [Constraint, NotReady, Constraint, Memory, NotReady, Constraint];
        assert_eq!(
            kinds.into_iter().collect::<Summary>().to_string(),
            "no suitable node (2 not ready; 1 insufficient memory; scheduling constraints not satisfied on 3 nodes)"
        );
        assert_eq!(Summary::default().to_string(), "no suitable node (the cluster has no nodes)");
        assert_eq!(
            [Constraint].into_iter().collect::<Summary>().to_string(),
            "no suitable node (scheduling constraints not satisfied on 1 node)"
        );
    }
}
