//! Which ports may be published, and on which networks a service may be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Invalid, invalid, no_nul};
use crate::container::ContainerNetwork;
use crate::endpoint::{Balance, EndpointMode, EndpointSpec, Port, PublishMode};
use crate::network::AttachmentSpec;
use crate::task::TaskSpec;

/// Checks how a service is reached.
pub fn endpoint(spec: &EndpointSpec) -> Result<(), Invalid> {
    no_nul("endpoint-weight", &spec.weight_label)?;
    if spec.mode == EndpointMode::Dnsrr && spec.balance == Balance::Sticky {
        return invalid(
            "endpoint-balance",
            "sticky needs a virtual address: it can't be used with dnsrr mode",
        );
    }
    if spec.mode == EndpointMode::Dnsrr && !spec.weight_label.is_empty() {
        return invalid("endpoint-weight", "needs a virtual address: it can't be used with dnsrr mode");
    }
    for (i, port) in spec.ports.iter().enumerate() {
        // Docker Swarm's words.
        if spec.mode == EndpointMode::Dnsrr && port.mode == PublishMode::Ingress {
            return invalid("publish", "port published with ingress mode can't be used with dnsrr mode");
        }
        one(port)?;
        if spec.ports[..i].iter().any(|other| collide(port, other)) {
            let (number, protocol) = (port.published, port.protocol.as_str());
            return invalid("publish", format!("duplicate published ports provided: {number}/{protocol}"));
        }
    }
    Ok(())
}

fn one(port: &Port) -> Result<(), Invalid> {
    if port.target == 0 {
        return invalid("publish", "a target port from 1 to 65535 is needed");
    }
    match port.host_ip {
        Some(ip) if ip.is_unspecified() => {
            invalid("publish", format!("{ip} stands for all addresses: leave it out"))
        }
        Some(ip) if ip.is_multicast() || ip == IpAddr::from([255; 4]) => {
            invalid("publish", format!("{ip} is not an address of a host"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The same port of the same node, whatever the mode (Docker Swarm's rule, and addresses).
fn collide(a: &Port, b: &Port) -> bool {
    let addrs = a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip;
    a.published != 0 && a.published == b.published && a.protocol == b.protocol && addrs
}

/// Checks which networks a task is to be on; `ports` are those that its service publishes.
pub(super) fn attachments(task: &TaskSpec, ports: &[Port]) -> Result<(), Invalid> {
    let mut networks = BTreeSet::new();
    for attachment in &task.networks {
        if attachment.network.is_empty() {
            return invalid("network", "a network must be named");
        }
        if !networks.insert(attachment.network) {
            return invalid("network", format!("{} is named twice", attachment.network));
        }
        aliases(attachment)?;
    }
    if task.container.network != ContainerNetwork::Host {
        return Ok(());
    }
    if !task.networks.is_empty() {
        return invalid("network", "the host's network cannot be used together with others");
    }
    match ports.is_empty() {
        true => Ok(()),
        false => invalid(
            "publish",
            "a container on the host's network has the node's own ports: nothing to publish",
        ),
    }
}

fn aliases(attachment: &AttachmentSpec) -> Result<(), Invalid> {
    for (i, alias) in attachment.aliases.iter().enumerate() {
        let label = |l: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
        };
        if alias.len() > 253 || !alias.split('.').all(label) || alias.parse::<IpAddr>().is_ok() {
            return invalid("network", format!("alias `{alias}` is not a name that can be looked up"));
        }
        if alias.split_once('.').is_some_and(|(first, _)| first.eq_ignore_ascii_case("tasks")) {
            return invalid("network", format!("alias `{alias}`: names below `tasks.` belong to services"));
        }
        if attachment.aliases[..i].iter().any(|other| other.eq_ignore_ascii_case(alias)) {
            return invalid("network", format!("alias `{alias}` is given twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Protocol;

    fn port(published: u16, target: u16) -> Port {
        Port { published, target, ..Port::default() }
    }
    fn refused(change: impl FnOnce(&mut EndpointSpec)) -> String {
        let mut spec = EndpointSpec::default();
        change(&mut spec);
        endpoint(&spec).err().map(|e| e.to_string()).unwrap_or_default()
    }
    fn ports(ports: &[Port]) -> String {
        refused(|s| s.ports = ports.to_vec())
    }

    #[test]
    fn a_port_is_published_once() {
        // D4: one target under several numbers, two of them to be chosen.
        assert_eq!(ports(&[port(5005, 80), port(5006, 80), port(0, 80), port(0, 80)]), "");
        let udp = Port { protocol: Protocol::Udp, ..port(80, 80) };
        assert_eq!(ports(&[port(80, 80), udp]), "");
        assert_eq!(
            ports(&[port(80, 80), port(80, 20)]),
            "invalid publish: duplicate published ports provided: 80/tcp"
        );
        let host = Port { mode: PublishMode::Host, ..port(80, 81) };
        assert!(ports(&[port(80, 80), host]).contains("duplicate"));
        let on = |ip: [u8; 4]| Port { host_ip: Some(ip.into()), ..port(80, 80) };
        assert_eq!(ports(&[on([10, 0, 0, 1]), on([10, 0, 0, 2])]), "");
        assert!(ports(&[on([10, 0, 0, 1]), port(80, 81)]).contains("duplicate"));
    }

    #[test]
    fn ports_that_cannot_be() {
        assert!(ports(&[port(80, 0)]).contains("target port"));
        let on = |ip: &str| ports(&[Port { host_ip: Some(ip.parse().unwrap()), ..port(80, 80) }]);
        assert!(on("0.0.0.0").contains("leave it out") && on("::").contains("leave it out"));
        assert!(on("224.0.0.1").contains("not an address of a host"));
        assert_eq!(on("127.0.0.1"), "");
    }

    #[test]
    fn dnsrr_has_no_ingress_ports_and_no_choice() {
        let dnsrr = |change: fn(&mut EndpointSpec)| {
            refused(|s| {
                s.mode = EndpointMode::Dnsrr;
                change(s);
            })
        };
        assert_eq!(
            dnsrr(|s| s.ports = vec![port(80, 80)]),
            "invalid publish: port published with ingress mode can't be used with dnsrr mode"
        );
        assert_eq!(dnsrr(|s| s.ports = vec![Port { mode: PublishMode::Host, ..port(80, 80) }]), "");
        assert!(dnsrr(|s| s.balance = Balance::Sticky).contains("endpoint-balance"));
        assert!(dnsrr(|s| s.weight_label = "w".into()).contains("endpoint-weight"));
    }

    #[test]
    fn networks_of_a_task() {
        let on = |id: &str, aliases: &[&str]| AttachmentSpec {
            network: id.into(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            ..AttachmentSpec::default()
        };
        let check = |networks: Vec<AttachmentSpec>, network, ports: &[Port]| {
            let mut task = TaskSpec { networks, ..TaskSpec::default() };
            task.container.network = network;
            attachments(&task, ports).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let own = ContainerNetwork::Loopback;
        assert_eq!(check(vec![on("a", &["db", "db.example.com", "x_y"]), on("b", &["db"])], own, &[]), "");
        assert!(check(vec![on("a", &[]), on("a", &[])], own, &[]).contains("named twice"));
        assert!(check(vec![on("", &[])], own, &[]).contains("must be named"));
        for bad in ["", "a b", "-a", "a..b", "10.0.0.1", "tasks.web", "a\0", &"x".repeat(64)] {
            assert!(check(vec![on("a", &[bad])], own, &[]).contains("alias"), "{bad}");
        }
        assert!(check(vec![on("a", &["x", "X"])], own, &[]).contains("given twice"));
        let host = ContainerNetwork::Host;
        assert!(check(vec![on("a", &[])], host, &[]).contains("together with others"));
        assert!(check(vec![], host, &[port(80, 80)]).contains("nothing to publish"));
        assert_eq!(check(vec![], ContainerNetwork::Bridge, &[port(80, 80)]), "");
    }
}
