//! A daemon that is killed: nothing leaves in clear meanwhile, and connections go on with the next one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarm_worker_wireguard::Tunnel;

mod net;
mod wire;
use net::{Family, Net, StopOnDrop, key, v4};
use wire::{MARK, Wire};

const HOST: &str = "SWARM_WG_TEST_HOST";
const SPACE: &str = "SWARM_WG_TEST_SPACE";

/// A process of its own with the tunnel of a host; killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(net: &Net, host: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "the_daemon", "--nocapture"]);
        command.env(HOST, host.to_string()).env(SPACE, net.space(host));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("tunnel is up"))), "it came up");
        Daemon(child)
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test: what [`Daemon`] runs. It ends with whoever started it.
#[test]
#[ignore = "a process of the tests below"]
fn the_daemon() {
    let Ok(host) = std::env::var(HOST) else { return };
    let host: usize = host.parse().unwrap();
    let net = std::mem::ManuallyDrop::new(Net::of(&std::env::var(SPACE).unwrap(), Family::V4));
    let tunnel = Tunnel::start(&net.settings(host), vec![key(host)]).unwrap();
    tunnel.set_peers(vec![net.peer(3 - host)]).unwrap();
    writeln!(std::io::stdout(), "tunnel is up").unwrap();
    drop(std::io::stdin().read(&mut [0]));
}

#[test]
fn a_connection_survives_its_daemon_being_killed() {
    let net = Net::new(2, Family::V4);
    let wire = Wire::tap(&net);
    let one = net.start(1);
    one.set_peers(net.peers_of(1)).unwrap();
    let mut daemon = Daemon::start(&net, 2);
    let listener = net.inside(2, || TcpListener::bind((v4(2), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut client = net.inside(1, || TcpStream::connect_timeout(&target, Duration::from_secs(10)).unwrap());
    let mut server = listener.accept().unwrap().0;
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // both sides send all the time: number after number, with the mark between them
    let rounds = 4_u64;
    let (mut theirs, mut ours) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let reader = scope.spawn(move || {
            let mut message = [0; 8 + MARK.len()];
            let mut expected = 0_u64;
            while server.read_exact(&mut message).is_ok() {
                assert_eq!(u64::from_le_bytes(message[..8].try_into().unwrap()), expected);
                assert_eq!(&message[8..], MARK);
                expected += 1;
            }
            expected
        });
        let writer = scope.spawn(move || {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                client.write_all(&[&number.to_le_bytes()[..], MARK].concat()).expect("the connection lives");
                number += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            number
        });
        {
            let _stop = StopOnDrop(stop);
            for _ in 0..rounds {
                let before = one.counters().received;
                net::wait_for("traffic", || one.counters().received > before + 50);
                daemon.kill();
                // nobody reads the device now: what the host sends goes nowhere
                let socket = net.inside(2, || UdpSocket::bind((v4(2), 0)).unwrap());
                for _ in 0..20 {
                    drop(socket.send_to(MARK, (v4(1), 9)));
                }
                theirs.write_all(MARK).expect("the connection lives");
                daemon = Daemon::start(&net, 2);
            }
            let mut got = vec![0; MARK.len() * usize::try_from(rounds).unwrap()];
            ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            ours.read_exact(&mut got).expect("what was sent while the daemon was gone");
        }
        let sent = writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), sent);
        assert!(sent > 100, "{sent}");
    });
    assert_eq!(wire.seen().clear, Vec::<String>::new());
    drop(daemon);
}
