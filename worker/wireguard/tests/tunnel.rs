//! Tunnels between hosts: what goes through, what does not, and that none of it is seen on the way.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use swarm_worker_wireguard::{DeviceError, Peer, StartError, Tunnel, remove};

mod net;
mod wire;
use net::{
    DEVICE, Family, Net, SOON, StopOnDrop, echo, ip, key, key_number, tcp_pair, v4, v6, wait_for,
    wait_for_sessions,
};
use wire::{MARK, Wire};

/// The protocol's own timers would try again after 5 s. Milliseconds where the machine is not busy.
const BEFORE_THE_PROTOCOL: Duration = Duration::from_secs(4);

fn udp_pair(net: &Net, from: usize, to_host: usize, to: IpAddr) -> (UdpSocket, UdpSocket) {
    let server = net.inside(to_host, || UdpSocket::bind((to, 0)).expect("bind"));
    let target = server.local_addr().unwrap();
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = net.inside(from, || UdpSocket::bind((any, 0)).expect("bind"));
    client.connect(target).unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    (client, server)
}

fn ping(net: &Net, from: usize, to: IpAddr) {
    ip(&format!("netns exec {} ping -c 2 -i 0.2 -W 5 -q {to}", net.space(from)));
}

#[test]
fn all_kinds_of_packets_go_both_ways_over_both_families() {
    for family in [Family::V4, Family::V6] {
        let net = Net::new(2, family);
        let wire = Wire::tap(&net);
        let tunnels = net.start_all();
        wait_for_sessions(&tunnels);
        let large: Vec<u8> = MARK.iter().copied().cycle().take(3_000_000).collect();
        for (from, to_host) in [(1, 2), (2, 1)] {
            for to in [v4(to_host), v6(to_host)] {
                ping(&net, from, to);
                let (client, server) = tcp_pair(&net, from, to_host, to);
                echo(&client, &server, MARK);
                echo(&client, &server, &large);
                let (client, server) = udp_pair(&net, from, to_host, to);
                for length in [0, 1, 100, 1372, 1400, 8000, 40_000] {
                    let mut got = vec![0; 65_536];
                    client.send(&large[..length]).unwrap();
                    let (got_length, back) = server.recv_from(&mut got).unwrap();
                    assert_eq!(&got[..got_length], &large[..length], "{family:?} {to}");
                    server.send_to(&got[..got_length], back).unwrap();
                    assert_eq!(client.recv(&mut got).unwrap(), length);
                }
            }
        }
        for tunnel in &tunnels {
            let counters = tunnel.counters();
            assert_eq!((counters.no_peer, counters.malformed_inner, counters.send_failed), (0, 0, 0));
            assert_eq!((counters.bad_datagram, counters.replayed, counters.spoofed), (0, 0, 0));
        }
        let seen = wire.seen();
        assert!(seen.octets > 24_000_000, "{seen:?}");
        assert_eq!(seen.clear, Vec::<String>::new());
    }
}

#[test]
fn the_wire_would_show_clear_text() {
    let net = Net::new(2, Family::V4);
    let wire = Wire::tap(&net);
    let (client, _server) = udp_pair(&net, 1, 2, net.underlay(2));
    client.send(MARK).unwrap();
    wait_for("clear text", || !wire.seen().clear.is_empty());
}

#[test]
fn three_nodes_talk_to_each_other_and_only_as_themselves() {
    let net = Net::new(3, Family::V4);
    let wire = Wire::tap(&net);
    let tunnels = net.start_all();
    wait_for_sessions(&tunnels);
    for from in 1..=3 {
        for to in (1..=3).filter(|to| *to != from) {
            let (client, server) = tcp_pair(&net, from, to, v4(to));
            echo(&client, &server, MARK);
        }
    }
    // host 3 speaks as host 1
    ip(&format!("-n {} addr add 10.199.0.1/32 dev {DEVICE}", net.space(3)));
    let target = net.inside(2, || UdpSocket::bind((v4(2), 0)).unwrap());
    let liar = net.inside(3, || UdpSocket::bind((v4(1), 0)).unwrap());
    liar.send_to(MARK, target.local_addr().unwrap()).unwrap();
    wait_for("the lie to be noticed", || tunnels[1].counters().spoofed == 1);
    target.set_nonblocking(true).unwrap();
    assert!(target.recv(&mut [0; 100]).is_err());
    // nobody is 10.199.0.9
    let before = tunnels[0].counters().no_peer;
    let socket = net.inside(1, || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.send_to(MARK, "10.199.0.9:9").unwrap();
    wait_for("the packet to nobody", || tunnels[0].counters().no_peer == before + 1);
    assert_eq!(wire.seen().clear, Vec::<String>::new());
}

/// Sends numbered datagrams back and forth both ways, thousands in a second, until told to stop; none may be
/// lost or come twice.
fn without_loss(net: &Net, during: impl FnOnce()) -> u64 {
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let stop = &stop;
        let directions = [(1, 2), (2, 1)].map(|(from, to)| {
            let (client, server) = udp_pair(net, from, to, v4(to));
            let sender = scope.spawn(move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    client.send(&[&number.to_le_bytes()[..], MARK].concat()).expect("send");
                    number += 1;
                    std::thread::sleep(Duration::from_micros(200));
                }
                client.send(&u64::MAX.to_le_bytes()).expect("send");
                number
            });
            let receiver = scope.spawn(move || {
                let mut octets = [0; 200];
                let mut expected = 0_u64;
                loop {
                    server.recv(&mut octets).expect("a datagram in time");
                    let number = u64::from_le_bytes(octets[..8].try_into().unwrap());
                    if number == u64::MAX {
                        return expected;
                    }
                    assert!(number == expected, "number {number} came where {expected} should have");
                    expected += 1;
                }
            });
            (sender, receiver)
        });
        {
            let _stop = StopOnDrop(stop);
            during();
        }
        directions.map(|(sender, receiver)| {
            let sent = sender.join().expect("sender");
            assert_eq!(receiver.join().expect("receiver"), sent);
            sent
        })
    });
    sent.iter().sum()
}

#[test]
fn keys_change_under_traffic_without_a_lost_packet() {
    let net = Net::new(2, Family::V4);
    let wire = Wire::tap(&net);
    let tunnels = net.start_all();
    wait_for_sessions(&tunnels);
    let (node, other) = (&tunnels[0], &tunnels[1]);
    let peer_with = |numbers: &[u8]| Peer {
        keys: numbers.iter().map(|number| key_number(1, *number).public()).collect(),
        ..net.peer(1)
    };
    let sent = without_loss(&net, || {
        for old in 0..8 {
            let new = old + 1;
            let (old_pair, new_pair) = (key_number(1, old), key_number(1, new));
            let before = (node.counters().received, other.counters().received);
            node.set_own_keys(vec![old_pair.clone(), new_pair.clone()]).unwrap();
            other.set_peers(vec![peer_with(&[old, new])]).unwrap();
            node.set_own_keys(vec![new_pair.clone(), old_pair]).unwrap();
            let uses_new = |tunnel: &Tunnel, is_own: bool| {
                let session = tunnel.peers()[0].session.clone();
                session.is_some_and(|s| if is_own { s.own } else { s.theirs } == new_pair.public())
            };
            wait_for("the node to use the new key", || uses_new(node, true));
            other.set_peers(vec![peer_with(&[new, old])]).unwrap();
            wait_for("the peer to use the new key", || uses_new(other, false));
            other.set_peers(vec![peer_with(&[new])]).unwrap();
            node.set_own_keys(vec![new_pair.clone()]).unwrap();
            wait_for("traffic both ways", || {
                node.counters().received > before.0 + 200 && other.counters().received > before.1 + 200
            });
        }
    });
    assert!(sent > 3000, "{sent}");
    let seen = wire.seen();
    assert!(seen.octets > sent * MARK.len() as u64, "{seen:?}");
    assert_eq!(seen.clear, Vec::<String>::new());
}

#[test]
fn steps_of_a_change_in_the_wrong_order_heal() {
    let net = Net::new(2, Family::V4);
    let tunnels = net.start_all();
    wait_for_sessions(&tunnels);
    // the node begins with a key that nobody knows
    tunnels[0].set_own_keys(vec![key_number(1, 1), key(1)]).unwrap();
    ping(&net, 1, v4(2));
    ping(&net, 2, v4(1));
    // its old one is gone before the new one is known, and known later
    tunnels[0].set_own_keys(vec![key_number(1, 1)]).unwrap();
    tunnels[1].set_peers(vec![Peer { keys: vec![key_number(1, 1).public()], ..net.peer(1) }]).unwrap();
    ping(&net, 1, v4(2));
}

#[test]
fn a_peer_that_moves_is_followed() {
    let net = Net::new(2, Family::V4);
    let listen = SocketAddr::new([0, 0, 0, 0].into(), net::PORT);
    let mut settings = net.settings(1);
    settings.listen = listen;
    let tunnels = [Tunnel::start(&settings, vec![key(1)]).unwrap(), net.start(2)];
    tunnels[0].set_peers(vec![net.peer(2)]).unwrap();
    tunnels[1].set_peers(vec![net.peer(1)]).unwrap();
    wait_for_sessions(&tunnels);
    let (client, server) = tcp_pair(&net, 1, 2, v4(2));
    echo(&client, &server, MARK);
    let elsewhere: IpAddr = "192.168.77.99".parse().unwrap();
    ip(&format!("-n {} addr del {}/24 dev eth0", net.space(1), net.underlay(1)));
    net.add_address(1, elsewhere);
    echo(&client, &server, MARK);
    assert_eq!(tunnels[1].peers()[0].endpoint, SocketAddr::new(elsewhere, net::PORT));
    // the same settings again do not send it back
    tunnels[1].set_peers(vec![net.peer(1)]).unwrap();
    echo(&client, &server, MARK);
    assert_eq!(tunnels[1].counters().roamed, 1);
}

#[test]
fn a_session_is_there_soon_whoever_comes_first() {
    let net = Net::new(2, Family::V4);
    let first = net.start(1);
    first.set_peers(net.peers_of(1)).unwrap();
    let (client, server) = {
        let client = net.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap());
        client.send_to(b"waits", (v4(2), 7000)).unwrap();
        let second = net.start(2);
        let server = net.inside(2, || UdpSocket::bind((v4(2), 7000)).unwrap());
        server.set_read_timeout(Some(SOON)).unwrap();
        let begin = Instant::now();
        second.set_peers(net.peers_of(2)).unwrap();
        // what was sent before there was anyone arrives
        let mut octets = [0; 100];
        let length = server.recv(&mut octets).unwrap();
        assert_eq!(&octets[..length], b"waits");
        eprintln!("first after {:?}", begin.elapsed());
        assert!(begin.elapsed() < BEFORE_THE_PROTOCOL, "{:?}", begin.elapsed());
        drop(second);
        (client, server)
    };
    // the second goes and comes back: it has no session, the first believes it has
    let second = net.start(2);
    let begin = Instant::now();
    second.set_peers(net.peers_of(2)).unwrap();
    wait_for("a session", || second.peers()[0].session.is_some());
    // what the first sends until it has heard of the new session is lost
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut octets = [0; 100];
    wait_for("a datagram in the new session", || {
        client.send_to(b"again", (v4(2), 7000)).unwrap();
        server.recv(&mut octets).is_ok()
    });
    assert_eq!(&octets[..5], b"again");
    eprintln!("again after {:?}", begin.elapsed());
    assert!(begin.elapsed() < BEFORE_THE_PROTOCOL, "{:?}", begin.elapsed());
}

#[test]
fn a_device_is_one_processs_and_is_removed_with_all_it_left() {
    let net = Net::new(1, Family::V4);
    let tunnel = net.start(1);
    let mut second = net.settings(1);
    second.listen.set_port(0);
    match Tunnel::start(&second, vec![key(1)]) {
        Err(StartError::Device(DeviceError::Busy { device })) => assert_eq!(device, DEVICE),
        other => panic!("{:?}", other.err()),
    }
    let mut same_port = net.settings(1);
    same_port.device = "other".into();
    let refused = Tunnel::start(&same_port, vec![key(1)]).err();
    assert!(matches!(refused, Some(StartError::Device(DeviceError::Bind { .. }))), "{refused:?}");
    assert!(tunnel.is_running());

    drop(tunnel);
    let reaches = |address: &str| {
        let socket = net.inside(1, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.send_to(MARK, (address, 9)).is_ok()
    };
    let wire = Wire::tap(&net);
    assert!(reaches("10.199.0.2"), "a device that nobody reads swallows");
    // somebody deletes it: the networks stay unreachable
    ip(&format!("-n {} link del {DEVICE}", net.space(1)));
    assert!(!reaches("10.199.0.2"));
    assert_eq!(wire.seen().clear, Vec::<String>::new());
    drop(net.start(1));
    remove(Some(&net.path(1)), DEVICE).unwrap();
    assert!(reaches("10.199.0.2"), "all is as it was: there is a default route");
    remove(Some(&net.path(1)), DEVICE).unwrap();
}

#[test]
fn a_tunnel_says_when_its_device_is_gone() {
    let net = Net::new(1, Family::V4);
    let tunnel = net.start(1);
    assert!(tunnel.is_running());
    remove(Some(&net.path(1)), DEVICE).unwrap();
    wait_for("the tunnel to say so", || !tunnel.is_running());
}

#[test]
fn a_changed_address_replaces_the_one_before() {
    let net = Net::new(2, Family::V4);
    let mut settings = net.settings(1);
    settings.addresses = vec![(v4(77), 16)];
    drop(Tunnel::start(&settings, vec![key(1)]).unwrap());
    let tunnels = net.start_all();
    wait_for_sessions(&tunnels);
    ping(&net, 2, v4(1));
    let taken = net.inside(1, || UdpSocket::bind((v4(77), 0)).is_ok());
    assert!(!taken, "the address of before is still there");
}

#[test]
fn an_underlay_that_carries_less_than_we_were_told_is_no_black_hole() {
    for family in [Family::V4, Family::V6] {
        let net = Net::new(2, family);
        for host in [1, 2] {
            ip(&format!("-n {} link set eth0 mtu 1300", net.space(host)));
        }
        let tunnels = net.start_all();
        wait_for_sessions(&tunnels);
        let (client, server) = tcp_pair(&net, 1, 2, v4(2));
        echo(&client, &server, &MARK.repeat(30_000));
        assert_eq!(tunnels.iter().map(|tunnel| tunnel.counters().send_failed).sum::<u64>(), 0);
    }
}

#[test]
fn a_flood_of_garbage_does_not_disturb() {
    let net = Net::new(3, Family::V4);
    let tunnels = [net.start(1), net.start(2)];
    tunnels[0].set_peers(vec![net.peer(2)]).unwrap();
    tunnels[1].set_peers(vec![net.peer(1)]).unwrap();
    wait_for_sessions(&tunnels);
    let (client, server) = tcp_pair(&net, 1, 2, v4(2));
    let stranger = net.inside(3, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0_u64;
            for round in 0..4000_u32 {
                for (kind, length) in [(0_u8, 1), (1, 148), (2, 92), (3, 64), (4, 32), (4, 1400), (9, 500)] {
                    let mut octets = vec![round.to_le_bytes()[0]; length];
                    octets[0] = kind;
                    octets.iter_mut().skip(1).take(3).for_each(|octet| *octet = 0);
                    stranger.send_to(&octets, net.endpoint(2)).unwrap();
                    sent += 1;
                }
            }
            sent
        });
        for _ in 0..50 {
            echo(&client, &server, &MARK.repeat(1000));
        }
        flood.join().unwrap()
    });
    let thrown = || {
        let c = tunnels[1].counters();
        c.bad_datagram + c.unknown_session + c.unknown_key + c.bad_authentication
    };
    // the kernel may have had no room for some
    wait_for("the garbage to be counted", || thrown() > sent / 2);
    assert_eq!((tunnels[1].counters().spoofed, tunnels[1].counters().roamed), (0, 0));
    echo(&client, &server, MARK);
}

#[test]
#[ignore = "sessions are renewed every two minutes: takes five"]
fn sessions_are_renewed_under_traffic_without_a_lost_packet() {
    let net = Net::new(2, Family::V4);
    let tunnels = net.start_all();
    wait_for_sessions(&tunnels);
    let age = || tunnels[0].peers()[0].session.as_ref().map(|session| session.age);
    let sent = without_loss(&net, || {
        for _ in 0..2 {
            let mut oldest = Duration::ZERO;
            while age().expect("there is always a session") >= oldest {
                oldest = age().unwrap_or_default();
                assert!(oldest < Duration::from_secs(150), "{oldest:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    assert!(sent > 100_000, "{sent}");
}
