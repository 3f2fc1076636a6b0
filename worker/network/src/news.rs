//! News: what others change. Only what makes a namespace other than wanted counts: what we change
//! ourselves comes as news too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use swarm_worker_core::network::kernel::{Mac, Place, Route, Way};

use crate::link;
use crate::netlink::{Message, attributes_after, be32, text};
use crate::nft::number::{SUBSYSTEM, message as table};
use crate::room::{Room, is_link_local, named};
use crate::route::{self, message};

/// A setting of a device or of all of them (RTM_NEWNETCONF).
const NEW_SETTING: u16 = 80;

/// What news say of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct News {
    /// Something is not as wanted, or may not be: links, addresses, routes, rules, neighbours.
    pub(crate) paths_are_wrong: bool,
    /// Tables.
    pub(crate) tables_are_wrong: bool,
    /// Settings were changed, by us or others.
    pub(crate) settings: bool,
    /// News were lost.
    pub(crate) lost: bool,
}

/// Reads the news of a namespace that have come.
pub(crate) fn read(room: &mut Room) -> News {
    let mut news = News::default();
    let mut bodies = Vec::new();
    news.lost |= !room.route_news.news(|m| bodies.push((m.kind, m.port, m.body.to_vec())));
    news.settings = bodies.iter().any(|(kind, ..)| *kind == NEW_SETTING);
    let seen = Seen { names: room.indexes.iter().map(|(name, index)| (*index, &name[..])).collect(), room };
    news.paths_are_wrong |= bodies.iter().any(|(kind, _, body)| seen.of_routes(*kind, body));
    bodies.clear();
    news.lost |= !room.nft_news.news(|m| bodies.push((m.kind, m.port, m.body.to_vec())));
    let own = room.nft.port();
    for (kind, port, body) in &bodies {
        let message = Message { kind: *kind, flags: 0, number: 0, port: *port, body };
        if *port != own {
            news.tables_are_wrong |= of_tables(room, &message);
        }
    }
    news
}

/// Others' changes of other tables only move the generation on; they may be in our way.
fn of_tables(room: &mut Room, message: &Message<'_>) -> bool {
    if message.kind & 0xff00 != SUBSYSTEM {
        return false;
    }
    let first = attributes_after(message.body, 4).find(|(kind, _)| *kind == 1);
    if message.kind != table::NEW_GENERATION {
        let name = first.map(|(_, name)| text(name)).unwrap_or_default();
        let is_ours = room.is_our_table(&name);
        room.tables_changed |= is_ours;
        room.others_changed |= !is_ours;
        return is_ours;
    }
    let is_wrong = std::mem::take(&mut room.tables_changed);
    match first {
        Some((_, generation)) if !is_wrong && room.generation.is_some() => {
            room.generation = Some(be32(generation));
        }
        _ => room.generation = None,
    }
    is_wrong
}

/// A namespace, and its devices by number.
struct Seen<'a> {
    room: &'a Room,
    names: BTreeMap<u32, &'a str>,
}

impl Seen<'_> {
    fn of_routes(&self, kind: u16, body: &[u8]) -> bool {
        match kind {
            link::NEW | link::DELETE => self.of_link(kind, body),
            message::NEW_ADDR | message::DELETE_ADDR => self.of_address(kind, body).unwrap_or(false),
            message::NEW_ROUTE | message::DELETE_ROUTE => self.of_route(kind, body).unwrap_or(false),
            message::NEW_RULE | message::DELETE_RULE => self.of_rule(kind, body).unwrap_or(false),
            message::NEW_NEIGHBOUR | message::DELETE_NEIGHBOUR => {
                self.of_neighbour(kind, body).unwrap_or(false)
            }
            _ => false,
        }
    }

    fn of_link(&self, kind: u16, body: &[u8]) -> bool {
        const BRIDGE: u8 = 7;
        let Some(device) = link::read(body).filter(|_| body.first() != Some(&BRIDGE)) else { return false };
        let is_known = self.room.indexes.get(&device.name) == Some(&device.index);
        let wanted = self.room.want.links.get(&device.name);
        if kind == link::DELETE {
            return is_known && wanted.is_some();
        }
        // a device of another name may be one of ours that was renamed
        let was_renamed = !is_known && self.room.indexes.values().any(|index| *index == device.index);
        match wanted {
            Some(wanted) => {
                let mac = wanted.mac.is_none_or(|mac| device.mac == Some(mac));
                let mtu = wanted.mtu == 0 || wanted.mtu == device.mtu;
                !(is_known && device.is_up && mac && mtu)
            }
            None => was_renamed || self.room.is_our_device(&device),
        }
    }

    fn of_address(&self, kind: u16, body: &[u8]) -> Option<bool> {
        let (index, net) = route::read_address(body)?;
        let on = *self.names.get(&index)?;
        let is_wanted = self.room.want.addrs.contains(&(on.to_owned(), net));
        if kind == message::DELETE_ADDR {
            return Some(is_wanted);
        }
        let is_kernels = is_link_local(net.addr()) || net.addr().is_loopback();
        let is_ours = match self.room.place {
            Place::Sandbox(_) => true,
            Place::Host => self.room.want.links.contains_key(on),
            Place::Task(_) => false,
        };
        Some(!is_wanted && !is_kernels && is_ours)
    }

    fn of_route(&self, kind: u16, body: &[u8]) -> Option<bool> {
        let found = route::read_route(body)?;
        let is_kernels = found.protocol == route::KERNEL;
        let route = named(found.route, self.names.get(&found.index).copied());
        let is_wanted = self.room.want.routes.contains(&route);
        if kind == message::DELETE_ROUTE {
            return Some(is_wanted);
        }
        let takes_place = || {
            let least = Way::Device { name: String::new(), via: None };
            let least = Route { way: least, src: None, metric: 0, ..route.clone() };
            let same = |r: &&Route| (r.table, r.to) == (route.table, route.to);
            self.room.want.routes.range(least..).take_while(same).any(|r| r.metric == route.metric)
        };
        let is_ours = match self.room.place {
            Place::Sandbox(_) => !is_kernels,
            Place::Host | Place::Task(_) => found.protocol == swarm_worker_core::network::kernel::OURS,
        };
        Some(!is_wanted && (is_ours || (!is_kernels && takes_place())))
    }

    fn of_rule(&self, kind: u16, body: &[u8]) -> Option<bool> {
        let (protocol, rule) = route::read_rule(body)?;
        let is_wanted = self.room.want.rules.contains(&rule);
        let is_main = matches!(self.room.place, Place::Sandbox(_)) && route::MAIN.contains(&rule);
        if kind == message::DELETE_RULE {
            return Some(is_wanted || is_main);
        }
        let is_ours = match self.room.place {
            Place::Sandbox(_) => protocol != route::KERNEL,
            _ => protocol == swarm_worker_core::network::kernel::OURS,
        };
        Some(!is_wanted && is_ours && !is_main)
    }

    fn of_neighbour(&self, kind: u16, body: &[u8]) -> Option<bool> {
        const BRIDGE: u8 = 7;
        let is_forwarding = *body.first()? == BRIDGE;
        let index = crate::netlink::u32_at(body, 4)?;
        let on = (*self.names.get(&index)?).to_owned();
        let permanent: Option<(u32, IpAddr, Mac)> = route::read_neighbour(body);
        let (mut at, mut mac) = (None, None);
        for (attribute, value) in attributes_after(body, 12) {
            match attribute {
                1 => at = route::addr(value),
                2 => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
                _ => {}
            }
        }
        let is_sandbox = matches!(self.room.place, Place::Sandbox(_));
        if is_forwarding {
            let wanted = self.room.want.forwarding.get(&(on.clone(), mac?)).copied();
            let is_ours = self.room.want.links.contains_key(&on) && at.is_some();
            return Some(match kind {
                message::DELETE_NEIGHBOUR => wanted.is_some(),
                _ => is_ours && wanted != at,
            });
        }
        let wanted = self.room.want.neighbours.get(&(on, at?)).copied();
        Some(match (kind, wanted) {
            (message::DELETE_NEIGHBOUR, wanted) => wanted.is_some(),
            (_, Some(wanted)) => permanent.is_none_or(|(_, _, mac)| mac != wanted),
            (_, None) => is_sandbox && permanent.is_some(),
        })
    }
}
