//! The keys of encrypted networks change while tasks talk: nothing is lost, and old keys are forgotten.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, Inside, Load, Traffic, until, until_in};

use crate::network_names::addrs;
use crate::network_update::{SERVER, patient};

#[test]
fn keys_change_and_nothing_is_lost() {
    let hosts = patient(1, 2);
    hosts.refused("m1", "update --key-rotation 10ms", "must live for at least 1s");
    hosts.ok("m1", "network create app");
    let flags = "--name web --mode global --network app --stop-grace-period 200ms";
    hosts.ok("m1", &format!("service create -d {}", hosts.server(SERVER, flags, 0)));
    let web = hosts.until_running("m1", "web", 3);
    let one = web.iter().find(|task| task.node == "w1").unwrap();
    let addr = |node: &str| {
        let task = web.iter().find(|task| task.node == node).unwrap();
        addrs(&hosts, task, "app")[0].parse::<std::net::IpAddr>().unwrap()
    };
    let others: Vec<_> = ["m1", "w2"].map(addr).into();
    let from = || hosts.inside_task("m1", one);
    for other in &others {
        until("they reach each other", || datagram(&from(), SocketAddr::new(*other, 9000)));
    }
    let targets = others.iter().map(|addr| SocketAddr::new(*addr, 80)).collect();
    let load = Load { targets, fresh_per_second: 50, kept: 8, long: (2, 800) };
    let traffic = Traffic::start(from(), load);
    let stop = AtomicBool::new(false);
    let (sent, lost) = std::thread::scope(|scope| {
        let to = SocketAddr::new(others[1], 9000);
        let (own, stopped) = (from(), &stop);
        let datagrams = scope.spawn(move || own.run(|| ask_on_and_on(to, stopped)));
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change_keys(&hosts, 4)));
        stop.store(true, Ordering::Relaxed);
        let counts = datagrams.join().unwrap();
        work.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counts
    });
    let report = traffic.stop();
    println!("{} requests, {sent} datagrams of which {lost} were lost", report.answered);
    assert!(report.failures.is_empty() && report.refused.is_empty(), "{report:?}");
    assert_eq!(report.slow_connects, 0, "first packets were lost");
    assert!(report.answered > 100 && sent > 100);
    assert_eq!(lost, 0, "of {sent} datagrams");
    hosts.end();
}

fn datagram(from: &Inside, to: SocketAddr) -> bool {
    from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.send_to(b"x", to).is_ok() && socket.recv(&mut [0; 64]).is_ok()
    })
}

/// A datagram each 10 ms, and how many were not answered within 2 s.
fn ask_on_and_on(to: SocketAddr, stop: &AtomicBool) -> (u32, u32) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    let mut waiting = BTreeSet::new();
    let (mut sent, mut end) = (0, None);
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        if !stopping {
            sent += 1;
            // the length is the number: the server says it
            socket.send(&vec![b'x'; usize::try_from(sent % 1000 + 1).unwrap()]).unwrap();
            waiting.insert(sent % 1000 + 1);
        }
        let began = Instant::now();
        while let Some(left) = Duration::from_millis(10).checked_sub(began.elapsed()).filter(|l| !l.is_zero())
        {
            socket.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 128];
            if let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                waiting.remove(&text.rsplit(' ').next().unwrap().parse().unwrap());
            }
        }
        if stopping {
            let end = *end.get_or_insert_with(|| Instant::now() + Duration::from_secs(2));
            if waiting.is_empty() || Instant::now() > end {
                return (sent, u32::try_from(waiting.len()).unwrap());
            }
        }
    }
}

/// The number of its newest keys, how far the change is, and the keys; all secret but to this test.
fn keys(h: &Hosts, host: &str) -> (u64, String, BTreeSet<String>) {
    let file = h.cluster.state_dir(host).join("network/keys");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let values = |word: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let epoch = values("epoch ").first().and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    (epoch, values("stage ").concat(), values("secret ").into_iter().collect())
}

/// Has the managers change the keys so often, and waits until all nodes have followed.
fn change_keys(h: &Hosts, times: u64) {
    let nodes = ["m1", "w1", "w2"];
    let before: Vec<_> = nodes.iter().map(|host| keys(h, host)).collect();
    h.ok("m1", "update --key-rotation 2s");
    for n in 1..=times {
        for (host, (epoch, _, old)) in nodes.iter().zip(&before) {
            until_in(Duration::from_secs(60), &format!("{host} has followed {n} changes"), || {
                let now = keys(h, host);
                now.0 >= epoch + n && now.2.is_disjoint(old)
            });
        }
    }
    h.ok("m1", "update --key-rotation 12h");
    for host in nodes {
        until(&format!("{host} has one key again"), || {
            let (_, stage, secrets) = keys(h, host);
            stage == "steady" && secrets.len() == 1
        });
        until(&format!("{host} publishes one key"), || {
            h.inspect("m1", &format!("node inspect {host}"))["Network"]["TunnelKeys"] == 1
        });
    }
}
