//! `swarmctl network prune`.

use std::io::BufRead;

use swarm_types::network::Network;

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

const WARNING: &str = "WARNING! This will remove all custom networks not used by at least one service.\n\
                       Are you sure you want to continue? [y/N] ";

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

/// False: something is on it, or somebody else was faster.
async fn prune(client: &Client, network: &Network) -> Outcome<bool> {
    let found = super::get(client, network.id.as_str()).await;
    let used = match found {
        Ok((_, on)) => !on.services.is_empty() || !on.tasks.is_empty(),
        Err(Failure::NotFound(_)) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    if used {
        return Ok(false);
    }
    match super::rm::remove(client, network.id.as_str()).await {
        Ok(()) => Ok(true),
        Err(Failure::NotFound(_)) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Asks; anything but yes is no, and so is the end of the input.
fn confirmed(question: &str) -> Outcome<bool> {
    output::text(question);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Failure::io("read the answer", &e))?;
    output::text(if answer.is_empty() { "\n" } else { "" });
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
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
