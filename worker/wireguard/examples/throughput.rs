//! What the tunnel carries, against the underlay without it in the same run. Needs root.
//!
//! `cargo run --release -p swarm-worker-wireguard --example throughput [ROUNDS]`

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[path = "../tests/net/mod.rs"]
mod net;
use net::{Family, Net};

const LASTS: Duration = Duration::from_secs(2);

/// Gbit/s of `streams` TCP streams from host 1 to an address of host 2.
fn pump(net: &Net, to: IpAddr, streams: usize) -> f64 {
    let listener = net.inside(2, || TcpListener::bind(SocketAddr::new(to, 0)).expect("bind"));
    let target = listener.local_addr().expect("bound");
    let begin = Instant::now();
    let total: usize = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..streams)
            .map(|_| {
                let mut client = net.inside(1, || TcpStream::connect(target).expect("connect"));
                let mut server = listener.accept().expect("accept").0;
                scope.spawn(move || {
                    let octets = vec![7; 1 << 17];
                    while begin.elapsed() < LASTS {
                        client.write_all(&octets).expect("write");
                    }
                });
                scope.spawn(move || {
                    let mut octets = vec![0; 1 << 18];
                    let mut total = 0;
                    loop {
                        match server.read(&mut octets).expect("read") {
                            0 => return total,
                            length => total += length,
                        }
                    }
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("reader")).sum()
    });
    total as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
}

/// Microseconds for 64 octets to the other host and back, the median.
fn round_trip(net: &Net, to: IpAddr) -> f64 {
    let listener = net.inside(2, || TcpListener::bind(SocketAddr::new(to, 0)).expect("bind"));
    let target = listener.local_addr().expect("bound");
    let mut client = net.inside(1, || TcpStream::connect(target).expect("connect"));
    let mut server = listener.accept().expect("accept").0;
    client.set_nodelay(true).expect("option");
    server.set_nodelay(true).expect("option");
    let echo = std::thread::spawn(move || {
        let mut octets = [0; 64];
        while server.read_exact(&mut octets).is_ok() {
            server.write_all(&octets).expect("write");
        }
    });
    let mut times: Vec<Duration> = (0..2000)
        .map(|_| {
            let begin = Instant::now();
            client.write_all(&[1; 64]).expect("write");
            client.read_exact(&mut [0; 64]).expect("read");
            begin.elapsed()
        })
        .collect();
    drop(client);
    echo.join().expect("echo");
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(3, |n| n.parse().expect("a number"));
    for family in [Family::V4, Family::V6] {
        let net = Net::new(2, family);
        let tunnels = net.start_all();
        net::wait_for_sessions(&tunnels);
        for _ in 0..rounds {
            for streams in [1, 4] {
                let raw = pump(&net, net.underlay(2), streams);
                let inside = pump(&net, net::v4(2), streams);
                let ratio = inside / raw;
                println!(
                    "{family:?} {streams} streams: raw {raw:.2} tunnel {inside:.2} Gbit/s, ratio {ratio:.3}"
                );
            }
            let (raw, inside) = (round_trip(&net, net.underlay(2)), round_trip(&net, net::v4(2)));
            println!("{family:?} round trip: raw {raw:.0} tunnel {inside:.0} us");
        }
        println!("{:?}", tunnels[1].counters());
    }
}
