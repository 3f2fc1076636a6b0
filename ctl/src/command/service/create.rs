//! `swarmctl service create`.

use swarm_proto::v1::CreateServiceRequest;

use crate::client::Client;
use crate::command::network;
use crate::error::{Failure, Outcome};
use crate::flags::create::CreateFlags;
use crate::flags::name;
use crate::output;
use crate::progress::{self, Wait};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the new service's id, then shows its tasks start. It is done as soon as all run (with\n\
             --update-monitor, when they have run for so long), and fails if they keep failing or no node fits;\n\
             the service is there all the same.\n\
             \n\
             Examples:\n\
             \x20 swarmctl service create --name web --replicas 3 -p 8080:80 --network front demo:1\n\
             \x20 swarmctl service create --constraint node.labels.disk==ssd --limit-memory 256m demo:1 --verbose"
)]
pub(crate) struct Args {
    #[command(flatten)]
    wait: progress::WaitFlags,
    #[command(flatten)]
    flags: CreateFlags,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let name = match &args.flags.name {
        Some(name) => name.clone(),
        None => name::name(crate::system::random().map_err(|e| Failure::io("read /dev/urandom", &e))?),
    };
    let mut files = Vec::new();
    for path in &args.flags.env_file {
        let text =
            std::fs::read_to_string(path).map_err(|e| Failure::io(format!("read {}", path.display()), &e))?;
        files.push((path.display().to_string(), text));
    }
    let known = network::resolve(client, args.flags.network.iter().map(|wish| wish.name.as_str())).await?;
    let own = |name: &str| std::env::var(name).ok();
    let spec = args.flags.spec(&name, &files, &own, &|n| network::id(&known, n)).map_err(Failure::Refused)?;
    let request = CreateServiceRequest { spec: Some((&spec).into()) };
    let answer = client.control().create_service(request).await?.into_inner();
    output::line(&answer.service_id);
    output::warnings(&answer.warnings);
    let wait = Wait { stable: args.flags.common.update_monitor, ..Wait::default() };
    progress::follow(client, &answer.service_id, &args.wait, wait).await
}
