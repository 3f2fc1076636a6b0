//! I make one order of entries out of many managers.
//!
//! Reading order: [`members`] (who votes), [`core`] (the sans-IO consensus core), [`log`] and
//! [`snapshot`] (what is on disk), [`node`] (the driver that ties them to a clock, a disk and a
//! [`transport`]).
//!
//! Invariant: nothing here looks inside an entry.
//! Invariant: only `core` names the consensus library.

pub mod codec;
pub mod core;
pub mod log;
pub mod members;
pub mod node;
pub mod seal;
pub mod snapshot;
pub mod transport;

pub use self::core::{Core, HardState, Role};
pub use members::{Change, Member, MemberRole, Members};
pub use node::{RaftHandle, RaftNode, Settings, StateMachine, WeakRaftHandle};
pub use seal::DataKey;
pub use snapshot::{SnapshotMeta, SnapshotReader};
pub use transport::{OutgoingSnapshot, Transport};
