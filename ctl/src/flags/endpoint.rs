//! How a service is reached, as flags of `service create` and `service update`. Absent means: as it was.

use swarm_types::endpoint::{Balance, EndpointMode, EndpointSpec};

/// See the module.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct EndpointFlags {
    /// What the service's name stands for: vip (one address) or dnsrr (those of its tasks) [default: vip]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    endpoint_mode: Option<EndpointMode>,
    /// Which task a new connection gets: random, or sticky (by the client's address) [default: random]
    #[arg(long, value_name = "CHOICE", value_parser = balance)]
    endpoint_balance: Option<Balance>,
    /// Label of nodes that holds the weight of their tasks, 1 to 100; empty: all weigh the same
    #[arg(long, value_name = "node.labels.KEY", value_parser = weight)]
    endpoint_weight: Option<Weight>,
}

/// The key of a label, or nothing.
#[derive(Debug, Clone)]
struct Weight(String);

impl EndpointFlags {
    /// Puts what was given into `spec`.
    pub(crate) fn apply(&self, spec: &mut EndpointSpec) {
        spec.mode = self.endpoint_mode.unwrap_or(spec.mode);
        spec.balance = self.endpoint_balance.unwrap_or(spec.balance);
        if let Some(Weight(key)) = &self.endpoint_weight {
            spec.weight_label.clone_from(key);
        }
    }
}

fn mode(text: &str) -> Result<EndpointMode, String> {
    let all = [EndpointMode::Vip, EndpointMode::Dnsrr];
    all.into_iter().find(|m| m.as_str() == text).ok_or_else(|| "expected vip or dnsrr".into())
}

fn balance(text: &str) -> Result<Balance, String> {
    let all = [Balance::Random, Balance::Sticky];
    all.into_iter().find(|b| b.as_str() == text).ok_or_else(|| "expected random or sticky".into())
}

fn weight(text: &str) -> Result<Weight, String> {
    match text.strip_prefix("node.labels.") {
        Some(key) if !key.is_empty() => Ok(Weight(key.to_owned())),
        _ if text.is_empty() => Ok(Weight(String::new())),
        _ => Err("expected node.labels.KEY".into()),
    }
}
