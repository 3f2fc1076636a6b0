use super::*;

fn spec(change: impl FnOnce(&mut NetworkSpec)) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    spec.annotations.name = "mynet".into();
    change(&mut spec);
    spec
}
fn subnet_of(text: &str) -> SubnetSpec {
    let subnet = text.parse().unwrap();
    SubnetSpec { subnet, gateway: None, range: None, reserved: Default::default() }
}
fn refused(change: impl FnOnce(&mut NetworkSpec)) -> String {
    network(&spec(change)).err().map(|e| e.to_string()).unwrap_or_default()
}
/// The refusal of one subnet with a gateway, a range and a reserved address.
fn subnet_refused(net: &str, gateway: &str, range: &str, reserved: &str) -> String {
    refused(|s| {
        let mut one = subnet_of(net);
        one.gateway = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
        one.range = (!range.is_empty()).then(|| range.parse().unwrap());
        if !reserved.is_empty() {
            one.reserved.insert("router".into(), reserved.parse().unwrap());
        }
        s.subnets = vec![one];
    })
}

#[test]
fn plain_networks_are_valid() {
    assert_eq!(network(&spec(|_| ())), Ok(()));
    assert_eq!(network(&spec(|s| (s.ingress, s.encrypted) = (true, false))), Ok(()));
    let both = |s: &mut NetworkSpec| s.subnets = vec![subnet_of("10.9.0.0/24"), subnet_of("fd00:9::/64")];
    assert_eq!(network(&spec(both)), Ok(()));
    let macvlan = |s: &mut NetworkSpec| {
        (s.driver, s.encrypted) = (NetworkDriver::Macvlan, false);
        s.options.insert("parent".into(), "eth0.50".into());
    };
    assert_eq!(network(&spec(macvlan)), Ok(()));
}

#[test]
fn names() {
    for name in ["", "host", "none", "bridge", "a b", "-a", "a/b", &"x".repeat(64)] {
        assert!(network_name(name).is_err(), "{name}");
    }
    for name in ["a", "ingress", "stack_default", "a-b", &"x".repeat(63)] {
        assert!(network_name(name).is_ok(), "{name}");
    }
}

#[test]
fn subnets_and_what_lies_inside() {
    for (net, gateway, range, reserved, part) in [
        ("10.9.0.0/29", "", "", "", ""),
        ("10.9.0.0/24", "10.9.0.254", "10.9.0.128/25", "10.9.0.1", ""),
        ("10.9.0.0/30", "", "", "", "invalid subnet: 10.9.0.0/30 is too small"),
        ("fd00::/126", "", "", "", "too small"),
        ("8.0.0.0/7", "", "", "", "too large"),
        ("10.9.0.1/24", "", "", "", "it should be 10.9.0.0/24"),
        ("127.1.0.0/16", "", "", "", "loopback"),
        ("224.1.0.0/16", "", "", "", "multicast"),
        ("100.127.3.0/24", "", "", "", "the tunnels between nodes"),
        ("100.0.0.0/8", "", "", "", "the tunnels between nodes"),
        ("fe80::/64", "", "", "", "link-local"),
        ("10.9.0.0/24", "10.8.0.1", "", "", "invalid gateway: 10.8.0.1 is not inside of 10.9.0.0/24"),
        ("10.9.0.0/24", "fd00::1", "", "", "invalid gateway"),
        ("10.9.0.0/24", "10.9.0.0", "", "", "first or the last"),
        ("10.9.0.0/24", "10.9.0.255", "", "", "first or the last"),
        ("10.9.0.0/24", "", "10.8.0.0/25", "", "invalid ip-range: 10.8.0.0/25 is not inside"),
        ("10.9.0.0/24", "", "10.9.0.0/23", "", "invalid ip-range"),
        ("10.9.0.0/24", "", "10.9.0.5/25", "", "it should be 10.9.0.0/25"),
        ("10.9.0.0/24", "", "", "10.8.0.1", "invalid aux-address"),
        ("10.9.0.0/24", "10.9.0.1", "", "10.9.0.1", "given twice"),
        ("10.9.0.0/24", "", "10.9.0.1/32", "", "no address left"),
        ("10.9.0.0/24", "10.9.0.2", "10.9.0.2/31", "10.9.0.3", "no address left"),
        ("10.9.0.0/24", "10.9.0.2", "10.9.0.2/31", "", ""),
        ("10.9.0.0/24", "", "10.9.0.255/32", "", "no address left"),
    ] {
        let error = subnet_refused(net, gateway, range, reserved);
        assert!(
            error.contains(part) && error.is_empty() == part.is_empty(),
            "{net} {gateway} {range}: {error}"
        );
    }
}

#[test]
fn own_subnets_do_not_overlap() {
    let two = |a: &str, b: &str| refused(|s| s.subnets = vec![subnet_of(a), subnet_of(b)]);
    assert!(two("10.9.0.0/16", "10.9.3.0/24").contains("10.9.0.0/16 and 10.9.3.0/24 overlap"));
    assert!(two("10.9.0.0/24", "10.9.1.0/24").contains("one of each family"));
}

#[test]
fn drivers_have_their_own_options() {
    let with = |driver: NetworkDriver, encrypted: bool, option: Option<(&str, &str)>| {
        refused(|s| {
            (s.driver, s.encrypted) = (driver, encrypted);
            s.options.extend(option.map(|(k, v)| (k.to_owned(), v.to_owned())));
        })
    };
    use NetworkDriver::{Bridge, Macvlan, Overlay};
    assert!(with(Bridge, true, None).contains("invalid opt: encrypted"));
    assert!(with(Macvlan, true, Some(("parent", "eth0"))).contains("encrypted"));
    assert!(with(Macvlan, false, None).contains("parent=eth0"));
    assert!(with(Macvlan, false, Some(("parent", "a/b"))).contains("not the name of a network device"));
    assert!(with(Macvlan, false, Some(("parent", "abcdefghijklmnop"))).contains("network device"));
    assert!(with(Overlay, true, Some(("parent", "eth0"))).contains("parent: a overlay network"));
    assert_eq!(with(Bridge, false, None), "");
}

#[test]
fn the_ingress_network_is_an_open_overlay() {
    assert!(refused(|s| (s.ingress, s.internal) = (true, true)).contains("invalid ingress"));
    assert!(refused(|s| (s.ingress, s.attachable) = (true, true)).contains("attachable"));
    let bridge =
        |s: &mut NetworkSpec| (s.ingress, s.encrypted, s.driver) = (true, false, NetworkDriver::Bridge);
    assert!(refused(bridge).contains("must be an overlay"));
}

#[test]
fn mtus() {
    for (mtu, ipv6, good) in
        [(0, true, true), (67, false, false), (68, false, true), (65_535, true, true), (65_536, false, false)]
    {
        assert_eq!(refused(|s| (s.mtu, s.ipv6) = (mtu, ipv6)).is_empty(), good, "{mtu}");
    }
    assert!(refused(|s| (s.mtu, s.ipv6) = (1279, true)).contains("IPv6 needs at least 1280"));
    assert!(refused(|s| (s.mtu, s.subnets) = (1279, vec![subnet_of("fd00::/64")])).contains("1280"));
}

#[test]
fn pools_hold_subnets() {
    let with = |texts: &[&str], size: u8| {
        let address_pools = texts.iter().map(|t| t.parse().unwrap()).collect();
        let spec = ClusterSpec { address_pools, subnet_size: size, ..ClusterSpec::default() };
        super::super::cluster(&spec).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(with(&["20.20.0.0/16", "30.0.0.0/8", "fd00::/48"], 24), "");
    assert_eq!(with(&["20.20.0.0/16"], 29), "");
    assert_eq!(with(&["20.20.0.0/24"], 24), "");
    assert!(with(&["20.20.0.0/16"], 30).contains("subnet size is out of range: 30"));
    assert!(with(&["20.20.0.0/16"], 0).contains("out of range"));
    assert!(with(&["20.20.0.0/16"], 8).contains("subnet size is too small for pool: 8"));
    assert!(with(&["20.20.0.0/16", "20.20.1.0/24"], 24).contains("overlap"));
    assert!(with(&["20.20.1.0/16"], 24).contains("it should be 20.20.0.0/16"));
    assert!(with(&[], 24).contains("at least one"));
}

#[test]
fn data_path_ports() {
    let with = |port| super::super::cluster(&ClusterSpec { data_path_port: port, ..ClusterSpec::default() });
    for port in [1024, 4789, 7777, 49_151] {
        assert_eq!(with(port), Ok(()));
    }
    for port in [0, 80, 1023, 49_152, defaults::TUNNEL_PORT] {
        assert_eq!(with(port).unwrap_err().field, "data-path-port");
    }
}
