//! What a cluster is, as written to `cluster.json` once and never changed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
    /// Outside the cluster, behind the router; has no daemon.
    Client,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Manager => "manager",
            Role::Worker => "worker",
            Role::Client => "client",
        })
    }
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    pub name: String,
    pub role: Role,
    pub address: Ipv4Addr,
    pub address6: Ipv6Addr,
}

/// A cluster: its size, its addresses and how its daemons are started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) name: String,
    /// Third byte of the IPv4 block, fourth group of the IPv6 block.
    pub(crate) block: u8,
    pub(crate) hosts: Vec<HostRecord>,
    pub(crate) swarmd: PathBuf,
    pub(crate) swarmctl: PathBuf,
    pub(crate) daemon_args: Vec<String>,
    pub(crate) daemon_env: Vec<(String, String)>,
}

impl ClusterRecord {
    /// Hosts with a daemon, managers first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &HostRecord> {
        self.hosts.iter().filter(|host| host.role != Role::Client)
    }
}

/// Names and addresses of `m1 m2 … w1 w2 … client` in a block.
pub(crate) fn hosts(managers: usize, workers: usize, block: u8) -> Vec<HostRecord> {
    let in_cluster = |role, letter: char, number: usize, base: usize| {
        let last = u8::try_from(base + number).expect("at most 7 managers and 100 workers");
        HostRecord {
            name: format!("{letter}{number}"),
            role,
            address: Ipv4Addr::new(172, 28, block, last),
            address6: Ipv6Addr::new(0xfd73, 0x7761, 0x726d, block.into(), 0, 0, 0, last.into()),
        }
    };
    let managers = (1..=managers).map(|n| in_cluster(Role::Manager, 'm', n, 10));
    let workers = (1..=workers).map(|n| in_cluster(Role::Worker, 'w', n, 100));
    let client = HostRecord {
        name: "client".to_owned(),
        role: Role::Client,
        address: Ipv4Addr::new(172, 29, block, 2),
        address6: Ipv6Addr::new(0xfd73, 0x7761, 0x726d, 0x100 + u16::from(block), 0, 0, 0, 2),
    };
    managers.chain(workers).chain([client]).collect()
}

/// What a host is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    Running,
    /// Its daemon does not run (killed, or ended by itself).
    Stopped,
    /// Its daemon got a SIGSTOP.
    Paused,
    /// It runs without its link.
    Cut,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            HostState::Running => "running",
            HostState::Stopped => "stopped",
            HostState::Paused => "paused",
            HostState::Cut => "cut",
        })
    }
}

/// One line of `dev ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    pub host: HostRecord,
    pub state: HostState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_and_addresses() {
        let all = hosts(2, 1, 3);
        let shown: Vec<String> =
            all.iter().map(|h| format!("{} {} {} {}", h.name, h.role, h.address, h.address6)).collect();
        assert_eq!(
            shown,
            [
                "m1 manager 172.28.3.11 fd73:7761:726d:3::b",
                "m2 manager 172.28.3.12 fd73:7761:726d:3::c",
                "w1 worker 172.28.3.101 fd73:7761:726d:3::65",
                "client client 172.29.3.2 fd73:7761:726d:103::2",
            ]
        );
    }

    #[test]
    fn the_largest_cluster_has_no_address_twice() {
        let mut addresses: Vec<_> = hosts(7, 100, 250).into_iter().map(|host| host.address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 108);
    }
}
