//! The kernel's WireGuard, with itself and with ours in user space, in a machine whose kernel has it
//! (`cargo xtask test kernel`).
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::print_stdout, reason = "what was measured is shown")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use swarm_worker_wireguard::{Encryption, KernelTunnel, Peer, Tunnel, is_of_process, remove};

mod net;
mod wire;
use net::{DEVICE, Family, Net, SOON, StopOnDrop, echo, ip, key, key_number, tcp_pair, v4, v6, wait_for};
use wire::{MARK, Wire};

fn open(net: &Net, host: usize) -> KernelTunnel {
    KernelTunnel::open(&net.settings(host), &[key(host)]).expect("the kernel makes a device")
}

/// Hosts 1 and 2 have the kernel's, host 3 has ours.
fn three(family: Family) -> (Net, Vec<KernelTunnel>, Tunnel) {
    let net = Net::new(3, family);
    let mut ours: Vec<KernelTunnel> = [1, 2].map(|host| open(&net, host)).into();
    for (at, tunnel) in ours.iter_mut().enumerate() {
        tunnel.set_peers(&net.peers_of(at + 1)).expect("peers");
    }
    let tunnel = net.start(3);
    tunnel.set_peers(net.peers_of(3)).expect("peers");
    (net, ours, tunnel)
}

fn ping(net: &Net, from: usize, to: IpAddr) {
    ip(&format!("netns exec {} ping -c 2 -i 0.2 -W 9 -q {to}", net.space(from)));
}

#[test]
fn this_kernel_has_it() {
    assert_eq!(Encryption::detect().unwrap(), Encryption::Kernel);
}

#[test]
fn it_carries_everything_between_all_of_them_and_nothing_in_clear() {
    for family in [Family::V4, Family::V6] {
        let (net, _kernels, _tunnel) = three(family);
        let wire = Wire::tap(&net);
        let large: Vec<u8> = MARK.iter().copied().cycle().take(500_000).collect();
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
            ping(&net, from, v4(to));
            ping(&net, from, v6(to));
            let (client, server) = tcp_pair(&net, from, to, v4(to));
            echo(&client, &server, MARK);
            echo(&client, &server, &large);
        }
        let seen = wire.seen();
        assert!(seen.octets > 3_000_000, "{seen:?}");
        assert_eq!(seen.clear, Vec::<String>::new());
    }
}

#[test]
fn what_a_peer_sends_in_anothers_name_is_dropped() {
    let (net, mut kernels, _tunnel) = three(Family::V4);
    ping(&net, 1, v4(2));
    // Host 2 knows host 1 under another address only.
    let other = Peer { tunnel_addrs: vec!["10.199.0.77".parse().unwrap()], ..net.peer(1) };
    kernels[1].set_peers(&[other, net.peer(3)]).unwrap();
    let server = net.inside(2, || UdpSocket::bind((v4(2), 0)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let target = server.local_addr().unwrap();
    net.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap()).send_to(b"as host 1", target).unwrap();
    assert!(server.recv(&mut [0; 16]).is_err());
    kernels[1].set_peers(&net.peers_of(2)).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    net.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap()).send_to(b"as host 1", target).unwrap();
    assert_eq!(server.recv(&mut [0; 16]).unwrap(), 9);
}

#[test]
fn who_starts_again_takes_over_sessions_and_all() {
    let (net, kernels, _tunnel) = three(Family::V4);
    let (client, server) = tcp_pair(&net, 1, 2, v4(2));
    echo(&client, &server, MARK);
    let before = kernels[0].handshakes().unwrap();
    assert!(before[&key(2).public()] != (0, 0));
    drop(kernels);
    echo(&client, &server, MARK);
    let mut again = open(&net, 1);
    again.set_peers(&net.peers_of(1)).unwrap();
    echo(&client, &server, MARK);
    assert_eq!(again.handshakes().unwrap(), before, "no session was made anew");
    assert!(again.has_moved(key(1).public()).unwrap());
    // A device that somebody has deleted is an error, and is made anew.
    ip(&format!("-n {} link del {DEVICE}", net.space(1)));
    assert!(again.follow().is_err() && again.configure(&net.settings(1)).is_err());
    let mut again = open(&net, 1);
    again.set_peers(&net.peers_of(1)).unwrap();
    echo(&client, &server, MARK);
    for host in [1, 2] {
        remove(Some(&net.path(host)), DEVICE).unwrap();
    }
    let left = std::process::Command::new("ip").args(["-n", &net.space(1), "-o", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains(DEVICE));
}

#[test]
fn a_device_of_a_process_is_told_from_the_kernels() {
    let net = Net::new(2, Family::V4);
    let _ours = net.start(1);
    let _kernels = open(&net, 2);
    assert!(net.inside(1, || is_of_process(DEVICE).unwrap()));
    assert!(!net.inside(2, || is_of_process(DEVICE).unwrap()));
    assert!(!net.inside(0, || is_of_process(DEVICE).unwrap()));
    assert!(KernelTunnel::open(&net.settings(1), &[key(1)]).is_err(), "it is not taken from the process");
}

/// Between two packets. An emulated machine is slow: what takes all of it delays the handshakes, too.
const PACE: Duration = Duration::from_millis(10);

/// Sends a packet every 10 ms and takes back what comes; the longest time without an answer.
struct Line {
    stop: AtomicBool,
    longest_us: AtomicU64,
    answers: AtomicU64,
}

impl Line {
    fn run(&self, net: &Net, from: usize, to: usize) {
        let server = net.inside(to, || UdpSocket::bind((v4(to), 0)).unwrap());
        let client = net.inside(from, || UdpSocket::bind((v4(from), 0)).unwrap());
        let target: SocketAddr = server.local_addr().unwrap();
        client.connect(target).unwrap();
        client.set_read_timeout(Some(PACE)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut octets = [0; 8];
                while !self.stop.load(Ordering::Relaxed) {
                    if let Ok((length, back)) = server.recv_from(&mut octets) {
                        drop(server.send_to(&octets[..length], back));
                    }
                }
            });
            let mut last: Option<Instant> = None;
            while !self.stop.load(Ordering::Relaxed) {
                drop(client.send(b"12345678"));
                if client.recv(&mut [0; 8]).is_ok() {
                    let now = Instant::now();
                    let gap = last.map_or(Duration::ZERO, |last| now.duration_since(last));
                    self.longest_us.fetch_max(u64::try_from(gap.as_micros()).unwrap(), Ordering::Relaxed);
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    last = Some(now);
                    std::thread::sleep(PACE);
                }
            }
        });
    }

    fn until_more(&self, count: u64) {
        let now = self.answers.load(Ordering::Relaxed);
        wait_for("answers", || self.answers.load(Ordering::Relaxed) >= now + count);
    }
}

/// The steps that the managers order, one node after the other; a connection goes on, and nobody waits long.
#[test]
fn keys_change_under_traffic() {
    let (net, mut kernels, tunnel) = three(Family::V4);
    let wire = Wire::tap(&net);
    let pairs = [(1, 2), (1, 3), (3, 2)];
    let tcp = pairs.map(|(from, to)| tcp_pair(&net, from, to, v4(to)));
    let line =
        || Line { stop: AtomicBool::new(false), longest_us: AtomicU64::new(0), answers: AtomicU64::new(0) };
    let lines = pairs.map(|_| line());
    std::thread::scope(|scope| {
        let _stop: Vec<StopOnDrop<'_>> = lines.iter().map(|line| StopOnDrop(&line.stop)).collect();
        for (line, (from, to)) in lines.iter().zip(pairs) {
            let net = &net;
            scope.spawn(move || line.run(net, from, to));
        }
        lines.iter().for_each(|line| line.until_more(50));
        for host in 1..=3 {
            let (old, new) = (key(host), key_number(host, 200));
            let knows = |kernels: &mut Vec<KernelTunnel>, keys: &[&swarm_worker_wireguard::KeyPair]| {
                let keys: Vec<_> = keys.iter().map(|pair| pair.public()).collect();
                for other in (1..=3).filter(|other| *other != host) {
                    let mut peers = net.peers_of(other);
                    for peer in &mut peers {
                        let number = (1..=3).find(|n| peer.keys[0] == key(*n).public()).unwrap();
                        if number == host {
                            peer.keys.clone_from(&keys);
                        } else if number < host {
                            // they have changed theirs already
                            peer.keys = vec![key_number(number, 200).public()];
                        }
                    }
                    match other {
                        3 => tunnel.set_peers(peers).unwrap(),
                        _ => kernels[other - 1].set_peers(&peers).unwrap(),
                    }
                }
            };
            let own = |kernels: &mut Vec<KernelTunnel>, keys: Vec<swarm_worker_wireguard::KeyPair>| match host
            {
                3 => tunnel.set_own_keys(keys).unwrap(),
                _ => kernels[host - 1].set_own_keys(&keys).unwrap(),
            };
            own(&mut kernels, vec![old.clone(), new.clone()]);
            knows(&mut kernels, &[&old, &new]);
            lines.iter().for_each(|line| line.until_more(20));
            own(&mut kernels, vec![new.clone(), old.clone()]);
            knows(&mut kernels, &[&new, &old]);
            let public = new.public();
            wait_for(&format!("all sessions of host {host} are of the new key"), || {
                kernels.iter_mut().filter(|kernel| kernel.is_changing()).for_each(|kernel| {
                    kernel.follow().unwrap();
                });
                match host {
                    3 => tunnel
                        .peers()
                        .iter()
                        .all(|peer| peer.session.as_ref().is_some_and(|s| s.own == public)),
                    _ => kernels[host - 1].has_moved(public).unwrap(),
                }
            });
            // those who look for which key is used do so for as long as there are two
            for line in &lines {
                let now = line.answers.load(Ordering::Relaxed);
                wait_for("answers after the change", || {
                    kernels.iter_mut().for_each(|kernel| assert!(kernel.follow().is_ok()));
                    line.answers.load(Ordering::Relaxed) >= now + 20
                });
            }
            knows(&mut kernels, &[&new]);
            own(&mut kernels, vec![new]);
            lines.iter().for_each(|line| line.until_more(20));
            tcp.iter().for_each(|(client, server)| echo(client, server, MARK));
        }
    });
    for (line, pair) in lines.iter().zip(pairs) {
        let longest = Duration::from_micros(line.longest_us.load(Ordering::Relaxed));
        println!("{pair:?}: longest without an answer {longest:?}");
        assert!(longest < Duration::from_secs(4), "sooner than the protocol's own timers");
    }
    assert_eq!(wire.seen().clear, Vec::<String>::new());
}
