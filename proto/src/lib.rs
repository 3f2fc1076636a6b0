//! The wire: what nodes and users say to each other, and how it becomes [`swarm_types`].
//!
//! Carries things unchanged: it decides nothing and fills in no defaults. Malformed input dies in
//! [`convert`], with the name of the field.

/// Generated from `proto/*.proto` by `cargo xtask gen`; the comments are there.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::large_futures, clippy::disallowed_methods)]
#[rustfmt::skip]
pub mod v1 {
    include!("gen/swarm.v1.rs");
}

pub mod convert;
pub mod roles;

/// Metadata key under which a manager that is not the leader names the leader's `host:port`.
pub const LEADER_METADATA: &str = "swarm-leader";
/// Largest message of an ordinary call, in bytes. Bulk goes in streams of chunks.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Size of a chunk of bulk data, in bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
