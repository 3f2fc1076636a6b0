//! A host of its own for each test: a network namespace that plays the daemon's, and a folder for those
//! that the kernel driver makes. Both are gone when it is dropped, also when the test fails.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use swarm_types::id::{NetworkId, TaskId};
use swarm_worker_core::network::firewall::Field;
use swarm_worker_core::network::firewall::{
    Chain, ChainKind, Choice, Chooser, Family, Hook, HookPoint, Map, MapElements, Rule, Set, Statement,
    Table, Value, Verdict,
};
use swarm_worker_core::network::kernel::{Link, LinkKind, Mac, Namespace, Place, Plan, Route, Way};
use swarm_worker_network::{Kernel, Settings};

pub struct World {
    host: String,
    folder: tempfile::TempDir,
}

pub fn sandbox() -> Place {
    Place::Sandbox(NetworkId::new("net1"))
}

pub fn task(name: &str) -> Place {
    Place::Task(TaskId::new(name))
}

impl World {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let host = format!("swk{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &host]);
        let world = Self { host, folder: tempfile::tempdir().unwrap() };
        world.at(Place::Host, "ip link set lo up");
        world
    }

    pub fn settings(&self) -> Settings {
        let host = Some(PathBuf::from(format!("/run/netns/{}", self.host)));
        Settings { host, ..Settings::new(self.folder.path()) }
    }

    pub fn kernel(&self) -> Kernel {
        Kernel::open(self.settings()).unwrap()
    }

    pub fn path(&self, place: Place) -> PathBuf {
        match place {
            Place::Host => format!("/run/netns/{}", self.host).into(),
            Place::Sandbox(id) => self.folder.path().join(format!("n-{id}")),
            Place::Task(id) => self.folder.path().join(format!("t-{id}")),
        }
    }

    /// A command in a namespace; what it printed, and whether it went well.
    pub fn try_at(&self, place: Place, command: &str) -> (String, bool) {
        let net = format!("--net={}", self.path(place).display());
        let output = Command::new("nsenter").args([&net, "sh", "-c", command]).output().unwrap();
        (text(&output), output.status.success())
    }

    pub fn at(&self, place: Place, command: &str) -> String {
        let (text, fine) = self.try_at(place, command);
        assert!(fine, "{command}: {text}");
        text
    }

    /// A command that goes on until it is dropped.
    pub fn start(&self, place: Place, command: &str) -> Running {
        let net = format!("--net={}", self.path(place).display());
        let mut process = Command::new("nsenter");
        process.args([&net, "sh", "-c", &format!("exec {command}")]).stdout(std::process::Stdio::null());
        Running(process.spawn().unwrap())
    }

    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in self.files() {
            drop(Command::new("umount").arg("-l").arg(self.folder.path().join(name)).output());
        }
        drop(Command::new("ip").args(["netns", "del", &self.host]).output());
    }
}

pub struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
    text(&output)
}

/// Waits for something to become so.
pub fn wait_for(what: &str, is_so: impl FnMut() -> bool) -> Duration {
    wait_within(Duration::from_secs(10), what, is_so)
}

pub fn wait_within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

pub fn addr(text: &str) -> Value {
    Value::Addr(ip(text))
}

pub fn rule(statements: Vec<Statement>) -> Rule {
    Rule { statements, comment: String::new() }
}

pub fn chain(rules: Vec<Rule>) -> Chain {
    Chain { hook: None, rules }
}

pub fn base(kind: ChainKind, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook { kind, point, priority, device: None, drop_by_default: false }), rules }
}

pub fn table(family: Family, name: &str) -> Table {
    let (sets, maps, chains) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    Table { family, name: name.into(), sets, maps, chains }
}

pub fn set(key: Vec<Field>, interval: bool, elements: Vec<Vec<Value>>) -> Set {
    Set { key, interval, elements: elements.into_iter().collect() }
}

pub fn vmap(key: Vec<Field>, elements: Vec<(Vec<Value>, Verdict)>) -> Map {
    Map { key, elements: MapElements::Verdicts(elements.into_iter().collect()) }
}

pub fn choice(targets: &[(&str, Option<u16>, u32)]) -> Choice {
    let targets = targets.iter().map(|(addr, port, weight)| (ip(addr), *port, *weight)).collect();
    Choice { by: Chooser::Random, targets }
}

pub fn plan(namespaces: Vec<(Place, Namespace)>) -> Plan {
    Plan {
        namespaces: namespaces.into_iter().map(|(place, namespace)| (place, Arc::new(namespace))).collect(),
    }
}

pub fn veth(peer: Place, peer_name: &str, mac: u8) -> Link {
    let kind = LinkKind::Veth { peer, peer_name: peer_name.into() };
    Link { kind, mac: Some(Mac([2, 0x53, 0, 0, 0, mac])), mtu: 1450 }
}

pub fn direct(to: &str, device: &str) -> Route {
    let way = Way::Device { name: device.into(), via: None };
    Route { table: 254, to: net(to), way, src: None, metric: 0 }
}

pub fn via(to: &str, gateway: &str, device: &str) -> Route {
    let way = Way::Device { name: device.into(), via: Some(ip(gateway)) };
    Route { table: 254, to: net(to), way, src: None, metric: 0 }
}

pub fn unreachable(to: &str) -> Route {
    Route { table: 254, to: net(to), way: Way::Unreachable, src: None, metric: 0 }
}

/// A service's chain: one rule that leads to its backends.
pub fn service(backends: &[&str]) -> Chain {
    let targets: Vec<_> = backends.iter().map(|addr| (*addr, None, 1)).collect();
    chain(vec![rule(vec![Statement::Dnat(choice(&targets))])])
}

/// A sandbox with tasks `a`, `b`, … of addresses 10.0.1.11 and on, routed as in the design, with a virtual
/// address 10.0.1.100 for all of them but the last.
pub fn routed(tasks: usize) -> Plan {
    let mut plan = Plan::default();
    let mut sb = Namespace::default();
    for (key, value) in
        [("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")]
    {
        sb.sysctls.insert(key.into(), value.into());
    }
    sb.addrs.insert(("lo".into(), net("10.0.1.1/32")));
    Arc::make_mut(&mut sb.routes).insert(unreachable("10.0.1.0/24"));
    let mut backends = Vec::new();
    for number in 0..tasks {
        let octet = 11 + number;
        let (place, addr, name) =
            (task(&format!("t{number}")), format!("10.0.1.{octet}"), format!("v{octet}"));
        let mac = Mac([2, 0x53, 2, 0, 1, u8::try_from(octet).unwrap()]);
        sb.links.insert(name.clone(), veth(place, "eth0", 1));
        Arc::make_mut(&mut sb.routes).insert(direct(&format!("{addr}/32"), &name));
        sb.neighbours.insert((name.clone(), ip(&addr)), mac);
        let mut own = Namespace::default();
        own.links.insert("eth0".into(), Link { mac: Some(mac), ..veth(sandbox(), &name, 0) });
        own.addrs.insert(("eth0".into(), net(&format!("{addr}/24"))));
        let src = Some(ip(&addr));
        Arc::make_mut(&mut own.routes).insert(Route { src, ..direct("10.0.1.1/32", "eth0") });
        Arc::make_mut(&mut own.routes).insert(Route { src, ..via("10.0.1.0/24", "10.0.1.1", "eth0") });
        own.neighbours.insert(("eth0".into(), ip("10.0.1.1")), Mac([2, 0x53, 0, 0, 0, 1]));
        plan.namespaces.insert(place, own.into());
        backends.push(addr);
    }
    backends.pop();
    let backends: Vec<&str> = backends.iter().map(|addr| &addr[..]).collect();
    sb.tables.push(services(&[("10.0.1.100", &backends)]));
    plan.namespaces.insert(sandbox(), sb.into());
    plan
}

/// Virtual addresses and their backends, as a network's sandbox has them.
pub fn services(all: &[(&str, &[&str])]) -> Table {
    let mut net = table(Family::Ip, "sw_net");
    let mut elements = Vec::new();
    for (number, (vip, backends)) in all.iter().enumerate() {
        net.chains.insert(format!("s_{number}"), service(backends).into());
        elements.push((vec![addr(vip)], Verdict::Goto(format!("s_{number}"))));
    }
    net.maps.insert("svc".into(), vmap(vec![Field::IpDaddr], elements).into());
    let pre = vec![rule(vec![Statement::VerdictMap(vec![Field::IpDaddr], "svc".into())])];
    net.chains.insert("c_pre".into(), base(ChainKind::Nat, HookPoint::Prerouting, -100, pre).into());
    net.chains.insert("c_post".into(), base(ChainKind::Nat, HookPoint::Postrouting, 100, vec![]).into());
    net
}

pub fn addrs(all: &[(&str, &str)]) -> BTreeSet<(String, ipnet::IpNet)> {
    all.iter().map(|(device, addr)| ((*device).to_owned(), net(addr))).collect()
}
