//! The server of all networks of a node: which sockets it answers at, and what it answers from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use swarm_types::id::NetworkId;
use swarm_types::network_set::{NetworkProblem, NetworkSet};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::forward::Forwarder;
use crate::message::{Parsed, Request, Transport};
use crate::shuffle::Shuffle;
use crate::world::{Asker, Attachments, World};
use crate::{tcp, udp};

/// How long a flood is told of after it.
const KEEP_FLOOD: Duration = Duration::from_secs(60);

/// How a server behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// File that names the host's resolvers, in the form of resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// Port of the host's resolvers.
    pub upstream_port: u16,
    /// Questions a second that one source may ask on a network, over UDP and over TCP each.
    pub questions_per_second: u32,
    /// Questions that one source may ask at once.
    pub burst: u32,
    /// Questions on their way to the host's resolvers, for everybody together.
    pub forwards: usize,
    /// The same, for one source.
    pub forwards_per_source: usize,
    /// TCP connections of one network.
    pub connections: usize,
    /// The same, of one source.
    pub connections_per_source: usize,
    /// A TCP connection that asks nothing for so long is closed.
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            upstream_port: 53,
            // some 15 % of a core: a task that asks without end does not starve others
            questions_per_second: 30_000,
            burst: 3_000,
            forwards: 512,
            forwards_per_source: 128,
            connections: 256,
            connections_per_source: 32,
            // RFC 7766, 6.2.3: "on the order of a few seconds"
            idle: Duration::from_secs(10),
        }
    }
}

/// Sockets of one network, bound (in its sandbox) to port 53 of the gateway's addresses: what is
/// answered comes from the address that was asked.
#[derive(Debug, Default)]
pub struct Sockets {
    /// One for each family.
    pub udp: Vec<UdpSocket>,
    /// One for each family.
    pub tcp: Vec<TcpListener>,
}

/// How often something happened since the server was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Questions answered from what we know.
    pub answered: u64,
    /// Questions given to the host's resolvers, or answered by what they said shortly before.
    pub forwarded: u64,
    /// Questions that were not forwarded because too many were on their way.
    pub refused: u64,
    /// Messages dropped, or delayed (TCP), because their source asked too much.
    pub flooded: u64,
    /// Messages that were no questions, or no DNS at all.
    pub malformed: u64,
    /// Answers the kernel did not take.
    pub unsent: u64,
    /// TCP connections refused because there were too many.
    pub connections_refused: u64,
}

/// [`Counters`], counting.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) flooded: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
}

/// What all sockets' loops share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) tally: Tally,
    pub(crate) forwarder: Arc<Forwarder>,
    world: Arc<ArcSwap<World>>,
    floods: Mutex<HashMap<(NetworkId, IpAddr), Instant>>,
}

/// What to do with a message.
pub(crate) enum Step {
    Send(Vec<u8>),
    Forward(Box<Request>),
    Nothing,
}

/// Answers questions for names on all networks of a node, until it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    runtime: Handle,
    told: Mutex<Told>,
    listening: Mutex<BTreeMap<NetworkId, JoinSet<()>>>,
}

#[derive(Default)]
struct Told {
    set: Arc<NetworkSet>,
    attachments: Arc<Attachments>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// A server that knows no names yet and listens nowhere. Runs on the runtime that this is called
    /// in, whose threads have to be in the network namespace from which the host's resolvers are
    /// reached.
    ///
    /// # Panics
    ///
    /// If there is no runtime.
    pub fn new(settings: Settings) -> Self {
        let world = Arc::new(ArcSwap::from_pointee(World::default()));
        let shared = Arc::new(Shared {
            forwarder: Arc::new(Forwarder::new(&settings, world.clone())),
            settings,
            tally: Tally::default(),
            world,
            floods: Mutex::default(),
        });
        let runtime = Handle::current();
        Self { shared, runtime, told: Mutex::default(), listening: Mutex::default() }
    }

    /// From when this returns, what is asked is answered from `set`. Does some 1 ms of work for 10 000
    /// tasks of a network that is not as it was.
    pub fn set(&self, set: Arc<NetworkSet>) {
        let mut told = lock(&self.told);
        let world = World::new(&set, told.attachments.clone(), &self.shared.world.load(), &told.set);
        self.shared.world.store(Arc::new(world));
        told.set = set;
    }

    /// Says which networks the tasks of this node are on, in the order of their attachments: the order
    /// in which their names are tried. A task that is not told of: the network asked, then the others.
    pub fn set_attachments(&self, attachments: Arc<Attachments>) {
        let mut told = lock(&self.told);
        let before = self.shared.world.load();
        let world = World::new(&told.set, attachments.clone(), &before, &told.set);
        self.shared.world.store(Arc::new(world));
        told.attachments = attachments;
    }

    /// Answers at a network's sockets from now on, and no more at those that it had. A network that is
    /// in no set has no names and no way out.
    ///
    /// # Errors
    ///
    /// If a socket cannot be made part of the runtime.
    pub fn listen(&self, network: NetworkId, sockets: Sockets) -> io::Result<()> {
        let _entered = self.runtime.enter();
        let mut loops = JoinSet::new();
        for socket in sockets.udp {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            loops.spawn_on(udp::serve(self.shared.clone(), network, socket), &self.runtime);
        }
        for listener in sockets.tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loops.spawn_on(tcp::serve(self.shared.clone(), network, listener), &self.runtime);
        }
        lock(&self.listening).insert(network, loops);
        Ok(())
    }

    /// Closes a network's sockets and connections.
    pub fn close(&self, network: NetworkId) {
        lock(&self.listening).remove(&network);
    }

    /// Networks one of whose sockets was closed by somebody else. Their other sockets are closed too: they
    /// need all of them anew.
    pub fn take_closed(&self) -> Vec<NetworkId> {
        let mut listening = lock(&self.listening);
        let closed = listening.iter_mut().filter_map(|(id, loops)| loops.try_join_next().map(|_| *id));
        let closed: Vec<_> = closed.collect();
        closed.iter().for_each(|id| drop(listening.remove(id)));
        closed
    }

    /// The networks that have sockets.
    pub fn listening(&self) -> Vec<NetworkId> {
        lock(&self.listening).keys().copied().collect()
    }

    /// What is wrong now: resolvers of the host that do not answer, sources that ask too much. Looks at
    /// nothing but memory; ask every few seconds.
    pub fn problems(&self) -> Vec<NetworkProblem> {
        let now = Instant::now();
        let mut problems: Vec<_> = self.shared.forwarder.problem(now).into_iter().collect();
        let mut floods = lock(&self.shared.floods);
        floods.retain(|_, at| now.duration_since(*at) < KEEP_FLOOD);
        let set = lock(&self.told).set.clone();
        for (network, source) in floods.keys() {
            let entry = set.networks.get(network);
            let task = entry.and_then(|e| e.endpoints.values().find(|t| t.addrs.contains(source)));
            let who = task.map_or_else(|| source.to_string(), |task| format!("{} ({source})", task.name));
            let place = entry.map_or(network.as_str(), |entry| entry.network.name.as_str());
            problems.push(NetworkProblem {
                subject: format!("names of {place}"),
                text: format!(
                    "{who} asks for names more than {} times a second: the excess is not answered; \
                     find out why it asks so often",
                    self.shared.settings.questions_per_second
                ),
            });
        }
        problems.sort();
        problems
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let tally = &self.shared.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            answered: read(&tally.answered),
            forwarded: read(&tally.forwarded),
            refused: read(&tally.refused),
            flooded: read(&tally.flooded),
            malformed: read(&tally.malformed),
            unsent: read(&tally.unsent),
            connections_refused: read(&tally.connections_refused),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listening", &self.listening()).finish_non_exhaustive()
    }
}

impl Shared {
    /// What to do with a message that came from `source` to `network`'s socket.
    pub(crate) fn handle(
        &self,
        network: NetworkId,
        source: IpAddr,
        bytes: &[u8],
        transport: Transport,
        shuffle: &mut Shuffle,
    ) -> Step {
        let request = match Parsed::new(bytes, transport) {
            Parsed::Request(request) => request,
            Parsed::Error(bytes) => {
                count(&self.tally.malformed);
                return Step::Send(bytes);
            }
            Parsed::Drop => {
                count(&self.tally.malformed);
                return Step::Nothing;
            }
        };
        let asker = Asker { network, source, most: request.most_records() };
        let answer = self.world.load().ask(asker, &request.query, shuffle);
        if let Some(bytes) = request.answer(answer) {
            count(&self.tally.answered);
            return Step::Send(bytes);
        }
        count(&self.tally.forwarded);
        match self.forwarder.known(&request, Instant::now()) {
            Some(bytes) => Step::Send(bytes),
            None => Step::Forward(request),
        }
    }

    /// Asks the host's resolvers; SERVFAIL if too many questions are on their way.
    pub(crate) fn forward(
        self: &Arc<Self>,
        source: IpAddr,
        request: Box<Request>,
    ) -> Result<impl Future<Output = Vec<u8>> + Send + 'static, Vec<u8>> {
        let Some(permit) = self.forwarder.admit(source) else {
            count(&self.tally.refused);
            return Err(request.error(ResponseCode::ServFail));
        };
        let forwarder = self.forwarder.clone();
        Ok(async move { forwarder.resolve(&request, &permit).await })
    }

    /// Takes down that a source asked too much.
    pub(crate) fn note_flood(&self, network: NetworkId, source: IpAddr, now: Instant) {
        let mut floods = lock(&self.floods);
        // whoever invents addresses is one flood as well
        if floods.len() < 16 || floods.contains_key(&(network, source)) {
            floods.insert((network, source), now);
        }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
