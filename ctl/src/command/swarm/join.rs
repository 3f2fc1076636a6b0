//! `swarmctl join`.

use swarm_proto::v1::JoinRequest;
use swarm_types::node::Availability;

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::{Failure, Outcome};
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: swarmctl join --token SWMTKN-1-… 10.0.0.1:2377")]
pub(crate) struct Args {
    /// Token that a manager's `swarmctl join-token` shows
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    token: String,
    /// Address that other nodes reach this one at: IP or interface, with an optional :port
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address to listen at [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    listen_addr: String,
    /// Address for the traffic of networks: IP or interface [default: the advertised one]
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Whether this node gets tasks: active, pause or drain
    #[arg(long, value_name = "WORD", default_value = "active", value_parser = super::availability)]
    availability: Availability,
    /// A manager, as HOST:PORT; several are tried in turn
    #[arg(required = true, value_name = "HOST:PORT")]
    managers: Vec<String>,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    if args.token.is_empty() {
        return Err(Failure::Refused(
            "a join token is necessary to join a cluster: `swarmctl join-token worker` on a manager shows it"
                .into(),
        ));
    }
    let request = JoinRequest {
        token: args.token,
        remote_addrs: args.managers,
        advertise_addr: args.advertise_addr,
        listen_addr: args.listen_addr,
        availability: swarm_proto::v1::Availability::from(args.availability).into(),
        data_path_addr: args.data_path_addr,
    };
    let answer = Client::connect(globals).await?.local().join(request).await?.into_inner();
    if !answer.joined {
        return Err(Failure::Refused(
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. \
             Use the \"swarmctl info\" command to see the current swarm status of your node."
                .into(),
        ));
    }
    let role = if answer.is_manager { "manager" } else { "worker" };
    output::line(&format!("This node joined a swarm as a {role}."));
    Ok(())
}
