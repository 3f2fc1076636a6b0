//! What others do to the networks of a host: rules, routes, links and settings that are changed, which are
//! put right; a firewall and a full table of connections, which are said, with what to do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, poll, until, until_in};

use super::compare;
use super::probe::{PAGE, Probe, addr, page_from, problems, until_all_agree};

/// What is wanted is two seconds; this machine may have other things to do.
const REPAIRED: Duration = Duration::from_secs(8);
const SAID: Duration = Duration::from_secs(25);

#[test]
fn what_others_change_is_put_right() {
    let mut hosts = super::probe::up(1, 1);
    hosts.expect_log(&[
        "what others changed was put right",
        "the device sw-wg0 was changed",
        "somebody closed the socket for names",
        "names cannot be asked for on this network",
    ]);
    let (task, _) = begin(&hosts);
    for (harm, at) in HARMS {
        let place = place(&hosts, &task, *at);
        let before = state(&hosts, &place);
        let line = format!("nsenter --net={} sh -c '{harm}'", place.display());
        let said = hosts.sh("w1", &line);
        assert_eq!(said.code, 0, "{line}: {said}");
        let began = Instant::now();
        let mut now = state(&hosts, &place);
        let repaired = poll(REPAIRED, || {
            now = state(&hosts, &place);
            now == before
        });
        println!("{at:?}: {harm}: put right after {:?}", began.elapsed());
        assert!(
            repaired,
            "{at:?}: {harm}: {:#?}\ninstead of\n{:#?}",
            differ(&now, &before),
            differ(&before, &now)
        );
    }
    names_are_answered_again(&hosts, &task);
    until_all_agree(&hosts, "m1");
    end(hosts);
}

#[test]
fn what_is_in_the_way_is_said() {
    let mut hosts = super::probe::up(1, 1);
    hosts.expect_log(&[
        "subject=\"firewall\" problem=\"chain FORWARD of table ip filter drops",
        "subject=\"firewall\" problem=\"the chain FORWARD of iptables (legacy) drops",
        "subject=\"conntrack\" problem=\"host: the table of tracked connections is",
    ]);
    begin(&hosts);
    a_firewall_that_drops(&hosts);
    an_old_firewall_that_drops(&hosts);
    no_room_for_connections(&hosts);
    end(hosts);
}

/// A page on the manager, behind a port of the worker; a task on each node.
fn begin(hosts: &Hosts) -> (Probe, Probe) {
    hosts.ok("m1", "network create app");
    hosts.ok(
        "m1",
        &format!(
            "service create -d --name web --network app --constraint node.role==manager -p 8080:80 {PAGE}"
        ),
    );
    hosts.ok("m1", "service create -d --name probe --mode global --stop-grace-period 200ms --network app -p 8081:80 demo:1 sleep 100000");
    let web = Probe::all(hosts, "m1", "web", 1).remove(0);
    let mut probes = Probe::all(hosts, "m1", "probe", 2);
    probes.retain(|probe| probe.task.node == "w1");
    until("the port answers", || answers(hosts));
    until_all_agree(hosts, "m1");
    (probes.remove(0), web)
}

fn end(hosts: Hosts) {
    hosts.ok("m1", "service rm web probe");
    hosts.until_no_containers();
    hosts.end();
}

fn answers(h: &Hosts) -> bool {
    page_from(h, "client", &format!("{}:8080", addr(h, "w1"))).is_some()
}

/// Where harm is done.
#[derive(Debug, Clone, Copy)]
enum At {
    Host,
    Ingress,
    Sandbox,
    Task,
}

const HARMS: &[(&str, At)] = &[
    ("nft flush ruleset", At::Host),
    ("ip link del sw-ing", At::Host),
    ("ip link set sw-wg0 down", At::Host),
    ("ip route flush proto 83", At::Host),
    ("sysctl -qw net.ipv4.ip_forward=0", At::Host),
    ("sysctl -qw net.ipv4.conf.sw-ing.route_localnet=0", At::Host),
    ("nft flush ruleset", At::Ingress),
    ("ip rule del fwmark $(ip rule | sed -n \"s/.*fwmark \\([^ ]*\\).*/\\1/p\" | head -1)", At::Ingress),
    ("nft flush ruleset", At::Sandbox),
    ("ip link del vx0", At::Sandbox),
    ("ip route del $(ip route | grep vx0 | head -1)", At::Sandbox),
    ("ip neigh flush nud permanent", At::Sandbox),
    ("sysctl -qw net.ipv4.ip_forward=0", At::Sandbox),
    ("ip route del default", At::Task),
    ("ip link set eth0 down", At::Task),
    ("ip link del eth0", At::Task),
];

/// The namespace on w1, as the host sees it.
fn place(h: &Hosts, task: &Probe, at: At) -> PathBuf {
    let run = h.cluster.state_dir("w1").parent().unwrap().join("run/netns");
    let file = |network: &str| {
        let id = h.inspect("m1", &format!("network inspect {network}"))["Id"].as_str().unwrap().to_owned();
        let entries = std::fs::read_dir(&run).unwrap().flatten().map(|entry| entry.path());
        entries.into_iter().find(|path| path.display().to_string().contains(&format!("n-{id}"))).unwrap()
    };
    match at {
        At::Host => "/proc/self/ns/net".into(),
        At::Ingress => file("ingress"),
        At::Sandbox => file("app"),
        At::Task => format!("/proc/{}/ns/net", task.pid()).into(),
    }
}

/// What a namespace of w1 has, its settings too.
fn state(h: &Hosts, place: &std::path::Path) -> Vec<String> {
    let script = h.scratch().join("look.sh");
    let settings = "sysctl net.ipv4.ip_forward; sysctl -e net.ipv4.conf.sw-ing.route_localnet";
    std::fs::write(&script, format!("{}; {settings}", compare::LOOK)).unwrap();
    let said = h.sh("w1", &format!("nsenter --net={} sh {} 2>/dev/null", place.display(), script.display()));
    let mut lines: Vec<String> = compare::pieces(&said.out).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn differ<'a>(one: &'a [String], other: &[String]) -> Vec<&'a String> {
    one.iter().filter(|line| !other.contains(line)).collect()
}

/// Questions for a name over UDP and TCP; says how many octets came back.
const QUESTION: &str = r#"
import socket, struct
name = b"".join(bytes([len(part)]) + part for part in (b"tasks", b"web")) + b"\0"
ask = struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(1)
u.sendto(ask, ("127.0.0.11", 53))
udp = u.recv(512)
t = socket.create_connection(("127.0.0.11", 53), 1)
t.settimeout(1)
t.sendall(struct.pack(">H", len(ask)) + ask)
tcp = t.recv(512)[2:]
print([struct.unpack(">H", said[6:8])[0] for said in (udp, tcp)])
"#;

/// Somebody closes the sockets of names (`ss -K`).
fn names_are_answered_again(h: &Hosts, task: &Probe) {
    let ask = || task.on_its_network(&format!("python3 -c '{QUESTION}' 2>&1")).out.trim().to_owned();
    until("one answer over UDP and one over TCP", || ask() == "[1, 1]");
    let sandbox = place(h, task, At::Sandbox);
    for sockets in ["-uan", "-tln"] {
        let said = h.sh("w1", &format!("nsenter --net={} ss -K {sockets} sport = :53", sandbox.display()));
        assert!(said.code == 0 && said.out.contains(":53"), "{said}");
        let began = Instant::now();
        until_in(REPAIRED, &format!("names are answered again after ss -K {sockets}"), || ask() == "[1, 1]");
        println!("ss -K {sockets}: names are answered again after {:?}", began.elapsed());
    }
}

fn until_said(h: &Hosts, parts: &[&str]) -> String {
    let began = Instant::now();
    let mut seen = Vec::new();
    let mut found = None;
    poll(SAID, || {
        seen = problems(h, "m1", "w1");
        found = seen.iter().find(|text| parts.iter().all(|part| text.contains(part))).cloned();
        found.is_some()
    });
    let found = found.unwrap_or_else(|| panic!("no problem with {parts:?}: {seen:?}"));
    println!("said after {:?}: {found}", began.elapsed());
    let said = h.ok("m1", "network check");
    let text = found.split_once(": ").unwrap().1;
    let words: String = text.chars().filter(|c| !c.is_whitespace()).take(60).collect();
    let shown: String = said.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(shown.contains(&words), "{said}\ndoes not show: {found}");
    found
}

fn until_nothing_said(h: &Hosts) {
    let began = Instant::now();
    until_in(SAID, "the problem is gone", || problems(h, "m1", "w1").is_empty());
    println!("taken back after {:?}", began.elapsed());
    until_all_agree(h, "m1");
}

/// As Docker and ufw do it. What is said to help is done, word for word.
fn a_firewall_that_drops(h: &Hosts) {
    let table = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    let nft = |line: &str| {
        let said = h.sh("w1", &format!("nft '{line}'"));
        assert_eq!(said.code, 0, "{line}: {said}");
    };
    for cure in ["as told", "policy"] {
        nft(table);
        until("it is in the way", || !answers(h));
        let said = until_said(
            h,
            &["firewall", "chain FORWARD of table ip filter", "policy drop", "nft insert rule"],
        );
        match cure {
            "as told" => {
                let lines = said.split_once("let ours pass (").unwrap().1.split_once("), or").unwrap().0;
                let done = h.sh("w1", lines);
                assert_eq!(done.code, 0, "{lines}: {done}");
            }
            _ => nft("chain ip filter FORWARD { policy accept; }"),
        }
        until_nothing_said(h);
        until("it answers again", || answers(h));
        nft("delete table ip filter");
    }
}

/// Sets the policy of FORWARD of the old iptables, as `iptables-legacy -P` does; not every machine has it.
const LEGACY: &str = r#"
import ctypes, socket, struct, sys
POLICY = {"DROP": -1, "ACCEPT": -2}[sys.argv[1]]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
libc = ctypes.CDLL(None, use_errno=True)
def get(option, data):
    buffer = ctypes.create_string_buffer(data, len(data))
    length = ctypes.c_uint32(len(data))
    if libc.getsockopt(s.fileno(), 0, option, buffer, ctypes.byref(length)) != 0:
        sys.exit(f"getsockopt {option}: errno {ctypes.get_errno()}")
    return buffer.raw
info = get(64, b"filter".ljust(32, b"\0") + bytes(13 * 4))
hooks, *rest = struct.unpack("=13I", info[32:])
starts, ends, (count, size) = rest[:5], rest[5:10], rest[10:]
entries = bytearray(get(65, b"filter".ljust(32, b"\0") + struct.pack("=I4x", size) + bytes(size))[40:])
target = ends[2] + struct.unpack_from("=H", entries, ends[2] + 88)[0]
struct.pack_into("=i", entries, target + 32, POLICY)
counters = ctypes.create_string_buffer(16 * count)
head = b"filter".ljust(32, b"\0") + struct.pack("=III", hooks, count, size) + struct.pack("=10I", *starts, *ends)
head += struct.pack("=I", count) + struct.pack("=Q", ctypes.addressof(counters))
data = head + bytes(entries)
if libc.setsockopt(s.fileno(), 0, 64, data, len(data)) != 0:
    sys.exit(f"setsockopt: errno {ctypes.get_errno()}")
"#;

fn an_old_firewall_that_drops(h: &Hosts) {
    let script = h.scratch().join("legacy.py");
    std::fs::write(&script, LEGACY).unwrap();
    let policy = |word: &str| h.sh("w1", &format!("python3 {} {word}", script.display()));
    let said = policy("DROP");
    if said.err.contains("errno 92") || said.err.contains("errno 2") {
        println!("this kernel has no old iptables: {said}");
        return;
    }
    assert_eq!(said.code, 0, "{said}");
    until("it is in the way", || !answers(h));
    until_said(h, &["firewall", "FORWARD of iptables (legacy)", "iptables-legacy -I FORWARD"]);
    assert_eq!(policy("ACCEPT").code, 0);
    until_nothing_said(h);
    until("it answers again", || answers(h));
}

/// Fills the table of connections of a host with such as the kernel may not forget, or empties it.
const FILL: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
def attr(kind, body):
    return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)
def nest(kind, *bodies):
    return attr(kind | 0x8000, b"".join(bodies))
def tuple_(kind, source, target, ports):
    return nest(kind, nest(1, attr(1, source), attr(2, target)),
                nest(2, attr(1, b"\x11"), attr(2, ports[:2]), attr(3, ports[2:])))
def message(kind, flags, body):
    body = b"\x02\0\0\0" + body
    return struct.pack("=IHHII", 16 + len(body), 0x100 | kind, 1 | flags, 1, 0) + body
def read(name):
    return int(open("/proc/sys/net/netfilter/nf_conntrack_" + name).read())
if sys.argv[1] == "empty":
    s.send(message(2, 4, b""))
    s.recv(4096)
    sys.exit()
def one(source, port):
    source, target = struct.pack(">I", 0xc0000200 + source), b"\xc6\x33\x64\x01"
    return message(0, 0x600, tuple_(1, source, target, port + b"\0\x09") + tuple_(2, target, source, b"\0\x09" + port)
                   + attr(3, struct.pack(">I", 14)) + attr(7, struct.pack(">I", 600)))
most, source = read("max"), 0
while read("count") < most and source < most // 30000:
    source += 1
    head, between, end = one(source, b"\xfe\xdc").split(b"\xfe\xdc")
    for first in range(1, 65535, 400):
        ports = (struct.pack(">H", port) for port in range(first, min(first + 400, 65536)))
        s.send(b"".join(head + port + between + port + end for port in ports))
        try:
            while s.recv(1 << 20, socket.MSG_DONTWAIT): pass
        except OSError: pass
        if first % 4000 == 1 and read("count") >= most: break
print(read("count"), most)
"#;

fn no_room_for_connections(h: &Hosts) {
    let script = h.scratch().join("fill.py");
    std::fs::write(&script, FILL).unwrap();
    let fill = |word: &str| {
        let said = h.sh("w1", &format!("python3 {} {word}", script.display()));
        assert_eq!(said.code, 0, "{said}");
        said.out
    };
    let began = Instant::now();
    println!("filled: {} after {:?}", fill("fill").trim(), began.elapsed());
    until("a new connection is dropped", || !answers(h));
    until_said(h, &["conntrack", "full", "dropped", "raise net.netfilter.nf_conntrack_max"]);
    fill("empty");
    until("it answers again", || answers(h));
    until_nothing_said(h);
}
