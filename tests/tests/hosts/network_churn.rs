//! Services that change at random, while requests go to one that does not, and while leaders lose their
//! power; at the end all nodes are compared, and with nothing left, each with what it had before.
//!
//! `SWARM_CHURN_CHANGES` says how many changes, `SWARM_CHURN_SEED` which.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use swarm_tests::hosts::{Hosts, PATIENCE, poll, until, until_in};

use super::churn::{Churn, Dice, NETWORKS, PLACES, PORTS};
use super::probe::{PAGE, Probe, addr, until_all_agree};
use super::steady::Steady;
use super::{churn, compare};

const NODES: [&str; 5] = ["m1", "m2", "m3", "w1", "w2"];
/// In the ring; all 1 000 by hand (`docs/testing.md`).
const CHANGES: usize = 150;
/// A service without tasks has no name; hosts of these reach nobody else who could know it.
const NO_RESOLVER: &[&str] = &["names of the world cannot be looked up", "no resolver of /etc/resolv.conf"];

#[test]
fn services_change_at_random_under_load() {
    let mut hosts = super::probe::up(3, 2);
    hosts.expect_log(NO_RESOLVER);
    let world = World::new(&hosts, &NODES);
    let mut churn = Churn::new(&hosts, world.seed);
    let changes = from_env("SWARM_CHURN_CHANGES").unwrap_or(CHANGES as u64);
    let began = Instant::now();
    for number in 0..changes {
        let via = ["m1", "m2", "m3"][usize::try_from(number % 3).unwrap()];
        churn.step(via);
    }
    println!("{changes} changes took {:?}", began.elapsed());
    churn.report();
    let accepted: usize = churn.counts.values().map(|count| count.0).sum();
    assert!(accepted * 3 > usize::try_from(changes).unwrap() * 2, "too many were refused");
    let world = world.compare(&churn);
    nothing_is_left(&hosts, &mut churn, world, "m1");
    hosts.end();
}

#[test]
fn leaders_lose_their_power_while_services_change() {
    let mut hosts = super::probe::up(3, 2);
    hosts.expect_log(&["node is down"]);
    hosts.expect_log(NO_RESOLVER);
    let world = World::new(&hosts, &["w1", "w2"]);
    let mut churn = Churn::new(&hosts, world.seed);
    let mut dice = Dice::new(world.seed);
    for round in 0..2 {
        let leader = hosts.until_leader("m1", "");
        let others: Vec<&str> = ["m1", "m2", "m3"].into_iter().filter(|host| *host != leader).collect();
        (0..10).for_each(|_| churn.step(others[0]));
        let moment = Duration::from_millis(dice.below(200) as u64);
        std::thread::scope(|scope| {
            let power = scope.spawn(|| {
                poll(moment, || false);
                hosts.cluster.kill(&leader).unwrap();
                Instant::now()
            });
            (0..15).for_each(|number| churn.step(others[number % 2]));
            println!(
                "round {round}: {leader} lost its power, 15 changes were through {:?} later",
                power.join().unwrap().elapsed()
            );
        });
        hosts.cluster.start(&leader).unwrap();
        (0..5).for_each(|_| churn.step(others[0]));
        until("all nodes are back", || {
            hosts
                .try_rows("m1", "node ls")
                .is_some_and(|rows| rows.iter().all(|row| row["Status"] == "Ready"))
        });
    }
    churn.report();
    let world = world.compare(&churn);
    nothing_is_left(&hosts, &mut churn, world, "m1");
    hosts.end();
}

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// A service that has to answer all the time, and what the hosts had before.
struct World<'a> {
    hosts: &'a Hosts,
    seed: u64,
    before: BTreeMap<&'static str, BTreeSet<String>>,
    files: BTreeMap<&'static str, usize>,
    from_outside: Option<Steady>,
    from_inside: Option<Steady>,
}

impl<'a> World<'a> {
    /// `entries`: hosts whose ports are asked.
    fn new(hosts: &'a Hosts, entries: &[&str]) -> World<'a> {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let seed = from_env("SWARM_CHURN_SEED").unwrap_or(time);
        println!("SWARM_CHURN_SEED={seed}");
        first_network(hosts);
        let before = NODES.map(|host| (host, compare::ground(hosts, host))).into();
        let files = NODES.map(|host| (host, compare::open_files(hosts, host))).into();
        for (name, flags) in NETWORKS {
            hosts.ok("m1", &format!("network create {flags} {name}"));
        }
        hosts.ok("m1", "network create steady");
        let on = "--network steady --constraint node.role==worker";
        hosts.ok("m1", &format!("service create -d --name steady --replicas 2 {on} -p 8080:80 {PAGE}"));
        hosts.ok(
            "m1",
            &format!("service create -d --name asker --stop-grace-period 200ms {on} demo:1 sleep 100000"),
        );
        hosts.until_running("m1", "steady", 2);
        let asker = Probe::all(hosts, "m1", "asker", 1).remove(0);
        until("the service is named", || {
            asker.names("steady").len() == 1 && asker.page_of("steady").is_some()
        });
        let places: Vec<_> = entries.iter().map(|host| (addr(hosts, host), 8080)).collect();
        for (to, port) in &places {
            let answers = || super::probe::page_from(hosts, "client", &format!("{to}:{port}")).is_some();
            until(&format!("{to} leads to the service"), || (0..4).all(|_| answers()));
        }
        let vip = asker.names("steady").into_iter().next().unwrap();
        let from_outside = Some(Steady::at_ports(hosts, "client", &places));
        let from_inside = Some(Steady::at_address(hosts, &asker, vip));
        World { hosts, seed, before, files, from_outside, from_inside }
    }

    /// All nodes are compared; until then all requests were answered.
    fn compare(mut self, churn: &Churn<'_>) -> Self {
        let began = Instant::now();
        let services = churn.services();
        compare::all_nodes(self.hosts, "m1", &services, &churn.networks(), &NODES);
        println!("all nodes compared, {} services, in {:?}", services.len(), began.elapsed());
        for (who, steady) in
            [("from outside", &mut self.from_outside), ("from a task", &mut self.from_inside)]
        {
            assert!(steady.take().unwrap().all_answered(who) > 100);
        }
        self
    }
}

/// A host that has had its first network keeps a few rules until it leaves, and forwards.
fn first_network(h: &Hosts) {
    h.ok("m1", "network create first");
    let all = "service create -d --name first --mode global --network first -p 8080:80";
    h.ok("m1", &format!("{all} {PAGE}"));
    h.until_running("m1", "first", NODES.len());
    h.ok("m1", "service rm first");
    h.until_no_containers();
    until("the first network is removed", || h.ctl("m1", "network rm first").code == 0);
    let left = || {
        let there = NODES.iter().flat_map(|host| compare::ground(h, host));
        there.filter(|line| line.starts_with("namespace") || line.starts_with("link sw-")).collect::<Vec<_>>()
    };
    assert!(poll(PATIENCE, || left().is_empty()), "it is not put away everywhere: {:?}", left());
}

/// With everything removed each host is as it was, and all addresses and ports can be had.
fn nothing_is_left(h: &Hosts, churn: &mut Churn<'_>, world: World<'_>, via: &str) {
    churn.remove_all(via);
    h.ok(via, "service rm steady asker");
    h.until_no_containers();
    let ports: String = PORTS.map(|port| format!(" -p {port}:80")).collect();
    h.ok(via, &format!("service create -d --name ports --replicas 0{ports} {PAGE}"));
    let all = format!("--replicas {PLACES} --network {} --endpoint-mode dnsrr", churn::NETWORKS[0].0);
    h.ok(
        via,
        &format!("service create -d --name places {all} --stop-grace-period 100ms demo:1 sleep 100000"),
    );
    until_in(4 * PATIENCE, "all addresses are given", || h.running(via, "places").len() == PLACES);
    h.ok(via, "service rm ports places");
    h.until_no_containers();
    for name in NETWORKS.iter().map(|(name, _)| *name).chain(["steady"]) {
        let mut said = None;
        until_in(Duration::from_secs(30), &format!("{name} is removed"), || {
            said.insert(h.ctl(via, &format!("network rm {name}"))).code == 0
        });
    }
    until_all_agree(h, via);
    for (host, before) in &world.before {
        let mut now = BTreeSet::new();
        let same = poll(Duration::from_secs(20), || {
            now = compare::ground(h, host);
            now == *before
        });
        let more: Vec<_> = now.difference(before).collect();
        let less: Vec<_> = before.difference(&now).collect();
        assert!(same, "{host} has, with nothing left: {more:#?}\nand has no more: {less:#?}");
        let (files, had) = (compare::open_files(h, host), world.files[host]);
        println!("{host}: {files} open files, {had} at the beginning");
        until(&format!("{host}: no more open files than before, some aside"), || {
            compare::open_files(h, host) < had + 20
        });
    }
}
