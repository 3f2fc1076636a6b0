//! Why an operation on a local cluster failed: one enum per operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A program or a file refused.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error("run `{command}`")]
    Run {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("run `{command}`: {output}")]
    Failed { command: String, output: String },
    #[error("run `{command}`: no answer in {seconds} s")]
    Slow { command: String, seconds: u64 },
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {}", path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl SystemError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> SystemError {
        let path = path.into();
        move |source| SystemError::File { action, path, source }
    }
}

fn told(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why a cluster did not come up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("name cluster `{0}`: one to eight of a-z and 0-9 are allowed")]
    Name(String),
    #[error("make {managers} managers and {workers} workers: 1 to 7 managers and at most 100 workers fit")]
    Size { managers: usize, workers: usize },
    #[error("make cluster `{0}`: it exists already, `swarmctl dev down --name {0}` removes it")]
    Exists(String),
    #[error("make network namespaces: only root may")]
    NotRoot,
    #[error("find the program `{program}`: install the Debian package {package}")]
    Missing { program: &'static str, package: &'static str },
    #[error("find a free address block: 250 clusters are up")]
    NoBlock,
    #[error("find the cgroup v2 hierarchy: neither /sys/fs/cgroup nor a directory below is one")]
    NoCgroup,
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("start the daemon of {host}: no answer on its socket after {waited:?}; its log ends in:\n{log}")]
    Silent { host: String, waited: Duration, log: String },
    #[error("start the daemon of {host}: it ended; its log ends in:\n{log}")]
    Ended { host: String, log: String },
    // the cause is in the text, because after a log nobody would find it
    #[error("{step} on {host}: {}; the log of its daemon ends in:\n{log}", told(cause))]
    Form { step: &'static str, host: String, log: String, cause: SystemError },
    #[error(
        "wait for every node to be Ready: {missing} not after {waited:?}; the log of {host} ends in:\n{log}"
    )]
    NotReady { missing: String, waited: Duration, host: String, log: String },
    #[error("bring cluster `{0}` up: interrupted")]
    Cancelled(String),
    #[error("clean up after a failure: {undo}; the failure")]
    Undo {
        undo: DownError,
        #[source]
        source: Box<UpError>,
    },
}

/// Why no cluster was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("open cluster `{0}`: there is none of that name")]
    Unknown(String),
    #[error("open a cluster: none is up, `swarmctl dev up` makes one")]
    None,
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Why a host did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("find host `{host}`: cluster `{cluster}` has {known}")]
    Unknown { host: String, cluster: String, known: String },
    #[error("{action} {host}: it is not running")]
    Stopped { action: &'static str, host: String },
    #[error("start {host}: it is running")]
    Running { host: String },
    #[error("{action} {host}: it has no daemon")]
    NoDaemon { action: &'static str, host: String },
    #[error("start {host}: no answer on its socket after {waited:?}; its log ends in:\n{log}")]
    Silent { host: String, waited: Duration, log: String },
    #[error("start {host}: its daemon ended; its log ends in:\n{log}")]
    Ended { host: String, log: String },
    #[error("run `{program}` on {host}")]
    Exec {
        program: String,
        host: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Why something of a cluster is still there.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    #[error("name cluster `{0}`: one to eight of a-z and 0-9 are allowed")]
    Name(String),
    #[error("remove cluster `{name}`: still there: {}", left.join(", "))]
    Left { name: String, left: Vec<String> },
    #[error(transparent)]
    System(#[from] SystemError),
}
