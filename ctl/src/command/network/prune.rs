//! `swarmctl network prune`.

use swarm_types::network::Network;

use super::confirm::confirmed;
use crate::client::Client;
use crate::error::{Failure, Outcome};
use crate::flags::filter::Filters;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only networks that fit: label=KEY[=VALUE] or label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

const WARNING: &str = "WARNING! This will remove all custom networks not used by at least one service.";

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let filters = Filters::parse(&args.filter, &["label", "label!"])?;
    if !args.force && !confirmed(WARNING)? {
        return Err(Failure::Refused("network prune has been cancelled".into()));
    }
    let mut removed = Vec::new();
    let mut last = Ok(());
    for network in super::list(client).await?.iter().filter(|network| fits(network, &filters)) {
        match prune(client, network).await {
            Ok(true) => removed.push(network.spec.annotations.name.clone()),
            Ok(false) => {}
            Err(failure) => {
                output::error(&failure.to_string());
                last = Err(Failure::Exit(1));
            }
        }
    }
    if !removed.is_empty() {
        output::text(&format!("Deleted Networks:\n{}\n", removed.join("\n")));
    }
    last
}

/// The ingress network is never one too many.
fn fits(network: &Network, filters: &Filters) -> bool {
    let labels = &network.spec.annotations.labels;
    let none = |text: &str| match text.split_once('=') {
        Some((key, value)) => labels.get(key).is_none_or(|v| v != value),
        None => !labels.contains_key(text),
    };
    !network.spec.ingress && filters.labels("label", labels) && filters.any("label!", none)
}

/// False: something is on it, or somebody else was faster. What keeps a network that no service is on any
/// more is told.
async fn prune(client: &Client, network: &Network) -> Outcome<bool> {
    let tasks = match super::get(client, network.id.as_str()).await {
        Ok((_, on)) if !on.services.is_empty() => return Ok(false),
        Ok((_, on)) => on.tasks.len(),
        Err(Failure::NotFound(_)) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    match super::rm::remove(client, network.id.as_str()).await {
        Ok(()) => Ok(true),
        Err(Failure::NotFound(_)) => Ok(false),
        // The manager's words: they name the tasks. They may have ended meanwhile: then it is gone.
        Err(Failure::Refused(why)) if tasks > 0 => {
            output::note(&format!("Kept: {why}"));
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_choose_and_ingress_stays() {
        let mut network = Network::default();
        network.spec.annotations.labels.insert("keep".into(), "1".into());
        let with = |network: &Network, filter: &[&str]| {
            let texts: Vec<String> = filter.iter().map(ToString::to_string).collect();
            fits(network, &Filters::parse(&texts, &["label", "label!"]).unwrap())
        };
        assert!(with(&network, &[]) && with(&network, &["label=keep"]) && with(&network, &["label!=keep=2"]));
        assert!(!with(&network, &["label!=keep"]) && !with(&network, &["label=other"]));
        network.spec.ingress = true;
        assert!(!with(&network, &[]));
    }
}
