//! The daemon's command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;

/// Runs containers for a cluster and, as a manager, keeps its state.
///
/// Makes no cluster by itself: `swarmctl init` or `swarmctl join` tell it to, over the local socket.
#[derive(Debug, Parser)]
#[command(name = "swarmd", version)]
pub(crate) struct Args {
    /// Where everything that must survive a reboot is kept.
    #[arg(long, default_value = "/var/lib/swarm", env = "SWARMD_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
    /// Where the network namespaces of networks and tasks are: gone after a reboot, as they are. No two
    /// daemons may share it.
    #[arg(long, default_value = "/run/swarmd", env = "SWARMD_RUN_DIR")]
    pub(crate) run_dir: PathBuf,
    /// The local socket: root and group `swarm` may use it.
    #[arg(long, default_value = "/run/swarmd.sock", env = "SWARMD_SOCKET")]
    pub(crate) socket: PathBuf,
    /// Group that may use the local socket, besides root.
    #[arg(long, default_value = "swarm")]
    pub(crate) socket_group: String,
    /// The name that other nodes see; the host's own by default.
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Control group below which the containers' groups are made.
    #[arg(long, default_value = "/swarmd")]
    pub(crate) cgroup_parent: String,
    /// The supervisor of containers; `swarmd-shim` beside this program by default.
    #[arg(long)]
    pub(crate) shim: Option<PathBuf>,
    /// A label of this machine, for constraints on engine.labels.KEY.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// A registry that is spoken to without TLS (loopback always may be).
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub(crate) insecure_registries: Vec<String>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Which log lines there are, e.g. `info` or `swarm_manager_server=debug,warn`.
    #[arg(long, default_value = "info", env = "SWARMD_LOG")]
    pub(crate) log: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

impl Args {
    /// The labels, the last of each key.
    pub(crate) fn engine_labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let args = Args::try_parse_from(["swarmd", "--label", "zone=a", "--label", "zone=b"]).unwrap();
        assert_eq!(args.engine_labels().get("zone").map(String::as_str), Some("b"));
        assert!(Args::try_parse_from(["swarmd", "--label", "zone"]).is_err());
        assert!(Args::try_parse_from(["swarmd", "--label", "=x"]).is_err());
    }
}
