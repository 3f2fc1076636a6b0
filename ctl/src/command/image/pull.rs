//! `swarmctl image pull`.

use std::io::Read;

use swarm_proto::v1::{PullImageRequest, RegistryAuth};

use super::{Nodes, report};
use crate::client::Client;
use crate::error::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print only the result
    #[arg(short, long)]
    quiet: bool,
    /// User of the registry; the password is read from standard input
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    #[command(flatten)]
    nodes: Nodes,
    image: String,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let nodes = args.nodes.references(client).await?;
    let auth = match args.username {
        None => None,
        Some(username) => {
            let mut password = String::new();
            let read = std::io::stdin().read_to_string(&mut password);
            read.map_err(|e| Failure::io("read the password", &e))?;
            Some(RegistryAuth { username, password: password.trim_end_matches(['\r', '\n']).to_owned() })
        }
    };
    let request = PullImageRequest { image: args.image, nodes, auth };
    let stream = client.control().pull_image(request).await?.into_inner();
    report::follow(stream, "Pulled image", args.quiet).await
}
