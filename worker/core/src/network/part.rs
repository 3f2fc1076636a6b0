//! Part: the plan of one network on this node, and what it was made of.
//!
//! Reads:   the network's entry of the set, the ground, the node's tasks.
//! Writes:  its sandbox; the ports that its services want, if it is the ingress network.
//! Never:   makes anew what did not change.
//! Start:   [`Part::update`].

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::id::{NetworkId, ServiceId, TaskId};
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::{NetworkEntry, NetworkPart, NetworkProblem, NetworkSet};

use super::address::{self, Version};
use super::firewall::Chain;
use super::ground::Ground;
use super::ingress;
use super::kernel::Namespace;
use super::members::{Changes, Members};
use super::planner::{LocalTask, News, device};
use super::port::{self, Claims, PortKey};
use super::reach::{Reach, Reachable, Touched};
use super::sandbox::{self, Local, Locals, Sandbox};
use super::service::{self, Vip};
use super::task::Seat;

/// One network.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) network: Option<Arc<NetworkPart>>,
    /// None for macvlan.
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// Of the ingress network.
    pub(crate) claims: BTreeMap<ServiceId, Claims>,
    members: Members,
    locals: Locals,
    reach: Reach,
    vips: BTreeMap<ServiceId, Vip>,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(crate) struct Did {
    /// The network itself.
    pub(crate) network: bool,
    /// Which ports the host has.
    pub(crate) ports: bool,
    /// Where ports lead that the host had before.
    pub(crate) leads: Vec<Lead>,
}

/// Where a service's port leads now.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) service: ServiceId,
    pub(crate) port: PortKey,
    pub(crate) version: Version,
    pub(crate) chain: Arc<Chain>,
}

/// What the chains of virtual addresses need: nothing, these anew, or all.
#[derive(Debug, Default)]
struct Balanced {
    all: bool,
    some: Vec<(Version, String, Arc<Chain>)>,
}

impl Part {
    pub(crate) fn is_ingress(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.ingress)
    }

    /// Its sandbox; none for macvlan.
    pub(crate) fn sandbox<'a>(&'a self, ground: &'a Ground) -> Option<Sandbox<'a>> {
        let network = self.network.as_ref().filter(|n| n.driver != NetworkDriver::Macvlan)?;
        Some(Sandbox { network, ground, locals: &self.locals })
    }

    /// Makes anew what changed.
    pub(crate) fn update(
        &mut self,
        ground: &Ground,
        set: &NetworkSet,
        entry: &NetworkEntry,
        tasks: &BTreeMap<TaskId, Arc<LocalTask>>,
        news: News<'_>,
    ) -> Did {
        let old = self.network.replace(entry.network.clone());
        let network = old.as_ref() != self.network.as_ref();
        if old.is_some_and(|old| (old.driver, old.ingress) != (entry.network.driver, entry.network.ingress)) {
            *self = Self { network: self.network.take(), ..Self::default() };
        }
        let mut changes = self.members.take(ground.own.node, entry);
        let mut touched = Touched::default();
        for (old, new) in &changes.tasks {
            self.reach.learn(old.as_deref(), new.as_deref(), &mut touched);
        }
        let locals = self.take_locals(set, tasks, news, &mut changes);
        let frame = network || locals || news.ground;
        let mut did = Did { network, ..Did::default() };
        if !frame && changes.tasks.is_empty() && changes.services.is_empty() {
            return did;
        }
        let mut balanced = Balanced::default();
        for id in &changes.services {
            if entry.network.ingress {
                self.claim(*id, tasks, &mut did);
            } else {
                self.balance(*id, &mut balanced);
            }
        }
        self.make(ground, touched, frame, network || news.ground, &balanced);
        did
    }

    /// What a service of the ingress network wants of the host.
    fn claim(&mut self, id: ServiceId, tasks: &BTreeMap<TaskId, Arc<LocalTask>>, did: &mut Did) {
        let claims = port::claims(id, self.members.service(id), self.members.tasks_of(id), tasks);
        let none = Claims::new();
        let old = self.claims.get(&id).unwrap_or(&none);
        if *old == claims {
            return;
        }
        if port::same_ports(old, &claims) {
            let ways = claims.iter().flat_map(|(port, claim)| claim.ways.iter().map(move |way| (*port, way)));
            let lead = |(port, (version, chain)): (_, &(Version, Arc<Chain>))| Lead {
                service: id,
                port,
                version: *version,
                chain: chain.clone(),
            };
            did.leads.extend(ways.map(lead));
        } else {
            did.ports = true;
        }
        if claims.is_empty() { drop(self.claims.remove(&id)) } else { drop(self.claims.insert(id, claims)) }
    }

    /// Where a service's virtual addresses lead.
    fn balance(&mut self, id: ServiceId, balanced: &mut Balanced) {
        let vip = self.members.service(id).map(|service| service::vip(service, self.members.tasks_of(id)));
        let vip = vip.filter(|vip| !vip.ways.is_empty());
        let old = self.vips.get(&id);
        if old == vip.as_ref() {
            return;
        }
        let addrs =
            |vip: Option<&Vip>| vip.map(|v| v.ways.iter().map(|(_, addr, _)| *addr).collect::<Vec<_>>());
        balanced.all |= addrs(old) != addrs(vip.as_ref());
        match vip {
            Some(vip) => {
                let chain =
                    |(version, _, chain): &(_, _, Arc<Chain>)| (*version, vip.chain.clone(), chain.clone());
                balanced.some.extend(vip.ways.iter().map(chain));
                self.vips.insert(id, vip);
            }
            None => drop(self.vips.remove(&id)),
        }
    }

    /// The node's tasks on this network; host-mode ports of those that changed are looked at again.
    fn take_locals(
        &mut self,
        set: &NetworkSet,
        tasks: &BTreeMap<TaskId, Arc<LocalTask>>,
        news: News<'_>,
        changes: &mut Changes,
    ) -> bool {
        let Some(network) = &self.network else { return false };
        let touched = news.tasks.iter().filter_map(|task| self.members.task(*task));
        changes.services.extend(touched.map(|task| task.service));
        let local = |task: &Arc<LocalTask>| {
            let mut local = local(set, task, network)?;
            // Of a task that has ended its links may be there when another has its address, maybe elsewhere.
            if self.members.task(task.id).is_none() {
                local.addrs.retain(|addr| !self.reach.is_of_another(*addr, task.id));
            }
            Some((task.id, local))
        };
        let locals = tasks.values().filter_map(local).collect();
        let changed = self.locals != locals;
        self.locals = locals;
        changed
    }

    /// Makes the sandbox anew; `frame`: links and settings too; `nodes`: the ways to all nodes.
    fn make(&mut self, ground: &Ground, touched: Touched, frame: bool, nodes: bool, balanced: &Balanced) {
        let (mut reach, mut touched) = (std::mem::take(&mut self.reach), touched);
        let Some(sandbox) = self.sandbox(ground) else { return };
        let fresh = (frame || self.namespace.is_none()).then(|| {
            let (mut ns, mut routes) = (sandbox.namespace(), sandbox.routes());
            if sandbox.network.ingress {
                ingress::extend(&sandbox, &mut ns, &mut routes);
            }
            (ns, routes)
        });
        let (fresh, fixed) = fresh.unzip();
        if nodes {
            touched = reach.touch_all(touched);
        }
        reach.take(touched, &reachable(&sandbox), fixed);
        let old = self.namespace.clone();
        let all = balanced.all || fresh.is_some();
        if old.as_ref().is_some_and(|old| old.routes == *reach.routes()) && !all && balanced.some.is_empty() {
            self.reach = reach;
            return;
        }
        let mut ns = fresh.or_else(|| old.as_deref().cloned()).unwrap_or_default();
        ns.routes = reach.routes().clone();
        if all {
            ns.tables = match sandbox.network.ingress {
                true => ingress::tables(&sandbox),
                false => sandbox::tables(&sandbox, &self.vips),
            };
            old.iter().for_each(|old| ns.share(old));
        } else {
            for (version, name, chain) in &balanced.some {
                ns.replace_chain(version.family(), sandbox::TABLE, name, chain);
            }
        }
        self.reach = reach;
        self.namespace = old.filter(|old| **old == ns).or_else(|| Some(Arc::new(ns)));
    }

    /// What cannot be as it is wanted.
    pub(crate) fn problems(&self, ground: &Ground, problems: &mut Vec<NetworkProblem>) {
        let Some(network) = &self.network else { return };
        let mut say = |text: String| {
            problems.push(NetworkProblem { subject: format!("network {}", network.name), text });
        };
        if !ground.facts.ipv6 && network.subnets.iter().any(|(net, _)| Version::of(net.addr()) == Version::V6)
        {
            say("no IPv6: this node's kernel has none, or it is switched off (net.ipv6.conf.all.disable_ipv6)".into());
        }
        if network.driver == NetworkDriver::Overlay {
            match (ground.local(network), network.encrypted) {
                (None, _) if ground.own.index == 0 => say("this node has no number yet".into()),
                (None, true) => {
                    say("nothing goes to other nodes: it is encrypted and the tunnel is not up".into())
                }
                (None, false) => {
                    say("nothing goes to other nodes: this node's own address is not known".into())
                }
                (Some(local), false) => {
                    let odd = ground.peers.values().filter(|p| p.addr.is_ipv4() != local.is_ipv4());
                    odd.for_each(|p| {
                        say(format!(
                            "node {} is not reached: its address {} is not of the version of {local}",
                            p.node, p.addr
                        ));
                    });
                }
                (Some(_), true) => {}
            }
            let most = ground.most(network);
            if network.mtu > most {
                say(format!("packets of {} bytes do not fit between nodes: {most} are used", network.mtu));
            }
        }
        if network.ingress {
            for (version, net, _) in ground.subnets(network) {
                if ground.entry(version).is_none() {
                    say(format!(
                        "this node has no address on {net} yet: its published ports do not answer there"
                    ));
                }
            }
        }
    }
}

/// The nodes that a sandbox can send to.
fn reachable(sandbox: &Sandbox<'_>) -> Reachable {
    let remotes = sandbox.tunnel().map(|_| sandbox.ground.remotes(sandbox.network));
    remotes.into_iter().flatten().map(|(peer, _)| (peer.node, peer.index)).collect()
}

/// A task's place on a network.
fn local(set: &NetworkSet, task: &LocalTask, network: &NetworkPart) -> Option<Local> {
    let n = task.attachments.iter().position(|a| a.network == network.id)?;
    let addrs = task.attachments.get(n)?.addrs.clone();
    // A task that is on internal networks only has ports on the ingress network, and no way out.
    let part = |id| set.networks.get(&id).map(|entry| &entry.network);
    let mut others = task.attachments.iter().filter(|a| a.network != network.id).peekable();
    let free = others.peek().is_none() || others.any(|a| part(a.network).is_some_and(|n| !n.internal));
    Some(Local {
        veth: address::veth(task.id),
        device: device(network.ingress, n),
        mac: address::task_mac(task.id, &addrs),
        addrs,
        way_out: free,
    })
}

/// A task's places on networks that are known, and those that are not.
pub(crate) fn seats(
    task: &LocalTask,
    network: impl Fn(NetworkId) -> Option<Arc<NetworkPart>>,
) -> (Vec<Seat>, Vec<NetworkId>) {
    let (mut seats, mut unknown) = (Vec::new(), Vec::new());
    for (n, attachment) in task.attachments.iter().enumerate() {
        match network(attachment.network) {
            Some(network) => {
                let device = device(network.ingress, n);
                seats.push(Seat { network, addrs: attachment.addrs.clone(), device });
            }
            None => unknown.push(attachment.network),
        }
    }
    (seats, unknown)
}
