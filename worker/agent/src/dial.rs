//! [`Dialer`]: the edge between the agent and the network. `node` implements it with mutual TLS.

use futures::future::BoxFuture;
use tonic::transport::Channel;

/// Opens connections to managers.
pub trait Dialer: Send + Sync + 'static {
    /// A connection to the manager at `addr` (`host:port`), with both sides proved. The agent drops
    /// the future when it has waited long enough.
    fn dial(&self, addr: String) -> BoxFuture<'_, Result<Channel, DialError>>;
}

/// There is no connection to a manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// It cannot be reached, or is not what it says; the text has the whole chain.
    #[error("{0}")]
    Failed(String),
    /// It was one, and names one (`host:port`).
    #[error("it is no manager any more, {0} is")]
    Elsewhere(String),
}
