//! Puts packets of one stream together before they are written to the device, so that the kernel handles
//! them once. The reverse of `split`, with the rules of the kernel's own receive offload: what is cut again
//! later is the same, octet for octet, but for the identification of IPv4 packets.

use crate::packet::{TCP, UDP, pseudo_sum, put_u16, set_header_checksum, sum, u16_at, u32_at};
use crate::split::{F_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, TCP_LAST_FLAGS, VnetHeader};
use crate::sys::VNET_HDR_LEN;

/// Octets in what is put together; lengths in headers have 16 bits.
const MAX: usize = 65_535;
/// The kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9.
const MAX_PACKETS: usize = 64;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// What may be put together of a packet.
#[derive(Debug, Clone, Copy)]
struct Shape {
    is_v4: bool,
    protocol: u8,
    /// Where TCP or UDP begins.
    transport: usize,
    /// Where the payload begins.
    headers: usize,
    payload: usize,
    /// No other packet can follow.
    is_last: bool,
}

impl Shape {
    /// `None` for packets that have to go alone.
    fn of(packet: &[u8], udp: bool) -> Option<Self> {
        let (is_v4, protocol, transport) = match packet.first()? {
            0x45 => {
                let fragment = u16_at(packet, 6)? & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0;
                let whole = usize::from(u16_at(packet, 2)?) == packet.len() && !fragment;
                whole.then_some((true, *packet.get(9)?, 20))?
            }
            first if first >> 4 == 6 => {
                let whole = usize::from(u16_at(packet, 4)?) + 40 == packet.len();
                whole.then_some((false, *packet.get(6)?, 40))?
            }
            _ => return None,
        };
        let (headers, flags) = match protocol {
            TCP => {
                (transport + usize::from(*packet.get(transport + 12)? >> 4) * 4, *packet.get(transport + 13)?)
            }
            UDP if udp => (transport + 8, ACK),
            _ => return None,
        };
        let payload = packet.len().checked_sub(headers).filter(|length| *length > 0)?;
        let plain = flags & !PSH == ACK && headers >= transport + if protocol == TCP { 20 } else { 8 };
        let whole = protocol == TCP || usize::from(u16_at(packet, transport + 4)?) == 8 + payload;
        let is_last = flags & PSH != 0;
        (plain && whole).then_some(Shape { is_v4, protocol, transport, headers, payload, is_last })
    }

    fn has_right_checksum(&self, packet: &[u8]) -> bool {
        if self.is_v4 && sum(&packet[..self.transport], 0) != 0xffff {
            return false;
        }
        let at = self.transport + if self.protocol == TCP { 16 } else { 6 };
        if self.protocol == UDP && self.is_v4 && u16_at(packet, at) == Some(0) {
            return true;
        }
        let pseudo = pseudo_sum(packet, self.protocol, packet.len() - self.transport);
        pseudo.is_some_and(|pseudo| sum(&packet[self.transport..], pseudo) == 0xffff)
    }

    /// Whether two packets differ only in what cutting changes.
    fn same_stream(&self, first: &[u8], next: &[u8], number: u16) -> bool {
        let same = |at: usize, to: usize| first[at..to] == next[at..to];
        let t = self.transport;
        let network = if self.is_v4 {
            let may_be_split = u16_at(first, 6).is_some_and(|word| word & DONT_FRAGMENT == 0);
            let id = |packet| u16_at(packet, 4).unwrap_or(0);
            let in_order = id(next) == id(first).wrapping_add(number);
            same(0, 2) && same(6, 10) && same(12, 20) && (!may_be_split || in_order)
        } else {
            same(0, 4) && same(6, 40)
        };
        let flags = |packet: &[u8]| packet[t + 13] & !TCP_LAST_FLAGS;
        let transport = match self.protocol {
            // ports, acknowledged, offset, flags, window, urgent, options
            TCP => {
                let options = same(t + 18, self.headers);
                same(t, t + 4)
                    && same(t + 8, t + 13)
                    && flags(first) == flags(next)
                    && same(t + 14, t + 16)
                    && options
            }
            _ => same(t, t + 4) && (u16_at(first, t + 6) == Some(0)) == (u16_at(next, t + 6) == Some(0)),
        };
        network && transport
    }
}

/// What is being put together.
struct Run {
    shape: Shape,
    packets: u16,
    next_sequence: u32,
    is_checked: bool,
    is_closed: bool,
}

/// Collects packets and hands out what is to be written to the device, headers included.
pub(crate) struct Merger {
    /// Room for the device's header, and a packet.
    octets: Vec<u8>,
    run: Option<Run>,
    udp: bool,
}

impl Merger {
    /// `udp`: the kernel knows how to cut UDP.
    pub(crate) fn new(udp: bool) -> Self {
        Merger { octets: Vec::with_capacity(VNET_HDR_LEN + MAX), run: None, udp }
    }

    /// Takes a packet. What cannot be put together with it is written first.
    pub(crate) fn push(&mut self, packet: &[u8], mut write: impl FnMut(&[u8])) {
        let shape = Shape::of(packet, self.udp);
        if let Some(shape) = shape
            && self.append(packet, shape)
        {
            return;
        }
        self.flush(&mut write);
        self.octets.clear();
        self.octets.extend_from_slice(&[0; VNET_HDR_LEN]);
        self.octets.extend_from_slice(packet);
        let Some(shape) = shape else { return write(&self.octets) };
        let sequence = u32_at(packet, shape.transport + 4).unwrap_or(0);
        let next_sequence = sequence.wrapping_add(u32::try_from(shape.payload).unwrap_or(0));
        let is_closed = shape.is_last;
        self.run = Some(Run { shape, packets: 1, next_sequence, is_checked: false, is_closed });
    }

    fn append(&mut self, packet: &[u8], shape: Shape) -> bool {
        let Some(run) = &mut self.run else { return false };
        let first = &self.octets[VNET_HDR_LEN..];
        let fits = !run.is_closed
            && usize::from(run.packets) < MAX_PACKETS
            && first.len() + shape.payload <= MAX
            && shape.payload <= run.shape.payload
            && (shape.is_v4, shape.protocol, shape.headers)
                == (run.shape.is_v4, run.shape.protocol, run.shape.headers)
            && (shape.protocol == UDP || u32_at(packet, shape.transport + 4) == Some(run.next_sequence))
            && shape.same_stream(&first[..shape.headers], packet, run.packets);
        if !fits {
            return false;
        }
        // a packet that was damaged before it entered the tunnel must stay damaged
        run.is_checked = run.is_checked || run.shape.has_right_checksum(first);
        if !run.is_checked || !shape.has_right_checksum(packet) {
            return false;
        }
        run.packets += 1;
        run.next_sequence = run.next_sequence.wrapping_add(u32::try_from(shape.payload).unwrap_or(0));
        run.is_closed = shape.is_last || shape.payload < run.shape.payload;
        if shape.is_last {
            self.octets[VNET_HDR_LEN + shape.transport + 13] |= PSH;
        }
        self.octets.extend_from_slice(&packet[shape.headers..]);
        true
    }

    /// Writes what was put together.
    pub(crate) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        let Some(run) = self.run.take() else { return };
        if run.packets > 1 {
            self.finish(&run);
        }
        write(&self.octets);
    }

    /// Makes the headers right for the whole.
    fn finish(&mut self, run: &Run) {
        let Shape { is_v4, protocol, transport, headers, payload, .. } = run.shape;
        let (head, packet) = self.octets.split_at_mut(VNET_HDR_LEN);
        let word = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let whole = packet.len();
        if is_v4 {
            put_u16(packet, 2, word(whole));
            set_header_checksum(packet, transport);
        } else {
            put_u16(packet, 4, word(whole - 40));
        }
        let offset = if protocol == TCP { 16 } else { 6 };
        if protocol == UDP {
            put_u16(packet, transport + 4, word(whole - transport));
        }
        let pseudo = pseudo_sum(packet, protocol, whole - transport).unwrap_or(0);
        put_u16(packet, transport + offset, pseudo);
        let gso_type = match (protocol, is_v4) {
            (UDP, _) => GSO_UDP_L4,
            (_, true) => GSO_TCPV4,
            (_, false) => GSO_TCPV6,
        };
        let header = VnetHeader {
            flags: F_NEEDS_CSUM,
            gso_type,
            hdr_len: word(headers),
            gso_size: word(payload),
            csum_start: word(transport),
            csum_offset: word(offset),
        };
        if let Ok(head) = <&mut [u8; VNET_HDR_LEN]>::try_from(head) {
            header.write(head);
        }
    }
}

#[cfg(test)]
mod tests;
