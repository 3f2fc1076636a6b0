//! `swarmctl init`.

use ipnet::IpNet;
use swarm_proto::v1::InitRequest;
use swarm_types::cluster::ClusterSpec;
use swarm_types::node::Availability;

use super::settings::Settings;
use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
                  \x20 swarmctl init --advertise-addr eth0\n\
                  \x20 swarmctl init --default-addr-pool 20.20.0.0/16 --default-addr-pool-mask-length 26")]
pub(crate) struct Args {
    /// Address that other nodes reach this one at: IP or interface, with an optional :port
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address to listen at [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    listen_addr: String,
    /// Address for the traffic of networks: IP or interface [default: the advertised one]
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// UDP port for the traffic of networks, 1024 to 49151, the same on all nodes [default: 4789]
    #[arg(long, value_name = "PORT")]
    data_path_port: Option<u16>,
    /// Where networks that name no subnet take theirs from [default: 10.0.0.0/8]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    default_addr_pool: Vec<IpNet>,
    /// Prefix length of those subnets, at most 29 [default: 24]
    #[arg(long, value_name = "BITS")]
    default_addr_pool_mask_length: Option<u8>,
    /// Whether this node gets tasks: active, pause or drain
    #[arg(long, value_name = "WORD", default_value = "active", value_parser = super::availability)]
    availability: Availability,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    let spec = args.spec()?;
    let request = InitRequest {
        advertise_addr: args.advertise_addr,
        listen_addr: args.listen_addr,
        availability: swarm_proto::v1::Availability::from(args.availability).into(),
        spec: spec.as_ref().map(Into::into),
        data_path_addr: args.data_path_addr,
    };
    let answer = Client::connect(globals).await?.local().init(request).await?.into_inner();
    output::text(&format!(
        "Swarm initialized: current node ({}) is now a manager.\n\n\
         To add a worker to this swarm, run the following command:\n\n    \
         swarmctl join --token {} {}\n\n\
         To add a manager to this swarm, run 'swarmctl join-token manager' and follow the instructions.\n",
        answer.node_id, answer.worker_token, answer.manager_addr
    ));
    output::warnings(&answer.warnings);
    Ok(())
}

impl Args {
    /// The cluster's settings; none if all are as they are by default.
    fn spec(&self) -> Outcome<Option<ClusterSpec>> {
        let mut spec = ClusterSpec::default();
        self.settings.apply(&mut spec)?;
        spec.data_path_port = self.data_path_port.unwrap_or(spec.data_path_port);
        spec.subnet_size = self.default_addr_pool_mask_length.unwrap_or(spec.subnet_size);
        if !self.default_addr_pool.is_empty() {
            spec.address_pools.clone_from(&self.default_addr_pool);
        }
        swarm_types::valid::cluster(&spec)?;
        Ok(Some(spec).filter(|spec| *spec != ClusterSpec::default()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn spec(line: &str) -> Result<Option<ClusterSpec>, String> {
        let line = Line::try_parse_from(std::iter::once("init").chain(line.split_whitespace()));
        line.map_err(|e| e.to_string())?.args.spec().map_err(|e| e.to_string())
    }

    #[test]
    fn pools_and_ports_are_set_once() {
        assert_eq!(spec("--advertise-addr eth0"), Ok(None));
        let line = "--default-addr-pool 20.20.0.0/16 --default-addr-pool 30.30.0.0/16,40.40.0.0/16 \
                    --default-addr-pool-mask-length 26 --data-path-port 7777";
        let spec = spec(line).unwrap().unwrap();
        assert_eq!(spec.address_pools.len(), 3);
        assert_eq!((spec.subnet_size, spec.data_path_port), (26, 7777));
    }

    #[test]
    fn refusals_name_the_flag() {
        for (line, part) in [
            ("--data-path-port 80", "invalid data-path-port: 80 is not in the range 1024 to 49151"),
            ("--data-path-port 70000", "--data-path-port"),
            ("--default-addr-pool x", "--default-addr-pool"),
            ("--default-addr-pool-mask-length 30", "subnet size is out of range: 30"),
            ("--default-addr-pool 20.20.0.0/16 --default-addr-pool-mask-length 8", "too small for pool: 8"),
        ] {
            let error = spec(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
