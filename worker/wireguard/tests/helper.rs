//! The tunnel in a process of its own: it goes on without a daemon, and whoever comes next takes it over.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use swarm_worker_wireguard::helper::{Helper, HelperError, Place};
use swarm_worker_wireguard::{DeviceError, KeyPair, Peer};

mod net;
mod wire;
use net::{Family, Net, key, key_number, shim, v4, wait_for};
use wire::{MARK, Wire};

const SOON: Duration = Duration::from_secs(20);

/// The helper of a host; ended when the test ends, however it ends.
struct Node {
    place: Place,
    host: usize,
    _dir: tempfile::TempDir,
}

impl Node {
    fn new(host: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // longer than an address of a socket may be
        let run = dir.path().join("a-folder-with-a-long-name".repeat(5));
        let place = Place { dir: run, program: shim(), arguments: vec!["--tunnel".into()] };
        Node { place, host, _dir: dir }
    }

    /// What a daemon does when it starts.
    fn daemon(&self, net: &Net) -> Helper {
        let found = Helper::find(&self.place).unwrap();
        let helper = match found {
            Some(helper) if helper.carries(&net.settings(self.host)) => helper,
            Some(_) => panic!("a helper without a tunnel"),
            None => {
                let mut helper = Helper::start(&self.place).unwrap();
                helper.open(&net.settings(self.host), &[key(self.host)]).unwrap();
                helper
            }
        };
        helper.set_own_keys(&[key(self.host)]).unwrap();
        helper.set_peers(&net.peers_of(self.host)).unwrap();
        helper
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(Some(helper)) = Helper::find(&self.place) {
            drop(helper.end());
        }
    }
}

fn pair(net: &Net) -> (Node, Node) {
    let nodes = (Node::new(1), Node::new(2));
    let daemons = [nodes.0.daemon(net), nodes.1.daemon(net)];
    wait_for("sessions", || daemons.iter().all(|d| d.peers().unwrap().iter().all(|p| p.session.is_some())));
    nodes
}

fn status(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// Datagrams to host 2 and back, one after the other, while something is done; none may be lost.
fn without_loss(net: &Net, during: impl FnOnce()) -> u32 {
    let server = net.inside(2, || UdpSocket::bind((v4(2), 0)).unwrap());
    let client = net.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let speaker = scope.spawn(move || {
            let mut number = 0_u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                client.send(&[&number.to_le_bytes()[..], MARK].concat()).unwrap();
                let mut got = [0; 100];
                let (length, from) = server.recv_from(&mut got).expect("none is lost");
                server.send_to(&got[..length], from).unwrap();
                client.recv(&mut got).expect("no answer is lost");
                assert_eq!(got[..4], number.to_le_bytes());
            }
            number
        });
        {
            let _stop = net::StopOnDrop(stop);
            during();
        }
        speaker.join().unwrap()
    })
}

#[test]
fn daemons_come_and_go_without_a_lost_packet() {
    let net = Net::new(2, Family::V4);
    let wire = Wire::tap(&net);
    let nodes = pair(&net);
    let pids = [&nodes.0, &nodes.1].map(|node| Helper::find(&node.place).unwrap().unwrap().pid());
    let listener = net.inside(2, || TcpListener::bind((v4(2), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut client = net.inside(1, || TcpStream::connect_timeout(&target, SOON).unwrap());
    let mut server = listener.accept().unwrap().0;
    server.set_read_timeout(Some(SOON)).unwrap();
    let sent = without_loss(&net, || {
        for _ in 0..20 {
            for (node, pid) in [(&nodes.0, pids[0]), (&nodes.1, pids[1])] {
                assert_eq!(node.daemon(&net).pid(), pid);
            }
            client.write_all(MARK).unwrap();
            server.read_exact(&mut [0; MARK.len()]).unwrap();
        }
    });
    assert!(sent > 20, "{sent}");
    assert_eq!(wire.seen().clear, Vec::<String>::new());
}

#[test]
fn a_helper_has_no_rights_and_nobody_else_reaches_it() {
    let net = Net::new(2, Family::V4);
    let node = Node::new(1);
    let helper = node.daemon(&net);
    let pid = helper.pid();
    assert_eq!(status(pid, "CapEff:"), "0000000000000000");
    assert_eq!(status(pid, "CapPrm:"), "0000000000000000");
    assert_eq!((status(pid, "NoNewPrivs:"), status(pid, "Seccomp:")), ("1".into(), "2".into()));
    assert_ne!(status(pid, "PPid:"), std::process::id().to_string(), "it has left us");
    assert_eq!(status(pid, "Name:"), "swarmd-tunnel");
    let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap();
    assert!(read("environ").is_empty());
    assert!(read("cmdline").ends_with(b"swarmd-shim\0--tunnel\0"));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&node.place.dir), mode(&node.place.dir.join("socket"))), (0o700, 0o600));
    // its memory, for those who measure
    let pss = String::from_utf8(read("smaps_rollup")).unwrap();
    let pss = pss.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    let kib: u32 = pss.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < 8 << 10, "{kib} KiB");
    let mut out = std::io::stdout();
    writeln!(out, "PSS of a helper: {kib} KiB").unwrap();
    let log = node.log();
    assert!(log.contains("the tunnel runs") && !log.contains("WARN"), "{log}");
}

#[test]
fn a_killed_helper_is_followed_by_another_and_nothing_leaves_in_clear() {
    let net = Net::new(2, Family::V4);
    let wire = Wire::tap(&net);
    let nodes = pair(&net);
    let listener = net.inside(2, || TcpListener::bind((v4(2), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut client = net.inside(1, || TcpStream::connect_timeout(&target, SOON).unwrap());
    let mut server = listener.accept().unwrap().0;
    server.set_read_timeout(Some(SOON)).unwrap();
    for _ in 0..3 {
        let daemon = nodes.0.daemon(&net);
        kill(Pid::from_raw(daemon.pid()), Signal::SIGKILL).unwrap();
        wait_for("it to be seen", || !daemon.is_alive());
        assert!(matches!(daemon.set_peers(&[]), Err(HelperError::Lost { .. })));
        // nobody reads the device now: what the host sends goes nowhere
        let socket = net.inside(1, || UdpSocket::bind((v4(1), 0)).unwrap());
        for _ in 0..20 {
            drop(socket.send_to(MARK, (v4(2), 9)));
        }
        client.write_all(MARK).expect("the connection lives");
        assert_ne!(nodes.0.daemon(&net).pid(), daemon.pid());
        server.read_exact(&mut [0; MARK.len()]).expect("what was sent while there was no helper");
    }
    assert_eq!(wire.seen().clear, Vec::<String>::new());
}

#[test]
fn a_key_changes_through_the_helper_without_a_lost_packet() {
    let net = Net::new(2, Family::V4);
    let nodes = pair(&net);
    let other = nodes.1.daemon(&net);
    let peer = |keys: &[&KeyPair]| Peer { keys: keys.iter().map(|k| k.public()).collect(), ..net.peer(1) };
    without_loss(&net, || {
        let (old, new) = (key(1), key_number(1, 1));
        // each step by a daemon that has just been started
        let daemon = || Helper::find(&nodes.0.place).unwrap().unwrap();
        daemon().set_own_keys(&[old.clone(), new.clone()]).unwrap();
        other.set_peers(&[peer(&[&old, &new])]).unwrap();
        daemon().set_own_keys(&[new.clone(), old.clone()]).unwrap();
        other.set_peers(&[peer(&[&new, &old])]).unwrap();
        wait_for("the new key", || {
            daemon().peers().unwrap()[0].session.as_ref().is_some_and(|s| s.own == new.public())
        });
        other.set_peers(&[peer(&[&new])]).unwrap();
        daemon().set_own_keys(&[new]).unwrap();
    });
}

#[test]
fn nonsense_is_refused_and_the_tunnel_goes_on() {
    let net = Net::new(2, Family::V4);
    let nodes = pair(&net);
    let pid = Helper::find(&nodes.0.place).unwrap().unwrap().pid();
    let connect = || {
        let dir = std::fs::File::open(&nodes.0.place.dir).unwrap();
        let stream = UnixStream::connect(format!("/proc/self/fd/{}/socket", dir.as_raw_fd())).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let ask = |text: &[u8]| {
        let mut stream = connect();
        stream.write_all(&[&u32::try_from(text.len()).unwrap().to_le_bytes(), text].concat()).unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        let mut answer = vec![0; u32::from_le_bytes(head) as usize];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    };
    without_loss(&net, || {
        assert!(ask(b"\"dance\"").contains("refused"));
        assert!(
            ask(br#"{"start":{"device":"x","joins_udp":true,"addresses":[],"own":[]}}"#).contains("already")
        );
        assert!(ask(br#"{"set_own_keys":[]}"#).contains("at least one"));
        // a length that nobody believes, half a message, and nothing at all
        for octets in [&[255; 8][..], &[9, 0, 0, 0, b'"'], &[]] {
            connect().write_all(octets).unwrap();
        }
        // a later version of the daemon asks
        assert!(ask(br#"{"hello":{"version":7,"new":[]}}"#).contains(r#""version":1"#));
    });
    assert_eq!(Helper::find(&nodes.0.place).unwrap().unwrap().pid(), pid);
}

#[test]
fn a_helper_ends_when_told_and_when_its_device_goes() {
    let net = Net::new(1, Family::V4);
    let node = Node::new(1);
    let helper = node.daemon(&net);
    // its device is taken, also while no daemon is there
    let again = swarm_worker_wireguard::Tunnel::start(&net.settings(1), vec![key(1)]);
    assert!(again.is_err());
    let started_twice = Helper::find(&node.place).unwrap().unwrap().open(&net.settings(1), &[key(1)]);
    assert!(matches!(
        started_twice,
        Err(HelperError::Device(DeviceError::Bind { .. } | DeviceError::Busy { .. }))
    ));
    net::ip(&format!("-n {} link del {}", net.space(1), net::DEVICE));
    wait_for("it to end with its device", || !helper.is_alive());
    let next = node.daemon(&net);
    next.end().unwrap();
    assert!(Helper::find(&node.place).unwrap().is_none());
    assert!(!node.place.dir.join("socket").exists());
}

#[test]
fn one_that_does_not_answer_is_replaced() {
    let node = Node::new(1);
    std::fs::create_dir(&node.place.dir).unwrap();
    let dir = std::fs::File::open(&node.place.dir).unwrap();
    drop(UnixListener::bind(format!("/proc/self/fd/{}/socket", dir.as_raw_fd())).unwrap());
    assert!(Helper::find(&node.place).unwrap().is_none(), "a socket that nobody listens on");
    let net = Net::new(1, Family::V4);
    let helper = node.daemon(&net);
    kill(Pid::from_raw(helper.pid()), Signal::SIGSTOP).unwrap();
    let found = Helper::find(&node.place).unwrap();
    assert!(found.is_none() && !helper.is_alive(), "it was killed");
    assert_ne!(node.daemon(&net).pid(), helper.pid());
}
