//! `swarmctl join-token worker|manager`.

use swarm_proto::v1::{GetClusterRequest, GetJoinTokensRequest, UpdateClusterRequest};

use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// worker or manager
    #[arg(value_parser = ["worker", "manager"])]
    role: String,
    /// Print only the token
    #[arg(short, long)]
    quiet: bool,
    /// Replace the token first; the old one lets nobody in any more
    #[arg(long)]
    rotate: bool,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    let mut control = client.control();
    let worker = args.role == "worker";
    if args.rotate {
        let cluster = control.get_cluster(GetClusterRequest {}).await?.into_inner().cluster;
        let request = UpdateClusterRequest {
            version: cluster.and_then(|c| c.meta).unwrap_or_default().version,
            spec: None,
            rotate_worker_token: worker,
            rotate_manager_token: !worker,
        };
        control.update_cluster(request).await?;
        if !args.quiet {
            output::line(&format!("Successfully rotated {} join token.\n", args.role));
        }
    }
    let tokens = control.get_join_tokens(GetJoinTokensRequest {}).await?.into_inner();
    let token = if worker { tokens.worker } else { tokens.manager };
    if args.quiet {
        output::line(&token);
        return Ok(());
    }
    let addr = tokens.manager_addrs.first().map_or("HOST:2377", String::as_str);
    output::text(&format!(
        "To add a {} to this swarm, run the following command:\n\n    swarmctl join --token {token} {addr}\n\n",
        args.role
    ));
    Ok(())
}
