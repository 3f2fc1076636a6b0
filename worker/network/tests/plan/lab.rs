//! A lab: hosts as network namespaces on one underlay, a client behind a router, and plans made real by
//! the programs `ip` and `nft`, from the text that plans are shown as.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use swarm_worker_core::network::ground::Facts;
use swarm_worker_core::network::kernel::{LinkKind, Place, Plan};
use swarm_worker_core::network::planner::Planner;
use swarm_worker_core::network::testing::World;

/// Namespaces of one test; gone with it.
pub(crate) struct Lab {
    prefix: String,
}

/// The client's addresses.
pub(crate) const CLIENT: [&str; 2] = ["10.201.0.2", "fd53:201::2"];
const PATIENCE: Duration = Duration::from_secs(2);

impl Lab {
    /// Hosts `h1`, `h2` … at 10.200.0.1, fd53:200::1 …, a client `c`, and a second wire between the hosts
    /// that plays the encrypted tunnel.
    pub(crate) fn new(name: &str, hosts: u16) -> Self {
        let lab = Self { prefix: format!("swpl{}{name}-", std::process::id()) };
        let p = &lab.prefix;
        let mut script = format!(
            "for n in u c; do ip netns add {p}$n; ip -n {p}$n link set lo up; done\n\
             in_u() {{ ip netns exec {p}u sh -c \"$1\"; }}\n\
             in_u 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'\n\
             for b in br0 br1; do ip -n {p}u link add $b type bridge mcast_snooping 0; ip -n {p}u link set $b up; done\n\
             in_u 'for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ -e $f ] && echo 0 >$f; done; true'\n\
             ip -n {p}u addr add 10.200.0.254/24 dev br0; ip -n {p}u addr add fd53:200::fe/64 dev br0 nodad\n\
             ip -n {p}c link add eth0 type veth peer name c0 netns {p}u\n\
             ip -n {p}c addr add 10.201.0.2/24 dev eth0; ip -n {p}c addr add fd53:201::2/64 dev eth0 nodad\n\
             ip -n {p}u addr add 10.201.0.1/24 dev c0; ip -n {p}u addr add fd53:201::1/64 dev c0 nodad\n\
             ip -n {p}c link set eth0 up; ip -n {p}u link set c0 up\n\
             ip -n {p}c route add default via 10.201.0.1; ip -n {p}c route add default via fd53:201::1\n"
        );
        for i in 1..=hosts {
            script += &format!(
                "ip netns add {p}h{i}; ip -n {p}h{i} link set lo up\n\
                 ip -n {p}h{i} link add eth0 type veth peer name h{i} netns {p}u\n\
                 ip -n {p}h{i} link add sw-wg0 type veth peer name w{i} netns {p}u\n\
                 ip -n {p}u link set h{i} master br0 up; ip -n {p}u link set w{i} master br1 up\n\
                 ip -n {p}h{i} addr add 10.200.0.{i}/24 dev eth0; ip -n {p}h{i} addr add fd53:200::{i}/64 dev eth0 nodad\n\
                 ip -n {p}h{i} addr add 100.127.0.{i}/16 dev sw-wg0\n\
                 ip -n {p}h{i} link set eth0 up; ip -n {p}h{i} link set sw-wg0 mtu 1420 up\n\
                 ip -n {p}h{i} route add default via 10.200.0.254; ip -n {p}h{i} route add default via fd53:200::fe\n\
                 ip netns exec {p}h{i} sh -c 'for d in all default eth0 sw-wg0; do echo 1 >/proc/sys/net/ipv4/conf/$d/rp_filter; done'\n"
            );
        }
        lab.sh(&script);
        lab
    }

    /// The namespace of a name.
    pub(crate) fn ns(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs a script; every line must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let mut child = Command::new("bash")
            .args(["-eu", "-o", "pipefail", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash is there");
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{err}\n{script}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a world real on all of its nodes.
    pub(crate) fn build(&self, world: &World, facts: &Facts) {
        for index in world.nodes.keys() {
            let planned = Planner::new().plan(&world.set(*index), &world.local(*index), facts);
            let planned = planned.expect("the node knows which it is");
            assert_eq!(planned.problems, [], "node {index}");
            self.sh(&self.script(*index, &planned.plan));
        }
    }

    fn place(&self, index: u16, place: &Place) -> String {
        match place {
            Place::Host => self.ns(&format!("h{index}")),
            Place::Sandbox(network) => self.ns(&format!("h{index}-{network}")),
            Place::Task(task) => self.ns(task.as_str()),
        }
    }

    /// A plan as a script.
    fn script(&self, index: u16, plan: &Plan) -> String {
        let mut script = String::new();
        for (place, ns) in &plan.namespaces {
            let name = self.place(index, place);
            if *place != Place::Host {
                script += &format!("ip netns add {name}; ip -n {name} link set lo up\n");
            }
            let general =
                |key: &str| ["/all/", "/default/"].iter().any(|k| key.contains(k)) || !key.contains("/conf/");
            for (key, value) in ns.sysctls.iter().filter(|(key, _)| general(key)) {
                script += &format!("ip netns exec {name} sh -c 'echo {value} >/proc/sys/net/{key}'\n");
            }
        }
        script += &self.links(index, plan);
        for (place, ns) in &plan.namespaces {
            let name = self.place(index, place);
            for (device, link) in &ns.links {
                let mac = link.mac.map(|mac| format!("address {mac}")).unwrap_or_default();
                let mtu = if link.mtu == 0 { String::new() } else { format!("mtu {}", link.mtu) };
                script += &format!("ip -n {name} link set {device} {mtu} {mac} up\n");
            }
            for (key, value) in &ns.sysctls {
                script += &format!("ip netns exec {name} sh -c 'echo {value} >/proc/sys/net/{key}'\n");
            }
            for (device, net) in &ns.addrs {
                let nodad = if net.addr().is_ipv6() { "nodad" } else { "" };
                script += &format!("ip -n {name} addr add {net} dev {device} noprefixroute {nodad}\n");
            }
            for ((device, addr), mac) in &ns.neighbours {
                script +=
                    &format!("ip -n {name} neigh replace {addr} lladdr {mac} dev {device} nud permanent\n");
            }
            for ((device, mac), addr) in &ns.forwarding {
                script +=
                    &format!("bridge -n {name} fdb replace {mac} dev {device} dst {addr} self permanent\n");
            }
            for route in ns.routes.iter() {
                let v6 = if route.to.addr().is_ipv6() { "-6" } else { "-4" };
                script += &format!("ip -n {name} {v6} route add {route}\n");
            }
            for rule in &ns.rules {
                let text = rule.to_string();
                let (v6, text) = text.strip_prefix("-6 ").map_or(("-4", &text[..]), |text| ("-6", text));
                script += &format!("ip -n {name} {v6} rule add {text}\n");
            }
            for table in &ns.tables {
                script += &format!("ip netns exec {name} nft -f - <<'END'\n{table}END\n");
            }
        }
        script
    }

    /// The part that makes the devices.
    fn links(&self, index: u16, plan: &Plan) -> String {
        let (mut script, host) = (String::new(), self.place(index, &Place::Host));
        for (place, ns) in &plan.namespaces {
            let name = self.place(index, place);
            for (device, link) in &ns.links {
                let mac = link.mac.map(|mac| format!("address {mac}")).unwrap_or_default();
                script += &match &link.kind {
                    LinkKind::Veth { peer, peer_name } if (place, device) < (peer, peer_name) => {
                        let peer = self.place(index, peer);
                        format!(
                            "ip -n {name} link add {device} type veth peer name {peer_name} netns {peer}\n"
                        )
                    }
                    LinkKind::Veth { .. } => String::new(),
                    LinkKind::Vxlan { .. } => {
                        let text = link.to_string();
                        let kind = &text[text.find("type").unwrap()..];
                        format!(
                            "ip -n {host} link add vxnew {mac} {kind}\n\
                             ip -n {host} link set vxnew netns {name}; ip -n {name} link set vxnew name {device}\n"
                        )
                    }
                    LinkKind::Macvlan { parent } => format!(
                        "ip -n {host} link add mvnew link {parent} {mac} type macvlan mode bridge\n\
                         ip -n {host} link set mvnew netns {name}; ip -n {name} link set mvnew name {device}\n"
                    ),
                    LinkKind::Dummy => format!("ip -n {name} link add {device} type dummy\n"),
                };
            }
        }
        script
    }

    /// Does something in a namespace, in a thread of its own.
    fn within<T: Send + 'static>(
        &self,
        ns: &str,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = std::fs::File::open(format!("/run/netns/{}", self.ns(ns))).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            what()
        })
    }

    /// Answers on a port, TCP and UDP, IPv4 and IPv6: who it is, and who asks.
    pub(crate) fn serve(&self, ns: &'static str, port: u16) {
        let (ready, when) = mpsc::channel();
        drop(self.within(ns, move || {
            // Takes IPv4 too.
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let (udp, tcp) = (UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap());
            std::thread::spawn(move || answer_udp(ns, &udp));
            ready.send(()).unwrap();
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                let who = stream.peer_addr().map(|peer| plain(peer.ip()).to_string()).unwrap_or_default();
                drop(stream.write_all(format!("{ns} {who}").as_bytes()));
            }
        }));
        when.recv_timeout(PATIENCE).unwrap();
    }

    /// What a server says to a caller in a namespace, or why it says nothing.
    pub(crate) fn ask(&self, ns: &str, protocol: &str, to: &str, port: u16) -> String {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let tcp = protocol == "tcp";
        let asked = self.within(ns, move || if tcp { ask_tcp(to) } else { ask_udp(to) });
        asked.join().unwrap().unwrap_or_else(|err| format!("{:?}", err.kind()))
    }

    /// Sends one UDP packet from an address.
    pub(crate) fn send(&self, ns: &str, from: &str, to: &str, port: u16, data: Vec<u8>) {
        let (from, to) =
            (SocketAddr::new(from.parse().unwrap(), 0), SocketAddr::new(to.parse().unwrap(), port));
        let sent = self.within(ns, move || UdpSocket::bind(from)?.send_to(&data, to));
        sent.join().unwrap().unwrap();
    }

    /// What comes to a UDP port, until `last` comes.
    pub(crate) fn hear(&self, ns: &str, at: &str, port: u16, last: &'static str) -> Heard {
        let at = SocketAddr::new(at.parse().unwrap(), port);
        let (ready, when) = mpsc::channel();
        let heard = self.within(ns, move || {
            let socket = UdpSocket::bind(at).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            ready.send(()).unwrap();
            let (mut all, mut buffer) = (Vec::new(), [0; 2048]);
            while all.last().is_none_or(|text: &String| text != last) {
                let Ok((size, _)) = socket.recv_from(&mut buffer) else { break };
                all.push(String::from_utf8_lossy(&buffer[..size]).into_owned());
            }
            all
        });
        when.recv_timeout(PATIENCE).unwrap();
        Heard(heard)
    }
}

/// See [`Lab::hear`].
pub(crate) struct Heard(std::thread::JoinHandle<Vec<String>>);

impl Heard {
    pub(crate) fn all(self) -> Vec<String> {
        self.0.join().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let list = Command::new("ip").args(["netns", "list"]).output().map(|o| o.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&list).lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if name.starts_with(&self.prefix) {
                drop(Command::new("ip").args(["netns", "del", name]).output());
            }
        }
    }
}

fn answer_udp(name: &str, socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
        drop(socket.send_to(format!("{name} {}", plain(peer.ip())).as_bytes(), peer));
    }
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<String> {
    let any =
        if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (start, mut buffer) = (Instant::now(), [0; 2048]);
    loop {
        socket.send(b"who")?;
        match socket.recv(&mut buffer) {
            Ok(size) => return Ok(String::from_utf8_lossy(&buffer[..size]).into_owned()),
            Err(err) if start.elapsed() > PATIENCE => return Err(err),
            Err(_) => {}
        }
    }
}

fn plain(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// An IPv4 UDP packet in an Ethernet frame in VXLAN, as somebody would forge it.
pub(crate) fn vxlan(
    vni: u32,
    to_mac: [u8; 6],
    from: [u8; 4],
    to: [u8; 4],
    port: u16,
    data: &[u8],
) -> Vec<u8> {
    let udp = u16::try_from(8 + data.len()).unwrap();
    let total = (20 + udp).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend([from, to].concat());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [_, a, b, c] = vni.to_be_bytes();
    let mut frame = vec![8, 0, 0, 0, a, b, c, 0];
    frame.extend(to_mac);
    frame.extend([2, 0x53, 3, 0, 0, 2, 8, 0]);
    frame.extend(ip);
    frame.extend([9, 9].into_iter().chain(port.to_be_bytes()).chain(udp.to_be_bytes()).chain([0, 0]));
    frame.extend(data);
    frame
}
