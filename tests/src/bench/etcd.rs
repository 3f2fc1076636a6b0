//! Three etcd members on loopback, with etcd's defaults: fsync on, heartbeat 100 ms, election after 1 s.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::kv::Client;
use super::place;
use super::program::{self, Running};
use super::sample::Sample;
use super::writes::free_addresses;

const LIMIT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_millis(500);

/// Up as long as the value lives.
pub(crate) struct Etcd {
    clients: Vec<String>,
    members: Vec<Running>,
    _dir: TempDir,
}

impl Etcd {
    pub(crate) async fn up() -> Result<Etcd> {
        let program = program::find("etcd").context("etcd is not installed")?;
        let dir = place::directory()?;
        let (clients, peers) = (free_addresses(3)?, free_addresses(3)?);
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(n, addr)| format!("e{n}=http://{addr}")).collect();
        let mut members = Vec::new();
        for (n, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            let log = File::create(dir.path().join(format!("e{n}.log"))).context("make a log")?;
            let mut command = Command::new(&program);
            command.args(["--name", &format!("e{n}"), "--data-dir"]).arg(dir.path().join(format!("e{n}")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster.join(","), "--log-level", "error"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            members.push(Running(command.spawn().context("start etcd")?));
        }
        let etcd = Etcd { clients, members, _dir: dir };
        let end = Instant::now() + LIMIT;
        for addr in &etcd.clients {
            let client = Client::at(addr)?;
            while client.put("00000000".into(), vec![1]).await.is_err() {
                if Instant::now() >= end {
                    bail!("etcd takes no write after {} s", LIMIT.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(etcd)
    }

    /// Where the leader takes writes.
    pub(crate) async fn leader(&self) -> Result<String> {
        Ok(self.clients[self.leader_number().await?].clone())
    }

    async fn leader_number(&self) -> Result<usize> {
        for (n, addr) in self.clients.iter().enumerate() {
            if Client::at(addr)?.leads().await.unwrap_or(false) {
                return Ok(n);
            }
        }
        bail!("no member of etcd leads")
    }
}

/// Seconds from a leader's kill to the next write that a survivor accepts, each time with a new cluster.
pub(crate) async fn failover(times: usize) -> Result<Sample> {
    let mut took = Vec::new();
    for _ in 0..times {
        let mut etcd = Etcd::up().await?;
        let leader = etcd.leader_number().await?;
        let began = Instant::now();
        drop(etcd.members.remove(leader));
        etcd.clients.remove(leader);
        let clients: Vec<Client> = etcd.clients.iter().map(|addr| Client::at(addr)).collect::<Result<_>>()?;
        let mut n = 0;
        loop {
            n += 1;
            let put = clients[n % clients.len()].put(format!("{n:08}"), vec![1; 256]);
            if matches!(tokio::time::timeout(PATIENCE, put).await, Ok(Ok(()))) {
                break;
            }
            if began.elapsed() > LIMIT {
                bail!("etcd takes no write {} s after its leader's death", LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.push(began.elapsed().as_secs_f64());
    }
    Ok(Sample::of(took))
}
