//! Which address a node listens on, and which one it tells others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use swarm_types::cluster::ClusterSpec;
use swarm_types::defaults::LISTEN_PORT;
use swarm_types::site::{self, SitePrefix};

/// An address was given that cannot be used, or none was and there is more than one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddrError {
    #[error("{flag} `{text}` is neither an address nor a network interface of this machine")]
    Unknown { flag: &'static str, text: String },
    #[error("{0} must be a routable address: `{1}` stands for all addresses; use one of: {candidates}", candidates = .2)]
    Unspecified(&'static str, String, String),
    #[error(
        "could not choose an IP address to advertise since this machine has several: {0}; say which with --advertise-addr"
    )]
    Several(String),
    #[error(
        "could not find an IP address to advertise: this machine has only loopback; give one with --advertise-addr"
    )]
    None,
    #[error("list the addresses of this machine")]
    List(#[source] nix::Error),
}

/// The addresses of this machine that others could reach, with their interfaces.
pub(crate) fn candidates() -> Result<Vec<(String, IpAddr)>, AddrError> {
    let mut found = Vec::new();
    for interface in getifaddrs().map_err(AddrError::List)? {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        if !up || interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(addr) = interface.address else { continue };
        let v4 = addr.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = addr.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        if let Some(ip) = v4.or(v6).filter(|ip| !is_link_local(ip)) {
            found.push((interface.interface_name, ip));
        }
    }
    Ok(found)
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// `ip|interface[:port]` as an address; the port is 2377 unless one is given.
pub(crate) fn parse(
    flag: &'static str,
    text: &str,
    known: &[(String, IpAddr)],
) -> Result<SocketAddr, AddrError> {
    let unknown = || AddrError::Unknown { flag, text: text.to_owned() };
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(addr);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, LISTEN_PORT));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().map_err(|_| unknown())?),
        None => (text, LISTEN_PORT),
    };
    let of_interface = |v4: bool| known.iter().find(|(n, ip)| n == name && ip.is_ipv4() == v4);
    let (_, ip) = of_interface(true).or_else(|| of_interface(false)).ok_or_else(unknown)?;
    Ok(SocketAddr::new(*ip, port))
}

/// Where to listen.
pub(crate) fn listen(text: &str, known: &[(String, IpAddr)]) -> Result<SocketAddr, AddrError> {
    match text {
        "" => Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), LISTEN_PORT)),
        text => parse("--listen-addr", text, known),
    }
}

/// What to tell others. `route` is the address from which a manager to be joined is reached.
pub(crate) fn advertise(
    text: &str,
    listen: SocketAddr,
    route: Option<IpAddr>,
    known: &[(String, IpAddr)],
) -> Result<SocketAddr, AddrError> {
    if !text.is_empty() {
        let mut addr = parse("--advertise-addr", text, known)?;
        if addr.ip().is_unspecified() {
            return Err(AddrError::Unspecified("--advertise-addr", text.to_owned(), list(known)));
        }
        if !has_port(text) {
            addr.set_port(listen.port());
        }
        return Ok(addr);
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    if let Some(ip) = route.filter(|ip| !ip.is_unspecified()) {
        return Ok(SocketAddr::new(ip, listen.port()));
    }
    let v4: Vec<_> = known.iter().filter(|(_, ip)| ip.is_ipv4()).cloned().collect();
    let choice = if v4.is_empty() { known.to_vec() } else { v4 };
    match choice.as_slice() {
        [] => Err(AddrError::None),
        [(_, ip)] => Ok(SocketAddr::new(*ip, listen.port())),
        several => Err(AddrError::Several(list(several))),
    }
}

/// The address for the traffic of networks: `ip|interface`; none: the one that the node is seen under.
pub(crate) fn data_path(text: &str, known: &[(String, IpAddr)]) -> Result<Option<IpAddr>, AddrError> {
    const FLAG: &str = "--data-path-addr";
    if text.is_empty() {
        return Ok(None);
    }
    if has_port(text) {
        return Err(AddrError::Unknown { flag: FLAG, text: text.to_owned() });
    }
    let ip = parse(FLAG, text, known)?.ip();
    match ip.is_unspecified() {
        true => Err(AddrError::Unspecified(FLAG, text.to_owned(), list(known))),
        false => Ok(Some(ip)),
    }
}

/// What a user should know of the pools that they chose: they hold addresses that this host uses.
pub(crate) fn pools(spec: &ClusterSpec, site: &[SitePrefix]) -> Vec<String> {
    if spec.address_pools == ClusterSpec::default().address_pools {
        return Vec::new();
    }
    let warn = |pool| {
        let hidden: Vec<&SitePrefix> = site::hidden(pool, site).collect();
        let (words, all) =
            (site::in_words(hidden.iter().copied()), hidden.iter().any(|p| p.whole().contains(pool)));
        let so = match all {
            true => "networks will hide some of it; choose another --default-addr-pool unless that is meant",
            false => "networks that name no subnet are made around it",
        };
        (!hidden.is_empty())
            .then(|| format!("default-addr-pool {pool} overlaps with {words} of this host: {so}"))
    };
    spec.address_pools.iter().filter_map(warn).collect()
}

fn has_port(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
        || (text.parse::<IpAddr>().is_err() && text.contains(':') && !text.ends_with(']'))
}

fn list(known: &[(String, IpAddr)]) -> String {
    known.iter().map(|(name, ip)| format!("{ip} ({name})")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::site::SiteKind;

    fn known() -> Vec<(String, IpAddr)> {
        vec![("eth0".into(), "10.0.0.1".parse().unwrap()), ("eth1".into(), "10.1.0.1".parse().unwrap())]
    }
    const ANY: &str = "0.0.0.0:2377";

    #[test]
    fn reads_addresses_and_interfaces() {
        for (text, addr) in [
            ("10.0.0.9", "10.0.0.9:2377"),
            ("10.0.0.9:99", "10.0.0.9:99"),
            ("eth1:7", "10.1.0.1:7"),
            ("eth0", "10.0.0.1:2377"),
            ("::1", "[::1]:2377"),
            ("[::1]", "[::1]:2377"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(parse("--x", text, &known()).unwrap().to_string(), addr, "{text}");
        }
        for text in ["", "eth9", "10.0.0", "eth0:x", "10.0.0.1:99999"] {
            assert!(parse("--x", text, &known()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_data_path_is_an_address_without_a_port() {
        let addr = |text| data_path(text, &known()).map(|ip| ip.map(|ip| ip.to_string()));
        assert_eq!(addr("").unwrap(), None);
        assert_eq!(addr("eth1").unwrap().as_deref(), Some("10.1.0.1"));
        assert_eq!(addr("fd00::1").unwrap().as_deref(), Some("fd00::1"));
        for bad in ["eth9", "10.0.0.1:4789", "eth0:1", "[fd00::1]:1"] {
            assert!(addr(bad).unwrap_err().to_string().starts_with("--data-path-addr `"), "{bad}");
        }
        assert!(addr("0.0.0.0").unwrap_err().to_string().contains("--data-path-addr must be a routable"));
    }

    #[test]
    fn chosen_pools_are_held_against_the_host() {
        let site = [(SiteKind::Address, "10.20.0.7/24"), (SiteKind::Route, "10.32.0.0/11")]
            .map(|(kind, net)| SitePrefix { kind, net: net.parse().unwrap() });
        let warned = |pool: &str| {
            let address_pools = vec![pool.parse().unwrap()];
            pools(&ClusterSpec { address_pools, ..ClusterSpec::default() }, &site).join("; ")
        };
        assert_eq!(pools(&ClusterSpec::default(), &site), Vec::<String>::new(), "nobody chose it");
        assert_eq!(warned("10.64.0.0/16"), "");
        assert_eq!(
            warned("10.20.0.0/16"),
            "default-addr-pool 10.20.0.0/16 overlaps with address 10.20.0.7/24 of this host: networks that name no \
             subnet are made around it"
        );
        assert_eq!(
            warned("10.33.0.0/16"),
            "default-addr-pool 10.33.0.0/16 overlaps with route 10.32.0.0/11 of this host: networks will hide some \
             of it; choose another --default-addr-pool unless that is meant"
        );
    }

    #[test]
    fn advertises_what_others_can_reach() {
        let any: SocketAddr = ANY.parse().unwrap();
        assert!(advertise("0.0.0.0", any, None, &known()).unwrap_err().to_string().contains("10.0.0.1"));
        assert!(advertise("", any, None, &known()).unwrap_err().to_string().contains("10.1.0.1 (eth1)"));
        assert_eq!(advertise("", any, None, &known()[..1]).unwrap().to_string(), "10.0.0.1:2377");
        assert_eq!(
            advertise("", any, Some("10.1.0.1".parse().unwrap()), &known()).unwrap().to_string(),
            "10.1.0.1:2377"
        );
        let other: SocketAddr = "10.0.0.1:99".parse().unwrap();
        assert_eq!(advertise("", other, None, &known()).unwrap().to_string(), "10.0.0.1:99");
        assert_eq!(advertise("10.1.0.1", other, None, &known()).unwrap().to_string(), "10.1.0.1:99");
        assert!(advertise("", any, None, &[]).is_err());
    }
}
