//! Namespaces, switch, router and links of a cluster, made with `ip` in batches.
//!
//! `swarm-N-sw` holds the bridge, `swarm-N-rt` the router, `swarm-N-HOST` one host each. A port of the
//! switch has the name of its host, so a cut is one link set down on the switch's side: the host keeps its
//! addresses and routes, as with a pulled cable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::SystemError;
use crate::program;
use crate::record::{ClusterRecord, HostRecord, Role};

/// No address is asked for twice here; without this a host is deaf on IPv6 for its first two seconds.
const NO_DAD: &[(&str, &str)] = &[
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
];
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn namespace(cluster: &str, part: &str) -> String {
    format!("swarm-{cluster}-{part}")
}

pub(crate) fn namespace_file(cluster: &str, part: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace(cluster, part))
}

/// Makes the switch, the router and every host's namespace and link.
pub(crate) fn make(record: &ClusterRecord) -> Result<(), SystemError> {
    let name = &record.name;
    batch(None, &format!("netns add {}\nnetns add {}\n", namespace(name, "sw"), namespace(name, "rt")))?;
    batch(
        Some(&namespace(name, "sw")),
        "link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 up\n",
    )?;
    set(name, "rt", NO_DAD);
    // a bridge that hands its frames to a firewall loses them to a forward policy of drop
    set(name, "sw", &[("bridge/bridge-nf-call-iptables", "0"), ("bridge/bridge-nf-call-ip6tables", "0")]);
    let router = namespace(name, "rt");
    batch(
        Some(&namespace(name, "sw")),
        &format!("link add router type veth peer name lan netns {router}\nlink set router master br0 up\n"),
    )?;
    batch(Some(&router), &router_script(record.block))?;
    set(name, "rt", &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
    for host in &record.hosts {
        plug(record, host)?;
    }
    Ok(())
}

/// Makes the namespace of a host and its link, as after a boot.
pub(crate) fn plug(record: &ClusterRecord, host: &HostRecord) -> Result<(), SystemError> {
    let own = namespace(&record.name, &host.name);
    batch(None, &format!("netns add {own}\n"))?;
    set(&record.name, &host.name, NO_DAD);
    // a machine keeps its MAC over a reboot; with a new one its neighbours would miss it for up to 45 s
    let [a, b, c, d] = host.address.octets();
    let mac = format!("02:73:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let (other, script) = match host.role {
        Role::Client => (
            "rt",
            format!(
                "link add client type veth peer name eth0 address {mac} netns {own}\n{}",
                wan_script(record.block)
            ),
        ),
        Role::Manager | Role::Worker => {
            let port = &host.name;
            (
                "sw",
                format!(
                    "link add {port} type veth peer name eth0 address {mac} netns {own}\nlink set {port} master br0 up\n"
                ),
            )
        }
    };
    batch(Some(&namespace(&record.name, other)), &script)?;
    batch(Some(&own), &host_script(record.block, host))
}

/// Removes the namespace of a host and its link; whatever the daemon made in there goes with it.
pub(crate) fn unplug(record: &ClusterRecord, host: &HostRecord) -> Result<(), SystemError> {
    let other = if host.role == Role::Client { "rt" } else { "sw" };
    // the link by name first: a process of someone else may keep the namespace itself alive
    ip(&["-n", &namespace(&record.name, other), "link", "del", &host.name]).ok();
    if namespace_file(&record.name, &host.name).exists() {
        ip(&["netns", "del", &namespace(&record.name, &host.name)])?;
    }
    Ok(())
}

/// Takes the host's port on the switch down or up.
pub(crate) fn set_link(record: &ClusterRecord, host: &HostRecord, up: bool) -> Result<(), SystemError> {
    let other = if host.role == Role::Client { "rt" } else { "sw" };
    let state = if up { "up" } else { "down" };
    ip(&["-n", &namespace(&record.name, other), "link", "set", &host.name, state])
}

/// The namespaces a cluster has now.
pub(crate) fn namespaces(cluster: &str) -> Vec<String> {
    let prefix = namespace(cluster, "");
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|n| n.starts_with(&prefix))
        .collect();
    names.sort();
    names
}

pub(crate) fn remove(namespace: &str) -> Result<(), SystemError> {
    ip(&["netns", "del", namespace])
}

fn router_script(block: u8) -> String {
    let mut script = format!("link set lo up\nlink set lan up\naddr add 172.28.{block}.1/24 dev lan\n");
    if has_ipv6() {
        script += &format!("addr add fd73:7761:726d:{block:x}::1/64 dev lan nodad\n");
    }
    script
}

fn wan_script(block: u8) -> String {
    let mut script = format!("link set client up\naddr add 172.29.{block}.1/24 dev client\n");
    if has_ipv6() {
        script += &format!("addr add fd73:7761:726d:{:x}::1/64 dev client nodad\n", 0x100 + u16::from(block));
    }
    script
}

fn host_script(block: u8, host: &HostRecord) -> String {
    let (net, net6) = match host.role {
        Role::Client => (29, 0x100 + u16::from(block)),
        Role::Manager | Role::Worker => (28, u16::from(block)),
    };
    let mut script = format!(
        "link set lo up\nlink set eth0 up\naddr add {}/24 dev eth0\nroute add default via 172.{net}.{block}.1\n",
        host.address
    );
    if has_ipv6() {
        script += &format!("addr add {}/64 dev eth0 nodad\n", host.address6);
        script += &format!("route add default via fd73:7761:726d:{net6:x}::1\n");
    }
    script
}

fn has_ipv6() -> bool {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    off.is_ok_and(|text| text.trim() == "0")
}

/// Writes sysctls of a namespace; those which this kernel does not have are not needed either.
fn set(cluster: &str, part: &str, values: &[(&str, &str)]) {
    let script: String = values
        .iter()
        .map(|(key, value)| format!("[ ! -e /proc/sys/net/{key} ] || echo {value} > /proc/sys/net/{key}\n"))
        .collect();
    let mut net = std::ffi::OsString::from("--net=");
    net.push(namespace_file(cluster, part));
    program::output(program::system("nsenter").arg(net).args(["sh", "-c", &script]), LIMIT).ok();
}

fn batch(namespace: Option<&str>, script: &str) -> Result<(), SystemError> {
    let mut command = program::system("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    program::feed(command.args(["-batch", "-"]), script, LIMIT).map(drop)
}

fn ip(args: &[&str]) -> Result<(), SystemError> {
    let mut command: Command = program::system("ip");
    program::output(command.args(args), LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::hosts;

    #[test]
    fn a_host_leaves_its_net_through_the_router() {
        let all = hosts(1, 0, 7);
        let script = host_script(7, &all[0]);
        assert!(script.contains("addr add 172.28.7.11/24 dev eth0\nroute add default via 172.28.7.1\n"));
        let script = host_script(7, &all[1]);
        assert!(script.contains("addr add 172.29.7.2/24 dev eth0\nroute add default via 172.29.7.1\n"));
    }

    #[test]
    fn clusters_with_a_common_beginning_are_told_apart() {
        assert!(!namespace("12", "m1").starts_with(&namespace("1", "")));
    }
}
