//! Cuts the large packets that the kernel hands out into packets that fit the tunnel.
//!
//! With `IFF_VNET_HDR` the kernel leaves the cutting of TCP streams and the checksums to whoever reads the
//! device: one read brings up to 64 KiB. The header is `struct virtio_net_hdr`, in the machine's byte order
//! (virtio 1.2, section 5.1.6).

use crate::packet::{TCP, UDP, pseudo_sum, put_u16, put_u32, set_header_checksum, sum, u16_at, u32_at};
use crate::sys::VNET_HDR_LEN;

pub(crate) const F_NEEDS_CSUM: u8 = 1;
pub(crate) const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;

const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const TCP_FLAGS: usize = 13;
/// Only the last packet of a run may carry these: FIN and PSH.
pub(crate) const TCP_LAST_FLAGS: u8 = 0x09;
/// IP and TCP headers with all options that fit.
const MAX_HEADERS: usize = 256;

/// `struct virtio_net_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VnetHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) hdr_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
}

impl VnetHeader {
    fn read(octets: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_ne_bytes(octets.get(at..at + 2)?.try_into().ok()?));
        Some(VnetHeader {
            flags: *octets.first()?,
            gso_type: *octets.get(1)?,
            hdr_len: word(2)?,
            gso_size: word(4)?,
            csum_start: word(6)?,
            csum_offset: word(8)?,
        })
    }

    pub(crate) fn write(&self, to: &mut [u8; VNET_HDR_LEN]) {
        to[0] = self.flags;
        to[1] = self.gso_type;
        for (at, word) in [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset].iter().enumerate()
        {
            to[2 + at * 2..4 + at * 2].copy_from_slice(&word.to_ne_bytes());
        }
    }
}

/// What was read is not what its header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Hands out the packets of what was read from the device, one after the other. Their memory is reused: each is
/// done with when `each` returns.
pub(crate) fn split(read: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
    let header = VnetHeader::read(read).ok_or(Malformed)?;
    let packet = read.get_mut(VNET_HDR_LEN..).ok_or(Malformed)?;
    // the top bit says that congestion was seen; the packets themselves say so, too
    let protocol = match header.gso_type & 0x7f {
        GSO_NONE => {
            if header.flags & F_NEEDS_CSUM != 0 {
                finish_checksum(packet, header).ok_or(Malformed)?;
            }
            each(packet);
            return Ok(());
        }
        GSO_TCPV4 | GSO_TCPV6 => TCP,
        GSO_UDP_L4 => UDP,
        _ => return Err(Malformed),
    };
    cut(packet, header, protocol, each).ok_or(Malformed)
}

/// The kernel has put the sum over the pseudo header into the field.
fn finish_checksum(packet: &mut [u8], header: VnetHeader) -> Option<()> {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    packet.get(at..at + 2)?;
    let checksum = !sum(packet.get(start..)?, 0);
    // zero would say that there is none
    put_u16(packet, at, if checksum == 0 { 0xffff } else { checksum });
    Some(())
}

fn cut(packet: &mut [u8], header: VnetHeader, protocol: u8, mut each: impl FnMut(&[u8])) -> Option<()> {
    let transport = usize::from(header.csum_start);
    let is_v4 = packet.first()? >> 4 == 4;
    let own = if protocol == TCP { usize::from(*packet.get(transport + 12)? >> 4) * 4 } else { 8 };
    let headers = transport + own;
    let size = usize::from(header.gso_size);
    let least = if protocol == TCP { 20 } else { 8 };
    let sane = size > 0
        && transport >= if is_v4 { 20 } else { 40 }
        && own >= least
        && headers <= MAX_HEADERS
        && headers < packet.len();
    if !sane {
        return None;
    }
    let mut kept = [0; MAX_HEADERS];
    kept[..headers].copy_from_slice(&packet[..headers]);
    let id = u16_at(&kept, 4)?;
    let sequence = u32_at(&kept, transport + 4)?;
    let total = packet.len() - headers;
    let mut done = 0;
    let mut number: u16 = 0;
    while done < total {
        let length = size.min(total - done);
        // the headers go over the end of the packet before, which is done with
        let one = &mut packet[done..done + headers + length];
        one[..headers].copy_from_slice(&kept[..headers]);
        if is_v4 {
            put_u16(one, 2, u16::try_from(headers + length).ok()?);
            put_u16(one, 4, id.wrapping_add(number));
            set_header_checksum(one, usize::from(one[0] & 15) * 4);
        } else {
            put_u16(one, 4, u16::try_from(headers + length - 40).ok()?);
        }
        let at = if protocol == TCP {
            put_u32(one, transport + 4, sequence.wrapping_add(u32::try_from(done).ok()?));
            if done + length < total {
                one[transport + TCP_FLAGS] &= !TCP_LAST_FLAGS;
            }
            transport + TCP_CHECKSUM
        } else {
            put_u16(one, transport + 4, u16::try_from(own + length).ok()?);
            transport + UDP_CHECKSUM
        };
        put_u16(one, at, 0);
        let pseudo = pseudo_sum(one, protocol, own + length)?;
        let checksum = !sum(&one[transport..], pseudo);
        put_u16(one, at, if checksum == 0 { 0xffff } else { checksum });
        each(one);
        done += length;
        number = number.wrapping_add(1);
    }
    Some(())
}
