//! `swarmctl network …`.

mod check;
mod confirm;
mod create;
mod inspect;
mod ls;
mod prune;
pub(super) mod rm;
mod trace;

use std::collections::BTreeMap;

use clap::Subcommand;
use swarm_proto::convert::Malformed;
use swarm_proto::v1::{GetNetworkRequest, GetNetworkResponse, ListNetworksRequest};
use swarm_types::id::NetworkId;
use swarm_types::network::{Network, NetworkDriver};

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::{Failure, Outcome};
use crate::flags::network::predefined;

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Compare on every node what is wanted of networks with what the kernel has
    Check(check::Args),
    /// Create a network
    Create(Box<create::Args>),
    /// Show all that is known of networks
    Inspect(inspect::Args),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Remove all networks that no service is on
    Prune(prune::Args),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Show the way that a connection to a published port takes
    Trace(trace::Args),
}

pub(crate) async fn run(command: NetworkCommand, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    match command {
        NetworkCommand::Check(args) => check::run(args, &client).await,
        NetworkCommand::Create(args) => create::run(*args, &client).await,
        NetworkCommand::Inspect(args) => inspect::run(args, &client).await,
        NetworkCommand::Ls(args) => ls::run(args, &client).await,
        NetworkCommand::Prune(args) => prune::run(args, &client).await,
        NetworkCommand::Rm(args) => rm::run(args, &client).await,
        NetworkCommand::Trace(args) => trace::run(args, &client).await,
    }
}

/// All networks of the cluster.
pub(crate) async fn list(client: &Client) -> Outcome<Vec<Network>> {
    let networks = client.control().list_networks(ListNetworksRequest {}).await?.into_inner().networks;
    Ok(networks.into_iter().map(Network::try_from).collect::<Result<_, _>>()?)
}

/// One network by id, name or prefix, and what is on it.
async fn get(client: &Client, reference: &str) -> Outcome<(Network, GetNetworkResponse)> {
    let request = GetNetworkRequest { reference: reference.to_owned() };
    let answer = client.control().get_network(request).await.map_err(|status| match Failure::from(status) {
        Failure::NotFound(_) => Failure::NotFound(format!("network {reference} not found")),
        failure => failure,
    });
    let mut answer = answer?.into_inner();
    let missing = Malformed { field: "network".into(), problem: "missing".into() };
    let network = Network::try_from(answer.network.take().ok_or(missing)?)?;
    Ok((network, answer))
}

/// The ids that references stand for. Those of networks that every node has by itself are left out.
pub(crate) async fn resolve<'a>(
    client: &Client,
    references: impl Iterator<Item = &'a str>,
) -> Outcome<BTreeMap<String, NetworkId>> {
    let mut known = BTreeMap::new();
    for reference in references.filter(|reference| predefined(reference).is_none()) {
        let (network, _) = get(client, reference).await?;
        if network.spec.ingress {
            // Docker Swarm's words.
            let name = &network.spec.annotations.name;
            return Err(Failure::Refused(format!(
                "Service cannot be explicitly attached to the ingress network \"{name}\""
            )));
        }
        known.insert(reference.to_owned(), network.id);
    }
    Ok(known)
}

/// What [`resolve`] found for a reference.
pub(crate) fn id(known: &BTreeMap<String, NetworkId>, reference: &str) -> Result<NetworkId, String> {
    known.get(reference).copied().ok_or_else(|| format!("network {reference} not found"))
}

/// Docker's word for where a network is.
fn scope(driver: NetworkDriver) -> &'static str {
    match driver {
        NetworkDriver::Overlay | NetworkDriver::Bridge | NetworkDriver::Macvlan => "swarm",
    }
}
