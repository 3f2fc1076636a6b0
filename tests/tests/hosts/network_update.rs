//! Nothing is lost on change: services are updated, scaled and drained under load.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use swarm_tests::hosts::{Hosts, Load, Report, TaskRow, Traffic, until, until_in};

pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_server");

/// Requests in all; `SWARM_TEST_REQUESTS` asks for more (docs/testing.md).
fn wanted_requests() -> u64 {
    std::env::var("SWARM_TEST_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(5000)
}

#[test]
fn nothing_is_lost_on_change() {
    let hosts = patient(1, 2);
    hosts.ok("m1", "network create app");
    hosts.ok("m1", "service create -d --stop-grace-period 200ms --name caller --network app --constraint node.hostname==w1 demo:1 sleep 1000");
    let policy = "--update-monitor 500ms --update-parallelism 1 --stop-grace-period 15s";
    let flags = format!("--name web --replicas 6 --network app -p 8080:80 {policy}");
    hosts.ok("m1", &format!("service create -d {}", hosts.server(SERVER, &flags, 0)));
    let caller = hosts.until_running("m1", "caller", 1).remove(0);
    let web = hosts.until_running("m1", "web", 6);
    until_all_answer(&hosts, &caller, 6);
    let began = std::time::Instant::now();
    let (outside, inside) = start(&hosts, &caller);
    let mut seen = web;
    let mut round = 0;
    while round == 0 || outside.answered() + inside.answered() < wanted_requests() {
        round += 1;
        for parallelism in [1, 2] {
            let change = format!("--env-add ROUND={round}.{parallelism} --update-parallelism {parallelism}");
            hosts.ok("m1", &format!("service update -d {change} web"));
            seen = until_replaced(&hosts, &seen);
        }
        hosts.ok("m1", "service scale -d web=3");
        hosts.until_running("m1", "web", 3);
        hosts.ok("m1", "service scale -d web=6");
        hosts.until_running("m1", "web", 6);
        hosts.ok("m1", "node update --availability drain w2");
        until("w2 is drained", || hosts.running("m1", "web").iter().all(|task| task.node != "w2"));
        hosts.until_running("m1", "web", 6);
        hosts.ok("m1", "node update --availability active w2");
        seen.clone_from(&hosts.until_running("m1", "web", 6));
    }
    let took = began.elapsed();
    for (from, report) in [("the client", outside.stop()), ("a task", inside.stop())] {
        tell(from, &report, took);
        let failed = &report.failures;
        assert!(failed.is_empty(), "{from}: {} failed:\n{}", failed.len(), head(failed));
        // A task serves as soon as its container runs, and its program listens some milliseconds later, or
        // more on a busy machine: nothing but health checks can close that gap (docs/networks.md). What is
        // sent to a task that was told to stop is not among these: the server takes it and says so.
        let most = usize::try_from(report.answered / 1000).unwrap();
        let refused = &report.refused;
        assert!(refused.len() <= most, "{from}: {} refused:\n{}", refused.len(), head(refused));
    }
    hosts.end();
}

/// Hosts whose nodes are not called Down as soon as the machine is busy: these tests bring load, and no deaths.
pub(crate) fn patient(managers: usize, workers: usize) -> Hosts {
    let hosts = Hosts::up(managers, workers);
    hosts.ok("m1", "update --dispatcher-heartbeat 5s");
    hosts
}

fn tell(from: &str, report: &Report, took: Duration) {
    let per_second = u128::from(report.answered) * 1000 / took.as_millis();
    println!(
        "{from}: {} answered in {took:?} ({per_second}/s) by {} servers, {} slow to connect, {} failed, {} refused",
        report.answered,
        report.by_server.len(),
        report.slow_connects,
        report.failures.len(),
        report.refused.len()
    );
}

fn head(failures: &[String]) -> String {
    failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
}

fn start(h: &Hosts, caller: &TaskRow) -> (Traffic, Traffic) {
    let entries = ["m1", "w1", "w2"].map(|host| SocketAddr::new(address(h, host), 8080));
    let outside = Load { targets: entries.to_vec(), fresh_per_second: 300, kept: 12, long: (6, 800) };
    let vip = vec![SocketAddr::new(vip(h, "web"), 80)];
    let inside = Load { targets: vip, fresh_per_second: 200, kept: 6, long: (3, 800) };
    (Traffic::start(h.inside("client"), outside), Traffic::start(h.inside_task("m1", caller), inside))
}

pub(crate) fn address(h: &Hosts, host: &str) -> IpAddr {
    h.cluster.hosts().iter().find(|record| record.name == host).unwrap().address.into()
}

/// A service's virtual address on `app`.
pub(crate) fn vip(h: &Hosts, service: &str) -> IpAddr {
    let app = h.inspect("m1", "network inspect app")["Id"].clone();
    let found = h.inspect("m1", &format!("service inspect {service}"));
    let vips = found["Endpoint"]["VirtualIPs"].as_array().unwrap_or_else(|| panic!("no VIPs: {found}"));
    let vip = vips.iter().find(|vip| vip["NetworkID"] == app).unwrap_or_else(|| panic!("{app}: {found}"));
    vip["Addr"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}

/// Every node's ingress and the virtual address lead to every task.
fn until_all_answer(h: &Hosts, caller: &TaskRow, servers: usize) {
    let probe = |traffic: Traffic| {
        until_in(Duration::from_secs(10), "some answers", || traffic.answered() > 60);
        let report = traffic.stop();
        report.failures.is_empty() && report.refused.is_empty() && report.by_server.len() == servers
    };
    let load = |to: SocketAddr| Load { targets: vec![to], fresh_per_second: 200, kept: 0, long: (0, 0) };
    for host in ["m1", "w1", "w2"] {
        let to = SocketAddr::new(address(h, host), 8080);
        until(&format!("{host} leads to all"), || probe(Traffic::start(h.inside("client"), load(to))));
    }
    let to = SocketAddr::new(vip(h, "web"), 80);
    let from = || h.inside_task("m1", caller);
    until("the virtual address leads to all", || probe(Traffic::start(from(), load(to))));
}

/// Waits until none of these runs any more and as many others do.
fn until_replaced(h: &Hosts, old: &[TaskRow]) -> Vec<TaskRow> {
    let mut now = Vec::new();
    until_in(Duration::from_secs(240), "the update is through", || {
        now = h.try_tasks("m1", "web").unwrap_or_default();
        now.retain(TaskRow::is_wanted);
        now.len() == old.len()
            && now.iter().all(|task| task.runs() && old.iter().all(|before| before.id != task.id))
    });
    now
}
