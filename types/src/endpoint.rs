//! How a service is reached: its virtual addresses and its published ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::id::NetworkId;

/// What the user wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSpec {
    /// What the service's name stands for.
    pub mode: EndpointMode,
    /// Which task a new connection to a virtual address or an ingress port gets.
    pub balance: Balance,
    /// Label of nodes that holds the weight of their tasks (1 to 100); empty: all weigh the same.
    pub weight_label: String,
    /// Ports reached from outside.
    pub ports: Vec<Port>,
}

/// What a service's name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointMode {
    /// One virtual address on each network.
    #[default]
    Vip,
    /// The addresses of all its tasks.
    Dnsrr,
}

impl EndpointMode {
    /// The word of `--endpoint-mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            EndpointMode::Vip => "vip",
            EndpointMode::Dnsrr => "dnsrr",
        }
    }
}

/// Which task a new connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Any.
    #[default]
    Random,
    /// The same for each client address, as long as the tasks are the same.
    Sticky,
}

impl Balance {
    /// The word of `--endpoint-balance`.
    pub fn as_str(self) -> &'static str {
        match self {
            Balance::Random => "random",
            Balance::Sticky => "sticky",
        }
    }
}

/// A port reached from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Port {
    /// Transport.
    pub protocol: Protocol,
    /// Port of the task.
    pub target: u16,
    /// Port of the nodes; 0: one is chosen (ingress: by the managers, from 30000 to 32767; host: by
    /// the node).
    pub published: u16,
    /// On all nodes, or on the task's.
    pub mode: PublishMode,
    /// Only on this address of the nodes; none: on all.
    pub host_ip: Option<IpAddr>,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Where a port is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PublishMode {
    /// On every node; leads to any task.
    #[default]
    Ingress,
    /// On the nodes of its tasks; leads to the task there.
    Host,
}

impl PublishMode {
    /// The word of `--publish mode=`.
    pub fn as_str(self) -> &'static str {
        match self {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        }
    }
}

/// What a service got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// [`EndpointSpec::ports`] with every ingress port chosen.
    pub ports: Vec<Port>,
    /// Its virtual addresses by network: one of each of the network's families.
    pub vips: BTreeMap<NetworkId, Vec<IpAddr>>,
}
