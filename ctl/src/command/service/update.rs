//! `swarmctl service update` and `rollback`.

use swarm_types::service::Service;

use super::Change;
use crate::client::Client;
use crate::command::network;
use crate::error::{Failure, Outcome};
use crate::flags::update::UpdateFlags;
use crate::output;
use crate::progress::{self, Wait, WaitFlags};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is not named stays as it is. Shows the tasks being replaced, as `service create` does.\n\
             \n\
             Examples:\n\
             \x20 swarmctl service update --image demo:2 --update-parallelism 2 web\n\
             \x20 swarmctl service update --env-add LEVEL=debug --label-rm old web\n\
             \x20 swarmctl service update --publish-add 9090:80 --network-add back web"
)]
pub(crate) struct Args {
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    flags: UpdateFlags,
    /// Return to what the service was before its last change
    #[arg(long)]
    rollback: bool,
    service: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    wait: WaitFlags,
    service: String,
}

fn own(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    if args.rollback {
        let service = super::get(client, &args.service).await?;
        let mut spec = service.spec.clone();
        let edited = args.flags.apply(&mut spec, &own, &|name| Err(name.to_owned()));
        if edited.is_err() || spec != service.spec {
            return Err(Failure::Usage("other flags may not be combined with --rollback".into()));
        }
        return rollback(RollbackArgs { wait: args.wait, service: args.service }, client).await;
    }
    let known = network::resolve(client, args.flags.networks()).await?;
    let edit = |spec: &mut _| args.flags.apply(spec, &own, &|name| network::id(&known, name));
    let before = super::change(client, &args.service, Change::Edit(&edit)).await?;
    output::line(&args.service);
    let stable = args.flags.common.update_monitor;
    wait(client, &before, &args.wait, Wait { stable, ..Wait::default() }).await
}

pub(crate) async fn rollback(args: RollbackArgs, client: &Client) -> Outcome {
    let before = super::change(client, &args.service, Change::Rollback).await?;
    output::line(&args.service);
    wait(client, &before, &args.wait, Wait { rollback: true, ..Wait::default() }).await
}

async fn wait(client: &Client, before: &Service, flags: &WaitFlags, wait: Wait) -> Outcome {
    let wait = Wait { before: before.update_status.clone(), ..wait };
    progress::follow(client, before.id.as_str(), flags, wait).await
}
