//! `swarmctl task inspect`.

use swarm_proto::convert::Malformed;
use swarm_proto::v1::{GetTaskRequest, GetTaskResponse};
use swarm_types::task::Task;

use crate::client::Client;
use crate::command::inspect::{Found, InspectFlags};
use crate::command::network;
use crate::error::{Failure, Outcome};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: InspectFlags,
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let mut found = Found::new("task");
    for reference in &args.tasks {
        let request = GetTaskRequest { reference: reference.clone() };
        let answer = client.control().get_task(request).await.map_err(Failure::from);
        let Some(answer) = found.note(reference, answer)? else { continue };
        let GetTaskResponse { task, unfit_nodes } = answer.into_inner();
        let missing = Malformed { field: "task".into(), problem: "missing".into() };
        let task = Task::try_from(task.ok_or(missing)?)?;
        let networks = match task.attachments.is_empty() {
            true => Vec::new(),
            false => network::list(client).await?,
        };
        found.object(output::inspect::task(&task, &unfit_nodes, &networks));
    }
    found.print(&args.flags, false)
}
