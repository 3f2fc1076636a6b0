//! A network: an address space that tasks on many nodes share, or a way into a node's own network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::id::NetworkId;
use crate::meta::{Annotations, Meta};
use crate::time::Timestamp;

/// A network as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Version and times.
    pub meta: Meta,
    /// What is wanted.
    pub spec: NetworkSpec,
    /// VXLAN network identifier, from 4096; 0 for drivers that have none.
    pub vni: u32,
    /// Its subnets: those asked for, or taken from the pools; IPv4 first, at most one of each family.
    pub subnets: Vec<Subnet>,
    /// Addresses that were given back, and when: not given out again before
    /// [`crate::defaults::ADDRESS_QUARANTINE`] has passed, so that a late packet meets nobody.
    pub released: BTreeMap<IpAddr, Timestamp>,
}

/// What the user wants of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Name (unique) and labels.
    pub annotations: Annotations,
    /// What makes it real.
    pub driver: NetworkDriver,
    /// Subnets asked for; empty: one from the pools.
    pub subnets: Vec<SubnetSpec>,
    /// Give it an IPv6 subnet too, if none is asked for.
    pub ipv6: bool,
    /// Its tasks reach each other and nothing else.
    pub internal: bool,
    /// Containers that are no tasks may join. Kept and shown; there are none yet.
    pub attachable: bool,
    /// What leaves a node is encrypted (the default; `--opt encrypted=false` switches it off).
    pub encrypted: bool,
    /// It is the one network that published ports and the way out use.
    pub ingress: bool,
    /// Bytes that a packet may have; 0: as many as the underlay allows.
    pub mtu: u32,
    /// Options of the driver that are not fields here (`parent` of macvlan).
    pub options: BTreeMap<String, String>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            annotations: Annotations::default(),
            driver: NetworkDriver::Overlay,
            subnets: Vec::new(),
            ipv6: false,
            internal: false,
            attachable: false,
            encrypted: true,
            ingress: false,
            mtu: 0,
            options: BTreeMap::new(),
        }
    }
}

/// What makes a network real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkDriver {
    /// One network over all nodes (VXLAN).
    #[default]
    Overlay,
    /// A network of each node for itself, with a way out.
    Bridge,
    /// Tasks appear with MAC addresses of their own on a device of the node (option `parent`).
    Macvlan,
}

impl NetworkDriver {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            NetworkDriver::Overlay => "overlay",
            NetworkDriver::Bridge => "bridge",
            NetworkDriver::Macvlan => "macvlan",
        }
    }
}

/// A subnet as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSpec {
    /// Its addresses.
    pub subnet: IpNet,
    /// The gateway's address; none: the first one.
    pub gateway: Option<IpAddr>,
    /// Tasks get addresses from here only; none: from all of the subnet.
    pub range: Option<IpNet>,
    /// Addresses that nobody gets, by a name for people.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A subnet as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its addresses.
    pub net: IpNet,
    /// The gateway, which is also where names are asked for. The same on every node.
    pub gateway: IpAddr,
    /// Where tasks' and virtual addresses come from.
    pub range: IpNet,
    /// Addresses that nobody gets.
    pub reserved: Vec<IpAddr>,
}

/// A task wants to be on a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachmentSpec {
    /// Which. The command line turns names into ids, as Docker's does.
    pub network: NetworkId,
    /// More names for the service on this network.
    pub aliases: Vec<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// A task's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// Which.
    pub network: NetworkId,
    /// Its addresses there: one of each of the network's families. Empty for macvlan without IPAM.
    pub addrs: Vec<IpAddr>,
    /// More names for the task's service there.
    pub aliases: Vec<String>,
}
