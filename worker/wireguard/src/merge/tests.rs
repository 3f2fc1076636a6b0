use proptest::prelude::*;

use super::*;
use crate::packet::put_u32;
use crate::split::{Malformed, split};

const FLAGS: usize = 13;

/// A packet with right lengths and checksums.
fn packet(is_v4: bool, protocol: u8, number: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let transport = if is_v4 { 20 } else { 40 };
    let own = if protocol == TCP { 32 } else { 8 };
    let mut made = vec![0; transport + own];
    made.extend_from_slice(payload);
    let length = u16::try_from(made.len()).unwrap();
    if is_v4 {
        made[0] = 0x45;
        put_u16(&mut made, 2, length);
        put_u16(&mut made, 4, number);
        put_u16(&mut made, 6, DONT_FRAGMENT);
        (made[8], made[9]) = (64, protocol);
        made[12..20].copy_from_slice(&[10, 199, 0, 1, 10, 199, 0, 2]);
        set_header_checksum(&mut made, 20);
    } else {
        made[0] = 0x60;
        put_u16(&mut made, 4, length - 40);
        (made[6], made[7]) = (protocol, 64);
        (made[8], made[23], made[24], made[39]) = (0xfd, 1, 0xfd, 2);
    }
    put_u16(&mut made, transport, 4000);
    put_u16(&mut made, transport + 2, 80);
    if protocol == TCP {
        put_u32(&mut made, transport + 4, sequence);
        made[transport + 12] = 8 << 4;
        made[transport + FLAGS] = ACK;
        put_u16(&mut made, transport + 14, 512);
    } else {
        put_u16(&mut made, transport + 4, length - u16::try_from(transport).unwrap());
    }
    seal(&mut made, transport, protocol);
    made
}

fn seal(packet: &mut [u8], transport: usize, protocol: u8) {
    let at = transport + if protocol == TCP { 16 } else { 6 };
    put_u16(packet, at, 0);
    let pseudo = pseudo_sum(packet, protocol, packet.len() - transport).unwrap();
    let checksum = !sum(&packet[transport..], pseudo);
    put_u16(packet, at, if checksum == 0 { 0xffff } else { checksum });
}

/// What is written to the device when these come.
fn merged(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut written = Vec::new();
    let mut merger = Merger::new(true);
    for packet in packets {
        merger.push(packet, |whole| written.push(whole.to_vec()));
    }
    merger.flush(|whole| written.push(whole.to_vec()));
    written
}

fn cut_again(written: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for mut whole in written {
        split(&mut whole, |packet| found.push(packet.to_vec())).unwrap();
    }
    found
}

/// A stream of packets of these sizes.
fn stream(is_v4: bool, protocol: u8, sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut sequence = u32::MAX - 1000;
    let packets = sizes.iter().zip(0..).map(|(size, number)| {
        let payload: Vec<u8> = (0..*size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let made = packet(is_v4, protocol, number, sequence, &payload);
        sequence = sequence.wrapping_add(u32::try_from(*size).unwrap());
        made
    });
    packets.collect()
}

#[test]
fn a_stream_becomes_one_and_is_cut_into_the_same_again() {
    for is_v4 in [true, false] {
        for protocol in [TCP, UDP] {
            let packets = stream(is_v4, protocol, &[1400, 1400, 1400, 300]);
            let written = merged(&packets);
            assert_eq!(written.len(), 1, "v4 {is_v4} protocol {protocol}");
            assert_eq!(cut_again(written), packets, "v4 {is_v4} protocol {protocol}");
        }
    }
}

#[test]
fn runs_end_where_a_packet_is_smaller_and_at_64() {
    assert_eq!(merged(&stream(true, TCP, &[1000, 900, 900])).len(), 2);
    assert_eq!(merged(&stream(true, TCP, &[900, 1000])).len(), 2);
    assert_eq!(merged(&stream(true, UDP, &[100; 130])).len(), 3);
    assert_eq!(merged(&stream(false, TCP, &[1400; 50])).len(), 2, "no more than 64 KiB");
}

#[test]
fn what_differs_goes_alone() {
    let change = |at: usize, value: u8| {
        let mut packets = stream(true, TCP, &[500, 500]);
        packets[1][at] = value;
        set_header_checksum(&mut packets[1], 20);
        seal(&mut packets[1], 20, TCP);
        let written = merged(&packets);
        assert_eq!(cut_again(written.clone()), packets, "octet {at}");
        written.len()
    };
    assert_eq!(change(40, 9), 2, "options: the timestamp");
    assert_eq!(change(20 + 4, 9), 2, "sequence");
    assert_eq!(change(20 + 8, 9), 2, "acknowledged");
    assert_eq!(change(20 + 14, 9), 2, "window");
    assert_eq!(change(20 + FLAGS, ACK | 0x01), 2, "FIN");
    assert_eq!(change(20 + FLAGS, ACK | 0x40), 2, "ECE");
    assert_eq!(change(20 + FLAGS, ACK | PSH), 1, "PSH ends a run and is in it");
    assert_eq!(change(1, 3), 2, "congestion");
    assert_eq!(change(8, 9), 2, "hops left");
    assert_eq!(change(15, 9), 2, "source");
    assert_eq!(change(21, 9), 2, "port");
    assert_eq!(change(60, 9), 1, "payload");
}

#[test]
fn fragments_and_acknowledgements_go_alone() {
    let mut packets = stream(true, UDP, &[500, 500]);
    for packet in &mut packets {
        put_u16(packet, 6, MORE_FRAGMENTS);
        set_header_checksum(packet, 20);
    }
    assert_eq!(merged(&packets).len(), 2);
    assert_eq!(merged(&stream(true, TCP, &[0, 0])).len(), 2);
}

#[test]
fn a_damaged_packet_stays_damaged() {
    for damaged in 0..3 {
        let mut packets = stream(true, TCP, &[500, 500, 500]);
        packets[damaged][300] ^= 1;
        let found = cut_again(merged(&packets));
        assert_eq!(found, packets, "number {damaged}");
    }
}

#[test]
fn without_the_kernels_help_udp_goes_alone() {
    let packets = stream(true, UDP, &[500, 500]);
    let mut written = 0;
    let mut merger = Merger::new(false);
    packets.iter().for_each(|packet| merger.push(packet, |_| written += 1));
    merger.flush(|_| written += 1);
    assert_eq!(written, 2);
}

#[test]
fn large_udp_without_a_checksum_gets_one() {
    let mut packets = stream(true, UDP, &[500, 500]);
    packets.iter_mut().for_each(|packet| put_u16(packet, 26, 0));
    assert_eq!(cut_again(merged(&packets)), stream(true, UDP, &[500, 500]));
}

#[test]
fn nonsense_from_the_device_is_refused() {
    let good = merged(&stream(true, TCP, &[500, 500])).remove(0);
    for (at, value) in [(1, 3), (1, 99), (4, 0), (6, 0), (6, 255), (10, 0x65)] {
        let mut bad = good.clone();
        bad[at] = value;
        if at == 4 {
            bad[5] = 0;
        }
        assert_eq!(split(&mut bad, |_| {}), Err(Malformed), "octet {at} = {value}");
    }
    assert_eq!(split(&mut [], |_| {}), Err(Malformed));
    assert_eq!(split(&mut [0; 9], |_| {}), Err(Malformed));
    assert_eq!(split(&mut [1; 10], |_| {}), Err(Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_leaves_as_it_came(
        is_v4: bool,
        tcp: bool,
        sizes in prop::collection::vec(prop_oneof![1..40_usize, Just(700), Just(1400)], 1..80),
        odd in prop::collection::vec((0..80_usize, 0..60_usize, any::<u8>()), 0..4),
    ) {
        let mut packets = stream(is_v4, if tcp { TCP } else { UDP }, &sizes);
        for (number, at, value) in odd {
            let number = number % packets.len();
            // not the length and the checksum of the header, which nobody outside could get wrong
            if let Some(octet) = packets[number].get_mut(at).filter(|_| !(2..6).contains(&at) && at != 26 && at != 27) {
                *octet = value;
            }
        }
        prop_assert_eq!(cut_again(merged(&packets)), packets);
    }

    #[test]
    fn garbage_from_the_device_is_survived(mut octets in prop::collection::vec(any::<u8>(), 0..300), kind in 0..7_u8) {
        if let Some(first) = octets.get_mut(1) {
            *first = kind;
        }
        // small numbers lead further
        for at in [3, 5, 7, 9] {
            if let Some(octet) = octets.get_mut(at) {
                *octet = 0;
            }
        }
        let _ = split(&mut octets, |_| {});
    }

    #[test]
    fn garbage_from_a_peer_is_handed_on(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 1..20)) {
        let written: Vec<Vec<u8>> = merged(&packets).iter().map(|whole| whole[VNET_HDR_LEN..].to_vec()).collect();
        prop_assert_eq!(written, packets);
    }
}
