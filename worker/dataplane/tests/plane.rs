//! The data plane in a network and mount namespace of each test's own, which go away with its thread.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use swarm_types::endpoint::{Balance, EndpointMode, Port, Protocol, PublishMode};
use swarm_types::network::{Attachment, NetworkDriver};
use swarm_types::network_set::{
    NetworkEntry, NetworkPart, NetworkSet, Peer, SelfPart, ServiceEndpoint, TaskEndpoint,
};
use swarm_types::task::Task;
use swarm_worker_agent::executor::{ExecError, NetworkService, TaskNetworks};
use swarm_worker_dataplane::{DataPlane, Settings};

const DEADLINE: Duration = Duration::from_secs(60);

/// A folder for one test.
struct Place {
    dir: tempfile::TempDir,
}

fn octets(octets: &mut [u8; 32]) -> io::Result<()> {
    octets.fill(7);
    Ok(())
}

impl Place {
    fn open(&self) -> DataPlane {
        let dir = self.dir.path();
        std::fs::write(dir.join("resolv.conf"), "").unwrap();
        let resolv_conf = dir.join("resolv.conf");
        let new = Settings::new(dir.join("run"), dir.join("state"), "no-shim-is-needed-here", octets);
        DataPlane::open(Settings { resolv_conf, ..new }).unwrap()
    }

    /// The files of namespaces.
    fn namespaces(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.dir.path().join("run/netns")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn records(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("state/tasks")).unwrap().count()
    }
}

/// Runs a test on a thread in namespaces of its own.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        // What /proc/sys/net and /sys show is this namespace's.
        let set = "ip link set lo up; ip link add under0 mtu 9000 type veth peer name wire mtu 9000; \
                   ip link set wire up; ip addr add 192.0.2.1/24 dev under0; ip link set under0 up";
        assert!(Command::new("sh").args(["-c", set]).status().unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = Place { dir: tempfile::tempdir().unwrap() };
        runtime.block_on(async { tokio::time::timeout(2 * DEADLINE, test(place)).await.expect("in time") });
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

fn network(id: &str, subnet: &str, gateway: &str, vni: u32) -> NetworkEntry {
    let network = NetworkPart {
        id: id.into(),
        name: format!("{id}-name"),
        driver: NetworkDriver::Overlay,
        vni,
        subnets: vec![(subnet.parse().unwrap(), gateway.parse().unwrap())],
        internal: false,
        ingress: id == "ingress",
        encrypted: false,
        mtu: 0,
        options: BTreeMap::new(),
    };
    NetworkEntry { network: Arc::new(network), endpoints: BTreeMap::new(), services: BTreeMap::new() }
}

/// This node, one other, the ingress network and the network `app`.
fn set() -> NetworkSet {
    let own = SelfPart {
        node: "n1".into(),
        index: 1,
        addr: Some([192, 0, 2, 1].into()),
        entry: vec![[10, 255, 0, 2].into()],
        data_port: 4789,
        ..SelfPart::default()
    };
    let peer = Peer {
        node: "n2".into(),
        index: 2,
        addr: [192, 0, 2, 2].into(),
        entry: vec![[10, 255, 0, 3].into()],
        keys: vec![],
        tunnel_port: 0,
    };
    let mut set = NetworkSet { version: 1, own: Some(Arc::new(own)), ..NetworkSet::default() };
    set.peers.insert(peer.node, Arc::new(peer));
    set.networks.insert("ingress".into(), network("ingress", "10.255.0.0/16", "10.255.0.1", 4096));
    set.networks.insert("app".into(), network("app", "10.0.1.0/24", "10.0.1.1", 4097));
    set
}

fn add(set: &mut NetworkSet, id: &str, service: &str, last: u8) {
    for (network, addr) in [("app", [10, 0, 1, last]), ("ingress", [10, 255, 1, last])] {
        let endpoint = TaskEndpoint {
            task: id.into(),
            node: "n1".into(),
            service: service.into(),
            name: format!("{service}.1"),
            addrs: vec![addr.into()],
            serving: true,
            weight: 1,
        };
        let entry = set.networks.get_mut(&network.into()).unwrap();
        entry.endpoints.insert(id.into(), Arc::new(endpoint));
        let port = Port { target: 80, published: 8080, ..Port::default() };
        let vip = if network == "app" { vec![[10, 0, 1, 100].into()] } else { vec![] };
        let service = ServiceEndpoint {
            service: service.into(),
            name: service.into(),
            aliases: vec![],
            mode: EndpointMode::Vip,
            balance: Balance::Random,
            vips: vip,
            ports: if network == "ingress" && id == "t1" { vec![port] } else { vec![] },
        };
        entry.services.insert(service.service, Arc::new(service));
    }
}

fn task(id: &str, last: u8) -> Task {
    let on = |network: &str, addr: [u8; 4]| Attachment {
        network: network.into(),
        addrs: vec![addr.into()],
        aliases: vec![],
    };
    let attachments = vec![on("app", [10, 0, 1, last]), on("ingress", [10, 255, 1, last])];
    Task { id: id.into(), attachments, ..Task::default() }
}

fn run(namespace: &Path, line: &str) -> (bool, String) {
    let mut net = std::ffi::OsString::from("--net=");
    net.push(namespace);
    let output = Command::new("nsenter").arg(net).args(["sh", "-c", line]).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn here(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks for the IPv4 addresses of a name at 127.0.0.11, as a program of a task would.
fn ask(namespace: &Path, name: &str) -> Vec<Ipv4Addr> {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let asked = std::thread::spawn(move || {
        setns(std::fs::File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        socket.send_to(&question, "127.0.0.11:53").unwrap();
        let mut answer = [0; 512];
        let (length, _) = socket.recv_from(&mut answer).unwrap();
        let count = usize::from(answer[7]);
        // Each record: a pointer to the name, type, class, TTL, length, address.
        let records = &answer[question.len()..length];
        records.chunks(16).take(count).map(|r| <[u8; 4]>::try_from(&r[12..16]).unwrap().into()).collect()
    });
    asked.join().unwrap()
}

async fn asked(namespace: &Path, name: &str) -> Vec<Ipv4Addr> {
    // The server runs on this thread's runtime.
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    tokio::task::spawn_blocking(move || ask(&namespace, &name)).await.unwrap()
}

#[test]
fn tasks_are_attached_reach_each_other_know_names_and_leave_nothing() {
    alone(|place| async move {
        let plane = place.open();
        let mut set = set();
        add(&mut set, "t1", "web", 11);
        add(&mut set, "t2", "db", 12);
        plane.apply(Arc::new(set.clone())).await;
        assert_eq!(plane.status().borrow().problems, [], "nothing is wrong");
        let one = plane.attach(&task("t1", 11)).await.unwrap();
        let two = plane.attach(&task("t2", 12)).await.unwrap();
        let (one, two) = (one.namespace.unwrap(), two.namespace.unwrap());
        assert_eq!(place.records(), 2);
        let (_, links) = run(&one, "ip -o addr; ip route");
        assert!(links.contains("eth0") && links.contains("10.0.1.11/24"), "{links}");
        assert!(links.contains("default via 10.255.0.1 dev gw0"), "{links}");
        let (_, mtu) = run(&one, "ip -o link show eth0");
        assert!(mtu.contains("mtu 8950"), "{mtu}");
        assert!(run(&one, "ping -c1 -W2 10.0.1.12").0, "one reaches two");
        assert!(run(&two, "ping -c1 -W2 10.0.1.1").0, "two reaches its gateway");
        assert_eq!(asked(&one, "db").await, [Ipv4Addr::new(10, 0, 1, 100)]);
        assert_eq!(asked(&one, "tasks.db").await, [Ipv4Addr::new(10, 0, 1, 12)]);
        assert_eq!(plane.check(None).await.unwrap(), []);

        // Again is nothing new; a second owner of an address is refused and leaves nothing (D13).
        plane.attach(&task("t1", 11)).await.unwrap();
        add(&mut set, "t3", "cache", 12);
        plane.apply(Arc::new(set)).await;
        let before = place.namespaces();
        match plane.attach(&task("t3", 12)).await {
            Err(ExecError::Fatal(why)) => assert!(why.contains("10.0.1.12 is in use by task db.1"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!((place.namespaces(), place.records()), (before, 2));

        plane.detach("t1".into()).await.unwrap();
        plane.detach("t1".into()).await.unwrap();
        assert!(!one.exists() && two.exists() && place.records() == 1);
        plane.detach("t2".into()).await.unwrap();
        plane.apply(Arc::new(NetworkSet::default())).await;
        assert_eq!((place.namespaces(), place.records()), (BTreeSet::new(), 0));
        assert_eq!(here("nft list tables"), "");
        let links = here(
            "ip -o link; ip route show proto 83; ip rule | grep -v 'lookup \\(local\\|main\\|default\\)'",
        );
        assert_eq!(links.lines().count(), 3, "lo and the underlay: {links}");
    });
}

#[test]
fn a_daemon_that_starts_takes_over_what_is_there() {
    alone(|place| async move {
        let mut set = set();
        add(&mut set, "t1", "web", 11);
        add(&mut set, "t2", "db", 12);
        let set = Arc::new(set);
        let mut task = task("t1", 11);
        let host = |published| Port { target: 80, published, mode: PublishMode::Host, ..Port::default() };
        Arc::make_mut(&mut task.spec).host_ports = vec![host(0)];
        let mut first = None;
        let mut names: Option<BTreeMap<PathBuf, String>> = None;
        for n in 0..5 {
            let plane = place.open();
            plane.keep_only(&["t1".into(), "t2".into()].into()).await.unwrap();
            if n == 0 {
                plane.apply(Arc::clone(&set)).await;
                plane.attach(&task).await.unwrap();
                plane.attach(&self::task("t2", 12)).await.unwrap();
            }
            let links = plane.links("t1".into());
            let given = links.ports[0].published;
            assert_eq!(*first.get_or_insert(given), given, "the port that was given stays");
            assert_ne!(given, 0);
            // Half of them are killed before they were told anything.
            if n % 2 == 0 {
                plane.apply(Arc::clone(&set)).await;
                assert_eq!(plane.check(None).await.unwrap(), []);
                let namespace = links.namespace.unwrap();
                assert_eq!(asked(&namespace, "db").await, [Ipv4Addr::new(10, 0, 1, 100)]);
            }
            // The same devices, not others of the same name.
            let all = place.namespaces().into_iter().map(|name| {
                let path = place.dir.path().join("run/netns").join(name);
                let devices = run(&path, "ip -o link | cut -d: -f1,2").1;
                (path, devices)
            });
            let all: BTreeMap<_, _> = all.collect();
            assert_eq!(*names.get_or_insert_with(|| all.clone()), all);
        }
        // One of the tasks has ended while nobody looked.
        let plane = place.open();
        plane.keep_only(&["t1".into()].into()).await.unwrap();
        plane.apply(Arc::clone(&set)).await;
        let links = place.namespaces();
        assert_eq!(links.iter().filter(|name| name.starts_with("t-")).count(), 1, "{links:?}");
        plane.keep_only(&BTreeSet::new()).await.unwrap();
        plane.apply(Arc::new(NetworkSet::default())).await;
        assert_eq!((place.namespaces(), place.records()), (BTreeSet::new(), 0));
    });
}

#[test]
fn daemons_that_die_at_any_moment_leak_nothing() {
    alone(|place| async move {
        let mut full = set();
        for n in 1..=4 {
            add(&mut full, &format!("t{n}"), &format!("s{n}"), 10 + n);
        }
        let full = Arc::new(full);
        for micros in (0..60_u64).map(|n| n * n * 20) {
            let plane = place.open();
            let work = async {
                plane.apply(Arc::clone(&full)).await;
                for n in 1..=4 {
                    plane.attach(&task(&format!("t{n}"), 10 + n)).await.unwrap();
                    if n > 1 {
                        plane.detach(format!("t{}", n - 1).as_str().into()).await.unwrap();
                    }
                }
            };
            // Dropped in the middle of whatever it was at.
            drop(tokio::time::timeout(Duration::from_micros(micros), work).await);
        }
        let plane = place.open();
        plane.keep_only(&["t4".into()].into()).await.unwrap();
        plane.apply(Arc::clone(&full)).await;
        let tasks = place.namespaces();
        let tasks: Vec<_> = tasks.iter().filter(|name| name.starts_with("t-")).collect();
        assert!(tasks.len() <= 1 && tasks.iter().all(|name| name.ends_with("t4")), "{tasks:?}");
        assert!(place.records() <= 1);
        assert_eq!(plane.check(None).await.unwrap(), []);
        plane.keep_only(&BTreeSet::new()).await.unwrap();
        plane.apply(Arc::new(NetworkSet::default())).await;
        assert_eq!((place.namespaces(), place.records()), (BTreeSet::new(), 0));
        assert_eq!(here("ip -o link | wc -l").trim(), "3");
    });
}

/// The way out of the task before it was taken away, and given again for this one: it does not start
/// in between.
#[test]
fn a_task_waits_for_a_network_that_goes_and_comes_again() {
    alone(|place| async move {
        let plane = place.open();
        let with = Arc::new(set());
        let mut without = set();
        without.networks.remove(&"ingress".into());
        plane.apply(with.clone()).await;
        let mut wants = task("t1", 11);
        wants.attachments.retain(|attachment| attachment.network == "ingress".into());
        let mut attach = plane.attach(&wants);
        let early = async { tokio::time::timeout(Duration::from_millis(300), &mut attach).await };
        let ((), early) = tokio::join!(plane.apply(Arc::new(without)), early);
        assert!(early.is_err(), "it does not start without its network: {early:?}");
        let problems = plane.status().borrow().problems.clone();
        plane.apply(with).await;
        let links = attach.await.unwrap();
        let (_, seen) = run(&links.namespace.unwrap(), "ip -o addr");
        assert!(seen.contains("gw0"), "{seen}");
        assert_eq!(problems, [], "a moment without it is none");
    });
}

/// An agent that hears that a task is to stop drops what it asked for, and says next that nothing is to stay.
#[test]
fn links_that_nobody_waits_for_any_more_are_removed() {
    alone(|place| async move {
        let plane = place.open();
        let mut set = set();
        add(&mut set, "t1", "web", 11);
        plane.apply(Arc::new(set)).await;
        let before = place.namespaces();
        let t1 = task("t1", 11);
        let mut attach = plane.attach(&t1);
        assert!(futures::poll!(&mut attach).is_pending(), "the engine has not got to it");
        drop(attach);
        plane.detach("t1".into()).await.unwrap();
        // answered after all that was asked before
        plane.check(None).await.unwrap();
        assert_eq!((place.namespaces(), place.records()), (before, 0));
    });
}

#[test]
fn ports_are_held_and_ports_of_others_are_told() {
    alone(|place| async move {
        let program = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        let plane = place.open();
        let mut set = set();
        add(&mut set, "t1", "web", 11);
        plane.apply(Arc::new(set)).await;
        let mut status = plane.status();
        let problems = status.borrow_and_update().problems.clone();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].subject == "port 8080/tcp" && problems[0].text.contains("another program"));

        let mut wants = task("t1", 11);
        Arc::make_mut(&mut wants.spec).host_ports = vec![Port {
            target: 80,
            published: 8080,
            protocol: Protocol::Tcp,
            mode: PublishMode::Host,
            host_ip: None,
        }];
        match plane.attach(&wants).await {
            Err(ExecError::Fatal(why)) => assert!(why.contains("publish port 8080/tcp"), "{why}"),
            other => panic!("{other:?}"),
        }
        drop(program);
        let gone = status.wait_for(|status| status.problems.is_empty());
        tokio::time::timeout(DEADLINE, gone).await.expect("seen in time").unwrap();
        assert!(std::net::TcpListener::bind("0.0.0.0:8080").is_err());
        plane.attach(&task("t1", 11)).await.unwrap();
        // It leads to the task, from the node itself: loopback is the node's address on the ingress network.
        let namespace = plane.links("t1".into()).namespace.unwrap();
        let serve = std::thread::spawn(move || {
            setns(std::fs::File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let listener = std::net::TcpListener::bind("0.0.0.0:80").unwrap();
            (0..2).map(|_| listener.accept().unwrap().1.ip().to_string()).collect::<Vec<_>>()
        });
        for addr in ["127.0.0.1:8080", "192.0.2.1:8080"] {
            tokio::time::timeout(DEADLINE, async {
                while tokio::net::TcpStream::connect(addr).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .expect(addr);
        }
        let seen = tokio::task::spawn_blocking(move || serve.join().unwrap()).await.unwrap();
        assert_eq!(seen, ["10.255.0.2", "192.0.2.1"]);
    });
}
