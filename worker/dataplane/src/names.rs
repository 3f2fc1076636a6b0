//! The sockets of names: one server for all networks, with sockets in each sandbox.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::{NetworkProblem, NetworkSet};
use swarm_worker_core::network::kernel::{Place, Plan};
use swarm_worker_core::network::planner::LocalTask;
use swarm_worker_dns::{Attachments, Server, Settings, Sockets};
use swarm_worker_network::Kernel;

use crate::tunnel::chain;

const PORT: u16 = 53;

/// The server, and where its sockets are.
pub(crate) struct Names {
    server: Server,
    /// The namespace (its file's number: another one if it was made anew) and addresses of the sockets.
    open: BTreeMap<NetworkId, (u64, Vec<IpAddr>)>,
    attachments: Arc<Attachments>,
    failed: BTreeMap<NetworkId, NetworkProblem>,
}

impl Names {
    pub(crate) fn new(settings: Settings) -> Self {
        let server = Server::new(settings);
        Self { server, open: BTreeMap::new(), attachments: Arc::default(), failed: BTreeMap::new() }
    }

    /// Answers from this set from now on.
    pub(crate) fn tell(&mut self, set: &Arc<NetworkSet>, tasks: &BTreeMap<TaskId, Arc<LocalTask>>) {
        let networks = |task: &LocalTask| task.attachments.iter().map(|a| a.network).collect();
        let attachments: Attachments = tasks.iter().map(|(id, task)| (*id, networks(task))).collect();
        if attachments != *self.attachments {
            self.attachments = Arc::new(attachments);
            self.server.set_attachments(Arc::clone(&self.attachments));
        }
        self.server.set(Arc::clone(set));
    }

    /// Closes the sockets of sandboxes that the plan does not have.
    pub(crate) fn close_others(&mut self, set: &NetworkSet, plan: &Plan) {
        let wanted = wanted(set, plan);
        let gone: Vec<_> = self.open.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            self.server.close(id);
            self.open.remove(&id);
        }
        self.failed.retain(|id, _| wanted.contains_key(id));
    }

    /// Has sockets in every sandbox of the plan, and in no other.
    pub(crate) async fn listen(&mut self, set: &NetworkSet, plan: &Plan, kernel: &Kernel) {
        self.close_others(set, plan);
        let wanted = wanted(set, plan);
        for (id, addrs) in wanted {
            let place = Place::Sandbox(id);
            let file = kernel.path(place).and_then(|path| std::fs::metadata(path).ok());
            let now = (file.map_or(0, |file| file.ino()), addrs);
            if self.open.get(&id) == Some(&now) {
                continue;
            }
            // The old ones first: they may have the addresses.
            self.server.close(id);
            self.open.remove(&id);
            let addrs = now.1.clone();
            let bound = match kernel.enter(place, move || bind(&addrs)).await {
                Ok(bound) => bound.and_then(|sockets| self.server.listen(id, sockets)),
                Err(e) => Err(io::Error::other(chain(&e))),
            };
            match bound {
                Ok(()) => {
                    self.failed.remove(&id);
                    self.open.insert(id, now);
                }
                Err(e) => {
                    let name = set.networks.get(&id).map_or(id.as_str(), |entry| &entry.network.name);
                    let subject = format!("names of {name}");
                    let text = format!("cannot listen at {:?}: {e}: names are not answered there", now.1);
                    self.failed.insert(id, NetworkProblem { subject, text });
                }
            }
        }
    }

    /// Whether sockets are missing: they could not be made, or somebody has closed them.
    pub(crate) fn has_failed(&mut self) -> bool {
        let closed = self.server.take_closed();
        closed.iter().for_each(|id| drop(self.open.remove(id)));
        !closed.is_empty() || !self.failed.is_empty()
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = NetworkProblem> {
        self.failed.values().cloned().chain(self.server.problems())
    }
}

/// The gateways that each sandbox has as its own addresses.
fn wanted(set: &NetworkSet, plan: &Plan) -> BTreeMap<NetworkId, Vec<IpAddr>> {
    let sandbox = |(id, entry): (&NetworkId, &swarm_types::network_set::NetworkEntry)| {
        let namespace = plan.namespaces.get(&Place::Sandbox(*id))?;
        let has = |addr: &IpAddr| namespace.addrs.iter().any(|(_, net)| net.addr() == *addr);
        let gateways = entry.network.subnets.iter().map(|(_, gateway)| *gateway);
        Some((*id, gateways.filter(has).collect::<Vec<_>>()))
    };
    set.networks.iter().filter_map(sandbox).filter(|(_, addrs)| !addrs.is_empty()).collect()
}

fn bind(addrs: &[IpAddr]) -> io::Result<Sockets> {
    let mut sockets = Sockets::default();
    for addr in addrs {
        sockets.udp.push(UdpSocket::bind((*addr, PORT))?);
        sockets.tcp.push(TcpListener::bind((*addr, PORT))?);
    }
    Ok(sockets)
}
