//! Makes one cluster of running daemons, with the same commands a user would type.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{SystemError, UpError};
use crate::place::{Place, tail};
use crate::program;
use crate::record::{ClusterRecord, HostRecord, Role};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(60);
const LOG_LINES: usize = 20;

pub(crate) struct Forming<'a> {
    pub(crate) record: &'a ClusterRecord,
    pub(crate) place: &'a Place,
    pub(crate) cancel: &'a AtomicBool,
}

impl Forming<'_> {
    pub(crate) fn first(&self) -> &HostRecord {
        self.record.nodes().next().expect("a cluster has a manager")
    }

    /// `init` on the first manager.
    pub(crate) fn init(&self) -> Result<(), UpError> {
        let address = self.first().address.to_string();
        self.ctl(self.first(), "init the cluster", &["init", "--advertise-addr", &address]).map(drop)
    }

    /// `join` on all others at once.
    pub(crate) fn join(&self) -> Result<(), UpError> {
        let first = self.first();
        let token = |role: &str| {
            let token = self.ctl(first, "get a join token", &["join-token", "-q", role])?;
            Ok::<_, UpError>(token.trim().to_owned())
        };
        let (manager, worker) = (token("manager")?, token("worker")?);
        let remote = format!("{}:2377", first.address);
        std::thread::scope(|scope| {
            let joins: Vec<_> = self
                .record
                .nodes()
                .skip(1)
                .map(|host| {
                    let token = if host.role == Role::Manager { &manager } else { &worker };
                    let remote = &remote;
                    scope.spawn(move || {
                        self.ctl(host, "join the cluster", &["join", "--token", token, remote])
                    })
                })
                .collect();
            joins.into_iter().try_for_each(|join| join.join().expect("a join does not panic").map(drop))
        })
    }

    /// Polls `node ls` until every host is in it and Ready.
    pub(crate) fn await_ready(&self) -> Result<(), UpError> {
        let end = Instant::now() + READY_LIMIT;
        loop {
            self.check_cancel()?;
            let seen = self.ctl(self.first(), "list the nodes", &["node", "ls", "--format", "json"]);
            let missing = match &seen {
                Ok(lines) => not_ready(lines, self.record),
                // a leader that was just elected may not answer yet
                Err(_) if Instant::now() < end => vec!["?".to_owned()],
                Err(_) => return seen.map(drop),
            };
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                let host = missing[0].clone();
                let log = tail(&self.place.log(&host), LOG_LINES);
                return Err(UpError::NotReady { missing: missing.join(" "), waited: READY_LIMIT, host, log });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn check_cancel(&self) -> Result<(), UpError> {
        let cancelled = self.cancel.load(Ordering::Relaxed);
        if cancelled { Err(UpError::Cancelled(self.record.name.clone())) } else { Ok(()) }
    }

    fn ctl(&self, host: &HostRecord, step: &'static str, args: &[&str]) -> Result<String, UpError> {
        self.check_cancel()?;
        let socket = format!("unix://{}", self.place.socket(&host.name).display());
        let mut command = std::process::Command::new(&self.record.swarmctl);
        command.args(["--host", &socket]).args(args);
        let said = program::output_unless(self.cancel, &mut command, COMMAND_LIMIT);
        // an interrupted command is not the reason
        self.check_cancel()?;
        said.map_err(|cause: SystemError| UpError::Form {
            step,
            host: host.name.clone(),
            log: tail(&self.place.log(&host.name), LOG_LINES),
            cause,
        })
    }
}

/// The hosts that `node ls --format json` (one object a line) does not show as Ready.
fn not_ready(lines: &str, record: &ClusterRecord) -> Vec<String> {
    let nodes: Vec<serde_json::Value> =
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ready = |host: &&HostRecord| {
        !nodes.iter().any(|node| node["Hostname"] == host.name.as_str() && node["Status"] == "Ready")
    };
    record.nodes().filter(ready).map(|host| host.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_must_be_there_and_ready() {
        let record = ClusterRecord {
            name: "t".into(),
            block: 1,
            hosts: crate::record::hosts(1, 1, 1),
            swarmd: "swarmd".into(),
            swarmctl: "swarmctl".into(),
            daemon_args: vec![],
            daemon_env: vec![],
        };
        let m1 = r#"{"ID":"a","Hostname":"m1","Status":"Ready"}"#;
        assert_eq!(not_ready("", &record), ["m1", "w1"]);
        assert_eq!(not_ready(&format!("{m1}\n"), &record), ["w1"]);
        assert_eq!(
            not_ready(&format!("{m1}\n{{\"Hostname\":\"w1\",\"Status\":\"Down\"}}\n"), &record),
            ["w1"]
        );
        assert_eq!(
            not_ready(&format!("{m1}\n{{\"Hostname\":\"w1\",\"Status\":\"Ready\"}}\n"), &record),
            [""; 0]
        );
    }
}
