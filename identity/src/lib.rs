//! Who a node is: keys, certificates, join tokens, roles and the TLS settings made from them.
//!
//! A certificate says three things: CN = node id, OU = role, O = cluster id. [`ca::RootCa`] grants them,
//! [`peer::PeerIdentity`] reads them back, [`tls::TlsIdentity`] proves and checks them on a connection,
//! [`pin::PinnedClient`] trusts a cluster for the first time by the digest in a join token.
//!
//! Knows no RPC and no task. The only file that touches the disk is [`key_store`].

mod any_node;

pub mod base36;
pub mod ca;
pub mod credentials;
pub mod csr;
pub mod digest;
pub mod handshake;
pub mod key_store;
pub mod peer;
pub mod pin;
pub mod renewal;
pub mod role;
pub mod tls;
pub mod token;

mod verifier;
