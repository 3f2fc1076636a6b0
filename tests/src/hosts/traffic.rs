//! Load on a service, as clients make it who mean it: new connections at a steady rate, connections that are
//! kept, and long requests. Every request that is not answered whole is a failure, and is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Inside;

/// How long a request may take beyond what it was asked to.
const DEADLINE: Duration = Duration::from_secs(15);
/// A connection that takes longer has lost a packet of its beginning (the kernel's first retry is after a
/// second), or the machine slept.
const SLOW: Duration = Duration::from_millis(950);
/// New connections at once: a machine that cannot keep up is not buried.
const MOST: usize = 100;

const REFUSED: &str = "connect: Connection refused";

/// What one source asks for.
#[derive(Debug, Clone)]
pub struct Load {
    /// Taken in turn.
    pub targets: Vec<SocketAddr>,
    /// New connections a second, one short request each.
    pub fresh_per_second: u32,
    /// Connections that are kept, with a request every 50 ms.
    pub kept: u32,
    /// Requests of so many milliseconds, so many at once, each on a connection of its own.
    pub long: (u32, u64),
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub answered: u64,
    /// Answers of each server, by the name it gives.
    pub by_server: BTreeMap<String, u64>,
    /// What failed, when (since the load began), and why.
    pub failures: Vec<String>,
    /// The same of connections that were refused: nobody listened.
    pub refused: Vec<String>,
    /// Connections whose first packet had to be sent again.
    pub slow_connects: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    report: Mutex<Report>,
}

/// A load that goes on until it is stopped.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Begins, from this network.
    pub fn start(from: Inside, load: Load) -> Traffic {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::spawn(move || {
            from.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(drive(own, load));
            });
        });
        Traffic { shared, thread: Some(thread) }
    }

    /// Requests that were answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Begins nothing new, waits for what is going on, and tells.
    pub fn stop(mut self) -> Report {
        self.end();
        let mut report = std::mem::take(&mut *self.shared.report.lock().unwrap());
        report.answered = self.answered();
        report
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic there has been printed
            thread.join().ok();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

async fn drive(shared: Arc<Shared>, load: Load) {
    let source =
        Arc::new(Source { shared, targets: load.targets, next: AtomicU64::new(0), began: Instant::now() });
    let mut work = JoinSet::new();
    for _ in 0..load.kept {
        work.spawn(keep(source.clone()));
    }
    for _ in 0..load.long.0 {
        work.spawn(long(source.clone(), load.long.1));
    }
    if load.fresh_per_second > 0 {
        work.spawn(fresh(source, load.fresh_per_second));
    }
    while work.join_next().await.is_some() {}
}

struct Source {
    shared: Arc<Shared>,
    targets: Vec<SocketAddr>,
    next: AtomicU64,
    began: Instant,
}

impl Source {
    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Ordering::Relaxed)
    }

    fn target(&self) -> SocketAddr {
        let next = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        self.targets[next % self.targets.len()]
    }

    fn tell(&self, what: &str, target: SocketAddr, answer: Result<String, String>) {
        let mut report = self.shared.report.lock().unwrap();
        match answer {
            Ok(server) if server.starts_with("late:") => {
                report
                    .failures
                    .push(format!("{:?} {what} at {target}: came to {server}", self.began.elapsed()));
            }
            Ok(server) => {
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                *report.by_server.entry(server).or_default() += 1;
            }
            Err(why) => {
                let list = if why.starts_with(REFUSED) { &mut report.refused } else { &mut report.failures };
                list.push(format!("{:?} {what} at {target}: {why}", self.began.elapsed()));
            }
        }
    }

    async fn connect(&self, target: SocketAddr) -> Result<TcpStream, String> {
        let began = Instant::now();
        let stream = timeout(DEADLINE, TcpStream::connect(target)).await;
        let stream = stream.map_err(|_| "connect: nobody answers")?.map_err(|e| format!("connect: {e}"))?;
        if began.elapsed() > SLOW {
            self.shared.report.lock().unwrap().slow_connects += 1;
        }
        Ok(stream)
    }

    /// One request on a connection of its own.
    async fn once(&self, what: &str, path: &str) {
        let target = self.target();
        let answer = async {
            let mut stream = self.connect(target).await?;
            Ok(ask(&mut stream, path, true).await?.0)
        };
        self.tell(what, target, answer.await);
    }
}

async fn fresh(source: Arc<Source>, per_second: u32) {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut going = JoinSet::new();
    while source.goes_on() {
        ticks.tick().await;
        while going.try_join_next().is_some() {}
        if going.len() < MOST {
            let source = source.clone();
            going.spawn(async move { source.once("new connection", "/").await });
        }
    }
    while going.join_next().await.is_some() {}
}

async fn long(source: Arc<Source>, ms: u64) {
    while source.goes_on() {
        source.once("long request", &format!("/slow?ms={ms}")).await;
    }
}

async fn keep(source: Arc<Source>) {
    while source.goes_on() {
        let target = source.target();
        let mut stream = match source.connect(target).await {
            Ok(stream) => stream,
            Err(why) => {
                source.tell("kept connection", target, Err(why));
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        loop {
            let last = !source.goes_on();
            let answer = ask(&mut stream, "/", last).await;
            let ends = last || !answer.as_ref().is_ok_and(|(_, kept)| *kept);
            source.tell("kept connection", target, answer.map(|(server, _)| server));
            if ends {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Who answered, and whether the connection goes on.
async fn ask(stream: &mut TcpStream, path: &str, last: bool) -> Result<(String, bool), String> {
    let close = if last { "Connection: close\r\n" } else { "" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| format!("send: {e}"))?;
    let mut got = Vec::new();
    loop {
        let mut part = [0; 1024];
        let read = timeout(DEADLINE, stream.read(&mut part)).await;
        let read = read.map_err(|_| format!("no answer after {} bytes", got.len()))?;
        match read.map_err(|e| format!("read after {} bytes: {e}", got.len()))? {
            0 => return Err(format!("closed after {} bytes of the answer", got.len())),
            read => got.extend_from_slice(&part[..read]),
        }
        if let Some(answer) = whole(&got) {
            return Ok(answer);
        }
    }
}

fn whole(got: &[u8]) -> Option<(String, bool)> {
    let text = std::str::from_utf8(got).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length: usize = field("Content-Length: ")?.parse().ok()?;
    let server = body.split(' ').next()?.to_owned();
    (body.len() == length).then(|| (server, field("Connection: ") == Some("keep-alive")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_whole() {
        let all = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\na sees b\n";
        assert_eq!(whole(all), Some(("a".into(), false)));
        assert_eq!(whole(&all[..all.len() - 1]), None);
    }
}
