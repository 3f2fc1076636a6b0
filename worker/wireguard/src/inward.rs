//! From the underlay to the device: one thread. What arrives here may have been made by anyone.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};

use crate::counter::Count;
use crate::key::PublicKey;
use crate::merge::Merger;
use crate::packet;
use crate::pair::{HANDSHAKE_ROOM, Locked, Opened, OwnKey, Pair};
use crate::peer::Entry;
use crate::shared::Shared;
use crate::table::{Table, holds};

/// Numbers beyond are refused, so that none is used twice (the WireGuard paper, section 6.5).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
const COUNTER_AT: usize = 8;
const COOKIE_REPLY: usize = 64;
/// Calls to the socket before the settings are looked at again.
const AT_ONCE: usize = 64;

/// Where inner packets go.
pub(crate) struct Inbox {
    merger: Merger,
    opened: Vec<u8>,
}

impl Inbox {
    pub(crate) fn new(udp: bool) -> Self {
        Inbox { merger: Merger::new(udp), opened: vec![0; 65_536 + HANDSHAKE_ROOM] }
    }
}

/// Runs until the tunnel stops.
pub(crate) fn run(shared: &Arc<Shared>) -> io::Result<()> {
    let mut arrived = vec![0; 65_536];
    let mut control = nix::cmsg_space!(i32);
    control.resize(control.capacity(), 0);
    let mut inbox = Inbox::new(shared.offload.udp);
    while shared.wait_for(&shared.socket)? {
        let table = shared.table.load();
        for _ in 0..AT_ONCE {
            let Some(got) = shared.socket.receive(&mut arrived, &mut control)? else { break };
            batch(shared, &table, &mut inbox, got.from, &arrived[..got.length], got.segment);
        }
        inbox.merger.flush(|whole| write(&shared.tun, &shared.count, whole));
    }
    Ok(())
}

/// Handles datagrams of one sender.
pub(crate) fn batch(
    shared: &Shared,
    table: &Table,
    inbox: &mut Inbox,
    from: SocketAddr,
    octets: &[u8],
    segment: usize,
) {
    // a tunnel inside of the tunnel: to answer there would go around for ever
    if shared.addresses.iter().any(|network| holds(*network, from.ip())) {
        return shared.count.bad_datagram.add(octets.chunks(segment.max(1)).len() as u64);
    }
    // the pair of the datagrams so far, kept locked while it is the same
    let mut current: Option<Current<'_>> = None;
    for datagram in octets.chunks(segment.max(1)) {
        let Ok(kind) = Tunn::parse_incoming_packet(datagram) else {
            shared.count.bad_datagram.one();
            continue;
        };
        let Packet::PacketData(data) = kind else {
            end(shared, current.take(), from);
            control_message(shared, table, inbox, from, datagram, &kind);
            continue;
        };
        let index = data.receiver_idx;
        if current.as_ref().is_none_or(|current| current.pair.id != index >> 8) {
            end(shared, current.take(), from);
            let Some((pair, entry)) = table.session(index) else {
                shared.count.unknown_session.one();
                continue;
            };
            current = Some(Current { pair, entry, locked: pair.lock(), is_heard: false, is_new: false });
        }
        if let Some(current) = &mut current {
            current.data(shared, inbox, from, datagram);
        }
    }
    end(shared, current, from);
}

/// A pair whose datagrams are being handled.
struct Current<'a> {
    pair: &'a Arc<Pair>,
    entry: &'a Entry,
    locked: Locked<'a>,
    is_heard: bool,
    is_new: bool,
}

/// What follows from datagrams that were authentic.
fn end(shared: &Shared, current: Option<Current<'_>>, from: SocketAddr) {
    let Some(mut current) = current else { return };
    if current.is_heard && current.entry.heard_from(from) {
        shared.count.roamed.one();
    }
    if current.is_new {
        established(shared, current.entry, &mut current.locked);
    }
}

fn established(shared: &Shared, entry: &Entry, locked: &mut Locked<'_>) {
    shared.count.handshakes_done.one();
    entry.established();
    entry.send_waiting(locked, &shared.socket, &shared.count);
}

impl Current<'_> {
    fn data(&mut self, shared: &Shared, inbox: &mut Inbox, from: SocketAddr, datagram: &[u8]) {
        let count = &shared.count;
        let counter = datagram.get(COUNTER_AT..COUNTER_AT + 8).and_then(|octets| octets.try_into().ok());
        if counter.is_none_or(|counter| u64::from_le_bytes(counter) >= REJECT_AFTER_MESSAGES) {
            return count.bad_datagram.one();
        }
        let Inbox { merger, opened } = inbox;
        match self.locked.open(from.ip(), datagram, opened) {
            Opened::Packet(packet, source) => {
                self.is_heard = true;
                self.is_new |= self.locked.confirm();
                let Some((_, to)) = packet::addresses(packet) else { return count.bad_inner.one() };
                if !self.entry.peer.tunnel_addrs.contains(&source) {
                    return count.spoofed.one();
                }
                if !shared.addresses.iter().any(|(address, _)| *address == to) {
                    return count.foreign_destination.one();
                }
                count.received.one();
                count.received_bytes.add(packet.len() as u64);
                merger.push(packet, |whole| write(&shared.tun, count, whole));
            }
            Opened::Keepalive => {
                self.is_heard = true;
                self.is_new |= self.locked.confirm();
            }
            Opened::Answer(_) | Opened::Nothing => {}
            Opened::Failed(err) => {
                // it was authentic, and is not what may be in a tunnel
                self.is_heard |= matches!(err, WireGuardError::InvalidPacket);
                failed(count, &err);
            }
        }
    }
}

fn write(mut tun: &File, count: &Count, whole: &[u8]) {
    if tun.write(whole).is_err() {
        count.write_failed.one();
    }
}

fn failed(count: &Count, err: &WireGuardError) {
    match err {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => count.replayed.one(),
        WireGuardError::WrongTai64nTimestamp => count.replayed_handshake.one(),
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex | WireGuardError::UnexpectedPacket => {
            count.unknown_session.one();
        }
        WireGuardError::InvalidPacket => count.bad_inner.one(),
        WireGuardError::UnderLoad => count.rate_limited.one(),
        _ => count.bad_authentication.one(),
    }
}

/// Handles what is no data.
fn control_message(
    shared: &Shared,
    table: &Table,
    inbox: &mut Inbox,
    from: SocketAddr,
    datagram: &[u8],
    kind: &Packet<'_>,
) {
    match kind {
        Packet::HandshakeInit(_) => initiation(shared, table, inbox, from, datagram),
        Packet::HandshakeResponse(response) => {
            answer(shared, table, inbox, from, datagram, response.receiver_idx);
        }
        Packet::PacketCookieReply(reply) => answer(shared, table, inbox, from, datagram, reply.receiver_idx),
        Packet::PacketData(_) => {}
    }
}

/// Whether a handshake message is for this key, and whether we have time for it.
enum Admitted {
    Yes,
    OtherKey,
    No,
}

fn admit(shared: &Shared, own: &OwnKey, from: SocketAddr, datagram: &[u8]) -> Admitted {
    let mut cookie = [0; COOKIE_REPLY];
    match own.limiter.verify_packet(Some(from.ip()), datagram, &mut cookie) {
        Ok(_) => Admitted::Yes,
        Err(TunnResult::Err(WireGuardError::InvalidMac)) => Admitted::OtherKey,
        Err(TunnResult::WriteToNetwork(reply)) => {
            shared.count.rate_limited.one();
            send(shared, from, reply);
            Admitted::No
        }
        Err(_) => {
            shared.count.bad_datagram.one();
            Admitted::No
        }
    }
}

fn send(shared: &Shared, to: SocketAddr, message: &[u8]) {
    if shared.socket.send(to, message, message.len()).is_err() {
        shared.count.send_failed.one();
    }
}

/// Somebody begins a handshake.
fn initiation(shared: &Shared, table: &Table, inbox: &mut Inbox, from: SocketAddr, datagram: &[u8]) {
    let count = &shared.count;
    for own in &table.own {
        match admit(shared, own, from, datagram) {
            Admitted::Yes => {}
            Admitted::OtherKey => continue,
            Admitted::No => return,
        }
        let Ok(Packet::HandshakeInit(init)) = Tunn::parse_incoming_packet(datagram) else { return };
        let Ok(half) = parse_handshake_anon(&own.secret, &own.public, &init) else {
            return count.bad_authentication.one();
        };
        let keys = (own.pair.public(), PublicKey(half.peer_static_public));
        let Some((pair, entry)) = table.pair(keys) else {
            return count.unknown_key.one();
        };
        let opened = pair.lock().open(from.ip(), datagram, &mut inbox.opened).message();
        match opened {
            // to where it came from, but only data, which cannot come twice, moves the peer there
            Ok(Some(length)) => send(shared, from, &inbox.opened[..length]),
            Ok(None) => {}
            Err(err) => {
                // the peer's clock went back, or someone repeats an old one: a handshake of ours settles it
                if matches!(err, WireGuardError::WrongTai64nTimestamp) && !pair.is_ready() {
                    entry.hurry();
                }
                failed(count, &err);
            }
        }
        return;
    }
    count.unknown_key.one();
}

/// An answer to a handshake that we began, or the demand to prove our address.
fn answer(shared: &Shared, table: &Table, inbox: &mut Inbox, from: SocketAddr, datagram: &[u8], index: u32) {
    let count = &shared.count;
    let Some((pair, entry)) = table.session(index).filter(|(pair, _)| table.pair(pair.keys()).is_some())
    else {
        return count.unknown_session.one();
    };
    let is_response = datagram.len() != COOKIE_REPLY;
    if is_response {
        match admit(shared, &pair.own, from, datagram) {
            Admitted::Yes => {}
            Admitted::OtherKey => return count.bad_authentication.one(),
            Admitted::No => return,
        }
    }
    let mut locked = pair.lock();
    match locked.open(from.ip(), datagram, &mut inbox.opened).message() {
        // the first message of the session, by which the peer knows that we have it, too
        Ok(Some(length)) => {
            send(shared, from, &inbox.opened[..length]);
            locked.confirm();
            locked.answered();
            established(shared, entry, &mut locked);
        }
        // we have the cookie: again, with it
        Ok(None) => entry.hurry(),
        Err(err) => failed(count, &err),
    }
}

impl Opened<'_> {
    /// The length of what is to be sent back.
    fn message(self) -> Result<Option<usize>, WireGuardError> {
        match self {
            Opened::Answer(message) => Ok(Some(message.len())),
            Opened::Failed(err) => Err(err),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
