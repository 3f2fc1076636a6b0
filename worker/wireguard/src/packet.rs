//! What the tunnel needs to know of an inner packet, and checksums.

use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Source and destination of a packet, `None` if it is neither IPv4 nor IPv6 or not as long as it says.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let length = usize::from(u16_at(packet, 2)?);
            let header = usize::from(packet[0] & 15) * 4;
            let fits = header >= IPV4_HEADER && header <= length && length <= packet.len();
            fits.then_some((v4_at(packet, 12)?, v4_at(packet, 16)?))
        }
        6 => {
            let length = usize::from(u16_at(packet, 4)?) + IPV6_HEADER;
            (length <= packet.len()).then_some((v6_at(packet, 8)?, v6_at(packet, 24)?))
        }
        _ => None,
    }
}

fn v4_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?))
}

fn v6_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?))
}

pub(crate) fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?))
}

/// Writes two octets; does nothing where they do not fit.
pub(crate) fn put_u16(packet: &mut [u8], at: usize, value: u16) {
    if let Some(place) = packet.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes four octets; does nothing where they do not fit.
pub(crate) fn put_u32(packet: &mut [u8], at: usize, value: u32) {
    if let Some(place) = packet.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The sum of RFC 1071 over `octets`, on top of an earlier one of an even length, not inverted.
pub(crate) fn sum(octets: &[u8], earlier: u16) -> u16 {
    let chunks = octets.chunks_exact(4);
    let mut rest = [0; 4];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    // words of the machine's order: the sum is the same with its octets swapped
    let word = |four: &[u8]| u64::from(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
    let total: u64 = chunks.map(word).sum::<u64>() + word(&rest);
    let (high, low) = (total >> 32, total & 0xffff_ffff);
    let folded = high + low;
    let own = fold((folded >> 16) + (folded & 0xffff));
    fold(u64::from(u16::from_be(own)) + u64::from(earlier))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    u16::try_from(total).unwrap_or(u16::MAX)
}

/// The sum over what TCP and UDP checksums cover beside the segment: the addresses, the protocol, its length.
pub(crate) fn pseudo_sum(packet: &[u8], protocol: u8, length: usize) -> Option<u16> {
    let addresses = match packet.first()? >> 4 {
        4 => packet.get(12..20)?,
        6 => packet.get(8..40)?,
        _ => return None,
    };
    let tail = [0, protocol];
    let length = u32::try_from(length).ok()?.to_be_bytes();
    Some(sum(&length, sum(&tail, sum(addresses, 0))))
}

/// Sets the checksum of an IPv4 header of `length` octets.
pub(crate) fn set_header_checksum(packet: &mut [u8], length: usize) {
    put_u16(packet, 10, 0);
    let header = packet.get(..length).unwrap_or_default();
    let checksum = !sum(header, 0);
    put_u16(packet, 10, checksum);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3.
    #[test]
    fn the_sum_of_the_standard() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&octets, 0), 0xddf2);
        assert_eq!(sum(&octets[4..], sum(&octets[..4], 0)), 0xddf2);
        assert_eq!(sum(&[0x12], 0), 0x1200);
        assert_eq!(sum(&[], 7), 7);
        assert_eq!(sum(&[0xff; 1500], 0), 0xffff);
    }

    #[test]
    fn a_header_of_a_real_packet() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
            0xa8, 0x00, 0xc7,
        ];
        set_header_checksum(&mut header, 20);
        assert_eq!(u16_at(&header, 10), Some(0xb861));
    }

    #[test]
    fn lengths_have_to_agree() {
        let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let (from, to) = addresses(&packet).unwrap();
        assert_eq!((from.to_string(), to.to_string()), ("10.0.0.1".into(), "10.0.0.2".into()));
        packet[3] = 21;
        assert_eq!(addresses(&packet), None);
        packet[3] = 19;
        assert_eq!(addresses(&packet), None);
        packet[3] = 20;
        packet[0] = 0x44;
        assert_eq!(addresses(&packet), None);
        packet[0] = 0x46;
        assert_eq!(addresses(&packet), None);
        for octets in [&[][..], &[0x45], &[0x60; 39], &[0x10; 60], &[0xff; 60]] {
            assert_eq!(addresses(octets), None);
        }
    }
}
