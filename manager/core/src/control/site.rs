//! Site: what the subnets of networks hide of the addresses that the nodes' hosts use.
//!
//! Reads:   networks, nodes.
//! Writes:  nothing: words for users.
//! Never:   chooses a subnet: the allocator does, and stays clear of all this where it can.
//! Start:   [`problems`].

use swarm_types::network::{Network, NetworkDriver};
use swarm_types::network_set::NetworkProblem;
use swarm_types::node::Node;
use swarm_types::site::{self, SiteKind, SitePrefix};

use super::Denied;
use crate::store::View;

/// Denies a network that holds the address of a node: the packets of the node's other networks, and all
/// that its tasks send to that node, would be lost.
///
/// # Errors
/// The network, its subnet and the node.
pub(super) fn refuse(view: &View, network: &Network) -> Result<(), Denied> {
    for subnet in of_its_own(network) {
        let on = |node: &&std::sync::Arc<Node>| site::own_addrs(node).any(|a| subnet.contains(&a));
        if let Some(node) = view.nodes().find(on) {
            let addr = site::own_addrs(node).find(|a| subnet.contains(a)).expect("it was found by it");
            return Err(Denied::Precondition(format!(
                "subnet {subnet} holds {addr}, the address of node {}: nobody on the network could reach that \
                 node; choose another --subnet",
                node.display_name()
            )));
        }
    }
    Ok(())
}

/// What a new network hides, one warning for each of its subnets.
pub(super) fn warnings(view: &View, network: &Network) -> Vec<String> {
    let warn = |subnet: ipnet::IpNet| {
        let hides = |node: &&std::sync::Arc<Node>| hidden(node, &subnet).next().is_some();
        let mut nodes = view.nodes().filter(hides);
        let first = nodes.next()?;
        let more = match nodes.count() {
            0 => String::new(),
            1 => " (and of 1 more node)".to_owned(),
            more => format!(" (and of {more} more nodes)"),
        };
        let (what, name) =
            (site::in_words(&hidden(first, &subnet).collect::<Vec<_>>()), first.display_name());
        Some(format!(
            "subnet {subnet} hides {what} of node {name}{more}: {}; unless that is meant, remove the network \
             and choose another --subnet",
            who(network, "that node")
        ))
    };
    of_its_own(network).filter_map(warn).collect()
}

/// What a node's host uses that the networks of the cluster hide, by name of network.
pub fn problems<'a>(networks: impl Iterator<Item = &'a Network>, node: &Node) -> Vec<NetworkProblem> {
    let mut problems: Vec<NetworkProblem> = networks
        .flat_map(|network| of_its_own(network).map(move |subnet| (network, subnet)))
        .filter_map(|(network, subnet)| {
            let hidden: Vec<SitePrefix> = hidden(node, &subnet).collect();
            let name = &network.spec.annotations.name;
            let flag = if network.spec.ingress { "--ingress --subnet" } else { "--subnet" };
            (!hidden.is_empty()).then(|| NetworkProblem {
                subject: format!("network {name}"),
                text: format!(
                    "its subnet {subnet} hides {} of this host: {}; `network rm {name}` and make it anew with \
                     `network create {flag} …`",
                    site::in_words(&hidden),
                    who(network, "this host")
                ),
            })
        })
        .collect();
    problems.sort();
    problems
}

/// Whom it is hidden from.
fn who(network: &Network, host: &str) -> String {
    match network.spec.ingress {
        true => format!("{host}, and tasks with a way out, cannot reach what is there"),
        false => "tasks on it cannot reach what is there".to_owned(),
    }
}

/// The subnets that are the cluster's own; those of macvlan are the site's.
fn of_its_own(network: &Network) -> impl Iterator<Item = ipnet::IpNet> {
    let ours = network.spec.driver != NetworkDriver::Macvlan;
    network.subnets.iter().filter(move |_| ours).map(|subnet| subnet.net)
}

fn hidden(node: &Node, subnet: &ipnet::IpNet) -> impl Iterator<Item = SitePrefix> {
    let site = &node.description.network.site;
    // One that does not describe its host has an address all the same.
    let told = |addr: &std::net::IpAddr| site.iter().any(|p| p.net.addr() == *addr);
    let seen = site::own_addrs(node).find(|addr| !told(addr) && subnet.contains(addr));
    let seen = seen.map(|addr| SitePrefix { kind: SiteKind::Address, net: addr.into() });
    seen.into_iter().chain(site::hidden(subnet, site).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::network::{NetworkSpec, Subnet};
    use swarm_types::testing;

    fn network(name: &str, net: &str, change: impl FnOnce(&mut NetworkSpec)) -> Network {
        let net: ipnet::IpNet = net.parse().unwrap();
        let mut spec = NetworkSpec::default();
        spec.annotations.name = name.into();
        change(&mut spec);
        let subnets = vec![Subnet { net, gateway: net.addr(), range: net, reserved: Vec::new() }];
        Network { id: name.into(), spec, subnets, ..Network::default() }
    }

    #[test]
    fn a_node_says_what_is_hidden_of_its_host_and_what_to_do() {
        let mut node = testing::node("n1");
        let prefix = |kind, net: &str| SitePrefix { kind, net: net.parse().unwrap() };
        node.description.network.site =
            vec![prefix(SiteKind::Address, "10.7.0.9/24"), prefix(SiteKind::Resolver, "10.255.255.53/32")];
        let networks = [
            network("ingress", "10.255.0.0/16", |spec| spec.ingress = true),
            network("far", "10.9.0.0/24", |_| {}),
            network("app", "10.7.0.0/24", |_| {}),
            network("lan", "10.7.0.0/24", |spec| spec.driver = NetworkDriver::Macvlan),
        ];
        let texts: Vec<String> =
            problems(networks.iter(), &node).iter().map(|p| format!("{}: {}", p.subject, p.text)).collect();
        assert_eq!(
            texts,
            [
                "network app: its subnet 10.7.0.0/24 hides address 10.7.0.9/24 of this host: tasks on it cannot \
                 reach what is there; `network rm app` and make it anew with `network create --subnet …`",
                "network ingress: its subnet 10.255.0.0/16 hides resolver 10.255.255.53 of this host: this host, \
                 and tasks with a way out, cannot reach what is there; `network rm ingress` and make it anew with \
                 `network create --ingress --subnet …`",
            ]
        );
        // An older daemon says nothing of its host, but where it is, is known.
        node.description.network.site.clear();
        node.status.addr = "10.9.0.4".into();
        let problems = problems(networks.iter(), &node);
        assert!(problems[0].text.contains("hides address 10.9.0.4/32"), "{problems:?}");
        assert_eq!(problems.len(), 1);
    }
}
