//! `swarmctl version`.

use swarm_proto::v1;

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, globals: &Globals) -> Outcome {
    output::line(&format!("Client: swarmctl {}", env!("CARGO_PKG_VERSION")));
    let client = Client::connect(globals).await?;
    let info = client.local().info(v1::InfoRequest {}).await?.into_inner();
    output::line(&format!("Server: swarmd {} ({}/{})", info.version, info.os, info.architecture));
    Ok(())
}
