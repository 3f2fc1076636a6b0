//! Links: making and removing devices, which concerns two namespaces at once more often than not.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use swarm_worker_core::network::kernel::{Link, LinkKind, Place};

use crate::link::{self, Device, Peer};
use crate::netlink::Buffer;
use crate::room::{Have, KINDS, Room};
use crate::socket::{Refusal, errno_of};
use crate::sync::Outcome;
use crate::words;

/// A namespace that is being worked on.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) have: Have,
    /// Devices that were made meanwhile.
    pub(crate) created: BTreeSet<String>,
    pub(crate) outcome: Outcome,
}

pub(crate) type Rooms = BTreeMap<Place, Room>;
pub(crate) type Works = BTreeMap<Place, Work>;

/// Everything of ours in a namespace but tables, as it is.
pub(crate) fn look(rooms: &mut Rooms, place: Place) -> Result<Have, Refusal> {
    let Some(room) = rooms.get_mut(&place) else { return Ok(Have::default()) };
    let devices = link::all(&mut room.route)?;
    let want = room.want.clone();
    let mut kinds = BTreeMap::new();
    for (name, device) in &devices {
        let wanted = want.links.get(name).map(|link| &link.kind);
        let kind = match wanted {
            Some(wanted) if is_kind(rooms, device, wanted)? => Some(wanted.clone()),
            // one that it is surely not
            Some(LinkKind::Dummy) => Some(LinkKind::Macvlan { parent: String::new() }),
            _ => None,
        };
        kinds.extend(kind.map(|kind| (name.clone(), kind)));
    }
    let Some(room) = rooms.get_mut(&place) else { return Ok(Have::default()) };
    room.look(&devices, &kinds)
}

/// Whether a device is what the plan says. Of a pair, both ends must know each other.
fn is_kind(rooms: &mut Rooms, device: &Device, wanted: &LinkKind) -> Result<bool, Refusal> {
    let at = |rooms: &mut Rooms, place: Place, name: &str| match rooms.get_mut(&place) {
        Some(room) => link::one(&mut room.route, name),
        None => Ok(None),
    };
    Ok(match wanted {
        LinkKind::Dummy => device.kind == "dummy",
        LinkKind::Vxlan { vni, local, port } => {
            let is = (device.vni, device.local, device.port);
            device.kind == "vxlan" && is == (*vni, Some(*local), *port)
        }
        LinkKind::Macvlan { parent } => {
            let parent = at(rooms, Place::Host, parent)?;
            device.kind == "macvlan" && parent.is_some_and(|parent| parent.index == device.below)
        }
        LinkKind::Veth { peer, peer_name } => {
            let other = at(rooms, *peer, peer_name)?;
            let know_each_other =
                other.is_some_and(|o| o.kind == "veth" && o.index == device.below && o.below == device.index);
            device.kind == "veth" && know_each_other
        }
    })
}

/// Removes what is no more wanted, or is something else. Returns places that are not being worked on and
/// have lost a device by it.
pub(crate) fn remove(rooms: &mut Rooms, works: &mut Works) -> BTreeSet<Place> {
    let mut lost = Vec::new();
    for (place, work) in works.iter_mut() {
        let Some(room) = rooms.get_mut(place) else { continue };
        let want = room.want.clone();
        let differs = |(name, link): &(&String, &Link)| {
            want.links.get(*name).is_none_or(|wanted| wanted.kind != link.kind)
        };
        let gone: Vec<(String, Link)> = work
            .have
            .namespace
            .links
            .iter()
            .filter(differs)
            .map(|(name, link)| (name.clone(), link.clone()))
            .collect();
        let mut requests = Buffer::default();
        let indexes: Vec<u32> = gone.iter().filter_map(|(name, _)| room.indexes.remove(name)).collect();
        if !indexes.is_empty() {
            link::delete_all(&mut requests, &indexes);
        }
        match room.route.send_all(&mut requests) {
            Err(err) => work.outcome.fail(format!("remove {} links: {err}", gone.len())),
            Ok(refused) => {
                // gone already, perhaps with its other end
                for (index, why) in refused.iter().filter(|(_, why)| why.errno != Errno::ENODEV) {
                    let what =
                        gone.get(*index).map_or("links".into(), |(name, link)| words::link(name, link));
                    work.outcome.fail(format!("remove {what}: {}", words::refused(why)));
                }
            }
        }
        work.outcome.changed += gone.len();
        for (name, link) in gone {
            work.have.forget(&name);
            if let LinkKind::Veth { peer, peer_name } = link.kind {
                lost.push((peer, peer_name));
            }
        }
    }
    let mut outside = BTreeSet::new();
    for (place, name) in lost {
        match works.get_mut(&place) {
            Some(work) => {
                work.have.forget(&name);
                rooms.get_mut(&place).map(|room| room.indexes.remove(&name));
            }
            None => outside.extend([place]),
        }
    }
    outside
}

/// Removes all devices of our kinds from a namespace that is going to end. What fails ends with it.
pub(crate) fn remove_all(room: &mut Room) {
    let Ok(devices) = link::all(&mut room.route) else { return };
    let ours = devices.values().filter(|device| KINDS.contains(&device.kind.as_str()));
    let indexes: Vec<u32> = ours.map(|device| device.index).collect();
    if !indexes.is_empty() {
        let mut requests = Buffer::default();
        link::delete_all(&mut requests, &indexes);
        if let Err(err) = room.route.send_all(&mut requests) {
            tracing::debug!(error = %err, "devices end with their namespace");
        }
    }
}

/// Makes what is missing, down. Returns places that are not being worked on and have got a device by it.
pub(crate) fn create(rooms: &mut Rooms, works: &mut Works) -> BTreeSet<Place> {
    let mut made: BTreeSet<(Place, String)> = BTreeSet::new();
    let mut outside = BTreeSet::new();
    let places: Vec<Place> = works.keys().copied().collect();
    for place in places {
        let Some(want) = rooms.get(&place).map(|room| room.want.clone()) else { continue };
        let work = works.entry(place).or_default();
        let there = &work.have.namespace.links;
        let missing = want.links.iter().filter(|(name, _)| !there.contains_key(*name));
        let missing: Vec<_> = missing.filter(|(name, _)| !made.contains(&(place, (*name).clone()))).collect();
        for (name, link) in missing {
            let work = works.entry(place).or_default();
            work.outcome.changed += 1;
            if let Err(why) = make(rooms, place, name, link) {
                work.outcome.fail(format!("add {}: {why}", words::link(name, link)));
                continue;
            }
            work.created.insert(name.clone());
            made.insert((place, name.clone()));
            if let LinkKind::Veth { peer, peer_name } = &link.kind {
                made.insert((*peer, peer_name.clone()));
                match works.get_mut(peer) {
                    Some(other) => {
                        other.have.forget(peer_name);
                        other.created.extend([peer_name.clone()]);
                    }
                    None => outside.extend([*peer]),
                }
            }
        }
    }
    outside
}

fn make(rooms: &mut Rooms, place: Place, name: &str, link: &Link) -> Result<(), String> {
    let result = try_make(rooms, place, name, link)?;
    let result = match result {
        Err(why) if why.errno == Errno::EEXIST => {
            // an end of a pair whose other end is wrong, made by somebody else
            clear(rooms, place, name)?;
            if let LinkKind::Veth { peer, peer_name } = &link.kind {
                clear(rooms, *peer, peer_name)?;
            }
            try_make(rooms, place, name, link)?
        }
        other => other,
    };
    result.map_err(|why| words::refused(&why))?;
    learn(rooms, place, name)?;
    if let LinkKind::Veth { peer, peer_name } = &link.kind {
        learn(rooms, *peer, peer_name)?;
    }
    Ok(())
}

fn learn(rooms: &mut Rooms, place: Place, name: &str) -> Result<(), String> {
    let Some(room) = rooms.get_mut(&place) else { return Ok(()) };
    room.learn(name).map(drop).map_err(|why| why.to_string())
}

fn clear(rooms: &mut Rooms, place: Place, name: &str) -> Result<(), String> {
    let Some(room) = rooms.get_mut(&place) else { return Ok(()) };
    let found = link::one(&mut room.route, name).map_err(|why| why.to_string())?;
    if let Some(device) = found {
        let mut requests = Buffer::default();
        link::delete(&mut requests, device.index);
        room.route.send_all(&mut requests).map_err(|err| err.to_string())?;
    }
    Ok(())
}

fn try_make(rooms: &mut Rooms, place: Place, name: &str, link: &Link) -> Result<Result<(), Refusal>, String> {
    let mut requests = Buffer::default();
    // what has a socket or a device in the host's namespace is made from there
    let from = match &link.kind {
        LinkKind::Veth { peer, peer_name } => {
            let other = rooms.get(peer).ok_or_else(|| format!("there is no {}", words::place(*peer)))?;
            let theirs = other.want.links.get(peer_name);
            let peer = Peer { namespace: other.file.as_raw_fd(), name: peer_name, link: theirs };
            link::create(&mut requests, name, link, None, Some(peer), 0);
            place
        }
        LinkKind::Dummy => {
            link::create(&mut requests, name, link, None, None, 0);
            place
        }
        LinkKind::Vxlan { .. } | LinkKind::Macvlan { .. } => {
            let parent = match &link.kind {
                LinkKind::Macvlan { parent } => {
                    let host = rooms.get_mut(&Place::Host).ok_or("the host's namespace is not open")?;
                    let found = link::one(&mut host.route, parent).map_err(|why| why.to_string())?;
                    found
                        .ok_or_else(|| format!("this node has no device {parent}: name one that it has"))?
                        .index
                }
                _ => 0,
            };
            let namespace = rooms.get(&place).map(|room| &room.file).filter(|_| place != Place::Host);
            link::create(&mut requests, name, link, namespace, None, parent);
            Place::Host
        }
    };
    let room = rooms.get_mut(&from).ok_or("the namespace is not open")?;
    match room.route.send_all(&mut requests) {
        Ok(refused) => Ok(refused.into_iter().next().map_or(Ok(()), |(_, why)| Err(why))),
        Err(err) => Ok(Err(errno_of(&err))),
    }
}
