//! [`Room`]: one namespace: its sockets, and what is known to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::SockProtocol;
use swarm_types::network_set::NetworkProblem;
use swarm_worker_core::network::kernel::{Link, LinkKind, Namespace, OURS, Place, Route, Rule, Way};

use crate::link::{self, Device};
use crate::namespace::enter;
use crate::nft::LowTables;
use crate::nft::dump;
use crate::route;
use crate::socket::{Refusal, Socket};

/// A namespace.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) place: Place,
    pub(crate) file: File,
    pub(crate) route: Socket,
    pub(crate) nft: Socket,
    pub(crate) route_news: Socket,
    pub(crate) nft_news: Socket,
    /// What it is to have.
    pub(crate) want: Arc<Namespace>,
    /// What it was to have before: where not all is ours, this is what may have to go.
    pub(crate) before: Arc<Namespace>,
    /// What it has for sure, tables aside; none: look.
    pub(crate) known: Option<Arc<Namespace>>,
    /// The tables that it has for sure, and their generation.
    pub(crate) known_tables: Option<Arc<Namespace>>,
    pub(crate) generation: Option<u32>,
    /// Devices that are known, by name.
    pub(crate) indexes: BTreeMap<String, u32>,
    /// Tables of ours were in the news since the last generation was.
    pub(crate) tables_changed: bool,
    /// Tables of others were in the news.
    pub(crate) others_changed: bool,
    /// What could not be made so.
    pub(crate) problems: Vec<NetworkProblem>,
    /// Packets that were dropped for want of space for connections, when last looked.
    pub(crate) dropped: Option<u64>,
    /// When there was no space for connections last.
    pub(crate) full_at: Option<Instant>,
}

/// What a namespace has, of what is ours.
#[derive(Debug, Default)]
pub(crate) struct Have {
    /// Without tables.
    pub(crate) namespace: Arc<Namespace>,
    /// Devices that are down.
    pub(crate) down: BTreeSet<String>,
    /// Rules of the kernel's own that are gone.
    pub(crate) lost: Vec<&'static Rule>,
}

/// News of links, addresses, routes, rules, neighbours and settings.
const ROUTE_GROUPS: u32 =
    1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 23 | 1 << 24;
/// News of tables.
const TABLE_GROUPS: u32 = 1 << 6;

/// Kinds of devices that we make.
pub(crate) const KINDS: [&str; 4] = ["veth", "vxlan", "macvlan", "dummy"];

impl Have {
    /// A device is gone, and with it what was on it.
    pub(crate) fn forget(&mut self, device: &str) {
        let namespace = Arc::make_mut(&mut self.namespace);
        namespace.links.remove(device);
        namespace.addrs.retain(|(on, _)| on != device);
        namespace.neighbours.retain(|(on, _), _| on != device);
        namespace.forwarding.retain(|(on, _), _| on != device);
        let routes = Arc::make_mut(&mut namespace.routes);
        routes.retain(|route| !matches!(&route.way, Way::Device { name, .. } if name == device));
    }
}

impl Room {
    /// Enters a namespace, opens sockets there, and goes home.
    pub(crate) fn open(place: Place, file: File, home: &File) -> io::Result<Self> {
        enter(&file)?;
        let sockets = || {
            let route_news = Socket::with_groups(SockProtocol::NetlinkRoute, ROUTE_GROUPS)?;
            let nft_news = Socket::with_groups(SockProtocol::NetlinkNetFilter, TABLE_GROUPS)?;
            let route = Socket::open(SockProtocol::NetlinkRoute)?;
            Ok((route, Socket::open(SockProtocol::NetlinkNetFilter)?, route_news, nft_news))
        };
        let sockets: io::Result<_> = sockets();
        enter(home)?;
        let (route, nft, route_news, nft_news) = sockets?;
        Ok(Self {
            place,
            file,
            route,
            nft,
            route_news,
            nft_news,
            want: Arc::default(),
            before: Arc::default(),
            known: None,
            known_tables: None,
            generation: None,
            indexes: BTreeMap::new(),
            tables_changed: false,
            others_changed: false,
            problems: Vec::new(),
            dropped: None,
            full_at: None,
        })
    }

    /// Whether the file of a namespace is still this one.
    pub(crate) fn is_at(&self, path: &std::path::Path) -> bool {
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::metadata(path).ok().map(id);
        there.is_some() && there == self.file.metadata().ok().map(id)
    }

    /// All but tables is to be looked at again.
    pub(crate) fn doubt_paths(&mut self) {
        self.known = None;
    }

    /// The tables are to be looked at again.
    pub(crate) fn doubt_tables(&mut self) {
        self.known_tables = None;
        self.generation = None;
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_as_wanted(&self) -> bool {
        let is_it = |known: &Arc<Namespace>| Arc::ptr_eq(known, &self.want) || *known == self.want;
        self.known.as_ref().is_some_and(is_it) && self.known_tables.as_ref().is_some_and(is_it)
    }

    /// Whether a device is one of ours.
    pub(crate) fn is_our_device(&self, device: &Device) -> bool {
        let is_made = KINDS.contains(&&device.kind[..]);
        let is_planned =
            self.want.links.contains_key(&device.name) || self.before.links.contains_key(&device.name);
        match self.place {
            Place::Host => is_planned || (device.name.starts_with("sw-") && is_made),
            Place::Sandbox(_) => is_planned || is_made,
            Place::Task(_) => is_planned,
        }
    }

    /// Whether a table is one of ours.
    pub(crate) fn is_our_table(&self, name: &str) -> bool {
        matches!(self.place, Place::Sandbox(_)) || name.starts_with("sw_")
    }

    /// The tables of ours that are there, and their generation.
    pub(crate) fn tables(&mut self) -> Result<(LowTables, u32), Refusal> {
        let is_sandbox = matches!(self.place, Place::Sandbox(_));
        dump::tables(&mut self.nft, |name| is_sandbox || name.starts_with("sw_"))
    }

    /// Everything but tables, as it is.
    pub(crate) fn look(
        &mut self,
        devices: &BTreeMap<String, Device>,
        kinds: &BTreeMap<String, LinkKind>,
    ) -> Result<Have, Refusal> {
        let (mut found, mut down) = (Namespace::default(), BTreeSet::new());
        self.indexes = devices.iter().map(|(name, device)| (name.clone(), device.index)).collect();
        let names: BTreeMap<u32, &str> =
            devices.values().map(|device| (device.index, &device.name[..])).collect();
        let ours: BTreeSet<&str> =
            devices.values().filter(|d| self.is_our_device(d)).map(|d| &d.name[..]).collect();
        for (name, device) in devices.iter().filter(|(name, _)| ours.contains(&name[..])) {
            let kind = kinds.get(name).cloned().unwrap_or(LinkKind::Dummy);
            let link = Link { kind, mac: device.mac, mtu: device.mtu };
            found.links.insert(name.clone(), link);
            down.extend((!device.is_up).then(|| name.clone()));
        }
        let lo_down = devices.get("lo").is_some_and(|lo| !lo.is_up);
        down.extend((lo_down && self.place != Place::Host).then(|| "lo".to_owned()));
        self.look_at_addresses(&names, &ours, &mut found)?;
        let lost = self.look_at_routes(&names, &mut found)?;
        self.look_at_neighbours(devices, &names, &ours, &mut found)?;
        Ok(Have { namespace: Arc::new(found), down, lost })
    }

    /// Whether what is in no plan any more is to be removed, if it was in one before.
    fn was_planned(&self, is_in: impl Fn(&Namespace) -> bool) -> bool {
        is_in(&self.want) || is_in(&self.before)
    }

    fn look_at_addresses(
        &mut self,
        names: &BTreeMap<u32, &str>,
        ours: &BTreeSet<&str>,
        found: &mut Namespace,
    ) -> Result<(), Refusal> {
        for (index, net) in route::addresses(&mut self.route)? {
            let Some(name) = names.get(&index) else { continue };
            let key = ((*name).to_owned(), net);
            let is_kernels = net.addr().is_loopback() || is_link_local(net.addr());
            let counts = match self.place {
                _ if self.was_planned(|n| n.addrs.contains(&key)) => true,
                Place::Sandbox(_) => !is_kernels,
                Place::Host => !is_kernels && ours.contains(name),
                Place::Task(_) => false,
            };
            found.addrs.extend(counts.then_some(key));
        }
        Ok(())
    }

    fn look_at_routes(
        &mut self,
        names: &BTreeMap<u32, &str>,
        found: &mut Namespace,
    ) -> Result<Vec<&'static Rule>, Refusal> {
        let only = (self.place == Place::Host).then_some(OURS);
        for each in route::routes(&mut self.route, only)? {
            const LOCAL: u32 = 255;
            let is_ours = match self.place {
                Place::Sandbox(_) => each.protocol != route::KERNEL,
                Place::Host | Place::Task(_) => each.protocol == OURS,
            };
            if each.is_plain() && each.route.table != LOCAL {
                let route = named(each.route, names.get(&each.index).copied());
                let counts = is_ours || self.was_planned(|n| n.routes.contains(&route));
                Arc::make_mut(&mut found.routes).extend(counts.then_some(route));
            }
        }
        let rules = route::rules(&mut self.route)?;
        // a family that has no rules at all is switched off
        let is_lost = |main: &&Rule| {
            rules.iter().any(|(_, rule)| rule.v6 == main.v6) && !rules.iter().any(|(_, rule)| rule == *main)
        };
        let lost: Vec<_> = route::MAIN.iter().filter(is_lost).collect();
        for (protocol, rule) in rules {
            let is_ours = match self.place {
                Place::Sandbox(_) => protocol != route::KERNEL && !route::MAIN.contains(&rule),
                Place::Host | Place::Task(_) => protocol == OURS,
            };
            found.rules.extend(is_ours.then_some(rule));
        }
        let is_all_ours = matches!(self.place, Place::Sandbox(_));
        Ok(if is_all_ours { lost } else { Vec::new() })
    }

    fn look_at_neighbours(
        &mut self,
        devices: &BTreeMap<String, Device>,
        names: &BTreeMap<u32, &str>,
        ours: &BTreeSet<&str>,
        found: &mut Namespace,
    ) -> Result<(), Refusal> {
        for (index, at, mac) in route::neighbours(&mut self.route)? {
            let Some(name) = names.get(&index) else { continue };
            let key = ((*name).to_owned(), at);
            let counts = match self.place {
                Place::Sandbox(_) => true,
                Place::Host => ours.contains(name),
                Place::Task(_) => self.was_planned(|n| n.neighbours.contains_key(&key)),
            };
            found.neighbours.extend(counts.then_some((key, mac)));
        }
        for device in devices.values().filter(|d| d.kind == "vxlan" && ours.contains(&d.name[..])) {
            for (_, behind, mac) in route::forwardings(&mut self.route, device.index)? {
                found.forwarding.insert((device.name.clone(), mac), behind);
            }
        }
        Ok(())
    }

    /// From now on it is to have something else.
    pub(crate) fn want(&mut self, want: Arc<Namespace>) {
        if *self.want != *want {
            self.before = std::mem::replace(&mut self.want, want);
        }
    }

    /// One device, and remembers its number.
    pub(crate) fn learn(&mut self, name: &str) -> Result<Option<Device>, Refusal> {
        let device = link::one(&mut self.route, name)?;
        match &device {
            Some(device) => drop(self.indexes.insert(name.to_owned(), device.index)),
            None => drop(self.indexes.remove(name)),
        }
        Ok(device)
    }
}

pub(crate) fn is_link_local(addr: std::net::IpAddr) -> bool {
    matches!(addr, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// A route as a plan would say it.
pub(crate) fn named(mut found: Route, device: Option<&str>) -> Route {
    if let Way::Device { name, .. } = &mut found.way {
        *name = device.unwrap_or_default().to_owned();
    }
    plain(found)
}

/// "No metric" is a number in IPv6.
pub(crate) fn plain(mut route: Route) -> Route {
    if route.to.addr().is_ipv6() && route.metric == route::V6_METRIC {
        route.metric = 0;
    }
    route.to = route.to.trunc();
    route
}
