//! `swarmctl network create`.

use std::collections::BTreeMap;

use swarm_proto::v1::CreateNetworkRequest;
use swarm_types::network::{NetworkDriver, NetworkSpec};

use crate::client::Client;
use crate::error::{Failure, Outcome};
use crate::flags::ipam::IpamFlags;
use crate::flags::label;
use crate::output;

/// Docker's name of the option.
pub(crate) const MTU: &str = "com.docker.network.driver.mtu";

#[derive(Debug, clap::Args)]
#[command(after_help = "Prints the new network's id.\n\
             \n\
             Examples:\n\
             \x20 swarmctl network create front\n\
             \x20 swarmctl network create --subnet 10.9.0.0/24 --internal --opt encrypted=false back\n\
             \x20 swarmctl network create -d macvlan -o parent=eth0 --subnet 192.168.1.0/24 lan")]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, clap::Args)]
struct Flags {
    /// overlay (over all nodes), bridge (each node for itself) or macvlan
    #[arg(short, long, value_name = "DRIVER", default_value = "overlay", value_parser = driver)]
    driver: NetworkDriver,
    #[command(flatten)]
    ipam: IpamFlags,
    /// Give it an IPv6 subnet too
    #[arg(long)]
    ipv6: bool,
    /// Its tasks reach each other and nothing else
    #[arg(long)]
    internal: bool,
    /// Containers that are no tasks may join
    #[arg(long)]
    attachable: bool,
    /// The one network that published ports use
    #[arg(long)]
    ingress: bool,
    /// Label of the network
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    label: Vec<(String, String)>,
    /// Option of the driver: encrypted[=false], com.docker.network.driver.mtu=BYTES, parent=DEVICE
    #[arg(short, long = "opt", value_name = "KEY[=VALUE]", value_parser = label::parse)]
    opt: Vec<(String, String)>,
    /// Only swarm
    #[arg(long, value_name = "SCOPE", value_parser = ["swarm"])]
    scope: Option<String>,
    /// Only default
    #[arg(long, value_name = "DRIVER", value_parser = ["default"], hide = true)]
    ipam_driver: Option<String>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let spec = args.flags.spec().map_err(Failure::Refused)?;
    let request = CreateNetworkRequest { spec: Some((&spec).into()) };
    let answer = client.control().create_network(request).await?.into_inner();
    output::line(&answer.network_id);
    output::warnings(&answer.warnings);
    Ok(())
}

impl Flags {
    fn spec(&self) -> Result<NetworkSpec, String> {
        let mut spec = NetworkSpec {
            driver: self.driver,
            subnets: self.ipam.subnets()?,
            ipv6: self.ipv6,
            internal: self.internal,
            attachable: self.attachable,
            // The default; other drivers have nothing to encrypt, and refuse to be asked.
            encrypted: self.driver == NetworkDriver::Overlay,
            ingress: self.ingress,
            options: BTreeMap::new(),
            ..NetworkSpec::default()
        };
        spec.annotations.name.clone_from(&self.name);
        spec.annotations.labels = self.label.iter().cloned().collect();
        for (key, value) in &self.opt {
            match key.as_str() {
                "encrypted" => spec.encrypted = boolean(value)?,
                MTU => {
                    let mtu = value.parse();
                    spec.mtu = mtu.map_err(|_| format!("--opt {MTU}: `{value}` is not a number of bytes"))?;
                }
                _ => drop(spec.options.insert(key.clone(), value.clone())),
            }
        }
        swarm_types::valid::network(&spec).map_err(|e| e.to_string())?;
        Ok(spec)
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("--opt encrypted: `{text}` is neither true nor false")),
    }
}

fn driver(text: &str) -> Result<NetworkDriver, String> {
    let all = [NetworkDriver::Overlay, NetworkDriver::Bridge, NetworkDriver::Macvlan];
    all.into_iter().find(|d| d.as_str() == text).ok_or_else(|| "expected overlay, bridge or macvlan".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use expect_test::expect;
    use swarm_types::network::Network;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn spec(line: &str) -> Result<NetworkSpec, String> {
        let line = Line::try_parse_from(std::iter::once("create").chain(line.split_whitespace()));
        line.map_err(|e| e.to_string())?.flags.spec()
    }

    #[test]
    fn every_flag_reaches_the_spec() {
        let spec = spec(
            "--subnet 10.9.0.0/24 --gateway 10.9.0.254 --ip-range 10.9.0.128/25 --aux-address router=10.9.0.1 \
             --subnet fd00:9::/64 --ipv6 --internal --attachable --label a=1 --label b -o encrypted=false \
             -o com.docker.network.driver.mtu=1400 --scope swarm mynet",
        );
        let network = Network { id: "n1".into(), spec: spec.unwrap(), vni: 4097, ..Network::default() };
        let text = output::json::pretty(&output::network::network(&network, "swarm"));
        expect![[r#"
            {
                "Name": "mynet",
                "Id": "n1",
                "Created": "1970-01-01T00:00:00.000Z",
                "Scope": "swarm",
                "Driver": "overlay",
                "EnableIPv4": true,
                "EnableIPv6": true,
                "IPAM": {
                    "Driver": "default",
                    "Options": null,
                    "Config": [
                        {
                            "Subnet": "10.9.0.0/24",
                            "IPRange": "10.9.0.128/25",
                            "Gateway": "10.9.0.254",
                            "AuxiliaryAddresses": {
                                "router": "10.9.0.1"
                            }
                        },
                        {
                            "Subnet": "fd00:9::/64"
                        }
                    ]
                },
                "Internal": true,
                "Attachable": true,
                "Ingress": false,
                "ConfigFrom": {
                    "Network": ""
                },
                "ConfigOnly": false,
                "Containers": {},
                "Options": {
                    "com.docker.network.driver.mtu": "1400",
                    "com.docker.network.driver.overlay.vxlanid_list": "4097",
                    "encrypted": "false"
                },
                "Labels": {
                    "a": "1",
                    "b": ""
                }
            }"#]]
        .assert_eq(&text);
    }

    #[test]
    fn overlays_are_encrypted_unless_said_otherwise() {
        for (line, encrypted) in [
            ("n", true),
            ("-o encrypted n", true),
            ("-o encrypted= n", true),
            ("--opt encrypted=true n", true),
            ("--opt encrypted=false n", false),
            ("-d bridge n", false),
            ("-d macvlan -o parent=eth0 n", false),
        ] {
            assert_eq!(spec(line).unwrap().encrypted, encrypted, "{line}");
        }
        assert_eq!(spec("-d macvlan -o parent=eth0 n").unwrap().options["parent"], "eth0");
    }

    #[test]
    fn refusals_name_the_flag() {
        for (line, part) in [
            ("-d ipvlan n", "--driver"),
            ("--scope local n", "--scope"),
            ("-d bridge -o encrypted n", "invalid opt: encrypted"),
            ("-o encrypted=maybe n", "--opt encrypted"),
            ("-o com.docker.network.driver.mtu=x n", "--opt com.docker.network.driver.mtu"),
            ("-o com.docker.network.driver.mtu=67 n", "invalid opt: mtu 67"),
            ("-o colour=red n", "invalid opt: colour"),
            ("-d macvlan n", "parent=eth0"),
            ("--subnet 10.9.0.0/30 n", "invalid subnet: 10.9.0.0/30 is too small"),
            ("--subnet 10.9.0.1/24 n", "it should be 10.9.0.0/24"),
            ("--subnet 10.9.0.0/24 --gateway 10.9.0.0 n", "invalid gateway"),
            ("--ingress --internal n", "invalid ingress"),
            ("host", "invalid name: `host` is a pre-defined network"),
            ("a/b", "invalid name: `a/b`"),
            ("", "NETWORK"),
        ] {
            let error = spec(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
