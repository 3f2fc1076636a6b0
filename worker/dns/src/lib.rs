//! The names of the networks: the server that the tasks of a node ask.
//!
//! A network's sandbox has sockets at the gateway's addresses, port 53. What comes in there is answered
//! from what the node was told of its networks ([`Server::set`]), or asked of the host's resolvers. No
//! names are learnt from anybody else, so an address that the managers have taken away is not answered.
//!
//! # What is answered
//!
//! - Names of the networks of whoever asks (its source address says which task it is), tried in the
//!   order of its attachments: see [`zone`]. IPv4 and IPv6 addresses, by chance in another order each
//!   time. A virtual address is answered also while no task is serving.
//! - `PTR` of tasks' and virtual addresses: `web.3.<task id>.<network>`, `web.<network>`. Addresses of
//!   the subnets that nobody has do not exist, and are not asked elsewhere.
//! - `SRV` of published ports: `_80._tcp.web`, by the task's port or the published one, and `_tcp.web`,
//!   all of a protocol. The answer is the task's port, at the service's name or, with dnsrr, at each
//!   task's (also `_tcp.tasks.web`), with the tasks' weights. Docker answers none.
//! - `ANY` with a minimal record (RFC 8482). Other types of a name that is there: nothing, in NOERROR,
//!   since some resolvers (musl) give up a name at the first NXDOMAIN.
//! - All with a TTL of [`TTL`] s, negative answers too (SOA). Upper and lower case do not matter and come
//!   back as they were asked.
//!
//! # What is forwarded
//!
//! Every other name, single labels too, as Docker does, unless all networks of the task (the ingress
//! network aside) are internal: then it does not exist (NXDOMAIN: SERVFAIL would make clients wait and
//! ask again what will never be answered). Names that can only be ours are never forwarded: a task's
//! name (`web.7`) or a port (`_80._tcp.web`) of a service that is here, `tasks.<anything>`.
//!
//! Answers come from the address that was asked, fit the size that the client said (at most 1232 bytes
//! over UDP, then TCP), and are never sent in answer to what is not a question.

mod flood;
mod forward;
mod message;
mod resolv_conf;
mod server;
mod shuffle;
mod tcp;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod udp;
mod upstream;
mod wire;
mod world;
pub mod zone;

pub use resolv_conf::resolvers;
pub use server::{Counters, Server, Settings, Sockets};
pub use world::{Attachments, TTL};
pub use zone::Zone;
