//! [`Dialer`]: the edge between the agent and the network. `node` implements it with mutual TLS.

use futures::future::BoxFuture;
use tonic::transport::Channel;

/// Opens connections to managers.
pub trait Dialer: Send + Sync + 'static {
    /// A connection to the manager at `addr` (`host:port`), with both sides proved. The agent drops
    /// the future when it has waited long enough.
    fn dial(&self, addr: String) -> BoxFuture<'_, Result<Channel, DialError>>;
}

/// A manager could not be reached, or is not what it says; the text has the whole chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);
