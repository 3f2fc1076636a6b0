//! Measures the server over the loopback: `cargo run --release -p swarm-worker-dns --features testing
//! --example dns_bench [seconds]`.
//!
//! Prints, as JSON: how many questions it answers for each second of its thread's processor time when
//! it has all it can do, and how long answers take at 20 000 a second. The server has one thread; who
//! asks has others. 1 000 services of 10 tasks; half of the questions are for virtual addresses, the
//! others for tasks, back and for names that are not there. `echo` is the same against a socket that
//! sends back what it gets: what the machine does at that moment. Times are taken in rounds of a second, in turn;
//! the middle and the best round are printed.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use swarm_types::network_set::NetworkSet;
use swarm_worker_dns::testing::{network, service, task};
use swarm_worker_dns::{Server, Settings, Sockets, Zone};

const SERVICES: u32 = 1_000;
const TASKS: u32 = 10;
/// Questions a second at which times are taken.
const PACE: u64 = 20_000;
/// Questions on their way when the server has all it can do.
const WINDOW: usize = 64;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(5);
    let length = Duration::from_secs(seconds);
    let (set, built) = made_up();
    let questions = Arc::new(questions());
    let full = saturate(set.clone(), questions.clone(), length);
    let (running, echo) = (Running::start(set), echo());
    let (mut own, mut echoed) = (Vec::new(), Vec::new());
    for _ in 0..seconds {
        own.push(pace(running.addr, &questions));
        echoed.push(pace(echo, &questions));
    }
    let (busy, answered) = running.stop();
    let at = |rounds: &[Vec<u64>], permille: usize| {
        let of = |times: &Vec<u64>| times[(times.len() - 1) * permille / 1000] as f64 / 1000.0;
        let mut rounds: Vec<f64> = rounds.iter().map(of).collect();
        rounds.sort_by(f64::total_cmp);
        (rounds[rounds.len() / 2], rounds[0])
    };
    let lines = [
        format!("{{\"answers_per_core_second\": {:.0}", full.0),
        format!(" \"answers_per_second\": {:.0}", full.1),
        format!(" \"paced_per_second\": {}", own.iter().map(Vec::len).sum::<usize>() / own.len()),
        format!(" \"paced_cpu_us_per_answer\": {:.2}", busy.as_secs_f64() * 1e6 / answered as f64),
        format!(" \"p50_us\": {:.1}, \"echo_p50_us\": {:.1}", at(&own, 500).0, at(&echoed, 500).0),
        format!(" \"p99_us\": {:.1}, \"echo_p99_us\": {:.1}", at(&own, 990).0, at(&echoed, 990).0),
        format!(" \"best_p99_us\": {:.1}, \"best_echo_p99_us\": {:.1}", at(&own, 990).1, at(&echoed, 990).1),
        format!(" \"zone_of_{}_tasks_ms\": {:.2}}}", SERVICES * TASKS, built.as_secs_f64() * 1000.0),
    ];
    #[allow(clippy::print_stdout)] // what it is for
    {
        println!("{}", lines.join(",\n"));
    }
}

fn made_up() -> (Arc<NetworkSet>, Duration) {
    let mut set = NetworkSet::default();
    let net = network(&mut set, "front", 1);
    for n in 0..SERVICES {
        let vip = format!("10.1.{}.{}", 128 + (n >> 8), n & 255);
        let vips = [vip.as_str()];
        service(&mut set, net, &format!("s{n}"), &[], if n % 2 == 0 { &vips } else { &[] });
        for slot in 0..TASKS {
            let at = n * TASKS + slot;
            let addr = format!("10.1.{}.{}", at >> 8, at & 255);
            task(&mut set, net, &format!("s{n}"), slot, &[&addr]);
        }
    }
    let start = Instant::now();
    let zone = Zone::new(&set.networks[&net]);
    let built = start.elapsed();
    assert!(zone.find("s0").is_some());
    (Arc::new(set), built)
}

fn questions() -> Vec<Vec<u8>> {
    let names = (0..SERVICES).map(|n| match n % 8 {
        5 => (format!("{}.{}.1.10.in-addr.arpa.", n & 255, n >> 8), RecordType::PTR),
        7 => (format!("tasks.gone{n}."), RecordType::A),
        _ => (format!("s{n}."), RecordType::A),
    });
    let encode = |(name, kind): (String, RecordType)| {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        message.to_vec().expect("a question")
    };
    names.map(encode).collect()
}

/// A server on a thread of its own; when stopped it says how much processor time the thread used.
struct Running {
    addr: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: thread::JoinHandle<(Duration, u64)>,
}

impl Running {
    fn start(set: Arc<NetworkSet>) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let server = runtime.expect("a runtime").block_on(async move {
                let settings =
                    Settings { questions_per_second: u32::MAX, burst: u32::MAX, ..Settings::default() };
                let server = Server::new(settings);
                let net = *set.networks.keys().next().expect("a network");
                server.set(set);
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
                tell.send(udp.local_addr().expect("an address")).expect("somebody waits");
                server.listen(net, Sockets { udp: vec![udp], tcp: vec![tcp] }).expect("sockets");
                stopped.await.ok();
                server.counters()
            });
            let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("own times");
            let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            (Duration::from_micros(micros.try_into().expect("positive")), server.answered)
        });
        Self { addr: told.recv().expect("it starts"), stop, thread }
    }

    fn stop(self) -> (Duration, u64) {
        self.stop.send(()).expect("it runs");
        self.thread.join().expect("it ends well")
    }
}

/// Answers for each second of the server's processor time, and for each second.
fn saturate(set: Arc<NetworkSet>, questions: Arc<Vec<Vec<u8>>>, length: Duration) -> (f64, f64) {
    let running = Running::start(set);
    let addr = running.addr;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(addr).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let start = Instant::now();
    let (mut sent, mut buffer) = (0, [0; 2048]);
    let mut send = |count: usize| {
        for _ in 0..count {
            socket.send(&questions[sent % questions.len()]).expect("sent");
            sent += 1;
        }
    };
    send(WINDOW);
    let mut waiting = WINDOW;
    while start.elapsed() < length {
        match socket.recv(&mut buffer) {
            Ok(_) => waiting -= 1,
            Err(_) => waiting = 0, // lost: begin again
        }
        if waiting <= WINDOW / 2 {
            send(WINDOW - waiting);
            waiting = WINDOW;
        }
    }
    let elapsed = start.elapsed();
    let (busy, answered) = running.stop();
    (answered as f64 / busy.as_secs_f64(), answered as f64 / elapsed.as_secs_f64())
}

/// Sends back what it gets: what the machine makes of the same questions without any work on them.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from).expect("sent");
        }
    });
    addr
}

/// How long each answer took in a second, in nanoseconds, sorted.
fn pace(addr: SocketAddr, questions: &[Vec<u8>]) -> Vec<u64> {
    let length = Duration::from_secs(1);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(addr).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let start = Instant::now();
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..=u16::MAX).map(|_| AtomicU64::new(0)).collect());
    let done = Arc::new(AtomicBool::new(false));
    let since = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let hears = {
        let (socket, sent, done) = (socket.try_clone().expect("a socket"), sent.clone(), done.clone());
        thread::spawn(move || {
            let (mut times, mut buffer) = (Vec::new(), [0; 2048]);
            while !done.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                    times.push(since().saturating_sub(sent[id].load(Ordering::Relaxed)));
                }
            }
            times
        })
    };
    let mut count = 0u64;
    while start.elapsed() < length {
        let due = since() * PACE / 1_000_000_000;
        while count < due {
            let mut question = questions[usize::try_from(count).expect("few") % questions.len()].clone();
            let id = u16::try_from(count & 0xffff).expect("sixteen bits");
            question[..2].copy_from_slice(&id.to_be_bytes());
            sent[usize::from(id)].store(since(), Ordering::Relaxed);
            socket.send(&question).expect("sent");
            count += 1;
        }
        thread::sleep(Duration::from_micros(50));
    }
    thread::sleep(Duration::from_millis(50));
    done.store(true, Ordering::Relaxed);
    let mut times = hears.join().expect("it ends well");
    times.sort_unstable();
    times
}
