//! Networks while hosts cannot hear each other: a host that is cut off for a minute (D25 of the
//! reference), and hosts, leaders too, that only hear or are only heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, poll, until, until_in};

use super::probe::{PAGE, Probe, addr, page_from, told_addrs, until_all_agree};

const MINUTE: Duration = Duration::from_secs(60);
const NODES: [&str; 4] = ["m1", "w1", "w2", "w3"];

/// While one host is away for its minute, the others have bad luck of their own.
#[test]
fn d25_a_host_is_cut_off_for_a_minute() {
    let mut hosts = super::probe::up(1, 3);
    hosts.expect_log(&["node is down"]);
    hosts.ok("m1", "network create app");
    hosts.ok("m1", "network create --opt encrypted=false clear");
    hosts.ok("m1", "service create -d --name probe --mode global --stop-grace-period 200ms --network app --network clear demo:1 sleep 1000");
    let web = "service create -d --name web --replicas 4 --constraint node.role==worker --network app --network clear -p 8080:80";
    hosts.ok("m1", &format!("{web} {PAGE}"));
    hosts.until_running("m1", "web", 4);
    let probes: BTreeMap<String, Probe> =
        Probe::all(&hosts, "m1", "probe", 4).into_iter().map(|p| (p.task.node.clone(), p)).collect();
    all_pairs_connect(&hosts);

    let away = Probe::all(&hosts, "m1", "web", 4).into_iter().filter(|p| p.task.node == "w1");
    let away: Vec<Probe> = away.collect();
    let began = Instant::now();
    hosts.cluster.cut("w1").unwrap();
    others_forget_it(&hosts, &probes, &away);
    its_own_traffic_goes_on(&probes["w1"], &away);
    one_that_does_not_hear(&hosts);
    one_that_is_not_heard(&hosts);
    its_own_traffic_goes_on(&probes["w1"], &away);
    let rest = MINUTE.saturating_sub(began.elapsed());
    println!("cut off, with the others' bad luck: {:?}; {rest:?} to go", began.elapsed());
    poll(rest, || false);
    hosts.cluster.heal("w1").unwrap();
    let began = Instant::now();
    hosts.until_node("m1", "w1", "Status", "Ready");
    println!("healed: Ready after {:?}", began.elapsed());
    until("it has stopped what others do now", || {
        let wanted: BTreeSet<_> = wanted_on(&hosts, "w1");
        hosts.live_containers("w1").into_iter().collect::<BTreeSet<_>>() == wanted
    });
    all_pairs_connect(&hosts);
    println!("healed: all right everywhere after {:?}", began.elapsed());
    hosts.ok("m1", "service rm web probe");
    hosts.until_no_containers();
    hosts.end();
}

fn wanted_on(h: &Hosts, host: &str) -> BTreeSet<String> {
    let tasks = ["web", "probe"].into_iter().flat_map(|service| h.running("m1", service));
    tasks.filter(|task| task.node == host).map(|task| task.id).collect()
}

fn others_forget_it(h: &Hosts, probes: &BTreeMap<String, Probe>, away: &[Probe]) {
    let began = Instant::now();
    h.until_node("m1", "w1", "Status", "Down");
    let down = began.elapsed();
    let gone: BTreeSet<Ipv4Addr> = away.iter().flat_map(Probe::addrs).collect();
    let here = ["m1", "w2", "w3"];
    let named = |host: &str, name: &str| probes[host].names(name);
    until_in(Duration::from_secs(5), "nobody names its tasks", || {
        here.iter().all(|host| named(host, "tasks.web").is_disjoint(&gone))
    });
    println!("cut off: Down after {down:?}, named by nobody after {:?}", began.elapsed());
    // From here on nobody is sent there, while its tasks are still being replaced.
    let away: BTreeSet<&str> = away.iter().map(|probe| &probe.task.id[..12]).collect();
    let calls = |h: &Hosts| {
        for host in here {
            for page in
                [page_from(h, "client", &format!("{}:8080", addr(h, host))), probes[host].page_of("web")]
            {
                let page = page.unwrap_or_else(|| panic!("a call by {host} was not answered"));
                assert!(!away.contains(&page[..]), "{host} leads to {page}, which is cut off");
            }
        }
    };
    (0..5).for_each(|_| calls(h));
    let web = h.until_running("m1", "web", 4);
    assert!(web.iter().all(|task| task.node != "w1"), "{web:?}");
    (0..5).for_each(|_| calls(h));
}

/// Nobody has told it anything: it goes on with what it knows.
fn its_own_traffic_goes_on(probe: &Probe, away: &[Probe]) {
    assert!(!away.is_empty());
    for task in away {
        let own = task.addrs();
        assert!(own.len() == 2 && probe.names("tasks.web").contains(&own[0]), "{own:?}");
        for addr in own {
            assert_eq!(probe.page(&addr.to_string()).as_deref(), Some(&task.task.id[..12]), "at {addr}");
        }
    }
}

/// A way that is blocked in one direction, between a host and the switch.
struct Blocked<'a> {
    hosts: &'a Hosts,
    host: &'a str,
}

impl Blocked<'_> {
    fn new<'a>(hosts: &'a Hosts, host: &'a str, which: &str) -> Blocked<'a> {
        let blocked = Blocked { hosts, host };
        blocked.nft(&format!(
            "add table bridge {host}; add chain bridge {host} c {{ type filter hook forward priority 0; }}; \
             add rule bridge {host} c {which} {host} drop"
        ));
        blocked
    }

    fn nft(&self, line: &str) {
        let switch = format!("swarm-{}-sw", self.hosts.cluster.name());
        let status = std::process::Command::new("ip").args(["netns", "exec", &switch, "nft", line]).status();
        assert!(status.unwrap().success(), "nft {line}");
    }

    fn heal(self) {
        self.nft(&format!("delete table bridge {}", self.host));
    }
}

/// Another manager leads, whether the leader is not heard or does not hear; changes and calls go on, and when the way is
/// free again all managers say the same.
#[test]
fn a_leader_whose_ways_are_blocked_in_one_direction() {
    let mut hosts = super::probe::up(3, 1);
    hosts.expect_log(&["node is down"]);
    hosts.ok("m1", "network create app");
    let flags = "--network app --constraint node.role==worker";
    hosts.ok("m1", &format!("service create -d --name web --replicas 2 {flags} -p 8080:80 {PAGE}"));
    hosts.until_running("m1", "web", 2);
    let answers = || page_from(&hosts, "client", &format!("{}:8080", addr(&hosts, "w1"))).is_some();
    until("the port answers", answers);
    for (name, which) in [("unheard", "iifname"), ("deaf", "oifname")] {
        let leader = hosts.until_leader("m1", "");
        let other = if leader == "m1" { "m2" } else { "m1" };
        let began = Instant::now();
        let blocked = Blocked::new(&hosts, &leader, which);
        let next = hosts.until_leader(other, &leader);
        let elected = began.elapsed();
        let create = format!("service create -d --name {name} {flags} {PAGE}");
        until("a change is taken", || hosts.ctl(other, &create).code == 0);
        println!(
            "{leader} is {name}: {next} leads after {elected:?}, a change is taken after {:?}",
            began.elapsed()
        );
        hosts.until_node(other, &leader, "Status", "Down");
        hosts.until_running(other, name, 1);
        assert!(answers(), "nothing is different for who calls");
        blocked.heal();
        hosts.until_node(other, &leader, "Status", "Ready");
        let list = |via: &str| hosts.try_rows(via, "service ls");
        until("all managers say the same", || {
            let said = ["m1", "m2", "m3"].map(list);
            said[0].is_some() && said.iter().all(|rows| *rows == said[0])
        });
        until_all_agree(&hosts, "m1");
        assert!(answers());
    }
    hosts.ok("m1", "service rm web unheard deaf");
    hosts.until_no_containers();
    hosts.end();
}

/// What it says arrives, but it hears no answer: sessions and calls of its agent end, and so it is Down.
fn one_that_does_not_hear(h: &Hosts) {
    let began = Instant::now();
    let blocked = Blocked::new(h, "w2", "oifname");
    h.until_node("m1", "w2", "Status", "Down");
    let down = began.elapsed();
    let web = h.until_running("m1", "web", 4);
    assert!(web.iter().all(|task| task.node == "w3"), "{web:?}");
    until("the last host answers", || page_from(h, "client", &format!("{}:8080", addr(h, "w3"))).is_some());
    blocked.heal();
    h.until_node("m1", "w2", "Status", "Ready");
    println!("w2 did not hear: Down after {down:?}, back after {:?}", began.elapsed());
    until("it has stopped what others do now", || {
        h.live_containers("w2").into_iter().collect::<BTreeSet<_>>() == wanted_on(h, "w2")
    });
}

/// It hears all, but nobody hears it: Down, and its tasks run on the one that is left.
fn one_that_is_not_heard(h: &Hosts) {
    let began = Instant::now();
    let blocked = Blocked::new(h, "w3", "iifname");
    h.until_node("m1", "w3", "Status", "Down");
    let down = began.elapsed();
    let web = h.until_running("m1", "web", 4);
    assert!(web.iter().all(|task| task.node == "w2"), "{web:?}");
    until("the last host answers", || page_from(h, "client", &format!("{}:8080", addr(h, "w2"))).is_some());
    blocked.heal();
    h.until_node("m1", "w3", "Status", "Ready");
    println!("w3 was not heard: Down after {down:?}, back after {:?}", began.elapsed());
}

/// Names, addresses and ways are right on all nodes, and no address is there twice.
fn all_pairs_connect(h: &Hosts) {
    let probes = Probe::all(h, "m1", "probe", 4);
    let web = Probe::all(h, "m1", "web", 4);
    let mut all = BTreeMap::new();
    for task in probes.iter().chain(&web) {
        let own = task.addrs();
        assert_eq!(
            own,
            told_addrs(h, "m1", &task.task),
            "{}: what it has, and what managers say",
            task.task.name
        );
        for addr in own {
            let other = all.insert(addr, task.task.name.clone());
            assert_eq!(other, None, "{addr} is there twice: {}", task.task.name);
        }
    }
    // A name leads to the first network that both are on.
    let addrs: BTreeSet<Ipv4Addr> = web.iter().map(|task| task.addrs()[0]).collect();
    for probe in &probes {
        let node = &probe.task.node;
        until(&format!("{node} names all and nobody else"), || probe.names("tasks.web") == addrs);
        for task in &web {
            for addr in task.addrs() {
                let answer = || probe.page(&addr.to_string()).as_deref() == Some(&task.task.id[..12]);
                until(&format!("{node} reaches {} at {addr}", task.task.name), answer);
            }
        }
        until(&format!("{node} reaches the virtual address"), || probe.page_of("web").is_some());
    }
    let ids: BTreeSet<String> = web.iter().map(|task| task.task.id[..12].to_owned()).collect();
    for host in NODES {
        let call = || page_from(h, "client", &format!("{}:8080", addr(h, host)));
        until(&format!("{host}'s port leads to all tasks and to nobody else"), || {
            (0..16).map_while(|_| call()).collect::<BTreeSet<_>>() == ids
        });
        let later: BTreeSet<_> = (0..8).map(|_| call()).collect();
        assert!(later.iter().all(|id| id.as_ref().is_some_and(|id| ids.contains(id))), "{host}: {later:?}");
    }
    until_all_agree(h, "m1");
}
