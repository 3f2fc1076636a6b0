//! Services that are made, changed and removed at random, as users in a hurry do it; the same seed asks
//! for the same changes.

use std::collections::BTreeMap;

use swarm_tests::hosts::{Hosts, PATIENCE, until_in};

use super::probe::PAGE;

/// Networks that stay; others come and go. The first is so small that it runs out of addresses when one is
/// kept for nobody.
pub(super) const NETWORKS: [(&str, &str); 3] =
    [("n0", "--subnet 10.77.0.0/27"), ("n1", "--opt encrypted=false"), ("n2", "")];
/// Addresses of the first network that tasks can have: without its own, that of all, and the gateway's.
pub(super) const PLACES: usize = 29;
/// Ports that services publish on all nodes, and on the nodes of their tasks only.
pub(super) const PORTS: std::ops::Range<u16> = 8101..8117;
const HOST_PORTS: std::ops::Range<u16> = 8201..8205;
const MOST_SERVICES: usize = 7;

/// Numbers that look random (xorshift64*).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % count
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn port(&mut self, of: std::ops::Range<u16>) -> u16 {
        of.start + u16::try_from(self.below(of.len())).unwrap()
    }
}

/// What was asked for so far.
pub(super) struct Churn<'a> {
    hosts: &'a Hosts,
    dice: Dice,
    made: usize,
    /// Services that are there, and whether they publish a port of their node.
    services: BTreeMap<String, bool>,
    networks: Vec<String>,
    /// By kind of change: accepted, refused.
    pub(super) counts: BTreeMap<&'static str, (usize, usize)>,
    /// What refusals said, without names.
    pub(super) refusals: BTreeMap<String, usize>,
}

impl<'a> Churn<'a> {
    pub(super) fn new(hosts: &'a Hosts, seed: u64) -> Churn<'a> {
        let dice = Dice::new(seed);
        let (services, networks) = (BTreeMap::new(), Vec::new());
        let (counts, refusals) = (BTreeMap::new(), BTreeMap::new());
        Churn { hosts, dice, made: 0, services, networks, counts, refusals }
    }

    /// One change, asked of this host.
    pub(super) fn step(&mut self, via: &str) {
        let services = self.services.len();
        let (kind, line) = match self.dice.below(20) {
            _ if services < 3 => self.create(),
            0..=4 if services < MOST_SERVICES => self.create(),
            0..=5 => self.remove(),
            6 => self.network(),
            _ => self.update(),
        };
        let said = self.hosts.ctl(via, &line);
        let count = self.counts.entry(kind).or_default();
        if said.code == 0 {
            count.0 += 1;
            self.note(kind, &line);
        } else {
            count.1 += 1;
            let why = said.err.split(['\'', '"', ':']).map(str::trim).filter(|part| part.len() > 12);
            let why: Vec<_> = why.take(2).collect();
            *self.refusals.entry(why.join(" … ")).or_default() += 1;
            self.learn(via);
        }
    }

    fn note(&mut self, kind: &str, line: &str) {
        let last = line.split(' ').next_back().unwrap_or_default().to_owned();
        match kind {
            "create" => {
                let name = format!("c{}", self.made);
                self.services.insert(name, line.contains("mode=host"));
            }
            "remove" => drop(self.services.remove(&last)),
            "network create" => self.networks.push(last),
            "network remove" => self.networks.retain(|name| *name != last),
            _ => {}
        }
    }

    /// What was refused may have been done before an answer could be given.
    fn learn(&mut self, via: &str) {
        let names = |line: &str| -> Option<Vec<String>> {
            let rows = self.hosts.try_rows(via, line)?;
            Some(rows.iter().filter_map(|row| Some(row["Name"].as_str()?.to_owned())).collect())
        };
        if let Some(there) = names("service ls") {
            let ours = there.into_iter().filter(|name| name.starts_with('c'));
            let host_port = |name: &String| self.services.get(name).copied().unwrap_or(true);
            self.services = ours.map(|name| (name.clone(), host_port(&name))).collect();
        }
        if let Some(there) = names("network ls") {
            self.networks = there.into_iter().filter(|name| name.starts_with('d')).collect();
        }
    }

    fn create(&mut self) -> (&'static str, String) {
        self.made += 1;
        let mut line =
            format!("service create -d --name c{} --update-monitor 100ms --update-parallelism 0", self.made);
        let networks = self.some_networks();
        line += &networks.iter().map(|name| format!(" --network {name}")).collect::<String>();
        if self.dice.below(8) == 0 {
            // Its tasks can have one place on a node only, and never two of them at once.
            line += &format!(" -p mode=host,target=80,published={}", self.dice.port(HOST_PORTS));
            line += &format!(" --replicas {}", self.dice.below(3));
            return ("create", format!("{line} {PAGE}"));
        }
        line += &match self.dice.below(6) {
            0 => " --mode global".to_owned(),
            _ => format!(" --replicas {}", self.dice.below(4)),
        };
        if self.dice.below(4) == 0 {
            line += " --endpoint-mode dnsrr";
        } else if self.dice.below(2) == 0 {
            line += &format!(" -p {}:80", self.dice.port(PORTS));
        }
        if self.dice.below(2) == 0 {
            line += &format!(" --constraint {}", self.condition());
        }
        ("create", format!("{line} {PAGE}"))
    }

    fn some_networks(&mut self) -> Vec<String> {
        let fixed = NETWORKS.iter().map(|(name, _)| (*name).to_owned());
        let mut all: Vec<String> = fixed.chain(self.networks.iter().cloned()).collect();
        let count = 1 + self.dice.below(2);
        (0..count).map(|_| all.remove(self.dice.below(all.len()))).collect()
    }

    /// All of them together leave a node.
    fn condition(&mut self) -> &'static str {
        self.dice.one(&["node.role==worker", "node.hostname!=m1", "node.hostname!=m3", "node.hostname!=w2"])
    }

    fn some_service(&mut self) -> (String, bool) {
        let nth = self.dice.below(self.services.len());
        let (name, has_host_port) = self.services.iter().nth(nth).unwrap();
        (name.clone(), *has_host_port)
    }

    fn remove(&mut self) -> (&'static str, String) {
        ("remove", format!("service rm {}", self.some_service().0))
    }

    fn network(&mut self) -> (&'static str, String) {
        match self.networks.last() {
            Some(last) if self.dice.below(2) == 0 => ("network remove", format!("network rm {last}")),
            _ => {
                self.made += 1;
                let clear = self.dice.one(&["", " --opt encrypted=false", " --internal"]);
                ("network create", format!("network create{clear} d{}", self.made))
            }
        }
    }

    fn update(&mut self) -> (&'static str, String) {
        let (name, has_host_port) = self.some_service();
        let choice = self.dice.below(if has_host_port { 4 } else { 12 });
        let update = |what: String| format!("service update -d {what} {name}");
        match choice {
            0 => {
                self.made += 1;
                ("roll", update(format!("--env-add N={}", self.made)))
            }
            1 => ("network add", update(format!("--network-add {}", self.some_networks()[0]))),
            2 => ("network rm", update(format!("--network-rm {}", self.some_networks()[0]))),
            3 => ("scale", format!("service scale -d {name}={}", self.dice.below(3))),
            4 => ("scale", format!("service scale -d {name}={}", self.dice.below(4))),
            5 | 6 => ("port add", update(format!("--publish-add {}:80", self.dice.port(PORTS)))),
            7 => ("port rm", update("--publish-rm 80".into())),
            8 => ("mode", update(format!("--endpoint-mode {}", self.dice.one(&["vip", "dnsrr"])))),
            9 => ("constraint", update(format!("--constraint-add {}", self.condition()))),
            10 => ("constraint", update(format!("--constraint-rm {}", self.condition()))),
            _ => {
                self.made += 1;
                ("roll", update(format!("--update-order start-first --env-add N={}", self.made)))
            }
        }
    }

    /// Everything of it goes.
    pub(super) fn remove_all(&mut self, via: &str) {
        self.learn(via);
        for name in std::mem::take(&mut self.services).into_keys() {
            self.hosts.ok(via, &format!("service rm {name}"));
        }
        for name in std::mem::take(&mut self.networks) {
            // tasks may still be stopping on it
            until_in(4 * PATIENCE, &format!("network {name} is removed"), || {
                self.hosts.ctl(via, &format!("network rm {name}")).code == 0
            });
        }
    }

    pub(super) fn services(&self) -> Vec<String> {
        self.services.keys().cloned().collect()
    }

    /// All networks that are there, in the order in which a task of all is on them.
    pub(super) fn networks(&self) -> Vec<String> {
        let fixed = NETWORKS.iter().map(|(name, _)| (*name).to_owned());
        fixed.chain(self.networks.iter().cloned()).collect()
    }

    pub(super) fn report(&self) {
        println!("changes (accepted, refused): {:?}", self.counts);
        println!("refusals: {:#?}", self.refusals);
    }
}
