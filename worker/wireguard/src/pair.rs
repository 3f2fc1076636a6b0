//! One of our keys with one of a peer's: the sessions between these two.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use crate::counter::Count;
use crate::key::{KeyPair, PublicKey};
use crate::socket::Socket;

/// What the protocol adds to an inner packet, in octets.
pub(crate) const OVERHEAD: usize = 32;
/// Room for every message that is not data, in octets.
pub(crate) const HANDSHAKE_ROOM: usize = 148;
/// Handshakes of one key in a second that are answered without a proof of the sender's address. One costs about
/// a fifth of a millisecond.
pub(crate) const HANDSHAKES_PER_SECOND: u64 = 200;
/// A session is made anew at this age although nothing is sent, before it ends at 180 s: a first packet
/// after a pause then never meets a session that the other side has forgotten already.
const RENEW_AFTER: Duration = Duration::from_secs(140);
/// A first handshake that got no answer is forgotten after this, before the library begins to repeat it by itself
/// and to complain: `Entry` decides what to try.
const UNANSWERED: Duration = Duration::from_millis(4500);
/// A session whose renewal got no answer for this long is with someone who is gone.
const LOST: Duration = Duration::from_secs(20);

/// A key of ours and what belongs to it.
pub(crate) struct OwnKey {
    pub(crate) pair: KeyPair,
    pub(crate) secret: x25519::StaticSecret,
    pub(crate) public: x25519::PublicKey,
    /// Asked once for each handshake, before it costs anything.
    pub(crate) limiter: RateLimiter,
    /// For the sessions, which would otherwise ask again.
    open: Arc<RateLimiter>,
}

impl OwnKey {
    pub(crate) fn new(pair: &KeyPair) -> Self {
        let public = pair.public().point();
        OwnKey {
            pair: pair.clone(),
            secret: pair.scalar(),
            public,
            limiter: RateLimiter::new(&public, HANDSHAKES_PER_SECOND),
            open: Arc::new(RateLimiter::new(&public, u64::MAX)),
        }
    }
}

/// The two keys that a pair is of: ours and theirs.
pub(crate) type Keys = (PublicKey, PublicKey);

pub(crate) struct Pair {
    /// 24 bits, by which the peer's packets say that they are for this pair.
    pub(crate) id: u32,
    pub(crate) own: Arc<OwnKey>,
    pub(crate) theirs: PublicKey,
    /// Whether there is a session to send with. Written under the lock.
    ready: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made when it is needed.
    tunn: Option<Tunn>,
    /// When a handshake was begun that has not been answered.
    begun: Option<Instant>,
}

/// A pair of which the lock is held.
pub(crate) struct Locked<'a> {
    pair: &'a Pair,
    state: MutexGuard<'a, State>,
}

/// What became of a datagram.
pub(crate) enum Opened<'a> {
    /// An inner packet with its source.
    Packet(&'a mut [u8], IpAddr),
    /// A sign of life that carries nothing.
    Keepalive,
    /// To be sent back where the datagram came from.
    Answer(&'a mut [u8]),
    Nothing,
    Failed(WireGuardError),
}

impl Pair {
    pub(crate) fn new(id: u32, own: Arc<OwnKey>, theirs: PublicKey) -> Self {
        Pair { id, own, theirs, ready: AtomicBool::new(false), state: Mutex::default() }
    }

    pub(crate) fn keys(&self) -> Keys {
        (self.own.pair.public(), self.theirs)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        // what a panic left behind is at worst a session that has to be made anew
        Locked { pair: self, state: self.state.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Age of the session that packets are sent with.
    pub(crate) fn session_age(&self) -> Option<Duration> {
        self.lock().state.tunn.as_ref().and_then(Tunn::time_since_last_handshake)
    }
}

impl Locked<'_> {
    fn tunn(&mut self) -> &mut Tunn {
        let Pair { id, own, theirs, .. } = self.pair;
        self.state.tunn.get_or_insert_with(|| {
            let mut tunn =
                Tunn::new(own.secret.clone(), theirs.point(), None, None, *id, Some(Arc::clone(&own.open)));
            // its clock starts when it is told the time
            let _ = tunn.update_timers(&mut [0; HANDSHAKE_ROOM]);
            tunn
        })
    }

    /// Encrypts a packet into `to`, which has room for it, [`OVERHEAD`] and [`HANDSHAKE_ROOM`]. `None` if there
    /// is no session (any more).
    pub(crate) fn seal(&mut self, packet: &[u8], to: &mut [u8]) -> Option<usize> {
        let has_session = self.pair.is_ready() && self.state.tunn.is_some();
        if !has_session {
            return None;
        }
        match self.tunn().encapsulate(packet, to) {
            TunnResult::WriteToNetwork(sealed) if sealed.len() == packet.len() + OVERHEAD => {
                Some(sealed.len())
            }
            // it has begun a handshake of which we know nothing: ours follows
            _ => None,
        }
    }

    /// The first message of a handshake, also while one is under way.
    pub(crate) fn begin<'a>(&mut self, to: &'a mut [u8]) -> Option<&'a [u8]> {
        self.state.begun = Some(Instant::now());
        match self.tunn().format_handshake_initiation(to, true) {
            TunnResult::WriteToNetwork(message) => Some(message),
            _ => None,
        }
    }

    /// Lets the pair have a datagram that is for it. `to` has room for what is inside.
    pub(crate) fn open<'a>(&mut self, from: IpAddr, datagram: &[u8], to: &'a mut [u8]) -> Opened<'a> {
        match self.tunn().decapsulate(Some(from), datagram, to) {
            TunnResult::WriteToTunnelV4(packet, from) => Opened::Packet(packet, from.into()),
            TunnResult::WriteToTunnelV6(packet, from) => Opened::Packet(packet, from.into()),
            TunnResult::WriteToNetwork(answer) => Opened::Answer(answer),
            TunnResult::Done if datagram.len() == OVERHEAD => Opened::Keepalive,
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(err) => Opened::Failed(err),
        }
    }

    /// Says that the peer has shown that it has the session. True if we did not know.
    pub(crate) fn confirm(&mut self) -> bool {
        !self.pair.ready.swap(true, Ordering::AcqRel)
    }

    /// Forgets all sessions.
    pub(crate) fn forget(&mut self) {
        *self.state = State::default();
        self.pair.ready.store(false, Ordering::Release);
    }

    /// An answer to our handshake came.
    pub(crate) fn answered(&mut self) {
        self.state.begun = None;
    }

    /// Time has passed: sends what is due. `renews`: packets go by this pair.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        to: SocketAddr,
        renews: bool,
        socket: &Socket,
        count: &Count,
    ) {
        let mut room = [0; HANDSHAKE_ROOM];
        let length = self.due(now, renews, &mut room);
        if length == 0 {
            return;
        }
        if length == HANDSHAKE_ROOM {
            count.handshakes_begun.one();
            self.state.begun.get_or_insert(now);
        }
        if socket.send(to, &room[..length], length).is_err() {
            count.send_failed.one();
        }
    }

    /// Puts what is due into `room`; its length.
    fn due(&mut self, now: Instant, renews: bool, room: &mut [u8; HANDSHAKE_ROOM]) -> usize {
        let State { tunn: Some(tunn), begun } = &mut *self.state else { return 0 };
        let age = tunn.time_since_last_handshake();
        let unanswered = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        if age.is_some_and(|age| age < unanswered) {
            *begun = None;
        } else if unanswered > if age.is_some() { LOST } else { UNANSWERED } {
            self.forget();
            return 0;
        }
        let due = match tunn.update_timers(room) {
            TunnResult::WriteToNetwork(message) => message.len(),
            TunnResult::Err(_) => {
                self.forget();
                return 0;
            }
            _ => 0,
        };
        match tunn.time_since_last_handshake() {
            None => self.pair.ready.store(false, Ordering::Release),
            Some(age) if due == 0 && renews && age > RENEW_AFTER => {
                if let TunnResult::WriteToNetwork(message) = tunn.format_handshake_initiation(room, false) {
                    return message.len();
                }
            }
            Some(_) => {}
        }
        due
    }
}
