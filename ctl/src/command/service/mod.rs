//! `swarmctl service …`.

mod create;
mod inspect;
mod logs;
mod ls;
mod ps;
mod rm;
mod scale;
mod update;

use clap::Subcommand;
use swarm_proto::convert::Malformed;
use swarm_proto::v1::{GetServiceRequest, UpdateServiceRequest};
use swarm_types::service::{Service, ServiceSpec};

use crate::client::{Client, UPDATE_TRIES};
use crate::endpoint::Globals;
use crate::error::{Failure, Outcome};
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a service
    Create(Box<create::Args>),
    /// List services
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// List the tasks of services
    Ps(ps::Args),
    /// Show all that is known of services
    Inspect(inspect::Args),
    /// Change the number of tasks
    Scale(scale::Args),
    /// Change a service
    Update(Box<update::Args>),
    /// Return a service to what it was before its last change
    Rollback(update::RollbackArgs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Show what the containers of a service or of a task print
    Logs(logs::Args),
}

pub(crate) async fn run(command: ServiceCommand, globals: &Globals) -> Outcome {
    let client = Client::connect(globals).await?;
    match command {
        ServiceCommand::Create(args) => create::run(*args, &client).await,
        ServiceCommand::Ls(args) => ls::run(args, &client).await,
        ServiceCommand::Ps(args) => ps::run(args, &client).await,
        ServiceCommand::Inspect(args) => inspect::run(args, &client).await,
        ServiceCommand::Scale(args) => scale::run(args, &client).await,
        ServiceCommand::Update(args) => update::run(*args, &client).await,
        ServiceCommand::Rollback(args) => update::rollback(args, &client).await,
        ServiceCommand::Rm(args) => rm::run(args, &client).await,
        ServiceCommand::Logs(args) => logs::run(args, &client).await,
    }
}

/// One service by id, name or prefix.
async fn get(client: &Client, reference: &str) -> Outcome<Service> {
    let request = GetServiceRequest { reference: reference.to_owned() };
    let entry = client.control().get_service(request).await?.into_inner().entry.unwrap_or_default();
    let missing = Malformed { field: "service".into(), problem: "missing".into() };
    Ok(Service::try_from(entry.service.ok_or(missing)?)?)
}

/// What a change is: another spec made from the stored one, or the previous spec again.
enum Change<'a> {
    Edit(&'a dyn Fn(&mut ServiceSpec) -> Result<(), String>),
    Rollback,
}

/// Changes a service; reads again if another writer was faster. Returns the service as it was.
async fn change(client: &Client, reference: &str, change: Change<'_>) -> Outcome<Service> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = get(client, reference).await?;
        let mut spec = before.spec.clone();
        if let Change::Edit(edit) = &change {
            edit(&mut spec).map_err(Failure::Refused)?;
        }
        let request = UpdateServiceRequest {
            service_id: before.id.to_string(),
            version: before.meta.version,
            spec: Some((&spec).into()),
            rollback: matches!(change, Change::Rollback),
        };
        match client.control().update_service(request).await.map_err(Failure::from) {
            Ok(answer) => {
                output::warnings(&answer.into_inner().warnings);
                return Ok(before);
            }
            Err(Failure::Stale(_)) if tries < UPDATE_TRIES => {}
            Err(failure) => return Err(failure),
        }
    }
}
