//! Changes of one namespace: what is there becomes what is wanted, except links' making
//! ([`crate::links`]).

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use swarm_types::network_set::NetworkProblem;
use swarm_worker_core::network::firewall::Table;
use swarm_worker_core::network::kernel::{Namespace, Place, Route, Way};

use crate::netlink::Buffer;
use crate::nft::diff::{self, Change, TableChange};
use crate::nft::dump;
use crate::nft::wire;
use crate::nft::{LowTables, lower};
use crate::room::{Have, Room, plain};
use crate::route::{self, To};
use crate::socket::{Refusal, Socket, errno_of};
use crate::{link, words};

/// What became of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many things were not as wanted.
    pub(crate) changed: usize,
    /// What could not be done.
    pub(crate) failed: Vec<String>,
}

impl Outcome {
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failed.push(what.into());
    }

    pub(crate) fn problems(&self, room: &Room) -> Vec<NetworkProblem> {
        let subject = words::place(room.place);
        let problem = |text: &String| NetworkProblem { subject: subject.clone(), text: text.clone() };
        self.failed.iter().map(problem).collect()
    }
}

/// Requests, and what each is about: words are made only for what is refused.
#[derive(Default)]
struct Requests<'a> {
    buffer: Buffer,
    subjects: Vec<(To, Subject<'a>)>,
}

enum Subject<'a> {
    Address(&'a (String, ipnet::IpNet)),
    Route(&'a Route),
    Rule(&'a swarm_worker_core::network::kernel::Rule),
    Neighbour(&'a (String, std::net::IpAddr), swarm_worker_core::network::kernel::Mac),
    Forwarding(&'a (String, swarm_worker_core::network::kernel::Mac), std::net::IpAddr),
    Link(&'a str),
}

impl Subject<'_> {
    fn words(&self) -> String {
        match self {
            Subject::Address(address) => words::address(address),
            Subject::Route(route) => words::route(route),
            Subject::Rule(rule) => words::rule(rule),
            Subject::Neighbour(key, mac) => words::neighbour(key, *mac),
            Subject::Forwarding(key, behind) => words::forwarding(key, *behind),
            Subject::Link(name) => format!("settings of link {name}"),
        }
    }
}

impl<'a> Requests<'a> {
    fn add(&mut self, to: To, subject: Subject<'a>, write: impl FnOnce(&mut Buffer)) {
        write(&mut self.buffer);
        self.subjects.push((to, subject));
    }

    fn send(mut self, socket: &mut Socket, outcome: &mut Outcome) {
        outcome.changed += self.buffer.len();
        if self.buffer.is_empty() {
            return;
        }
        match socket.send_all(&mut self.buffer) {
            Err(err) => outcome.fail(format!("send {} requests: {err}", self.subjects.len())),
            Ok(refused) => {
                for (index, why) in refused {
                    let (to, subject) = &self.subjects[index];
                    if !is_fine(*to, why.errno) {
                        let verb = if *to == To::Be { "add" } else { "remove" };
                        outcome.fail(format!("{verb} {}: {}", subject.words(), words::refused(&why)));
                    }
                }
            }
        }
    }
}

/// What is gone already, or there already, is as wanted.
fn is_fine(to: To, errno: Errno) -> bool {
    match to {
        To::Be => errno == Errno::EEXIST,
        To::Go | To::GoAnyway => {
            matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EADDRNOTAVAIL)
        }
    }
}

fn index_of(room: &Room, name: &str) -> u32 {
    room.indexes.get(name).copied().unwrap_or(0)
}

/// Links' settings, and up with them. The firewall is there by now.
pub(crate) fn raise(room: &mut Room, have: &Have, created: &BTreeSet<String>, outcome: &mut Outcome) {
    let want = room.want.clone();
    let mut requests = Requests::default();
    for (name, link) in &want.links {
        let there = have.namespace.links.get(name).filter(|_| !created.contains(name));
        let mac = link.mac.filter(|mac| there.is_some_and(|there| there.mac != Some(*mac)));
        let mtu = (link.mtu > 0 && there.is_some_and(|there| there.mtu != link.mtu)).then_some(link.mtu);
        let up = created.contains(name) || have.down.contains(name);
        let index = index_of(room, name);
        if index > 0 && (up || mac.is_some() || mtu.is_some()) {
            requests.add(To::Be, Subject::Link(name), |b| link::change(b, index, mac, mtu, up));
        }
    }
    for rule in &have.lost {
        requests.add(To::Be, Subject::Rule(rule), |b| route::rule(b, To::Be, rule));
    }
    if have.down.contains("lo") {
        let index = index_of(room, "lo");
        requests.add(To::Be, Subject::Link("lo"), |b| link::change(b, index, None, None, true));
    }
    requests.send(&mut room.route, outcome);
}

/// Addresses, neighbours, routes and rules. What is new comes before what goes, so that nothing is
/// without a way in between.
pub(crate) fn paths(room: &mut Room, have: &Namespace, outcome: &mut Outcome) {
    let want = room.want.clone();
    let mut first = Requests::default();
    for each in want.addrs.difference(&have.addrs) {
        let index = index_of(room, &each.0);
        first.add(To::Be, Subject::Address(each), |b| route::address(b, To::Be, index, each.1));
    }
    for (key, mac) in want.neighbours.iter().filter(|(key, mac)| have.neighbours.get(*key) != Some(*mac)) {
        let index = index_of(room, &key.0);
        let add = |b: &mut Buffer| route::neighbour(b, To::Be, index, key.1, *mac);
        first.add(To::Be, Subject::Neighbour(key, *mac), add);
    }
    for (key, at) in want.forwarding.iter().filter(|(key, at)| have.forwarding.get(*key) != Some(*at)) {
        let index = index_of(room, &key.0);
        let add = |b: &mut Buffer| route::forwarding(b, To::Be, index, key.1, *at);
        first.add(To::Be, Subject::Forwarding(key, *at), add);
    }
    let wanted: BTreeSet<Route> = want.routes.iter().cloned().map(plain).collect();
    let there: BTreeSet<Route> = have.routes.iter().cloned().map(plain).collect();
    // those to a next hop may need one of those to a device
    let (direct, onward): (Vec<_>, Vec<_>) =
        wanted.difference(&there).partition(|r| matches!(&r.way, Way::Device { via: None, .. }));
    for each in direct.into_iter().chain(onward) {
        let index = way_index(room, each);
        first.add(To::Be, Subject::Route(each), |b| route::route(b, To::Be, each, index));
    }
    for each in want.rules.difference(&have.rules) {
        first.add(To::Be, Subject::Rule(each), |b| route::rule(b, To::Be, each));
    }
    let mut then = Requests::default();
    let go = if matches!(room.place, Place::Sandbox(_)) { To::GoAnyway } else { To::Go };
    for each in have.rules.difference(&want.rules) {
        then.add(go, Subject::Rule(each), |b| route::rule(b, go, each));
    }
    let keys: BTreeSet<_> = wanted.iter().map(|r| (r.table, r.to, r.metric)).collect();
    for each in there.difference(&wanted) {
        // one of the same key has taken its place
        let is_replaced = keys.contains(&(each.table, each.to, each.metric));
        // in IPv6, what replaces a route to a next hop stands beside it if it is of another kind
        let stays = each.to.addr().is_ipv6() && matches!(&each.way, Way::Device { via: Some(_), .. });
        if !is_replaced || stays {
            let index = way_index(room, each);
            then.add(go, Subject::Route(each), |b| route::route(b, go, each, index));
        }
    }
    remove_neighbours(room, have, &want, &mut then);
    for each in have.addrs.difference(&want.addrs) {
        let index = index_of(room, &each.0);
        then.add(To::Go, Subject::Address(each), |b| route::address(b, To::Go, index, each.1));
    }
    first.send(&mut room.route, outcome);
    then.send(&mut room.route, outcome);
}

fn remove_neighbours<'a>(room: &Room, have: &'a Namespace, want: &Namespace, then: &mut Requests<'a>) {
    for (key, mac) in have.neighbours.iter().filter(|(key, _)| !want.neighbours.contains_key(*key)) {
        let index = index_of(room, &key.0);
        let go = |b: &mut Buffer| route::neighbour(b, To::Go, index, key.1, *mac);
        then.add(To::Go, Subject::Neighbour(key, *mac), go);
    }
    for (key, at) in have.forwarding.iter().filter(|(key, _)| !want.forwarding.contains_key(*key)) {
        let index = index_of(room, &key.0);
        let go = |b: &mut Buffer| route::forwarding(b, To::Go, index, key.1, *at);
        then.add(To::Go, Subject::Forwarding(key, *at), go);
    }
}

fn way_index(room: &Room, route: &Route) -> u32 {
    match &route.way {
        Way::Device { name, .. } => index_of(room, name),
        Way::Unreachable => 0,
    }
}

fn key(table: &Table) -> (u8, String) {
    (lower::family(table.family), table.name.clone())
}

/// All tables of a namespace, in one transaction.
pub(crate) fn tables(room: &mut Room, outcome: &mut Outcome) {
    let want = room.want.clone();
    if let (Some(known), Some(generation)) = (room.known_tables.clone(), room.generation)
        && let Some(done) = step(room, &known, &want, generation)
    {
        outcome.changed += done;
        return;
    }
    room.generation = None;
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let (mut have, generation) = match room.tables() {
            Ok(found) => found,
            Err(why) => {
                return outcome.fail(format!("read the tables of nftables: {}", words::refused(&why)));
            }
        };
        let mut wanted = LowTables::new();
        let mut unfit = Vec::new();
        for table in &want.tables {
            match lower::table(table) {
                Ok(low) => drop(wanted.insert(key(table), low)),
                Err(why) => {
                    // what it has now is better than nothing
                    have.remove(&key(table));
                    unfit.push(format!("make {why}: this is a mistake in swarmd; report it"));
                }
            }
        }
        let changes = diff::tables(&have, &wanted);
        match commit(room, &changes, Some(generation)) {
            Ok(generation) => {
                room.generation = generation;
                outcome.changed += changes.len();
            }
            Err(refused) if refused.iter().any(|(_, why)| why.errno == Errno::ERESTART) => continue,
            Err(_) => one_by_one(room, &changes, outcome),
        }
        room.generation = room.generation.filter(|_| unfit.is_empty());
        outcome.failed.extend(unfit);
        return;
    }
    outcome
        .fail("change the tables of nftables: another program changes them all the time; find and stop it");
}

/// From one plan to the next, if nobody has changed anything in between; how much there was to do.
fn step(room: &mut Room, known: &Arc<Namespace>, want: &Arc<Namespace>, generation: u32) -> Option<usize> {
    if known.tables == want.tables {
        return Some(0);
    }
    let (mut have, mut wanted) = (LowTables::new(), LowTables::new());
    for table in &want.tables {
        match known.tables.iter().find(|other| (other.family, &other.name) == (table.family, &table.name)) {
            Some(other) if other == table => {}
            Some(other) => {
                let (before, after) = lower::changed(other, table).ok()?;
                if !diff::can_change(&before, &after) {
                    return None;
                }
                have.insert(key(table), before);
                wanted.insert(key(table), after);
            }
            None => drop(wanted.insert(key(table), lower::table(table).ok()?)),
        }
    }
    let is_gone = |t: &&Table| !want.tables.iter().any(|w| (w.family, &w.name) == (t.family, &t.name));
    have.extend(known.tables.iter().filter(is_gone).map(|table| (key(table), Default::default())));
    let changes = diff::tables(&have, &wanted);
    room.generation = commit(room, &changes, Some(generation)).ok()?;
    Some(changes.len())
}

/// The kernel leaves zero out when it counts on.
fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

type Refused = Vec<(String, Refusal)>;

/// Commits a difference; the generation after it, if the one before it was known.
fn commit(
    room: &mut Room,
    changes: &[TableChange<'_>],
    generation: Option<u32>,
) -> Result<Option<u32>, Refused> {
    if changes.is_empty() {
        return Ok(generation);
    }
    send(room, wire::batch(changes, generation))?;
    let generation = generation.map(next);
    let mut old = Vec::new();
    for (change, each) in changes.iter().flat_map(|change| change.changes.iter().map(move |e| (change, e))) {
        if let Change::Insert(chain, rules) = each {
            let handles = dump::handles(&mut room.nft, change.family, change.table, chain);
            let handles = handles.map_err(|why| vec![(format!("old rules of chain {chain}"), why)])?;
            let rest = handles.get(rules.len()..).unwrap_or_default().to_vec();
            old.push((change.family, change.table, *chain, rest));
        }
    }
    if old.is_empty() {
        return Ok(generation);
    }
    send(room, wire::finish(&old, generation))?;
    Ok(generation.map(next))
}

fn send(room: &mut Room, mut batch: wire::Batch) -> Result<(), Refused> {
    let refused = match room.nft.send_batch(&mut batch.requests) {
        Ok(refused) => refused,
        Err(err) => vec![(0, errno_of(&err))],
    };
    let refused: Refused =
        refused.into_iter().map(|(index, why)| (batch.subjects[index].clone(), why)).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// The transaction was refused: what can be done is done, table by table.
fn one_by_one(room: &mut Room, changes: &[TableChange<'_>], outcome: &mut Outcome) {
    for change in changes {
        match commit(room, std::slice::from_ref(change), None) {
            Ok(_) => outcome.changed += 1,
            Err(refused) => {
                let table = format!("table {} {}", diff::family_name(change.family), change.table);
                let (what, why) = &refused[0];
                let what = if what.is_empty() { "the transaction" } else { what };
                let why = words::refused(why);
                outcome.fail(format!("change {table}, which stays as it was: {what}: {why}"));
            }
        }
    }
}

/// Settings. Those of devices that are not there yet fail the first time, which is fine.
pub(crate) fn settings(
    room: &Room,
    home: &std::fs::File,
    is_last: bool,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let (written, failed) = crate::sysctl::apply(&room.file, home, &room.want.sysctls)?;
    outcome.changed += written;
    for (key, err) in failed.into_iter().filter(|_| is_last) {
        outcome.fail(format!("set net/{key} to {}: {err}", room.want.sysctls[&key]));
    }
    Ok(())
}
