//! `--subnet`, `--gateway`, `--ip-range` and `--aux-address`, each put to the subnet that holds it: Docker's pairing
//! and words.

use std::net::IpAddr;

use ipnet::IpNet;
use swarm_types::network::SubnetSpec;

/// See the module.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct IpamFlags {
    /// Subnet, as 10.9.0.0/24; one of each family [default: one from the cluster's pools]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet: Vec<IpNet>,
    /// Gateway of a subnet, which is also where names are asked for [default: its first address]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    gateway: Vec<IpAddr>,
    /// Give tasks addresses from here only [default: from all of the subnet]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip_range: Vec<IpNet>,
    /// Address that nobody gets
    #[arg(long, value_name = "NAME=IP", value_delimiter = ',', value_parser = aux)]
    aux_address: Vec<(String, IpAddr)>,
}

impl IpamFlags {
    /// The subnets, in the order of the flags, IPv4 first.
    pub(crate) fn subnets(&self) -> Result<Vec<SubnetSpec>, String> {
        if self.subnet.len() < self.ip_range.len() || self.subnet.len() < self.gateway.len() {
            return Err("every ip-range or gateway must have a corresponding subnet".into());
        }
        let mut subnets: Vec<SubnetSpec> = Vec::new();
        for net in &self.subnet {
            if subnets.iter().any(|s| s.subnet.contains(net) || net.contains(&s.subnet)) {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
            let reserved = std::collections::BTreeMap::new();
            subnets.push(SubnetSpec { subnet: *net, gateway: None, range: None, reserved });
        }
        for range in &self.ip_range {
            let subnet = subnets.iter_mut().find(|s| s.subnet.contains(range));
            let subnet = subnet.ok_or_else(|| format!("no matching subnet for range {range}"))?;
            if let Some(other) = subnet.range.replace(*range) {
                return Err(format!(
                    "cannot configure multiple ranges ({range}, {other}) on the same subnet ({})",
                    subnet.subnet
                ));
            }
        }
        for gateway in &self.gateway {
            let subnet = subnets.iter_mut().find(|s| s.subnet.contains(gateway));
            let subnet = subnet.ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
            if let Some(other) = subnet.gateway.replace(*gateway) {
                return Err(format!(
                    "cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({})",
                    subnet.subnet
                ));
            }
        }
        for (name, addr) in &self.aux_address {
            let subnet = subnets.iter_mut().find(|s| s.subnet.contains(addr));
            let subnet = subnet.ok_or_else(|| format!("no matching subnet for aux-address {addr}"))?;
            subnet.reserved.insert(name.clone(), *addr);
        }
        subnets.sort_by_key(|s| matches!(s.subnet, IpNet::V6(_)));
        Ok(subnets)
    }
}

fn aux(text: &str) -> Result<(String, IpAddr), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, addr) = pair.ok_or("expected NAME=IP")?;
    let addr = addr.parse().map_err(|_| format!("`{addr}` is not an IP address"))?;
    Ok((name.to_owned(), addr))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: IpamFlags,
    }

    fn subnets(line: &str) -> Result<String, String> {
        let line = Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace()));
        let subnets = line.map_err(|e| e.to_string())?.flags.subnets()?;
        let show = |s: &SubnetSpec| format!("{} {:?} {:?} {:?}", s.subnet, s.gateway, s.range, s.reserved);
        Ok(subnets.iter().map(show).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn each_goes_to_its_subnet() {
        assert_eq!(
            subnets(
                "--gateway fd00:9::5 --subnet fd00:9::/64 --subnet 10.9.0.0/24 --gateway 10.9.0.9 \
                 --ip-range 10.9.0.128/25 --aux-address a=10.9.0.2,b=fd00:9::2"
            )
            .unwrap(),
            "10.9.0.0/24 Some(10.9.0.9) Some(10.9.0.128/25) {\"a\": 10.9.0.2}; \
             fd00:9::/64 Some(fd00:9::5) None {\"b\": fd00:9::2}"
        );
        assert_eq!(subnets("").unwrap(), "");
    }

    #[test]
    fn refusals() {
        for (line, part) in [
            ("--gateway 10.0.0.1", "every ip-range or gateway must have a corresponding subnet"),
            ("--subnet 10.9.0.0/16 --subnet 10.9.1.0/24", "multiple overlapping subnet"),
            ("--subnet 10.9.0.0/24 --gateway 10.8.0.1", "no matching subnet for gateway 10.8.0.1"),
            ("--subnet 10.9.0.0/24 --ip-range 10.8.0.0/25", "no matching subnet for range"),
            ("--subnet 10.9.0.0/24 --aux-address a=10.8.0.1", "no matching subnet for aux-address"),
            (
                "--subnet 10.9.0.0/24 --subnet fd00::/64 --gateway 10.9.0.1 --gateway 10.9.0.2",
                "cannot configure multiple gateways",
            ),
            ("--subnet 10.9.0.0", "--subnet"),
            ("--subnet 10.9.0.0/33", "--subnet"),
            ("--aux-address 10.9.0.1", "expected NAME=IP"),
        ] {
            let error = subnets(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
