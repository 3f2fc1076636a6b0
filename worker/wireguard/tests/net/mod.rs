//! Hosts that are network namespaces on one underlay, removed when the test ends, however it ends.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use swarm_worker_wireguard::{KeyPair, Peer, Settings, Tunnel};

pub(crate) const DEVICE: &str = "swarm-wg";
pub(crate) const PORT: u16 = 51820;
/// For what is quick, also in an emulated machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The address family of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) struct Net {
    name: String,
    hosts: usize,
    family: Family,
}

pub(crate) fn ip(line: &str) {
    let out = Command::new("ip").args(line.split_whitespace()).output().expect("ip runs");
    assert!(out.status.success(), "ip {line}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Net {
    /// Hosts 1 to `hosts` on a switch.
    pub(crate) fn new(hosts: usize, family: Family) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("swg{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = Net { name, hosts, family };
        let switch = net.space(0);
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        net.inside(0, || {
            for filter in ["iptables", "ip6tables"] {
                drop(std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{filter}"), "0"));
            }
        });
        for host in 1..=hosts {
            let space = net.space(host);
            ip(&format!("netns add {space}"));
            ip(&format!("-n {space} link set lo up"));
            ip(&format!("-n {space} link add eth0 type veth peer name h{host} netns {switch}"));
            ip(&format!("-n {switch} link set h{host} master br0 up"));
            ip(&format!("-n {space} link set eth0 up"));
            net.add_address(host, net.underlay(host));
            // leaving in clear has to be possible, or nothing would be shown by its absence
            let via = net.underlay(host % hosts + 1);
            ip(&format!("-n {space} route add default via {via}"));
        }
        net
    }

    /// The net that a host's namespace belongs to, in another process: it is not to be dropped there.
    pub(crate) fn of(space: &str, family: Family) -> Self {
        let name = space.rsplit_once('-').expect("name and host").0.to_owned();
        Net { name, hosts: 0, family }
    }

    pub(crate) fn add_address(&self, host: usize, address: IpAddr) {
        let bits = if address.is_ipv4() { "24" } else { "64 nodad" };
        ip(&format!("-n {} addr add {address}/{bits} dev eth0", self.space(host)));
    }

    pub(crate) fn space(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    pub(crate) fn path(&self, host: usize) -> PathBuf {
        PathBuf::from(format!("/var/run/netns/{}", self.space(host)))
    }

    pub(crate) fn underlay(&self, host: usize) -> IpAddr {
        match self.family {
            Family::V4 => format!("192.168.77.{host}").parse().expect("an address"),
            Family::V6 => format!("fd77::{host}").parse().expect("an address"),
        }
    }

    pub(crate) fn endpoint(&self, host: usize) -> SocketAddr {
        (self.underlay(host), PORT).into()
    }

    /// Runs something inside a host's namespace.
    pub(crate) fn inside<T: Send>(&self, host: usize, run: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(self.path(host)).expect("namespace");
        std::thread::scope(|scope| {
            let body = || {
                setns(&file, CloneFlags::CLONE_NEWNET).expect("enter namespace");
                run()
            };
            scope.spawn(body).join().expect("no panic inside")
        })
    }

    pub(crate) fn settings(&self, host: usize) -> Settings {
        let mtu = if self.family == Family::V4 { 1440 } else { 1420 };
        Settings {
            netns: Some(self.path(host)),
            device: DEVICE.into(),
            listen: self.endpoint(host),
            addresses: vec![(v4(host), 16), (v6(host), 64)],
            mtu,
        }
    }

    pub(crate) fn start(&self, host: usize) -> Tunnel {
        Tunnel::start(&self.settings(host), vec![key(host)]).expect("tunnel starts")
    }

    pub(crate) fn peer(&self, host: usize) -> Peer {
        Peer {
            keys: vec![key(host).public()],
            endpoint: self.endpoint(host),
            tunnel_addrs: vec![v4(host), v6(host)],
        }
    }

    /// All hosts but this one.
    pub(crate) fn peers_of(&self, host: usize) -> Vec<Peer> {
        (1..=self.hosts).filter(|other| *other != host).map(|other| self.peer(other)).collect()
    }

    /// A tunnel on every host, each with all others as peers.
    pub(crate) fn start_all(&self) -> Vec<Tunnel> {
        let tunnels: Vec<Tunnel> = (1..=self.hosts).map(|host| self.start(host)).collect();
        for (at, tunnel) in tunnels.iter().enumerate() {
            tunnel.set_peers(self.peers_of(at + 1)).expect("good peers");
        }
        tunnels
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in 0..=self.hosts {
            drop(Command::new("ip").args(["netns", "del", &self.space(host)]).output());
        }
    }
}

/// The program with the helper, built if it is not there yet.
pub(crate) fn shim() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if let Some(built) = std::env::var_os("SWARM_TEST_SHIM") {
            return built.into();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "swarm-worker-shim", "--bin", "swarmd-shim"]);
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "building swarmd-shim failed");
        let test = std::env::current_exe().expect("own path");
        test.parent().and_then(Path::parent).expect("target/debug/deps/test").join("swarmd-shim")
    });
    built.clone()
}

/// Addresses inside the tunnel.
pub(crate) fn v4(host: usize) -> IpAddr {
    format!("10.199.0.{host}").parse().expect("an address")
}

pub(crate) fn v6(host: usize) -> IpAddr {
    format!("fd99::{host}").parse().expect("an address")
}

/// The key of a host.
pub(crate) fn key(host: usize) -> KeyPair {
    key_number(host, 0)
}

/// A further key of a host.
pub(crate) fn key_number(host: usize, number: u8) -> KeyPair {
    // not the first octet: some of its bits have no meaning
    let mut secret = [number; 32];
    secret[1] = u8::try_from(host).expect("few hosts");
    KeyPair::from_secret(&secret)
}

/// Says stop to threads when it goes out of scope, also when the test fails: they could not be waited for
/// otherwise.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection, and both its ends.
pub(crate) fn tcp_pair(net: &Net, from: usize, to_host: usize, to: IpAddr) -> (TcpStream, TcpStream) {
    let listener = net.inside(to_host, || TcpListener::bind((to, 0)).expect("bind"));
    let target = listener.local_addr().expect("bound");
    let client = net.inside(from, || TcpStream::connect_timeout(&target, SOON).expect("connect"));
    let server = listener.accept().expect("connected").0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(SOON)).expect("a time");
        stream.set_nodelay(true).expect("TCP");
    }
    (client, server)
}

/// The same octets go one way and the other.
pub(crate) fn echo(client: &TcpStream, server: &TcpStream, octets: &[u8]) {
    let mut got = vec![0; octets.len()];
    for (mut from, mut to) in [(client, server), (server, client)] {
        std::thread::scope(|scope| {
            scope.spawn(|| from.write_all(octets).expect("write"));
            to.read_exact(&mut got).expect("read");
        });
        assert!(got == octets, "what came is not what was sent");
    }
}

/// Waits for something to become true.
pub(crate) fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "waited 20 s for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until every tunnel has a session with each of its peers.
pub(crate) fn wait_for_sessions(tunnels: &[Tunnel]) {
    wait_for("sessions", || tunnels.iter().all(|t| t.peers().iter().all(|peer| peer.session.is_some())));
}
