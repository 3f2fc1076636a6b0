//! Kernel: what each network namespace of a node is to have.
//!
//! Reads:   nothing.
//! Writes:  nothing: plain values.
//! Never:   knows why: that is the planner's.
//! Start:   [`Plan`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use swarm_types::id::{NetworkId, TaskId};

use super::firewall::{Chain, Family, Table};

/// All namespaces of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// By place. The host's is always there. What has not changed since the planner's last plan is the
    /// same `Arc`, here and below: comparing two plans (`==` of `Arc` looks at the pointers first)
    /// costs as much as what changed.
    pub namespaces: BTreeMap<Place, Arc<Namespace>>,
}

/// A network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The one that the daemon runs in. Ours there: links called `sw-…`, tables called `sw_…`, routes
    /// and rules of protocol [`OURS`]; the rest is not touched.
    Host,
    /// A network's sandbox on this node. All in it is ours.
    Sandbox(NetworkId),
    /// A task's. Ours there: the links in the plan, and tables called `sw_…`; the task may have the
    /// capability to make others.
    Task(TaskId),
}

/// Protocol number of routes and rules that are ours in the host's namespace.
pub const OURS: u8 = 83;

/// What one namespace is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// Devices by name (at most 15 bytes). `lo` is always there and up.
    pub links: BTreeMap<String, Link>,
    /// Addresses of devices, with the prefix length of the network that they are seen in. They bring no
    /// routes (`noprefixroute`) and are not asked for by others first (`nodad`).
    pub addrs: BTreeSet<(String, IpNet)>,
    /// Routes of all tables.
    pub routes: Arc<BTreeSet<Route>>,
    /// Policy rules.
    pub rules: BTreeSet<Rule>,
    /// Permanent neighbours: which MAC address has this address on this device.
    pub neighbours: BTreeMap<(String, IpAddr), Mac>,
    /// Forwarding entries of VXLAN devices: behind which node's address is this MAC address.
    pub forwarding: BTreeMap<(String, Mac), IpAddr>,
    /// Settings below `/proc/sys/net`, e.g. `ipv4/ip_forward`. Those of no device (`all`, `default`) are
    /// to be made before any device is: a new namespace may inherit `rp_filter` from the host.
    pub sysctls: BTreeMap<String, String>,
    /// Tables of nftables by family and name.
    pub tables: Vec<Table>,
}

impl Namespace {
    /// Puts another chain in the place of one that is there.
    pub fn replace_chain(&mut self, family: Family, table: &str, name: &str, chain: &Arc<Chain>) {
        let tables = self.tables.iter_mut().filter(|t| t.family == family && t.name == table);
        for old in tables.filter_map(|table| table.chains.get_mut(name)) {
            *old = chain.clone();
        }
    }

    /// Takes what is equal from an older plan of the same namespace, so that it is the same `Arc`.
    pub fn share(&mut self, old: &Namespace) {
        if self.routes == old.routes {
            self.routes = old.routes.clone();
        }
        for table in &mut self.tables {
            let same = old.tables.iter().find(|t| t.family == table.family && t.name == table.name);
            same.into_iter().for_each(|old| table.share(old));
        }
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Its MAC address; none: whatever the kernel gives.
    pub mac: Option<Mac>,
    /// Largest packet in bytes; 0: whatever the kernel gives.
    pub mtu: u32,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a pair; the plan of the other end's place names this one.
    Veth {
        /// Where the other end is.
        peer: Place,
        /// And its name there.
        peer_name: String,
    },
    /// A tunnel between nodes. It is made in the host's namespace and moved, so that its socket stays
    /// there.
    Vxlan {
        /// Network identifier.
        vni: u32,
        /// Address that packets are sent from.
        local: IpAddr,
        /// UDP port.
        port: u16,
    },
    /// A device of its own MAC address on a device of the host, made in the host's namespace.
    Macvlan {
        /// The host's device.
        parent: String,
    },
    /// Nothing: a device whose packets are dropped (`dummy`).
    Dummy,
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Table; 254 is the main one.
    pub table: u32,
    /// Where to.
    pub to: IpNet,
    /// Which way.
    pub way: Way,
    /// Source address of what is sent from here.
    pub src: Option<IpAddr>,
    /// Metric; 0: the kernel's default.
    pub metric: u32,
}

/// The way of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Through a device, to a next hop or directly (scope link). The next hop need not be reachable by
    /// another route (`onlink`).
    Device {
        /// Which device.
        name: String,
        /// The next hop.
        via: Option<IpAddr>,
    },
    /// Nowhere; the sender is told at once.
    Unreachable,
}

/// A policy rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Order.
    pub priority: u32,
    /// IPv6?
    pub v6: bool,
    /// Only packets from here.
    pub from: Option<IpNet>,
    /// Only packets with this mark under this mask.
    pub mark: Option<(u32, u32)>,
    /// The table that is looked up.
    pub table: u32,
}
