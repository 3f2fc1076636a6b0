//! What can go wrong with containers, one enum per operation.

use std::io;
use std::path::PathBuf;

use crate::cgroup::PrepareError;

/// Opening the place of the containers.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("make container directory {}", path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("look for cgroup controllers")]
    Probe(#[source] io::Error),
    #[error(transparent)]
    Parent(#[from] PrepareError),
}

/// Making a container.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("invalid container id `{0}`")]
    Id(String),
    #[error("container {0} exists already")]
    Exists(String),
    #[error("write bundle {}", path.display())]
    Bundle {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Starting a container.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("container {0} was started before")]
    AlreadyStarted(String),
    #[error("run supervisor of container {id}")]
    Supervisor {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("supervisor of container {id} died: {last_words}")]
    SupervisorDied { id: String, last_words: String },
    /// Docker's words and codes: 127 not found, 126 not executable, 125 all else.
    #[error("{message}")]
    Failed { code: i32, message: String },
}

/// Waiting for a container to end.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("container {0} was not started")]
    NotStarted(String),
    #[error("watch container {id}")]
    Watch {
        id: String,
        #[source]
        source: io::Error,
    },
}

/// Sending a signal to a container.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("send signal {signal} to container {id}")]
    Send {
        id: String,
        signal: i32,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// Removing a container.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("end container {id}")]
    End {
        id: String,
        #[source]
        source: WaitError,
    },
    #[error("remove bundle {}", path.display())]
    Bundle {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("remove cgroups of container {0}: still in use")]
    Cgroups(String),
}

/// Reading a container's log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("read log of container {id}")]
    Read {
        id: String,
        #[source]
        source: io::Error,
    },
}
