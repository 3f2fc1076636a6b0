use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::sys::eventfd::EventFd;
use proptest::prelude::*;

use super::*;
use crate::counter::Counters;
use crate::key::KeyPair;
use crate::pair::{HANDSHAKES_PER_SECOND, OVERHEAD};
use crate::peer::Peer;
use crate::socket::Socket;
use crate::sys::Offload;
use crate::table::Wanted;

/// A node without threads and with a device that swallows everything.
struct Node {
    shared: Shared,
    wanted: Wanted,
    inbox: Inbox,
    number: u8,
}

fn key(number: u8) -> KeyPair {
    let mut secret = [1; 32];
    secret[1] = number;
    KeyPair::from_secret(&secret)
}

fn tunnel_address(number: u8) -> IpAddr {
    [10, 199, 0, number].into()
}

impl Node {
    fn new(number: u8) -> Self {
        let event = || EventFd::new().unwrap();
        let shared = Shared {
            tun: File::options().write(true).open("/dev/null").unwrap(),
            offload: Offload { udp: true },
            socket: Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            addresses: vec![(tunnel_address(number), 16)],
            table: ArcSwap::from_pointee(Table::default()),
            count: Count::default(),
            stop: event(),
            stops: AtomicBool::new(false),
            hurry: event(),
            ended: event(),
        };
        let networks = vec![(tunnel_address(number), 16)];
        let wanted = Wanted::new(networks, vec![key(number)], 5).unwrap();
        Node { shared, wanted, inbox: Inbox::new(true), number }
    }

    fn peer(&self) -> Peer {
        Peer {
            keys: vec![key(self.number).public()],
            endpoint: self.shared.socket.local_addr().unwrap(),
            tunnel_addrs: vec![tunnel_address(self.number)],
        }
    }

    fn set_peers(&mut self, peers: Vec<Peer>) {
        self.wanted.set_peers(peers).unwrap();
        let table = self.wanted.table(&self.shared.table.load(), Instant::now());
        self.shared.table.store(Arc::new(table));
    }

    fn tick(&self) {
        self.shared.table.load().entries[0].tick(Instant::now(), &self.shared.socket, &self.shared.count);
    }

    fn take(&mut self, from: SocketAddr, octets: &[u8], segment: usize) {
        let table = self.shared.table.load_full();
        batch(&self.shared, &table, &mut self.inbox, from, octets, segment);
        self.inbox.merger.flush(|_| {});
    }

    /// The next datagram on the socket.
    fn next(&self) -> (SocketAddr, Vec<u8>) {
        let mut octets = vec![0; 65_536];
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(got) = self.shared.socket.receive(&mut octets, &mut [0; 64]).unwrap() {
                return (got.from, octets[..got.length].to_vec());
            }
            assert!(Instant::now() < until, "nothing came");
            std::thread::yield_now();
        }
    }

    fn counters(&self) -> Counters {
        self.shared.count.read()
    }

    fn address(&self) -> SocketAddr {
        self.shared.socket.local_addr().unwrap()
    }

    fn seal(&self, inner: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; inner.len() + OVERHEAD + HANDSHAKE_ROOM];
        let table = self.shared.table.load();
        let length = table.entries[0].ready().unwrap().lock().seal(inner, &mut sealed).unwrap();
        sealed.truncate(length);
        sealed
    }
}

/// Two nodes that know each other, and the messages of the handshake between them.
fn acquainted() -> (Node, Node, Vec<Vec<u8>>) {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    one.set_peers(vec![two.peer()]);
    two.set_peers(vec![one.peer()]);
    one.tick();
    let mut messages = Vec::new();
    let (from, initiation) = two.next();
    two.take(from, &initiation, initiation.len());
    let (from, response) = one.next();
    one.take(from, &response, response.len());
    let (from, keepalive) = two.next();
    two.take(from, &keepalive, keepalive.len());
    messages.extend([initiation, response, keepalive]);
    assert_eq!((one.counters().handshakes_done, two.counters().handshakes_done), (1, 1));
    (one, two, messages)
}

/// An IPv4 packet that is right but for what it carries.
fn inner(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 199, 0, from, 10, 199, 0, to];
    packet.extend_from_slice(payload);
    let length = u16::try_from(packet.len()).unwrap();
    packet::put_u16(&mut packet, 2, length);
    packet::set_header_checksum(&mut packet, 20);
    packet
}

#[test]
fn a_packet_is_taken_once() {
    let (one, mut two, _) = acquainted();
    let sealed = one.seal(&inner(1, 2, b"hello"));
    two.take(one.address(), &sealed, sealed.len());
    two.take(one.address(), &sealed, sealed.len());
    assert_eq!((two.counters().received, two.counters().replayed), (1, 1));
}

#[test]
fn only_the_peers_addresses_may_send_and_only_ours_receive() {
    let (one, mut two, _) = acquainted();
    for (from, to) in [(3, 2), (2, 2), (1, 3), (1, 1)] {
        let sealed = one.seal(&inner(from, to, b"x"));
        two.take(one.address(), &sealed, sealed.len());
    }
    let counters = two.counters();
    assert_eq!((counters.received, counters.spoofed, counters.foreign_destination), (0, 2, 2));
}

#[test]
fn a_number_that_would_run_over_is_refused() {
    let (one, mut two, _) = acquainted();
    let mut sealed = one.seal(&inner(1, 2, b"x"));
    sealed[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    two.take(one.address(), &sealed, sealed.len());
    assert_eq!(two.counters().bad_datagram, 1);
}

#[test]
fn strangers_get_no_answer() {
    let (mut one, two, _) = acquainted();
    let mut stranger = Node::new(3);
    stranger.set_peers(vec![one.peer()]);
    stranger.tick();
    let (from, initiation) = one.next();
    one.take(from, &initiation, initiation.len());
    assert_eq!(one.counters().unknown_key, 1);
    // and not with the key of someone else as the goal
    one.take(two.address(), &initiation[..], 100);
    assert!(stranger.shared.socket.receive(&mut [0; 200], &mut [0; 64]).unwrap().is_none());
}

#[test]
fn a_repeated_handshake_does_not_end_the_session() {
    let (one, mut two, messages) = acquainted();
    two.take("127.0.0.1:9".parse().unwrap(), &messages[0], messages[0].len());
    assert_eq!((two.counters().replayed_handshake, two.counters().roamed), (1, 0));
    let sealed = one.seal(&inner(1, 2, b"x"));
    two.take(one.address(), &sealed, sealed.len());
    assert_eq!(two.counters().received, 1);
}

#[test]
fn a_flood_of_handshakes_is_answered_by_a_demand_and_a_peer_comes_through() {
    let (mut one, mut two, _) = acquainted();
    let mut flooder = Node::new(3);
    flooder.set_peers(vec![one.peer()]);
    // one was that of the acquaintance
    let limit = HANDSHAKES_PER_SECOND - 1;
    for _ in 0..limit {
        flooder.shared.table.load().entries[0].hurry();
        flooder.tick();
        let (from, initiation) = one.next();
        one.take(from, &initiation, initiation.len());
    }
    assert_eq!((one.counters().unknown_key, one.counters().rate_limited), (limit, 0));

    // under load: two is asked for a proof of its address, and comes through with it
    two.set_peers(vec![]);
    two.set_peers(vec![one.peer()]);
    two.tick();
    let (from, initiation) = one.next();
    one.take(from, &initiation, initiation.len());
    assert_eq!(one.counters().rate_limited, 1);
    let (from, demand) = two.next();
    two.take(from, &demand, demand.len());
    two.tick();
    let (from, initiation) = one.next();
    one.take(from, &initiation, initiation.len());
    assert_eq!(one.counters().rate_limited, 1);
    let (from, response) = two.next();
    two.take(from, &response, response.len());
    assert_eq!(two.counters().handshakes_done, 2);
}

#[test]
fn data_from_elsewhere_moves_the_peer_and_nothing_else_does() {
    let (one, mut two, _) = acquainted();
    let sealed = one.seal(&inner(1, 2, b"x"));
    let elsewhere = "127.0.0.1:9".parse().unwrap();
    let mut damaged = sealed.clone();
    damaged[30] ^= 1;
    two.take(elsewhere, &damaged, damaged.len());
    assert_eq!(two.counters().roamed, 0);
    two.take(elsewhere, &sealed, sealed.len());
    assert_eq!(two.counters().roamed, 1);
    assert_eq!(two.shared.table.load().entries[0].endpoint(), elsewhere);
    // and not back by what is repeated
    two.take(one.address(), &sealed, sealed.len());
    assert_eq!(two.shared.table.load().entries[0].endpoint(), elsewhere);
}

#[test]
fn a_peer_cannot_move_into_the_tunnel() {
    let (one, mut two, _) = acquainted();
    let sealed = one.seal(&inner(1, 2, b"x"));
    two.take("10.199.0.1:51820".parse().unwrap(), &sealed, sealed.len());
    assert_eq!((two.counters().bad_datagram, two.counters().received, two.counters().roamed), (1, 0, 0));
}

fn change() -> impl Strategy<Value = (usize, u8, Option<usize>, Vec<u8>)> {
    (0..200_usize, 1..=255_u8, prop::option::of(0..200_usize), prop::collection::vec(any::<u8>(), 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Octets from anyone, in any cut: nothing comes through, nothing breaks.
    #[test]
    fn garbage_is_survived(
        octets in prop::collection::vec((0..6_u8, prop::collection::vec(any::<u8>(), 0..400)), 1..60),
        segment in 1..400_usize,
    ) {
        let (one, mut two, _) = acquainted();
        for (kind, mut garbage) in octets {
            // what looks like a message leads further, and so does an index that is in use
            if garbage.len() >= 8 {
                garbage[..8].copy_from_slice(&[kind, 0, 0, 0, 1, 5, 0, 0]);
            }
            for length in [0, 31, 32, 64, 92, 148, garbage.len()] {
                garbage.resize(length, 0);
                two.take("192.0.2.1:9".parse().unwrap(), &garbage, segment);
                two.take("192.0.2.1:9".parse().unwrap(), &garbage, garbage.len());
            }
        }
        prop_assert_eq!((two.counters().received, two.counters().roamed), (0, 0));
        let sealed = one.seal(&inner(1, 2, b"x"));
        two.take(one.address(), &sealed, sealed.len());
        prop_assert_eq!(two.counters().received, 1);
    }

    /// True messages, damaged: refused, and the true ones are taken after that.
    #[test]
    fn damage_is_noticed(changes in prop::collection::vec(change(), 1..40)) {
        let (one, mut two, messages) = acquainted();
        let sealed = one.seal(&inner(1, 2, b"0123456789"));
        for original in messages.iter().chain([&sealed]) {
            for (at, flip, cut, more) in &changes {
                let mut damaged = original.clone();
                let at = at % damaged.len();
                damaged[at] ^= flip;
                damaged.extend_from_slice(more);
                if let Some(cut) = cut {
                    damaged.truncate(*cut);
                }
                two.take(one.address(), &damaged, damaged.len());
            }
        }
        prop_assert_eq!(two.counters().received, 0);
        two.take(one.address(), &sealed, sealed.len());
        prop_assert_eq!(two.counters().received, 1);
    }

    /// A peer that means ill: whatever it puts inside, only what is right comes out.
    #[test]
    fn an_evil_peer_sends_what_it_likes(
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), any::<bool>(), 0..256_u16), 1..60),
    ) {
        let (one, mut two, _) = acquainted();
        let mut right = 0;
        for (payload, is_packet, address) in packets {
            let from = u8::try_from(address).unwrap();
            let whole = if is_packet { inner(from, 2, &payload) } else { payload };
            if crate::packet::addresses(&whole) == Some((tunnel_address(1), tunnel_address(2))) {
                right += 1;
            }
            let sealed = one.seal(&whole);
            two.take(one.address(), &sealed, sealed.len());
        }
        prop_assert_eq!(two.counters().received, right);
    }
}
