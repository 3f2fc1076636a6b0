//! `swarmctl update`: the cluster's settings.

use swarm_proto::convert::Malformed;
use swarm_proto::v1::{GetClusterRequest, UpdateClusterRequest};
use swarm_types::cluster::ClusterSpec;

use super::settings::Settings;
use crate::client::Client;
use crate::endpoint::Globals;
use crate::error::{Failure, Outcome};
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: swarmctl update --task-history-limit 2")]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    if args.settings.is_empty() {
        return Err(Failure::Usage("nothing to change: name a setting (see --help)".into()));
    }
    let mut control = Client::connect(globals).await?.control();
    let cluster = control.get_cluster(GetClusterRequest {}).await?.into_inner().cluster.unwrap_or_default();
    let missing = Malformed { field: "cluster.spec".into(), problem: "missing".into() };
    let mut spec = ClusterSpec::try_from(cluster.spec.ok_or(missing)?)?;
    args.settings.apply(&mut spec)?;
    let request = UpdateClusterRequest {
        version: cluster.meta.unwrap_or_default().version,
        spec: Some((&spec).into()),
        rotate_worker_token: false,
        rotate_manager_token: false,
    };
    control.update_cluster(request).await?;
    output::line("Swarm updated.");
    Ok(())
}
