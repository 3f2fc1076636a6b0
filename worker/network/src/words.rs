//! Words: what is in a namespace, as `ip` would print it, and what to do about what cannot be.

use nix::errno::Errno;
use swarm_worker_core::network::kernel::{Link, LinkKind, Mac, Place, Route, Rule, Way};

use crate::socket::Refusal;

/// What people call a namespace.
pub(crate) fn place(place: Place) -> String {
    match place {
        Place::Host => "host".into(),
        Place::Sandbox(network) => format!("network {network}"),
        Place::Task(task) => format!("task {task}"),
    }
}

pub(crate) fn link(name: &str, link: &Link) -> String {
    match &link.kind {
        LinkKind::Veth { peer, peer_name } => {
            format!("link {name} type veth peer {peer_name} in {}", self::place(*peer))
        }
        LinkKind::Vxlan { vni, local, port } => {
            format!("link {name} type vxlan id {vni} local {local} dstport {port}")
        }
        LinkKind::Macvlan { parent } => format!("link {name} type macvlan on {parent}"),
        LinkKind::Dummy => format!("link {name} type dummy"),
    }
}

pub(crate) fn address((device, net): &(String, ipnet::IpNet)) -> String {
    format!("addr {net} dev {device}")
}

pub(crate) fn route(route: &Route) -> String {
    let to = if route.to.prefix_len() == 0 { "default".into() } else { route.to.to_string() };
    let mut words = match &route.way {
        Way::Unreachable => format!("route unreachable {to}"),
        Way::Device { name, via: None } => format!("route {to} dev {name}"),
        Way::Device { name, via: Some(via) } => format!("route {to} via {via} dev {name} onlink"),
    };
    if let Some(src) = route.src {
        words = format!("{words} src {src}");
    }
    if route.metric > 0 {
        words = format!("{words} metric {}", route.metric);
    }
    if route.table != 254 { format!("{words} table {}", route.table) } else { words }
}

pub(crate) fn rule(rule: &Rule) -> String {
    let from = rule.from.map_or("all".into(), |from| from.to_string());
    let mark = rule.mark.map(|(mark, mask)| format!(" fwmark 0x{mark:x}/0x{mask:x}")).unwrap_or_default();
    let family = if rule.v6 { " (IPv6)" } else { "" };
    format!("rule {}: from {from}{mark} lookup {}{family}", rule.priority, rule.table)
}

pub(crate) fn neighbour((device, at): &(String, std::net::IpAddr), mac: Mac) -> String {
    format!("neigh {at} lladdr {mac} dev {device} nud permanent")
}

pub(crate) fn forwarding((device, mac): &(String, Mac), behind: std::net::IpAddr) -> String {
    format!("fdb {mac} dev {device} dst {behind}")
}

/// Why something was refused, and what to do.
pub(crate) fn refused(why: &Refusal) -> String {
    match advice(why.errno) {
        Some(advice) => format!("{why}: {advice}"),
        None => why.to_string(),
    }
}

fn advice(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EPERM | Errno::EACCES => Some("run swarmd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
            Some("this kernel lacks that part; load its module or use a kernel that has it")
        }
        Errno::ENODEV => Some("the device is not there; it is tried again in a few seconds"),
        Errno::ENOENT => Some("what it refers to is not there, or this kernel lacks the module for it"),
        Errno::EEXIST | Errno::EADDRINUSE => Some("something else has it; remove that"),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => {
            Some("no device leads there; it is tried again in a few seconds")
        }
        Errno::ENOMEM | Errno::ENOBUFS | Errno::ENFILE | Errno::EMFILE => {
            Some("the kernel is out of that; free memory or raise the limit of open files")
        }
        _ => None,
    }
}
