//! From the device to the underlay: one thread.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::packet;
use crate::pair::{HANDSHAKE_ROOM, OVERHEAD};
use crate::shared::Shared;
use crate::socket::{MAX_BATCH, MAX_SEGMENTS};
use crate::split::split;
use crate::sys::VNET_HDR_LEN;
use crate::table::Table;

/// Sealed octets that are gathered before they are sent.
const GATHERED: usize = 4 * MAX_BATCH;
/// The largest that one read can become when it is cut small and sealed.
const LARGEST: usize = 4 * 65_536;

/// Datagrams of one size to one peer, the last may be shorter.
struct Run {
    to: SocketAddr,
    start: usize,
    end: usize,
    segment: usize,
    count: usize,
    is_closed: bool,
}

/// Sealed packets that are to be sent.
struct Outbox {
    octets: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
}

impl Outbox {
    fn new() -> Self {
        Outbox { octets: vec![0; GATHERED + LARGEST], used: 0, runs: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.used >= GATHERED
    }

    /// Counts a packet in that was sealed into the room at `used`.
    fn add(&mut self, to: SocketAddr, length: usize) {
        let start = self.used;
        self.used += length;
        if let Some(run) = self.runs.last_mut()
            && !run.is_closed
            && run.to == to
            && length <= run.segment
            && run.count < MAX_SEGMENTS
            && self.used - run.start <= MAX_BATCH
        {
            run.end = self.used;
            run.count += 1;
            run.is_closed = length < run.segment;
            return;
        }
        self.runs.push(Run { to, start, end: self.used, segment: length, count: 1, is_closed: false });
    }

    fn send(&mut self, shared: &Shared) {
        for run in self.runs.drain(..) {
            if let Err(err) = shared.socket.send(run.to, &self.octets[run.start..run.end], run.segment) {
                shared.count.send_failed.add(run.count as u64);
                tracing::debug!(peer.endpoint = %run.to, error = %err, "datagrams were not sent");
            }
        }
        self.used = 0;
    }
}

/// Runs until the tunnel stops.
pub(crate) fn run(shared: &Arc<Shared>) -> io::Result<()> {
    let mut read = vec![0; VNET_HDR_LEN + 65_536];
    let mut outbox = Outbox::new();
    while shared.wait_for(&shared.tun)? {
        let table = shared.table.load();
        while !outbox.is_full() {
            match read_one(&shared.tun, &mut read)? {
                Some(length) => forward(shared, &table, &mut read[..length], &mut outbox),
                None => break,
            }
        }
        outbox.send(shared);
    }
    Ok(())
}

/// A packet from the device, `None` if none is there.
fn read_one(mut tun: &File, to: &mut [u8]) -> io::Result<Option<usize>> {
    match tun.read(to) {
        Ok(length) => Ok(Some(length)),
        Err(err) => match err.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            // the device is down, or an address of the kernel's; it will say when it is up again
            Some(libc::EIO) => Ok(None),
            _ => Err(err),
        },
    }
}

/// Seals what was read from the device, which is one packet or a run of them to one destination.
fn forward(shared: &Shared, table: &Table, read: &mut [u8], outbox: &mut Outbox) {
    let count = &shared.count;
    let Some((_, to)) = read.get(VNET_HDR_LEN..).and_then(packet::addresses) else {
        return count.malformed_inner.one();
    };
    let Some(entry) = table.to(to) else {
        let expected = to.is_multicast() || matches!(to, std::net::IpAddr::V4(v4) if v4.is_broadcast());
        return if expected { count.multicast.one() } else { count.no_peer.one() };
    };
    let mut pair = entry.ready().map(|pair| pair.lock());
    let endpoint = entry.endpoint();
    let (mut packets, mut octets) = (0, 0);
    let mut unsent = Vec::new();
    let done = split(read, |packet| {
        let room = outbox
            .octets
            .get_mut(outbox.used..)
            .filter(|room| room.len() >= packet.len() + OVERHEAD + HANDSHAKE_ROOM);
        match pair.as_mut().zip(room).and_then(|(pair, room)| pair.seal(packet, room)) {
            Some(length) => {
                outbox.add(endpoint, length);
                packets += 1;
                octets += packet.len() as u64;
            }
            None => unsent.push(packet.to_vec()),
        }
    });
    drop(pair);
    if done.is_err() {
        count.malformed_inner.one();
    }
    count.sent.add(packets);
    count.sent_bytes.add(octets);
    for packet in unsent {
        entry.wait(&packet, &shared.socket, count);
    }
}
