//! The server at real sockets of the loopback, with resolvers that the tests play.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // all of this is test

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::{NetworkChange, NetworkSet};
use swarm_worker_dns::testing::{change, change_network, network, service, serving, task};
use swarm_worker_dns::{Server, Settings, Sockets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket as Udp};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A port of an address that is free for UDP and TCP.
fn sockets(addr: &str, port: u16) -> (UdpSocket, TcpListener) {
    let addr: IpAddr = addr.parse().unwrap();
    for _ in 0..100 {
        let udp = UdpSocket::bind((addr, port)).unwrap();
        let port = udp.local_addr().unwrap().port();
        if let Ok(tcp) = TcpListener::bind((addr, port)) {
            return (udp, tcp);
        }
    }
    panic!("no port is free");
}

struct Rig {
    server: Server,
    set: NetworkSet,
    net: NetworkId,
    tasks: Vec<TaskId>,
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Rig {
    /// A server for a network with the service `web` (virtual address) and `db` (three tasks).
    fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let resolv_conf = folder.path().join("resolv.conf");
        let server = Server::new(Settings { resolv_conf, ..settings });
        let mut set = NetworkSet::default();
        let net = network(&mut set, "front", 1);
        service(&mut set, net, "web", &[], &["10.1.1.1", "fd00:1::100"]);
        service(&mut set, net, "db", &[], &[]);
        let tasks = [1, 2, 3].map(|n| task(&mut set, net, "db", n, &[&format!("10.1.0.2{n}")])).to_vec();
        let (udp, tcp) = sockets("127.0.0.1", 0);
        let addr = udp.local_addr().unwrap();
        server.listen(net, Sockets { udp: vec![udp], tcp: vec![tcp] }).unwrap();
        let rig = Self { server, set, net, tasks, addr, folder };
        rig.tell();
        rig
    }

    fn tell(&self) {
        self.server.set(Arc::new(self.set.clone()));
    }

    fn resolv_conf(&self) -> std::path::PathBuf {
        self.folder.path().join("resolv.conf")
    }

    async fn udp(&self, name: &str) -> Message {
        self.udp_with(&question(1, name, None)).await.expect("an answer")
    }

    async fn udp_with(&self, bytes: &[u8]) -> Option<Message> {
        let socket = Udp::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.addr).await.unwrap();
        socket.send(bytes).await.unwrap();
        let mut buffer = [0; 4096];
        let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(Message::from_vec(&buffer[..len]).unwrap())
    }
}

fn question(id: u16, name: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn addrs(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len[..], bytes].concat()).await.unwrap();
}

async fn hear(stream: &mut TcpStream) -> Option<Message> {
    let read = async {
        let mut buffer = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut buffer).await.ok()?;
        Some(Message::from_vec(&buffer).unwrap())
    };
    timeout(PATIENCE, read).await.expect("an answer or an end")
}

/// What a played resolver does.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    Answer,
    Silence,
    /// Over UDP: "ask over TCP".
    Cut,
    Fail,
}

/// A resolver; counts the questions that reach it.
struct Resolver {
    asked: Arc<AtomicUsize>,
    play: Arc<Mutex<Play>>,
    addr: SocketAddr,
    _loops: tokio::task::JoinSet<()>,
}

impl Resolver {
    fn new(addr: &str, port: u16, play: Play) -> Self {
        let (udp, tcp) = sockets(addr, port);
        let addr = udp.local_addr().unwrap();
        let (asked, play) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(play)));
        let mut loops = tokio::task::JoinSet::new();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let udp = Udp::from_std(udp).unwrap();
        let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
        let (count, plays) = (asked.clone(), play.clone());
        loops.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                let play = *plays.lock().unwrap();
                // first what somebody who guesses would send
                let forged = answer(&buffer[..len], Play::Answer, 1, "6.6.6.6");
                udp.send_to(&forged, from).await.unwrap();
                if play != Play::Silence {
                    udp.send_to(&answer(&buffer[..len], play, 0, "192.0.2.1"), from).await.unwrap();
                }
            }
        });
        loops.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let len = stream.read_u16().await.unwrap();
                let mut buffer = vec![0; len.into()];
                stream.read_exact(&mut buffer).await.unwrap();
                say(&mut stream, &answer(&buffer, Play::Answer, 0, "192.0.2.2")).await;
            }
        });
        Self { asked, play, addr, _loops: loops }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(bytes: &[u8], play: Play, id: u16, addr: &str) -> Vec<u8> {
    let mut message = Message::from_vec(bytes).unwrap();
    message.metadata.id ^= id;
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    match play {
        Play::Cut => message.metadata.truncation = true,
        Play::Fail => message.metadata.response_code = ResponseCode::ServFail,
        Play::Answer | Play::Silence => {
            let data = RData::A(A(addr.parse().unwrap()));
            message.add_answer(Record::from_rdata(message.queries[0].name.clone(), 30, data));
        }
    }
    message.to_vec().unwrap()
}

fn name_servers(path: &Path, addrs: &[IpAddr]) {
    let lines: String = addrs.iter().map(|addr| format!("nameserver {addr}\n")).collect();
    std::fs::write(path, lines).unwrap();
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn on(port: u16) -> Settings {
    Settings { upstream_port: port, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_left_is_not_answered_any_more() {
    let mut rig = Rig::new(Settings::default());
    let first: BTreeSet<String> = addrs(&rig.udp("DB.").await).into_iter().collect();
    assert_eq!(first.into_iter().collect::<Vec<_>>(), ["10.1.0.21", "10.1.0.22", "10.1.0.23"]);
    assert_eq!(rig.udp("wEb.").await.queries[0].name.to_string(), "wEb.");
    serving(&mut rig.set, rig.net, rig.tasks[0], false);
    change(&mut rig.set, NetworkChange::RemoveEndpoint(rig.net, rig.tasks[1]));
    rig.tell();
    for _ in 0..100 {
        assert_eq!(addrs(&rig.udp("db.").await), ["10.1.0.23"]);
    }
    assert_eq!(addrs(&rig.udp("web.").await), ["10.1.1.1"]);
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    say(&mut stream, &question(2, "db.", None)).await;
    assert_eq!(addrs(&hear(&mut stream).await.unwrap()), ["10.1.0.23"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_address_is_each_as_often() {
    let rig = Rig::new(Settings::default());
    let mut first = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        *first.entry(addrs(&rig.udp("db.").await).remove(0)).or_default() += 1;
    }
    assert!(first.len() == 3 && first.values().all(|n| (60..140).contains(n)), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_under_questions_is_seen_by_all_that_come_after() {
    let mut rig = Rig::new(Settings::default());
    let addr = rig.addr;
    service(&mut rig.set, rig.net, "moving", &[], &[]);
    task(&mut rig.set, rig.net, "moving", 1, &["10.1.0.0"]);
    rig.tell();
    let version = Arc::new(AtomicUsize::new(0));
    let mut askers = tokio::task::JoinSet::new();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for _ in 0..4 {
        let (version, done) = (version.clone(), done.clone());
        askers.spawn(async move {
            let socket = Udp::bind("127.0.0.1:0").await.unwrap();
            socket.connect(addr).await.unwrap();
            let mut asked = 0u16;
            while !done.load(Ordering::SeqCst) {
                let least = version.load(Ordering::SeqCst);
                asked = asked.wrapping_add(1);
                socket.send(&question(asked, "moving.", None)).await.unwrap();
                let mut buffer = [0; 512];
                let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
                let message = Message::from_vec(&buffer[..len]).unwrap();
                let RData::A(A(got)) = message.answers[0].data else { panic!("{message}") };
                let got = u32::from(got) as usize & 0xffff;
                assert!(got >= least, "{got} was answered after {least}");
            }
            asked
        });
    }
    for n in 0..500usize {
        task(&mut rig.set, rig.net, "moving", 1, &[&format!("10.1.{}.{}", n >> 8, n & 255)]);
        rig.tell();
        version.store(n, Ordering::SeqCst);
    }
    done.store(true, Ordering::SeqCst);
    while let Some(asked) = askers.join_next().await {
        assert!(asked.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_udp_comes_over_tcp() {
    let mut rig = Rig::new(Settings::default());
    service(&mut rig.set, rig.net, "many", &[], &[]);
    for n in 0..200 {
        task(&mut rig.set, rig.net, "many", n, &[&format!("10.1.7.{n}")]);
    }
    rig.tell();
    let plain = rig.udp("many.").await;
    assert!(plain.metadata.truncation && plain.answers.len() == 30, "{}", plain.answers.len());
    let more = rig.udp_with(&question(1, "many.", Some(4096))).await.unwrap();
    assert!(more.metadata.truncation && more.answers.len() == 74, "{}", more.answers.len());
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    say(&mut stream, &question(1, "many.", None)).await;
    let all = hear(&mut stream).await.unwrap();
    assert_eq!(addrs(&all).into_iter().collect::<BTreeSet<_>>().len(), 200);
    assert!(!all.metadata.truncation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_takes_many_questions_and_ends_when_idle() {
    let rig = Rig::new(Settings { idle: Duration::from_millis(300), ..Settings::default() });
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    let frames = (0..500u16).flat_map(|id| {
        let bytes = question(id, "web.", None);
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
    });
    stream.write_all(&frames.collect::<Vec<u8>>()).await.unwrap();
    for id in 0..500 {
        let message = hear(&mut stream).await.unwrap();
        assert_eq!((message.metadata.id, addrs(&message)), (id, vec!["10.1.1.1".to_owned()]));
    }
    let start = Instant::now();
    assert!(hear(&mut stream).await.is_none(), "the server ends it");
    assert!(start.elapsed() >= Duration::from_millis(200));
    // a question that never becomes whole
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(&[0, 40, 1]).await.unwrap();
    assert!(hear(&mut stream).await.is_none());
    // longer than any question
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(&[255, 255]).await.unwrap();
    assert!(hear(&mut stream).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_source_are_limited_and_given_back() {
    let rig = Rig::new(Settings { connections_per_source: 3, ..Settings::default() });
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(rig.addr).await.unwrap();
        say(&mut stream, &question(1, "web.", None)).await;
        assert!(hear(&mut stream).await.is_some());
        streams.push(stream);
    }
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    assert!(hear(&mut stream).await.is_none());
    assert_eq!(rig.server.counters().connections_refused, 1);
    drop(streams);
    until("a connection is free", async || {
        let mut stream = TcpStream::connect(rig.addr).await.unwrap();
        let bytes = question(1, "web.", None);
        let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        stream.write_all(&[&len[..], &bytes].concat()).await.is_ok() && hear(&mut stream).await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_world_are_asked_once_and_kept() {
    let resolver = Resolver::new("127.0.0.2", 0, Play::Answer);
    let rig = Rig::new(on(resolver.addr.port()));
    name_servers(&rig.resolv_conf(), &[resolver.addr.ip()]);
    let ask = |id: u16| rig_ask(rig.addr, question(id, "ExAmple.com.", None));
    let answers = futures_join((1..=20).map(ask).collect()).await;
    for (id, message) in (1..=20).zip(answers) {
        assert_eq!(message.metadata.id, id);
        assert_eq!(addrs(&message), ["192.0.2.1"], "not the forged one");
        assert_eq!(message.queries[0].name.to_string(), "ExAmple.com.");
    }
    assert_eq!(resolver.asked(), 1);
    let again = rig.udp("example.COM.").await;
    assert_eq!(
        (addrs(&again), again.queries[0].name.to_string()),
        (vec!["192.0.2.1".into()], "example.COM.".into())
    );
    assert_eq!(resolver.asked(), 1);
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    for id in 0..100 {
        say(&mut stream, &question(id, &format!("n{id}.example.com."), Some(1232))).await;
    }
    let mut ids = BTreeSet::new();
    for _ in 0..100 {
        let message = hear(&mut stream).await.unwrap();
        assert!(message.edns.is_some());
        ids.insert(message.metadata.id);
    }
    assert_eq!((ids.len(), resolver.asked()), (100, 101));
    assert!(rig.server.problems().is_empty());
}

async fn rig_ask(addr: SocketAddr, bytes: Vec<u8>) -> Message {
    let socket = Udp::bind("127.0.0.1:0").await.unwrap();
    socket.connect(addr).await.unwrap();
    socket.send(&bytes).await.unwrap();
    let mut buffer = [0; 4096];
    let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

async fn futures_join(futures: Vec<impl Future<Output = Message> + Send + 'static>) -> Vec<Message> {
    let mut tasks = tokio::task::JoinSet::new();
    for future in futures {
        tasks.spawn(future);
    }
    let mut messages = tasks.join_all().await;
    messages.sort_by_key(|message| message.metadata.id);
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_of_a_resolver_is_fetched_over_tcp() {
    let resolver = Resolver::new("127.0.0.2", 0, Play::Cut);
    let rig = Rig::new(on(resolver.addr.port()));
    name_servers(&rig.resolv_conf(), &[resolver.addr.ip()]);
    assert_eq!(addrs(&rig.udp("example.com.").await), ["192.0.2.2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_resolver_answers_for_one_that_is_silent_or_fails() {
    for play in [Play::Silence, Play::Fail] {
        let good = Resolver::new("127.0.0.3", 0, Play::Answer);
        let bad = Resolver::new("127.0.0.2", good.addr.port(), play);
        let rig = Rig::new(on(good.addr.port()));
        name_servers(&rig.resolv_conf(), &[bad.addr.ip(), good.addr.ip()]);
        assert_eq!(addrs(&rig.udp("example.com.").await), ["192.0.2.1"]);
        assert_eq!((bad.asked(), good.asked()), (1, 1));
        let start = Instant::now();
        assert_eq!(addrs(&rig.udp("example.org.").await), ["192.0.2.1"]);
        if play == Play::Silence {
            assert!(start.elapsed() < Duration::from_secs(2), "asked last from now on");
            assert_eq!(bad.asked(), 1);
        }
        assert!(rig.server.problems().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resolvers_that_are_down_are_a_problem_until_one_answers() {
    let (udp, tcp) = sockets("127.0.0.2", 0);
    let addr = udp.local_addr().unwrap();
    drop((udp, tcp));
    let rig = Rig::new(on(addr.port()));
    assert_eq!(rig.udp("a.example.").await.metadata.response_code, ResponseCode::ServFail);
    let [problem] = &rig.server.problems()[..] else { panic!("no problem") };
    assert!(problem.subject == "resolver" && problem.text.contains("names no resolver"), "{}", problem.text);
    // ourselves, and Docker's, are nobody to ask
    name_servers(&rig.resolv_conf(), &["10.1.0.1".parse().unwrap(), "127.0.0.11".parse().unwrap()]);
    assert_eq!(rig.udp("b.example.").await.metadata.response_code, ResponseCode::ServFail);
    assert!(rig.server.problems()[0].text.contains("names no resolver"));
    name_servers(&rig.resolv_conf(), &[addr.ip()]);
    let mut n = 0;
    until("the file is read again", async || {
        n += 1;
        let message = rig.udp(&format!("c{n}.example.")).await;
        assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
        rig.server.problems()[0].text.contains("127.0.0.2, said: Connection refused")
    })
    .await;
    assert_eq!(addrs(&rig.udp("web.").await), ["10.1.1.1"], "our own names go on");
    let resolver = Resolver::new("127.0.0.2", addr.port(), Play::Answer);
    assert_eq!(addrs(&rig.udp("d.example.").await), ["192.0.2.1"]);
    assert!(rig.server.problems().is_empty() && resolver.asked() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_internal_network_leaves() {
    let resolver = Resolver::new("127.0.0.2", 0, Play::Answer);
    let mut rig = Rig::new(on(resolver.addr.port()));
    name_servers(&rig.resolv_conf(), &[resolver.addr.ip()]);
    change_network(&mut rig.set, rig.net, |part| part.internal = true);
    rig.tell();
    for name in ["example.com.", "single.", "db.9.", "1.0.0.10.in-addr.arpa."] {
        let message = rig.udp(name).await;
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(message.authorities.len(), 1);
    }
    assert_eq!(addrs(&rig.udp("web.").await), ["10.1.1.1"]);
    assert_eq!(resolver.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_on_their_way_are_limited() {
    let resolver = Resolver::new("127.0.0.2", 0, Play::Silence);
    let rig = Rig::new(Settings { forwards_per_source: 3, ..on(resolver.addr.port()) });
    name_servers(&rig.resolv_conf(), &[resolver.addr.ip()]);
    let mut waiting = Vec::new();
    for n in 0..3 {
        let socket = Udp::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&question(1, &format!("{n}.example."), None), rig.addr).await.unwrap();
        waiting.push(socket);
    }
    until("all are on their way", async || resolver.asked() == 3).await;
    let start = Instant::now();
    assert_eq!(rig.udp("more.example.").await.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(rig.server.counters().refused, 1);
    *resolver.play.lock().unwrap() = Play::Answer;
    for socket in waiting {
        let mut buffer = [0; 512];
        let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(addrs(&Message::from_vec(&buffer[..len]).unwrap()), ["192.0.2.1"], "asked again");
    }
    assert_eq!(addrs(&rig.udp("last.example.").await), ["192.0.2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_dropped_counted_and_told_of_and_others_are_answered() {
    let mut rig = Rig::new(Settings { questions_per_second: 50, burst: 20, ..Settings::default() });
    task(&mut rig.set, rig.net, "db", 4, &["127.0.0.9"]);
    rig.tell();
    let socket = Udp::bind("127.0.0.9:0").await.unwrap();
    for id in 0..2000 {
        let _full = socket.try_send_to(&question(id, "web.", None), rig.addr);
    }
    until("the excess is dropped", async || rig.server.counters().flooded > 100).await;
    assert_eq!(addrs(&rig.udp("web.").await), ["10.1.1.1"]);
    let [problem] = &rig.server.problems()[..] else { panic!("no problem") };
    assert!(problem.subject == "names of front" && problem.text.starts_with("db.4 (127.0.0.9) asks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_harms_nobody() {
    let rig = Rig::new(Settings::default());
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    let socket = Udp::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random() % 600).map(|_| random() as u8).collect();
        let _full = socket.try_send_to(&bytes, rig.addr);
    }
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..random() % 6000).map(|_| random() as u8).collect();
        let mut stream = TcpStream::connect(rig.addr).await.unwrap();
        let _ended = stream.write_all(&bytes).await;
    }
    socket.send_to(&[0; 5000], rig.addr).await.unwrap();
    until("they are seen", async || rig.server.counters().malformed > 100).await;
    assert_eq!(addrs(&rig.udp("web.").await), ["10.1.1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_sockets_answer_and_closed_ones_do_not() {
    let rig = Rig::new(Settings::default());
    let (udp, tcp) = sockets("::1", 0);
    let addr = udp.local_addr().unwrap();
    rig.server.listen(rig.net, Sockets { udp: vec![udp], tcp: vec![tcp] }).unwrap();
    assert_eq!(rig.server.listening(), [rig.net]);
    let socket = Udp::bind("[::1]:0").await.unwrap();
    socket.connect(addr).await.unwrap();
    let mut buffer = [0; 512];
    socket.send(&question(1, "web.", None)).await.unwrap();
    let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(addrs(&Message::from_vec(&buffer[..len]).unwrap()), ["10.1.1.1"]);
    rig.server.close(rig.net);
    // Each has a task of its own: one may be closed before the other.
    until("the sockets are closed", async || {
        let udp = UdpSocket::bind(addr).is_ok() && UdpSocket::bind(rig.addr).is_ok();
        udp && TcpStream::connect(addr).await.is_err()
    })
    .await;
    assert!(rig.server.listening().is_empty());
}
