//! What the tunnel did and what it threw away, and why.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// Packets, since the tunnel was started (see each field). Only ever grow.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64),+ }

        /// [`Counters`] that threads count on.
        #[derive(Default)]
        pub(crate) struct Count { $(pub(crate) $name: Counter),+ }

        impl Count {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed)),+ }
            }
        }
    };
}

counters! {
    /// Inner packets that were encrypted and given to the socket.
    sent,
    /// Octets of these, without what the tunnel adds.
    sent_bytes,
    /// Inner packets that were decrypted, found right and given to the kernel.
    received,
    /// Octets of these.
    received_bytes,
    /// Handshakes that we began, each try counts.
    handshakes_begun,
    /// Sessions that came to be, begun by either side.
    handshakes_done,
    /// To send: no peer has this tunnel address.
    no_peer,
    /// To send: multicast and broadcast, which no peer has. The kernel makes some by itself.
    multicast,
    /// To send: neither IPv4 nor IPv6, or with lengths that contradict each other.
    malformed_inner,
    /// To send: the peer has not answered a handshake yet, and enough packets wait for it already.
    queue_full,
    /// To send: waited for a peer that did not answer in time.
    queue_expired,
    /// To send: the socket refused (no route, a firewall, no memory).
    send_failed,
    /// Received: garbage, cut short, an unknown kind, or from inside of the tunnel.
    bad_datagram,
    /// Received: data or an answer for a session that is not there (any more).
    unknown_session,
    /// Received: handshakes from a public key that no peer has, or to a key that is not ours.
    unknown_key,
    /// Received: handshakes that came before.
    replayed_handshake,
    /// Received: data that came before, or is too old to tell.
    replayed,
    /// Received: did not authenticate.
    bad_authentication,
    /// Received: handshakes beyond what we do in a second; the sender was asked to prove its address.
    rate_limited,
    /// Received: the inner source is no tunnel address of this peer.
    spoofed,
    /// Received: the inner destination is not a tunnel address of ours.
    foreign_destination,
    /// Received: decrypted, but no IP packet.
    bad_inner,
    /// Received: the device refused the packet.
    write_failed,
    /// The address of a peer changed because authenticated data came from elsewhere.
    roamed,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }
}
