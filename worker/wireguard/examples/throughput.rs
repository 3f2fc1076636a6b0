//! What the tunnel carries, against the underlay without it in the same run. Needs root.
//!
//! `cargo run --release -p swarm-worker-wireguard --example throughput [ROUNDS]`
#![allow(clippy::print_stdout, reason = "figures for a person")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

#[path = "../tests/net/mod.rs"]
mod net;
use net::{Family, Net};

const LASTS: Duration = Duration::from_secs(2);

/// Processor seconds of this process, the kernel's on its behalf included.
fn processor() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let seconds = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs()).as_secs_f64();
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Gbit/s of `streams` TCP streams from host 1 to an address of host 2, and processor seconds for each Gbit.
fn pump(net: &Net, to: IpAddr, streams: usize) -> (f64, f64) {
    let cost = processor();
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
    let gbits = total as f64 * 8.0 / 1e9;
    (gbits / begin.elapsed().as_secs_f64(), (processor() - cost) / gbits)
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

/// An overlay between the hosts, once on the underlay and once inside the tunnel.
fn overlay(net: &Net, device: &str, id: u8, mtu: u16, ends: [IpAddr; 2]) -> IpAddr {
    for host in [1, 2] {
        let (local, remote) = (ends[host - 1], ends[2 - host]);
        let space = net.space(host);
        net::ip(&format!(
            "-n {space} link add {device} type vxlan id {id} local {local} remote {remote} dstport 4789"
        ));
        net::ip(&format!("-n {space} addr add 10.{id}.0.{host}/24 dev {device}"));
        net::ip(&format!("-n {space} link set {device} mtu {mtu} up"));
    }
    [10, id, 0, 2].into()
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(3, |n| n.parse().expect("a number"));
    for family in [Family::V4, Family::V6] {
        let net = Net::new(2, family);
        let tunnels = net.start_all();
        net::wait_for_sessions(&tunnels);
        let bare = overlay(&net, "bare", 42, 1430, [net.underlay(1), net.underlay(2)]);
        let sealed = overlay(&net, "sealed", 43, 1370, [net::v4(1), net::v4(2)]);
        for _ in 0..rounds {
            compare(&net, family, "1 stream", [net.underlay(2), net::v4(2)], 1);
            compare(&net, family, "4 streams", [net.underlay(2), net::v4(2)], 4);
            compare(&net, family, "overlay, 1 stream", [bare, sealed], 1);
            let (raw, inside) = (round_trip(&net, net.underlay(2)), round_trip(&net, net::v4(2)));
            println!("{family:?} round trip: raw {raw:.0} tunnel {inside:.0} us");
        }
        println!("{:?}", tunnels[1].counters());
    }
}

/// The same without and with the tunnel.
fn compare(net: &Net, family: Family, what: &str, ways: [IpAddr; 2], streams: usize) {
    let [(raw, raw_cost), (inside, cost)] = ways.map(|to| pump(net, to, streams));
    println!(
        "{family:?} {what}: raw {raw:.2} tunnel {inside:.2} Gbit/s, ratio {:.3}; \
         processor {raw_cost:.3} and {cost:.3} s for each Gbit",
        inside / raw
    );
}
