//! Control: what a user's command does to the store, or why it is denied.
//!
//! Reads:   the tables that the command names.
//! Writes:  Service.spec, Node.spec, Cluster; births of networks, services and nodes, and their removal.
//! Never:   waits for what it set off; touches tasks.
//! Start:   [`service::create`].
//!
//! All functions work on a [`Draft`](crate::store::Draft) of the newest view. Its transaction is
//! refused if a written object changed meanwhile: the caller then drafts again on a newer view.

pub mod cluster;
pub mod network;
pub mod node;
pub mod reach;
pub mod resolve;
pub mod service;
pub mod site;

use swarm_types::valid::Invalid;

/// Why a command is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none of that name, id or prefix.
    #[error("{kind} {name} not found")]
    NotFound {
        /// `service`, `node`, `task` …
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A prefix or name stands for several.
    #[error("{kind} {name} is ambiguous ({matches} matches found)")]
    Ambiguous {
        /// `service`, `node`, `task` …
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// How many it stands for.
        matches: usize,
    },
    /// There is one of that name already.
    #[error("{kind} {name} already exists")]
    AlreadyExists {
        /// `service`, `node` …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The spec is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The spec is valid but this object cannot get it.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Not in this state of the cluster.
    #[error("{0}")]
    Precondition(String),
    /// The object was changed since the caller read it.
    #[error("update out of sequence")]
    OutOfSequence,
}

/// The class of a denial: one for each status code that callers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DeniedKind {
    NotFound,
    AlreadyExists,
    InvalidArgument,
    FailedPrecondition,
    Aborted,
}

impl Denied {
    /// Its class.
    pub fn kind(&self) -> DeniedKind {
        match self {
            Denied::NotFound { .. } => DeniedKind::NotFound,
            Denied::AlreadyExists { .. } => DeniedKind::AlreadyExists,
            Denied::Ambiguous { .. } | Denied::Invalid(_) | Denied::Unsupported(_) => {
                DeniedKind::InvalidArgument
            }
            Denied::Precondition(_) => DeniedKind::FailedPrecondition,
            Denied::OutOfSequence => DeniedKind::Aborted,
        }
    }

    fn not_found(kind: &'static str, name: impl ToString) -> Denied {
        Denied::NotFound { kind, name: name.to_string() }
    }
}

/// Denies an update that was made from another version than the stored one.
fn in_sequence(stored: u64, given: u64) -> Result<(), Denied> {
    if stored == given { Ok(()) } else { Err(Denied::OutOfSequence) }
}
