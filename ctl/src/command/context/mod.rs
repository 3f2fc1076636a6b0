//! `swarmctl context …`: which cluster the commands talk to.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use swarm_identity::credentials::Credentials;

use super::admin_cert::ENDPOINT_LINE;
use super::inspect::{Found, InspectFlags};
use crate::endpoint::{Context, Contexts, Globals};
use crate::error::{Failure, Outcome, Several, chain};
use crate::output;
use crate::output::listing::{Column, Format, Listing, Row};

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Make a context
    Create {
        name: String,
        /// unix:///PATH or tcp://HOST:PORT; several, separated by commas, are tried in turn
        #[arg(long, value_name = "URL")]
        endpoint: String,
        /// File of `swarmctl admin-cert`, for tcp://
        #[arg(long, value_name = "FILE")]
        credentials: Option<PathBuf>,
    },
    /// Make a context from a file of `swarmctl admin-cert`
    Import {
        name: String,
        file: PathBuf,
        /// Other addresses than those in the file
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
    },
    /// List contexts
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Choose the context for commands that name none; `default` is the local daemon
    Use { name: String },
    /// Show contexts
    Inspect {
        #[command(flatten)]
        flags: InspectFlags,
        names: Vec<String>,
    },
    /// Remove contexts
    Rm {
        /// Remove the one in use too
        #[arg(short, long)]
        force: bool,
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Print the name of the context in use
    Show,
}

const COLUMNS: &[Column] = &[
    Column { field: "Name", header: "NAME" },
    Column { field: "Endpoint", header: "ENDPOINT" },
    Column { field: "Hosts", header: "HOSTS" },
    Column { field: "Current", header: "" },
];

pub(crate) fn run(command: ContextCommand, globals: &Globals) -> Outcome {
    let contexts = Contexts::open()?;
    match command {
        ContextCommand::Create { name, endpoint, credentials } => {
            let pem = credentials.as_ref().map(read).transpose()?;
            make(&contexts, name, endpoint, pem.as_deref())
        }
        ContextCommand::Import { name, file, endpoint } => {
            let text = read(&file)?;
            let line = text.lines().find_map(|line| line.strip_prefix(ENDPOINT_LINE)).map(String::from);
            let endpoint = endpoint.or(line).filter(|e| !e.is_empty());
            let unknown = || Failure::Usage(format!("{} names no manager: give --endpoint", file.display()));
            make(&contexts, name, endpoint.ok_or_else(unknown)?, Some(&text))
        }
        ContextCommand::Ls(format) => {
            output::text(&listing(&contexts, globals)?.render(&format)?);
            Ok(())
        }
        ContextCommand::Use { name } => {
            contexts.choose(
                Some(name.as_str()).filter(|n| *n != "default" || contexts.read("default").is_ok()),
            )?;
            output::line(&name);
            Ok(())
        }
        ContextCommand::Inspect { flags, names } => inspect(&contexts, &flags, names, globals),
        ContextCommand::Rm { force, names } => remove(&contexts, force, &names),
        ContextCommand::Show => {
            output::line(&current(&contexts, globals));
            Ok(())
        }
    }
}

fn read(file: &PathBuf) -> Outcome<String> {
    std::fs::read_to_string(file).map_err(|e| Failure::io(format!("read {}", file.display()), &e))
}

fn make(contexts: &Contexts, name: String, endpoint: String, pem: Option<&str>) -> Outcome {
    if contexts.read(&name).is_ok() {
        return Err(Failure::Refused(format!("context {name} already exists: remove it first")));
    }
    for url in endpoint.split(',') {
        if url.starts_with("tcp://") && pem.is_none() {
            return Err(Failure::Usage(format!("{url} needs --credentials")));
        }
        if !url.starts_with("tcp://") && !url.starts_with("unix://") {
            return Err(Failure::Usage(format!("`{url}` is neither unix:///PATH nor tcp://HOST:PORT")));
        }
    }
    let pem = pem.map(Credentials::from_pem).transpose();
    let pem = pem.map_err(|e| Failure::Refused(format!("read the credentials: {}", chain(&e))))?;
    let context = Context { name: name.clone(), endpoint, ..Context::default() };
    contexts.write(context, pem.map(|c| c.to_pem()).as_deref())?;
    output::line(&name);
    Ok(())
}

fn current(contexts: &Contexts, globals: &Globals) -> String {
    let env = || std::env::var("SWARM_CONTEXT").ok().filter(|v| !v.is_empty());
    let chosen = globals.context.clone().or_else(env).or_else(|| contexts.current());
    chosen.unwrap_or_else(|| "default".into())
}

fn listing(contexts: &Contexts, globals: &Globals) -> Outcome<Listing> {
    let current = current(contexts, globals);
    let mut all = contexts.list()?;
    if !all.iter().any(|c| c.name == "default") {
        let endpoint = crate::endpoint::DEFAULT_SOCKET.into();
        all.insert(0, Context { name: "default".into(), endpoint, ..Context::default() });
    }
    let row = |context: &Context| {
        let is_current = current.split('@').next() == Some(&context.name);
        let hosts: Vec<_> = context.hosts.keys().map(String::as_str).collect();
        Row {
            values: vec![
                json!(context.name),
                json!(context.endpoint),
                json!(hosts.join(" ")),
                json!(is_current),
            ],
            shown: is_current.then(|| (0, format!("{} *", context.name))),
        }
    };
    Ok(Listing { columns: COLUMNS, rows: all.iter().map(row).collect() })
}

fn inspect(contexts: &Contexts, flags: &InspectFlags, names: Vec<String>, globals: &Globals) -> Outcome {
    let mut found = Found::new("context");
    let names = if names.is_empty() { vec![current(contexts, globals)] } else { names };
    for name in names {
        if let Some(context) = found.note(&name, contexts.read(&name))? {
            found.object(serde_json::to_value(context).expect("strings can be written as JSON"));
        }
    }
    found.print(flags, false)
}

fn remove(contexts: &Contexts, force: bool, names: &[String]) -> Outcome {
    let mut several = Several::new();
    for name in names {
        let in_use = contexts.current().as_deref() == Some(name);
        let removed = match in_use && !force {
            true => {
                Err(Failure::Refused(format!("context {name} is in use: choose another first, or --force")))
            }
            false => contexts.remove(name),
        };
        if several.note(removed).is_some() {
            if in_use {
                contexts.choose(None)?;
            }
            output::line(name);
        }
    }
    several.finish()
}
