//! Writes per second: three managers in one process, on files, with fsync.
//!
//! `cargo run --release -p swarm-manager-raft --example write_bench [DIR] [SECONDS]`
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use swarm_manager_raft::members::{Member, MemberRole};
use swarm_manager_raft::node::{Response, RestoreError, SnapshotSource};
use swarm_manager_raft::{
    DataKey, OutgoingSnapshot, RaftHandle, RaftNode, Settings, StateMachine, Transport,
};
use swarm_types::id::{NodeId, Seed};

struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: u64, _: u64, _: &[u8]) -> Response {
        Box::new(())
    }
    fn snapshot(&mut self) -> Box<dyn SnapshotSource> {
        Box::new(Nothing)
    }
    fn restore(&mut self, _: &mut dyn Read) -> Result<(), RestoreError> {
        Ok(())
    }
}

impl SnapshotSource for Nothing {
    fn write_to(self: Box<Self>, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

type Net = Mutex<BTreeMap<u64, RaftHandle>>;

struct Wire(Weak<Net>);

impl Transport for Wire {
    fn send(&self, to: &Member, messages: Vec<Bytes>) {
        let peer = self.0.upgrade().and_then(|n| n.lock().ok()?.get(&to.raft_id).cloned());
        if let Some(peer) = peer {
            messages.into_iter().for_each(|m| peer.step(m));
        }
    }
    fn send_snapshot(&self, to: &Member, mut snapshot: OutgoingSnapshot) {
        let peer = self.0.upgrade().and_then(|n| n.lock().ok()?.get(&to.raft_id).cloned());
        let Some(peer) = peer else { return };
        std::thread::spawn(move || {
            let Ok(mut incoming) = peer.receive_snapshot(snapshot.message.clone()) else { return };
            if io::copy(&mut snapshot.reader, &mut incoming).is_ok() && incoming.finish().is_ok() {
                snapshot.delivered();
            }
        });
    }
}

async fn cluster(dir: &std::path::Path) -> (Arc<Net>, RaftHandle) {
    let net = Arc::new(Net::default());
    let start = |settings: Settings| {
        let id = settings.core.id;
        let wire = Arc::new(Wire(Arc::downgrade(&net)));
        let key = DataKey::new([1; 32]);
        let dir = dir.join(id.to_string());
        let handle =
            RaftNode::start(settings, &dir, key, Box::new(Nothing), wire).expect("the directory is new");
        net.lock().expect("nobody panics").insert(id, handle.clone());
        handle
    };
    let first = start(Settings::found(NodeId::new("n1"), "m1".into(), Seed(1)));
    let mut watch = first.watch();
    watch.wait_for(|s| s.is_leader()).await.expect("it runs");
    for id in 2..=3 {
        let node = NodeId::new(format!("n{id}"));
        let member = first.add_member(node, format!("m{id}")).await.expect("it leads");
        let known = first.status().members.into_iter().map(|m| m.member).collect();
        start(Settings { known, ..Settings::new(member.raft_id, Seed(id)) });
        let voters = |n: u64| {
            move |s: &swarm_manager_raft::node::Status| {
                s.members.iter().filter(|m| m.member.role == MemberRole::Voter).count() as u64 == n
            }
        };
        watch.wait_for(voters(id)).await.expect("it runs");
    }
    (net, first)
}

async fn run(leader: &RaftHandle, clients: usize, span: Duration) {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let leader = leader.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < span {
                let begin = Instant::now();
                leader.propose(vec![7u8; 256]).await.expect("the cluster is whole");
                took.push(begin.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("{clients:>4} clients  {rate:>9.0} writes/s  p50 {:>8.2?}  p99 {:>8.2?}", at(50), at(99));
}

/// CPU time of this process so far, in milliseconds.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|f| f.parse::<u64>().ok()).sum::<u64>() * 10
}

/// Kills the leader, as a crash would, and waits for the next accepted write.
async fn fail_over(net: &Net) {
    let leader = |net: &Net| {
        let net = net.lock().expect("nobody panics");
        net.values().find(|h| h.status().is_leader()).cloned()
    };
    let old = leader(net).expect("the cluster is whole");
    let begin = Instant::now();
    net.lock().expect("nobody panics").remove(&old.status().id);
    old.abort().await;
    loop {
        let written = match leader(net) {
            Some(new) => new.propose("after").await.is_ok(),
            None => false,
        };
        if written {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("leader killed -> next write accepted: {:.0?}", begin.elapsed());
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let seconds = args.next().and_then(|s| s.parse().ok()).unwrap_or(5);
    let dir = tempfile::tempdir_in(dir).expect("a place to write");
    let (net, leader) = cluster(dir.path()).await;
    println!("3 managers, 256 B, fsync, {}", dir.path().display());
    for clients in [1, 8, 64, 256] {
        run(&leader, clients, Duration::from_secs(seconds)).await;
    }
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = cpu() - before;
    println!("idle: {used} ms of CPU in {seconds} s for all three");
    fail_over(&net).await;
    let all: Vec<RaftHandle> = net.lock().expect("nobody panics").values().cloned().collect();
    for handle in all {
        handle.stop().await;
    }
}
