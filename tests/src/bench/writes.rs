//! Log writes of 256 B a second: three managers on loopback, fsync before every acknowledgement; and
//! etcd, driven by the same client over the same call.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::kv::Client;
use super::program::Running;
use super::sample::Sample;
use super::table::{Peer, Row, Target, Unit};
use super::{Order, etcd, member, place};

const VALUE_BYTES: usize = 256;
/// Clients share so many connections at most, as they would behind one API server.
const CONNECTIONS: usize = 8;

pub(crate) async fn run(order: &Order) -> Result<Vec<Row>> {
    let loads = [(1, 1.0, 887.0), (256, 1.5, 10_463.0)];
    let span = Duration::from_secs(order.times(4, 2) as u64);
    let rounds = order.times(3, 2);
    let own = Members::up()?;
    let peer = if order.peers { Some(etcd::Etcd::up().await?) } else { None };
    let peer_leader = match &peer {
        Some(etcd) => Some(etcd.leader().await?),
        None => None,
    };
    let mut rows = Vec::new();
    for (clients, ratio, earlier) in loads {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(rate(&own.leader, clients, span).await?);
            if let Some(addr) = &peer_leader {
                theirs.push(rate(addr, clients, span).await?);
            }
        }
        let peer = match theirs.is_empty() {
            true => Peer::Earlier("etcd", earlier),
            false => Peer::Now("etcd", Sample::of(theirs)),
        };
        let name = format!("log writes of 256 B, {clients} client{}", if clients == 1 { "" } else { "s" });
        let row = Row::new(name, Unit::PerSecond, Sample::of(ours));
        rows.push(row.peer(peer).target(Target::RatioAtLeast(ratio)));
    }
    Ok(rows)
}

async fn rate(addr: &str, clients: usize, span: Duration) -> Result<f64> {
    let connections: Vec<Client> =
        (0..clients.min(CONNECTIONS)).map(|_| Client::at(addr)).collect::<Result<_>>()?;
    for connection in &connections {
        connection.put(key(0), vec![7; VALUE_BYTES]).await.context("the first write")?;
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..clients {
        let client = connections[n % connections.len()].clone();
        tasks.spawn(async move {
            let mut written = 0_usize;
            while began.elapsed() < span {
                client.put(key((n * 1000 + written) % 10_000), vec![7; VALUE_BYTES]).await?;
                written += 1;
            }
            Ok::<_, tonic::Status>(written)
        });
    }
    let mut written = 0;
    while let Some(ended) = tasks.join_next().await {
        written += ended.context("a client")?.context("write")?;
    }
    Ok(written as f64 / began.elapsed().as_secs_f64())
}

fn key(n: usize) -> String {
    format!("{n:08}")
}

/// Our three managers.
struct Members {
    leader: String,
    _running: Vec<Running>,
    _dir: TempDir,
}

impl Members {
    fn up() -> Result<Members> {
        let dir = place::directory()?;
        let own = std::env::current_exe().context("find this program")?;
        let addrs = free_addresses(3)?;
        let start = |id: &str, args: &[&String]| {
            let mut command = Command::new(&own);
            command.args([member::WORD, id]).arg(dir.path().join(id)).args(args);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            command.spawn().map(Running).context("start a manager")
        };
        let mut founder = start("1", &[&addrs[0], &addrs[1], &addrs[2]])?;
        let said = founder.0.stdout.take().context("its output")?;
        let mut lines = BufReader::new(said).lines();
        let mut next = || lines.next().transpose().context("read")?.context("the first manager ended");
        let mut running = vec![founder];
        for addr in &addrs[1..] {
            running.push(start(&next()?, &[addr, &addrs[0]])?);
        }
        if next()? != "whole" {
            bail!("the managers did not come together");
        }
        Ok(Members { leader: addrs[0].clone(), _running: running, _dir: dir })
    }
}

/// Loopback addresses nobody listens on now.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").context("find a free port"))
        .collect::<Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
