//! The names of networks, as tasks ask for them: every kind, what is not there, what is asked elsewhere,
//! and what goes wrong.

use std::io::Write;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use swarm_tests::hosts::{Hosts, Inside, TaskRow, until, until_in};

use crate::ask::{self, LOCAL, ask, question, reverse, tcp, udp};
use crate::network_update::patient;

#[test]
fn names_of_every_kind() {
    let mut hosts = patient(1, 1);
    hosts.expect_log(&["names of the world cannot be looked up", "no resolver of /etc/resolv.conf"]);
    hosts.ok("m1", "network create --ipv6 --subnet 10.40.0.0/24 --subnet fd00:40::/64 front");
    hosts.ok("m1", "network create --subnet 10.41.0.0/24 back");
    hosts.ok("m1", "network create --subnet 10.42.0.0/24 --internal inner");
    let create = |name: &str, words: &str| {
        let flags = format!("service create -d --stop-grace-period 200ms --name {name} {words}");
        hosts.ok("m1", &format!("{flags} demo:1 sleep 1000"));
    };
    create("web", "--replicas 2 --network name=front,alias=db -p 8080:80 -p 9000:9000/udp");
    create("rr", "--replicas 2 --endpoint-mode dnsrr --network back");
    create("asker", "--network front --network back --constraint node.hostname==m1");
    create("lone", "--network inner --constraint node.hostname==m1");
    let web = hosts.until_running("m1", "web", 2);
    let rr = hosts.until_running("m1", "rr", 2);
    let asker = hosts.until_running("m1", "asker", 1).remove(0);
    let lone = hosts.until_running("m1", "lone", 1).remove(0);
    let (asker_in, lone_in) = (hosts.inside_task("m1", &asker), hosts.inside_task("m1", &lone));
    until("all tasks have names", || {
        let count = |name: &str| ask(&asker_in, name, RecordType::A).data.len();
        count("tasks.web") == 2 && count("tasks.rr") == 2
    });
    services_and_tasks(&hosts, &asker_in, &web, &rr);
    addresses_have_names(&hosts, &asker_in, &web);
    ports_have_places(&asker_in);
    what_is_not_there(&asker_in);
    the_world_is_asked_of_the_hosts_resolver(&hosts, &asker_in, &lone_in);
    garbage_is_survived(&asker_in);
    a_flood_of_one_task_leaves_others_their_answers(&asker_in, &lone_in);
    hosts.ok("m1", "service rm web rr");
    too_much_for_a_datagram(&hosts, &asker_in);
    hosts.end();
}

/// A task's addresses on a network, of both versions.
pub(crate) fn addrs(h: &Hosts, task: &TaskRow, network: &str) -> Vec<String> {
    let id = h.inspect("m1", &format!("network inspect {network}"))["Id"].clone();
    let found = h.inspect("m1", &format!("task inspect {}", task.id));
    let all = found["NetworksAttachments"].as_array().unwrap_or_else(|| panic!("no networks: {found}"));
    let on = all.iter().find(|one| one["Network"]["ID"] == id).unwrap_or_else(|| panic!("{id}: {found}"));
    let addrs = on["Addresses"].as_array().unwrap();
    addrs.iter().map(|a| a.as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

fn of_version(addrs: &[Vec<String>], six: bool) -> Vec<String> {
    let mut all: Vec<String> = addrs.concat().into_iter().filter(|a| a.contains(':') == six).collect();
    all.sort();
    all
}

fn services_and_tasks(h: &Hosts, from: &Inside, web: &[TaskRow], rr: &[TaskRow]) {
    let data = |name: &str, kind| {
        let reply = ask(from, name, kind);
        assert!(reply.code == ResponseCode::NoError && reply.longest_ttl <= 5, "{name}: {reply:?}");
        reply.data
    };
    let web_addrs: Vec<_> = web.iter().map(|task| addrs(h, task, "front")).collect();
    let rr_addrs: Vec<_> = rr.iter().map(|task| addrs(h, task, "back")).collect();
    for (kind, six) in [(RecordType::A, false), (RecordType::AAAA, true)] {
        let vip = data("web", kind);
        assert_eq!(vip.len(), 1, "{vip:?}");
        let tasks = of_version(&web_addrs, six);
        assert_eq!((tasks.len(), data("tasks.web", kind)), (2, tasks.clone()));
        assert!(!tasks.contains(&vip[0]));
        for name in ["WeB", "db", "web.front", "db.front"] {
            assert_eq!(data(name, kind), vip, "{name}");
        }
        assert_eq!(data("tasks.web.front", kind), tasks);
        for (task, own) in web.iter().zip(&web_addrs) {
            let own = of_version(std::slice::from_ref(own), six);
            let container = format!("{}.{}", task.name, task.id);
            for name in [&task.name, &container, &format!("{}.front", task.name), &task.id[..12].to_owned()] {
                assert_eq!(data(name, kind), own, "{name}");
            }
        }
    }
    // of its other network, where names are tasks
    assert_eq!(data("rr", RecordType::A), of_version(&rr_addrs, false));
    assert_eq!(data("tasks.rr", RecordType::A), of_version(&rr_addrs, false));
    // where the gateway is, and over TCP
    for to in [LOCAL, "10.40.0.1:53", "10.41.0.1:53"] {
        let reply = from.run(|| udp(to, "web", RecordType::A, None)).unwrap_or_else(|| panic!("{to}: none"));
        assert_eq!(reply.data, data("web", RecordType::A), "{to}");
        assert_eq!(from.run(|| tcp(to, "web", RecordType::A)).data, reply.data, "{to} over TCP");
    }
}

fn addresses_have_names(h: &Hosts, from: &Inside, web: &[TaskRow]) {
    let ptr = |addr: &str| ask(from, &reverse(addr.parse().unwrap()), RecordType::PTR);
    for task in web {
        for addr in addrs(h, task, "front") {
            assert_eq!(ptr(&addr).data, [format!("{}.{}.front.", task.name, task.id)], "{addr}");
        }
    }
    for kind in [RecordType::A, RecordType::AAAA] {
        let vip = ask(from, "web", kind).data.remove(0);
        assert_eq!(ptr(&vip).data, ["web.front."]);
    }
    for nobody in ["10.40.0.250", "fd00:40::fffe"] {
        assert!(ptr(nobody).is_no_name(), "{nobody}: {:?}", ptr(nobody));
    }
}

fn ports_have_places(from: &Inside) {
    let vip: Vec<String> =
        [RecordType::A, RecordType::AAAA].map(|kind| ask(from, "web", kind).data.remove(0)).into();
    for name in ["_80._tcp.web", "_8080._tcp.web", "_tcp.web", "_80._tcp.web.front"] {
        let reply = ask(from, name, RecordType::SRV);
        assert_eq!(reply.data, ["0 0 80 web.front."], "{name}");
        assert!(vip.iter().all(|addr| reply.more.contains(addr)), "{name}: {reply:?}");
        assert!(reply.longest_ttl <= 5);
    }
    assert_eq!(ask(from, "_9000._udp.web", RecordType::SRV).data, ["0 0 9000 web.front."]);
    assert!(ask(from, "_81._tcp.web", RecordType::SRV).is_no_name());
}

fn what_is_not_there(from: &Inside) {
    // the name is there, such records are not
    for (name, kind) in [("web", RecordType::MX), ("rr", RecordType::AAAA), ("tasks.web", RecordType::TXT)] {
        let reply = ask(from, name, kind);
        assert!(reply.is_no_data() && reply.longest_ttl <= 5, "{name} {kind}: {reply:?}");
    }
    for name in ["web.7", "tasks.nobody", "rr.3"] {
        let reply = ask(from, name, RecordType::A);
        assert!(reply.is_no_name() && reply.longest_ttl <= 5, "{name}: {reply:?}");
    }
}

/// A resolver on the client's host: says 192.0.2.7 to everything while it is up.
struct Resolver {
    up: AtomicBool,
    ended: AtomicBool,
    asked: AtomicUsize,
}

impl Resolver {
    fn run(&self, inside: &Inside) {
        inside.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut buffer = [0; 4096];
            while !self.ended.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                self.asked.fetch_add(1, Ordering::Relaxed);
                if !self.up.load(Ordering::Relaxed) {
                    continue;
                }
                let mut message = Message::from_vec(&buffer[..length]).unwrap();
                message.metadata.message_type = MessageType::Response;
                let data = RData::A(A("192.0.2.7".parse().unwrap()));
                let name = message.queries[0].name.clone();
                message.add_answer(Record::from_rdata(name, 2, data));
                socket.send_to(&message.to_vec().unwrap(), from).unwrap();
            }
        });
    }
}

fn the_world_is_asked_of_the_hosts_resolver(h: &Hosts, asker: &Inside, lone: &Inside) {
    let client: IpAddr = h.cluster.hosts().iter().find(|r| r.name == "client").unwrap().address.into();
    let file = h.scratch().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {client}\n")).unwrap();
    let said = h.sh("m1", &format!("mount --bind {} /etc/resolv.conf", file.display()));
    assert_eq!(said.code, 0, "{said}");
    let there = h.inside("client");
    let resolver =
        Resolver { up: AtomicBool::new(true), ended: AtomicBool::new(false), asked: AtomicUsize::new(0) };
    let asked = || resolver.asked.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| resolver.run(&there));
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // the daemon sees the other file after a moment, and may shun the resolver of the one before
            until("the host's resolver is asked", || {
                ask(asker, &format!("a{}.example", asked()), RecordType::A).data == ["192.0.2.7"]
            });
            let before = asked();
            for name in ["secret.example", "single"] {
                let reply = ask(lone, name, RecordType::A);
                assert!(reply.is_no_name(), "an internal network: {reply:?}");
            }
            for name in ["web.7", "tasks.nobody", "web", "rr.9"] {
                ask(asker, name, RecordType::A);
            }
            assert_eq!(asked(), before, "what is ours is asked elsewhere");
            resolver.up.store(false, Ordering::Relaxed);
            let began = Instant::now();
            let reply = ask(asker, "down.example", RecordType::A);
            assert_eq!(reply.code, ResponseCode::ServFail, "{reply:?}");
            assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
            // names of ours are answered meanwhile
            std::thread::scope(|scope| {
                let slow = scope.spawn(|| ask(asker, "slow.example", RecordType::A));
                let began = Instant::now();
                let mut count = 0;
                while !slow.is_finished() {
                    assert_eq!(ask(asker, "web", RecordType::A).data.len(), 1);
                    count += 1;
                }
                assert!(count > 20, "{count} answers in {:?}", began.elapsed());
            });
            resolver.up.store(true, Ordering::Relaxed);
            until("the resolver is asked again", || {
                ask(asker, &format!("b{}.example", asked()), RecordType::A).data == ["192.0.2.7"]
            });
        }));
        resolver.ended.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        work.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(h.sh("m1", "umount /etc/resolv.conf").code, 0);
}

/// Numbers that look random and are the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn garbage_is_survived(from: &Inside) {
    from.run(|| {
        let mut noise = Noise(3);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(LOCAL).unwrap();
        for n in 0..2000u64 {
            // half of it nothing at all, half of it damaged questions
            let mut bytes = match n % 2 {
                0 => vec![0; usize::try_from(noise.next() % 600).unwrap()],
                _ => question(1, "web", RecordType::A, Some(512)),
            };
            let hits = if n % 2 == 0 { bytes.len() } else { 3 };
            for _ in 0..hits {
                let at = usize::try_from(noise.next()).unwrap() % bytes.len();
                bytes[at] = noise.next().to_le_bytes()[0];
            }
            socket.send(&bytes).unwrap();
        }
        for n in 0..20u64 {
            let mut stream = TcpStream::connect(LOCAL).unwrap();
            let bytes: Vec<u8> = (0..50 * n).map(|_| noise.next().to_le_bytes()[0]).collect();
            // it may have been thrown out before all was said
            stream.write_all(&bytes).ok();
        }
    });
    // whoever talks nonsense may have to wait
    until("questions are answered after garbage", || {
        from.run(|| udp(LOCAL, "web", RecordType::A, None)).is_some_and(|reply| reply.data.len() == 1)
    });
}

fn a_flood_of_one_task_leaves_others_their_answers(asker: &Inside, lone: &Inside) {
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            lone.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(LOCAL).unwrap();
                let bytes = question(1, "lone", RecordType::A, None);
                // what is dropped on the way is the kernel's own answer to a flood
                (0..20_000).filter(|_| socket.send(&bytes).is_ok()).count()
            })
        });
        loop {
            let last = flood.is_finished();
            let began = Instant::now();
            assert_eq!(ask(asker, "web", RecordType::A).data.len(), 1);
            slowest = slowest.max(began.elapsed());
            count += 1;
            if last {
                break;
            }
        }
        assert!(flood.join().unwrap() > 10_000);
    });
    assert!(slowest < Duration::from_secs(3), "one of {count} took {slowest:?}");
    until("the flooder is answered again", || ask(lone, "lone", RecordType::A).data.len() == 1);
}

fn too_much_for_a_datagram(h: &Hosts, from: &Inside) {
    h.ok("m1", "service create -d --stop-grace-period 200ms --name many --replicas 60 --endpoint-mode dnsrr --network back demo:1 sleep 1000");
    let mut small = None;
    until_in(Duration::from_secs(120), "all have names", || {
        let reply = from.run(|| ask::tcp(LOCAL, "many", RecordType::A));
        assert!(!reply.is_cut, "{reply:?}");
        reply.data.len() == 60 && {
            small = from.run(|| udp(LOCAL, "many", RecordType::A, None));
            true
        }
    });
    let small = small.expect("an answer over UDP");
    assert!(small.is_cut && small.data.len() < 60, "512 bytes hold fewer than 60: {small:?}");
    let large = from.run(|| udp(LOCAL, "many", RecordType::A, Some(1232))).expect("an answer");
    assert!(!large.is_cut && large.data.len() == 60, "{large:?}");
    h.ok("m1", "service rm many");
}
