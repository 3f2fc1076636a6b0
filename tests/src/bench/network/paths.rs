//! Requests on four ways to a task: what a virtual address or a published port costs, against no way in
//! between and against haproxy in the same place.
//!
//! All three of a way are called in turns, by the same client, and lead to the same server (`direct` of
//! published ports: to one on the task's host). CPU time is that of client, server, haproxy and the
//! kernel's packet threads.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};

use super::proxy::{self, Proxy};
use super::spot::{Kind, Spot, at};
use super::stage::{HOST_PAGE, PAGE, PUBLISHED, Stage};
use crate::bench::sample::Sample;
use crate::bench::table::{Peer, Row, Target, Unit};
use crate::bench::{Order, cpu};

/// CPU per request, in haproxy's.
const CPU_RATIO: f64 = 0.6;

/// One way to call the server.
struct Call {
    to: SocketAddrV4,
    /// Whose CPU time it takes, besides the caller's.
    pids: Vec<u32>,
    rates: [Vec<f64>; 2],
    micros: [Vec<f64>; 2],
}

impl Call {
    fn of(to: SocketAddrV4, pids: &[u32]) -> Call {
        Call { to, pids: pids.to_vec(), rates: Default::default(), micros: Default::default() }
    }

    async fn measure(&mut self, from: &Spot, kind: Kind, lasts: Duration) -> Result<()> {
        let before = cpu::of_traffic(&self.pids)?;
        let calls = from.call(self.to, kind, lasts).await?;
        let used = cpu::of_traffic(&self.pids)? - before + calls.cpu;
        self.rates[kind as usize].push(calls.requests / calls.seconds);
        self.micros[kind as usize].push(used * 1e6 / calls.requests);
        Ok(())
    }

    fn rate(&self, kind: Kind) -> Sample {
        Sample::of(self.rates[kind as usize].clone())
    }

    fn cost(&self, kind: Kind) -> Sample {
        Sample::of(self.micros[kind as usize].clone())
    }
}

/// A caller, and three ways from it to the server.
struct Way {
    name: &'static str,
    from: Spot,
    direct: Call,
    ours: Call,
    haproxy: Call,
    /// Least rates of ours in those of `direct`, with kept connections and with new ones.
    least: [f64; 2],
}

pub(crate) async fn run(order: &Order, stage: &Stage) -> Result<Vec<Row>> {
    let app = at(stage.addr("web", "app")?, PAGE);
    let ingress = at(stage.addr("web", "ingress")?, PAGE);
    let proxies = [
        Proxy::start(&stage.task("near")?, app)?,
        Proxy::start(&stage.task("far")?, app)?,
        Proxy::start(&stage.host("w2"), ingress)?,
        Proxy::start(&stage.host("w1"), ingress)?,
    ];
    let mut ways = ways(stage, &proxies)?;
    for way in &ways {
        for call in [&way.direct, &way.ours, &way.haproxy] {
            way.from.reach(call.to).await.with_context(|| format!("reach {} on {}", call.to, way.name))?;
        }
    }
    let lasts = Duration::from_millis(order.times(1500, 600) as u64);
    for _ in 0..order.times(3, 2) {
        for kind in [Kind::Kept, Kind::New] {
            for Way { name, from, direct, ours, haproxy, .. } in &mut ways {
                for call in [direct, ours, haproxy] {
                    call.measure(from, kind, lasts).await.with_context(|| (*name).to_owned())?;
                }
            }
        }
    }
    Ok(ways.iter().flat_map(|way| [way.rows(Kind::Kept), way.rows(Kind::New)]).flatten().collect())
}

fn ways(stage: &Stage, proxies: &[Proxy; 4]) -> Result<Vec<Way>> {
    let [task, host] = stage.servers();
    let [near, far, same, cross] = proxies.each_ref().map(Proxy::pid);
    let (direct, vip) = (at(stage.addr("web", "app")?, PAGE), at(stage.vip("web", "app")?, PAGE));
    let beside = at(std::net::Ipv4Addr::LOCALHOST, proxy::PORT);
    let (w1, w2) = (stage.host_addr("w1")?, stage.host_addr("w2")?);
    let within = |name, from, proxy, least| Way {
        name,
        from,
        direct: Call::of(direct, &[task]),
        ours: Call::of(vip, &[task]),
        haproxy: Call::of(beside, &[task, proxy]),
        least,
    };
    let inward = |name, entry, proxy, least| Way {
        name,
        from: stage.host("client"),
        direct: Call::of(at(w2, HOST_PAGE), &[host]),
        ours: Call::of(at(entry, PUBLISHED), &[task]),
        haproxy: Call::of(at(entry, proxy::PORT), &[task, proxy]),
        least,
    };
    Ok(vec![
        within("virtual address, same host", stage.task("near")?, near, [0.65, 0.55]),
        within("virtual address, cross host", stage.task("far")?, far, [0.65, 0.55]),
        inward("published port, same host", w2, same, [0.65, 0.55]),
        inward("published port, cross host", w1, cross, [0.38, 0.23]),
    ])
}

impl Way {
    fn rows(&self, kind: Kind) -> [Row; 3] {
        let what = if kind == Kind::Kept { "keep-alive requests" } else { "new connections" };
        [
            Row::new(format!("{}: {what}", self.name), Unit::PerSecond, self.ours.rate(kind))
                .peer(Peer::Now("direct", self.direct.rate(kind)))
                .target(Target::RatioAtLeast(self.least[kind as usize])),
            Row::new("  CPU for each", Unit::CpuMicroseconds, self.ours.cost(kind))
                .peer(Peer::Now("haproxy", self.haproxy.cost(kind)))
                .target(Target::RatioAtMost(CPU_RATIO)),
            // without a target: what of the rate is cost, and what is waiting for a turn on a busy machine
            Row::new("  the same against direct", Unit::CpuMicroseconds, self.ours.cost(kind))
                .peer(Peer::Now("direct", self.direct.cost(kind))),
        ]
    }
}
