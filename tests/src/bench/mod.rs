//! What is measured, one file a bench, and what they share: a cluster to measure on, peers to measure
//! against, and the table.

mod api;
mod cluster;
mod cpu;
mod deploy;
mod docker;
mod docker_hosts;
mod etcd;
mod failover;
mod http;
mod idle;
mod kv;
mod loss;
mod machine;
mod member;
mod network;
mod place;
mod program;
mod rate;
mod restart;
mod sample;
mod scheduler;
mod start;
mod table;
mod writes;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::{Context, Result, bail};

use machine::Machine;
use table::{Row, Table};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
cargo xtask bench [NAME…] [--peers] [--quick]

  start      create + start of one container, against bare crun (and runc)
  writes     log writes of 256 B, three managers on loopback with fsync, against etcd
  scheduler  decisions a second, alone
  idle       memory and CPU of a cluster that does nothing; of a container's supervisor
  deploy     create -> all running, 100 replicas on four hosts, against Docker Swarm
  restart    container killed -> its replacement runs, delay 0
  rate       services created a second, 1 and 8 clients
  failover   leader killed -> next write accepted; clean hand-over
  loss       host killed -> Down -> its tasks run elsewhere
  network    virtual addresses and published ports against no way in between and haproxy; throughput; a
             thousand services; names; a dead task among a hundred nodes; rules flushed -> repaired

Without a name: all of them. Needs root.
--peers   installs Debian's docker.io, containerd, runc, crun and etcd and measures them in the same run
--quick   fewer repetitions, five minutes at most
`network` installs Debian's haproxy in any case: its targets are ratios to it.";

/// What the user asked for.
pub(crate) struct Order {
    pub(crate) peers: bool,
    pub(crate) quick: bool,
    /// Where swarmd, swarmd-shim and swarmctl are.
    pub(crate) programs: PathBuf,
}

impl Order {
    /// How often: `full` times, or `quick` with `--quick`.
    pub(crate) fn times(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

type Rows<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>>> + 'a>>;
type Bench = for<'a> fn(&'a Order) -> Rows<'a>;

/// The quiet ones first.
const BENCHES: &[(&str, Bench)] = &[
    ("start", |order| Box::pin(start::run(order))),
    ("writes", |order| Box::pin(writes::run(order))),
    ("scheduler", |order| Box::pin(scheduler::run(order))),
    ("idle", |order| Box::pin(idle::run(order))),
    ("deploy", |order| Box::pin(deploy::run(order))),
    ("restart", |order| Box::pin(restart::run(order))),
    ("rate", |order| Box::pin(rate::run(order))),
    ("failover", |order| Box::pin(failover::run(order))),
    ("loss", |order| Box::pin(loss::run(order))),
    // one name, and parts that fail each for itself
    ("network", |order| Box::pin(network::names(order))),
    ("network", |order| Box::pin(network::scale(order))),
    ("network", |order| Box::pin(network::traffic(order))),
    ("network", |order| Box::pin(network::deaths(order))),
];

/// Does what the command line says.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start tokio")?;
    if let [first, rest @ ..] = words
        && first == member::WORD
    {
        return runtime.block_on(member::run(rest));
    }
    if let [first, rest @ ..] = words
        && first == start::WORD
    {
        return start::serve(rest);
    }
    if let [first, rest @ ..] = words
        && let Some(ended) = network::part(first, rest)
    {
        return ended;
    }
    if words.iter().any(|word| word == "--help" || word == "-h" || word == "help") {
        println!("{HELP}");
        return Ok(());
    }
    let names: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    if let Some(name) = names.iter().find(|name| !BENCHES.iter().any(|(known, _)| known == *name)) {
        bail!("no bench `{name}`\n\n{HELP}");
    }
    if let Some(flag) =
        words.iter().find(|word| word.starts_with('-') && !["--peers", "--quick"].contains(&word.as_str()))
    {
        bail!("no flag `{flag}`\n\n{HELP}");
    }
    let has = |flag: &str| words.iter().any(|word| word == flag);
    let order = Order { peers: has("--peers"), quick: has("--quick"), programs: program::directory()? };
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).context("listen for signals")?;
        // whoever ends the bench has what is up removed: it goes with the values that hold it
        tokio::select! {
            ended = measure(&order, &names) => ended,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; what was up is removed"),
            _ = told.recv() => bail!("told to end; what was up is removed"),
        }
    })
}

async fn measure(order: &Order, names: &[&str]) -> Result<()> {
    if order.peers {
        program::install_peers()?;
    }
    let machine = Machine::look();
    println!("{machine}");
    let mut table = Table::default();
    let mut broken = Vec::new();
    for (name, bench) in BENCHES.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        eprintln!("== {name} ({})", machine::load());
        match bench(order).await {
            Ok(rows) => {
                rows.iter().for_each(|row| eprintln!("   {}", row.line()));
                table.rows.extend(rows);
            }
            Err(error) => {
                eprintln!("   FAILED: {error:#}");
                broken.push(*name);
            }
        }
    }
    println!("\n{table}");
    println!("load at the end: {}", machine::load());
    if broken.is_empty() { Ok(()) } else { bail!("benches that failed: {}", broken.join(" ")) }
}
