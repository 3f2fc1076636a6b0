//! A peer as the threads see it: how to reach it, and what waits until it answers.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::counter::Count;
use crate::key::PublicKey;
use crate::pair::{HANDSHAKE_ROOM, Locked, OVERHEAD, Pair};
use crate::socket::Socket;

/// Packets that wait for a handshake, for each peer.
const MAX_WAITING: usize = 128;
/// A packet that waited longer is of no use to anyone.
const WAITS: Duration = Duration::from_secs(3);
/// Between two tries to reach a peer; the last goes on while packets wait for it or it was lost lately.
const TRIES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// Tries until the peer counts as gone, and is tried less often.
const MANY_TRIES: u32 = 60;
const SELDOM: Duration = Duration::from_secs(5);
/// Between two tries of the preferred pair while another one works.
const SWITCHES: Duration = Duration::from_secs(1);
const SWITCHES_SELDOM: Duration = Duration::from_secs(30);

/// A node at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its public keys, the one to begin handshakes with first. Handshakes from all of them are taken. Two
    /// while it changes its key.
    pub keys: Vec<PublicKey>,
    /// Where it is on the underlay. While this stays the same, an address that the peer has moved to since is
    /// kept; both are tried when it does not answer.
    pub endpoint: SocketAddr,
    /// Its addresses inside the tunnel: the only sources that packets from it may have, and what is sent to
    /// it.
    pub tunnel_addrs: Vec<IpAddr>,
}

/// When to try what next.
struct Retry {
    next: Instant,
    tries: u32,
}

struct Reach {
    configured: SocketAddr,
    current: SocketAddr,
}

/// What is kept of a peer while the settings change around it.
pub(crate) struct Link {
    reach: Mutex<Reach>,
    retry: Mutex<Retry>,
    waiting: Mutex<VecDeque<(Instant, Vec<u8>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // none of the values can be left half done
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    fn new(endpoint: SocketAddr) -> Self {
        Link {
            reach: Mutex::new(Reach { configured: endpoint, current: endpoint }),
            retry: Mutex::new(Retry { next: Instant::now(), tries: 0 }),
            waiting: Mutex::default(),
        }
    }

    /// The next try comes at once.
    fn restart(&self) {
        *lock(&self.retry) = Retry { next: Instant::now(), tries: 0 };
    }
}

/// A peer with the pairs of keys that packets may go by.
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    /// The preferred one first.
    pub(crate) pairs: Vec<Arc<Pair>>,
    pub(crate) link: Arc<Link>,
}

impl Entry {
    /// `before`: the same peer under earlier settings.
    pub(crate) fn new(peer: Peer, pairs: Vec<Arc<Pair>>, before: Option<&Entry>) -> Self {
        let link = before.map_or_else(|| Arc::new(Link::new(peer.endpoint)), |b| Arc::clone(&b.link));
        let mut reach = lock(&link.reach);
        if reach.configured != peer.endpoint {
            *reach = Reach { configured: peer.endpoint, current: peer.endpoint };
        }
        drop(reach);
        let same = before.is_some_and(|b| {
            b.peer.endpoint == peer.endpoint && b.pairs.first().map(|p| p.id) == pairs.first().map(|p| p.id)
        });
        if !same {
            link.restart();
        }
        Entry { peer, pairs, link }
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        lock(&self.link.reach).current
    }

    /// The best pair that has a session.
    pub(crate) fn ready(&self) -> Option<&Arc<Pair>> {
        self.pairs.iter().find(|pair| pair.is_ready())
    }

    /// Authenticated data came from there. True if that is news.
    pub(crate) fn heard_from(&self, from: SocketAddr) -> bool {
        let mut reach = lock(&self.link.reach);
        let moved = reach.current != from;
        reach.current = from;
        moved
    }

    /// Keeps a packet until there is a session, and begins a handshake if none is under way.
    pub(crate) fn wait(&self, packet: &[u8], socket: &Socket, count: &Count) {
        let mut waiting = lock(&self.link.waiting);
        if waiting.len() >= MAX_WAITING {
            return count.queue_full.one();
        }
        waiting.push_back((Instant::now(), packet.to_vec()));
        drop(waiting);
        // the session may have come while we were queueing: then nobody else would send it
        if let Some(pair) = self.ready() {
            self.send_waiting(&mut pair.lock(), socket, count);
        }
        self.try_when_due(Instant::now(), socket, count);
    }

    /// There is a session: what waited for it goes.
    pub(crate) fn send_waiting(&self, pair: &mut Locked<'_>, socket: &Socket, count: &Count) {
        let to = self.endpoint();
        let packets: Vec<_> = lock(&self.link.waiting).drain(..).collect();
        let mut sealed = Vec::new();
        for (_, packet) in packets {
            sealed.resize(packet.len() + OVERHEAD + HANDSHAKE_ROOM, 0);
            let Some(length) = pair.seal(&packet, &mut sealed) else {
                count.queue_expired.one();
                continue;
            };
            match socket.send(to, &sealed[..length], length) {
                Ok(()) => {
                    count.sent.one();
                    count.sent_bytes.add(packet.len() as u64);
                }
                Err(_) => count.send_failed.one(),
            }
        }
    }

    /// A session was made: the next time one is missing, it is tried at once.
    pub(crate) fn established(&self) {
        self.link.restart();
    }

    /// The next try comes at the next tick.
    pub(crate) fn hurry(&self) {
        lock(&self.link.retry).next = Instant::now();
    }

    /// Time has passed.
    pub(crate) fn tick(&self, now: Instant, socket: &Socket, count: &Count) {
        let to = self.endpoint();
        for (at, pair) in self.pairs.iter().enumerate() {
            pair.lock().tick(now, to, at == 0, socket, count);
        }
        let mut waiting = lock(&self.link.waiting);
        while waiting.front().is_some_and(|(since, _)| now.duration_since(*since) > WAITS) {
            waiting.pop_front();
            count.queue_expired.one();
        }
        drop(waiting);
        self.try_when_due(now, socket, count);
    }

    /// Begins a handshake if the preferred pair has no session and it is time for the next try.
    fn try_when_due(&self, now: Instant, socket: &Socket, count: &Count) {
        let Some(preferred) = self.pairs.first() else { return };
        if preferred.is_ready() {
            return;
        }
        let works = self.ready().is_some();
        let mut retry = lock(&self.link.retry);
        if now < retry.next {
            return;
        }
        let number = retry.tries;
        retry.tries = number.saturating_add(1);
        let wanted = !lock(&self.link.waiting).is_empty();
        retry.next = now + pause(number, works, wanted);
        drop(retry);
        // while nothing works, older keys and the address that we were told are tried in turn
        let turn = number as usize;
        let pair = if works { preferred } else { &self.pairs[turn % self.pairs.len()] };
        let reach = lock(&self.link.reach);
        let round = turn / self.pairs.len();
        let to = if works || round.is_multiple_of(2) { reach.current } else { reach.configured };
        drop(reach);
        let mut room = [0; HANDSHAKE_ROOM];
        let mut pair = pair.lock();
        let Some(message) = pair.begin(&mut room) else { return };
        count.handshakes_begun.one();
        if socket.send(to, message, message.len()).is_err() {
            count.send_failed.one();
        }
    }
}

/// How long to wait after try number `number`.
fn pause(number: u32, works: bool, wanted: bool) -> Duration {
    let quick = TRIES.get(number as usize).copied();
    match (works, wanted) {
        (true, _) if number < MANY_TRIES => quick.unwrap_or(SWITCHES),
        (true, _) => SWITCHES_SELDOM,
        (false, false) if number >= MANY_TRIES => SELDOM,
        (false, _) => quick.unwrap_or(TRIES[TRIES.len() - 1]),
    }
}
