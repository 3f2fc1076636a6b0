//! How a command fails: the words for people and the exit code for scripts.

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The cluster, the daemon or the system said no. Exit code 1.
    #[error("{0}")]
    Refused(String),
    /// There is no such object. Exit code 1.
    #[error("{0}")]
    NotFound(String),
    /// Another writer was faster; the same request on a fresh read may do. Exit code 1.
    #[error("{0}")]
    Stale(String),
    /// The command line makes no sense. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Everything has been said already.
    #[error("exit code {0}")]
    Exit(u8),
}

/// What a command ends with.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Refused(_) | Failure::NotFound(_) | Failure::Stale(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Exit(code) => *code,
        }
    }
    /// A file or the terminal could not be used.
    pub(crate) fn io(attempt: impl std::fmt::Display, source: &std::io::Error) -> Self {
        Failure::Refused(format!("{attempt}: {source}"))
    }
}

impl From<swarm_proto::convert::Malformed> for Failure {
    fn from(e: swarm_proto::convert::Malformed) -> Self {
        Failure::Refused(format!("the manager's answer makes no sense: {e} (is it of another version?)"))
    }
}

impl From<swarm_types::valid::Invalid> for Failure {
    fn from(e: swarm_types::valid::Invalid) -> Self {
        Failure::Refused(e.to_string())
    }
}

impl From<crate::output::template::TemplateError> for Failure {
    fn from(e: crate::output::template::TemplateError) -> Self {
        Failure::Usage(e.to_string())
    }
}

/// All parts of an error, outermost first, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// Does something for each of several objects: tells each failure, goes on, and fails at the end.
pub(crate) struct Several(bool);

impl Several {
    pub(crate) fn new() -> Self {
        Several(false)
    }
    pub(crate) fn note<T>(&mut self, result: Outcome<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                if !matches!(failure, Failure::Exit(_)) {
                    crate::output::error(&failure.to_string());
                }
                self.0 = true;
                None
            }
        }
    }
    pub(crate) fn finish(self) -> Outcome {
        if self.0 { Err(Failure::Exit(1)) } else { Ok(()) }
    }
}
