//! `swarmctl init`.

use swarm_proto::v1::InitRequest;
use swarm_types::cluster::ClusterSpec;
use swarm_types::node::Availability;

use super::settings::Settings;
use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: swarmctl init --advertise-addr eth0")]
pub(crate) struct Args {
    /// Address that other nodes reach this one at: IP or interface, with an optional :port
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address to listen at [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    listen_addr: String,
    /// Whether this node gets tasks: active, pause or drain
    #[arg(long, value_name = "WORD", default_value = "active", value_parser = super::availability)]
    availability: Availability,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    let spec = match args.settings.is_empty() {
        true => None,
        false => {
            let mut spec = ClusterSpec::default();
            args.settings.apply(&mut spec)?;
            Some((&spec).into())
        }
    };
    let request = InitRequest {
        advertise_addr: args.advertise_addr,
        listen_addr: args.listen_addr,
        availability: swarm_proto::v1::Availability::from(args.availability).into(),
        spec,
    };
    let answer = Client::connect(globals).await?.local().init(request).await?.into_inner();
    output::text(&format!(
        "Swarm initialized: current node ({}) is now a manager.\n\n\
         To add a worker to this swarm, run the following command:\n\n    \
         swarmctl join --token {} {}\n\n\
         To add a manager to this swarm, run 'swarmctl join-token manager' and follow the instructions.\n",
        answer.node_id, answer.worker_token, answer.manager_addr
    ));
    Ok(())
}
