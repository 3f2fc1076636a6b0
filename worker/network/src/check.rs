//! Checks: every difference between what is wanted and what is there, in words.

use std::collections::BTreeSet;
use std::fs::File;

use swarm_worker_core::network::kernel::{Place, Route};

use crate::kernel::Difference;
use crate::links::{self, Rooms};
use crate::nft::diff;
use crate::nft::{LowTables, lower};
use crate::room::{Have, Room, plain};
use crate::socket::Refusal;
use crate::{sysctl, words};

struct Found {
    place: Place,
    all: Vec<Difference>,
}

impl Found {
    fn add(&mut self, what: impl Into<String>, how: impl Into<String>) {
        self.all.push(Difference { place: self.place, what: what.into(), how: how.into() });
    }

    fn sets<T: Ord>(&mut self, have: &BTreeSet<T>, want: &BTreeSet<T>, words: impl Fn(&T) -> String) {
        want.difference(have).for_each(|each| self.add(words(each), "missing"));
        have.difference(want).for_each(|each| self.add(words(each), "unexpected"));
    }
}

/// All differences of one namespace.
pub(crate) fn room(rooms: &mut Rooms, place: Place, home: &File) -> Result<Vec<Difference>, Refusal> {
    let have = links::look(rooms, place)?;
    let mut found = Found { place, all: Vec::new() };
    let Some(room) = rooms.get_mut(&place) else {
        found.add(words::place(place), "missing");
        return Ok(found.all);
    };
    of_links(&mut found, room, &have);
    of_paths(&mut found, room, &have);
    let settings = sysctl::differences(&room.file, home, &room.want.sysctls);
    for (key, there) in settings.map_err(|err| crate::socket::errno_of(&err))? {
        let how = there
            .map_or("missing".into(), |there| format!("is {there} instead of {}", room.want.sysctls[&key]));
        found.add(format!("sysctl net/{key}"), how);
    }
    let (tables, _) = room.tables()?;
    let mut wanted = LowTables::new();
    for table in &room.want.tables {
        match lower::table(table) {
            Ok(low) => drop(wanted.insert((lower::family(table.family), table.name.clone()), low)),
            Err(why) => found.add(format!("table {}", table.name), format!("cannot be made: {why}")),
        }
    }
    for (what, how) in diff::differences(&tables, &wanted) {
        found.add(what, how);
    }
    Ok(found.all)
}

fn of_links(found: &mut Found, room: &Room, have: &Have) {
    for (name, wanted) in &room.want.links {
        let words = words::link(name, wanted);
        let Some(there) = have.namespace.links.get(name) else {
            found.add(words, "missing");
            continue;
        };
        if there.kind != wanted.kind {
            found.add(words.clone(), "is something else, or its other end is");
        }
        if let (Some(mac), other) = (wanted.mac, there.mac)
            && other != Some(mac)
        {
            let other = other.map_or("unknown".into(), |mac| mac.to_string());
            found.add(words.clone(), format!("has MAC address {other} instead of {mac}"));
        }
        if wanted.mtu > 0 && wanted.mtu != there.mtu {
            found.add(words, format!("has MTU {} instead of {}", there.mtu, wanted.mtu));
        }
    }
    for (name, link) in have.namespace.links.iter().filter(|(name, _)| !room.want.links.contains_key(*name)) {
        found.add(words::link(name, link), "unexpected");
    }
    have.down.iter().for_each(|name| found.add(format!("link {name}"), "is down"));
}

fn of_paths(found: &mut Found, room: &Room, have: &Have) {
    let (want, there) = (&room.want, &have.namespace);
    found.sets(&there.addrs, &want.addrs, words::address);
    let wanted: BTreeSet<Route> = want.routes.iter().cloned().map(plain).collect();
    found.sets(&there.routes, &wanted, words::route);
    found.sets(&there.rules, &want.rules, words::rule);
    have.lost.iter().for_each(|rule| found.add(words::rule(rule), "missing"));
    let neighbours = |all: &std::collections::BTreeMap<_, _>| {
        all.iter().map(|(k, v): (&(String, _), _)| (k.clone(), *v)).collect()
    };
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (neighbours(&there.neighbours), neighbours(&want.neighbours));
    found.sets(&a, &b, |(key, mac)| words::neighbour(key, *mac));
    let entries = |all: &std::collections::BTreeMap<_, _>| {
        all.iter().map(|(k, v): (&(String, _), _)| (k.clone(), *v)).collect()
    };
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (entries(&there.forwarding), entries(&want.forwarding));
    found.sets(&a, &b, |(key, behind)| words::forwarding(key, *behind));
}
