//! Service: where new connections to a service go: one of its tasks, by weight, at random or by who
//! calls.
//!
//! Reads:   a service and its tasks on one network.
//! Writes:  the chain of its virtual addresses.
//! Never:   leads to a task that does not serve.
//! Start:   [`choice`], [`vip`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use swarm_types::endpoint::{Balance, EndpointMode};
use swarm_types::id::{ServiceId, TaskId};
use swarm_types::network_set::{ServiceEndpoint, TaskEndpoint};

use super::address::{self, STICKY_SEED, Version};
use super::firewall::{Chain, Choice, Chooser, Rule, Statement, Value, Verdict};

/// A service's tasks on one network.
pub(crate) type Tasks = BTreeMap<TaskId, Arc<TaskEndpoint>>;

/// What a service's virtual addresses came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vip {
    pub(crate) chain: String,
    /// For each version that has a virtual address and a task to lead to.
    pub(crate) ways: Vec<(Version, IpAddr, Arc<Chain>)>,
}

/// The tasks that a new connection may go to, in an order that is the same on every node: sticky
/// choices are the same then. None if there is no task. `port` of the task; none: the one called.
pub(crate) fn choice<'a>(
    balance: Balance,
    version: Version,
    tasks: impl Iterator<Item = &'a Arc<TaskEndpoint>>,
    port: Option<u16>,
) -> Option<Choice> {
    let addr = |task: &'a Arc<TaskEndpoint>| Some((version.first(&task.addrs)?, task.weight.max(1)));
    let targets: Vec<_> = tasks.filter(|task| task.serving).filter_map(addr).collect();
    let divisor = targets.iter().fold(0, |d, (_, weight)| gcd(d, *weight));
    let by = match balance {
        Balance::Random => Chooser::Random,
        Balance::Sticky => Chooser::SourceHash(STICKY_SEED),
    };
    let targets: Vec<_> = targets.iter().map(|(addr, weight)| (*addr, port, weight / divisor)).collect();
    (!targets.is_empty()).then_some(Choice { by, targets })
}

/// The way of a service's virtual addresses; none of a version that has no task to lead to: who calls
/// is told at once that there is nobody.
pub(crate) fn vip(service: &ServiceEndpoint, tasks: &Tasks) -> Vip {
    let way = |version: Version| {
        let vip = version.first(&service.vips)?;
        let choice = choice(service.balance, version, tasks.values(), None)?;
        let rule = Rule::new([Statement::Dnat(choice)]).said(&service.name);
        Some((version, vip, Arc::new(Chain { hook: None, rules: vec![rule] })))
    };
    let versions = Version::BOTH.into_iter().filter(|_| service.mode == EndpointMode::Vip);
    Vip { chain: address::service_chain(service.service), ways: versions.filter_map(way).collect() }
}

/// The chains of services by name, and which address leads to which.
#[derive(Debug, Default)]
pub(crate) struct Vips {
    pub(crate) chains: BTreeMap<String, Arc<Chain>>,
    pub(crate) ways: BTreeMap<Vec<Value>, Verdict>,
}

impl Vips {
    pub(crate) fn of(version: Version, vips: &BTreeMap<ServiceId, Vip>) -> Self {
        let mut all = Self::default();
        for vip in vips.values() {
            for (_, addr, chain) in vip.ways.iter().filter(|(v, ..)| *v == version) {
                all.chains.insert(vip.chain.clone(), chain.clone());
                all.ways.insert(vec![Value::Addr(*addr)], Verdict::Goto(vip.chain.clone()));
            }
        }
        all
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
