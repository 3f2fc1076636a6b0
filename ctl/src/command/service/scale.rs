//! `swarmctl service scale`.

use swarm_types::service::{Mode, ServiceSpec};

use super::Change;
use crate::client::Client;
use crate::error::{Failure, Outcome, Several};
use crate::output;
use crate::progress::{self, Wait, WaitFlags};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: swarmctl service scale web=12 api=3")]
pub(crate) struct Args {
    #[command(flatten)]
    wait: WaitFlags,
    #[arg(required = true, value_name = "SERVICE=N")]
    targets: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let targets =
        args.targets.iter().map(|t| parse(t)).collect::<Result<Vec<_>, _>>().map_err(Failure::Usage)?;
    let mut several = Several::new();
    let mut scaled = Vec::new();
    for (name, replicas) in targets {
        let edit = |spec: &mut ServiceSpec| set(spec, name, replicas);
        let changed = super::change(client, name, Change::Edit(&edit)).await;
        if let Some(before) = several.note(changed) {
            output::line(&format!("{name} scaled to {replicas}"));
            scaled.push(before);
        }
    }
    for before in scaled {
        let wait = Wait { before: before.update_status.clone(), ..Wait::default() };
        several.note(progress::follow(client, before.id.as_str(), &args.wait, wait).await);
    }
    several.finish()
}

fn parse(text: &str) -> Result<(&str, u64), String> {
    let (name, number) = text
        .rsplit_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("invalid scale specifier `{text}`: expected SERVICE=N"))?;
    let replicas = number.parse();
    replicas.map(|n| (name, n)).map_err(|_| format!("invalid replicas value `{number}` in `{text}`"))
}

fn set(spec: &mut ServiceSpec, name: &str, to: u64) -> Result<(), String> {
    match &mut spec.mode {
        Mode::Replicated { replicas } => *replicas = to,
        Mode::Global => return Err(format!("{name}: scale can only be used with replicated mode")),
    }
    swarm_types::valid::service(spec).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_errors() {
        assert_eq!(parse("a=3"), Ok(("a", 3)));
        assert!(parse("svc=foobar").unwrap_err().contains("invalid replicas value `foobar`"));
        assert!(parse("svc").is_err() && parse("=1").is_err() && parse("a=-1").is_err());
        let mut global = swarm_types::testing::service("g").global().build();
        assert_eq!(set(&mut global, "g", 2).unwrap_err(), "g: scale can only be used with replicated mode");
    }
}
