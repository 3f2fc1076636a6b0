//! An encrypted tunnel between the nodes of a cluster: WireGuard, of the kernel ([`KernelTunnel`]) or over a TUN
//! device ([`Tunnel`]). What follows is about the latter.
//!
//! A node has it in a process of its own ([`helper`]); [`Tunnel`] is the tunnel itself, in this process.
//!
//! What is sent to a tunnel address of a peer goes encrypted to that peer, and what comes from a peer has one of
//! its tunnel addresses as its source and one of ours as its destination; everything else is dropped and
//! counted ([`Counters`]).
//!
//! **Nothing leaves in clear.** The device and its addresses outlive the process ([`Tunnel`] may be dropped or
//! killed): while nobody reads the device, what is sent to it is dropped, and a tunnel that is started again
//! takes the device over, so that connections go on. If somebody deletes the device, its networks are
//! unreachable by a route of the worst metric (`proto 84`). Only [`remove`] ends this.
//!
//! # Changing a key without losing a packet
//!
//! 1. The node makes a key and takes handshakes to it: `set_own_keys([old, new])`. Only then it publishes the
//!    new public key beside the old one; peers set `keys: [old, new]`.
//! 2. When every peer has said that it has done so, the node begins with the new key:
//!    `set_own_keys([new, old])`, and peers set `keys: [new, old]`, in any order. Packets go by the old session
//!    until there is one of the new key.
//! 3. When [`Tunnel::peers`] of the node shows sessions of the new key with all peers that it reaches, peers
//!    set `keys: [new]`.
//! 4. When they have done so, the node drops the old key: `set_own_keys([new])`.
//!
//! If steps come in a wrong order, or a peer misses some, nodes that do not get an answer try all pairs of
//! their keys in turn: packets may be lost then, the connection is not.

mod clock;
mod counter;
mod device;
mod encryption;
pub mod helper;
mod inward;
mod kernel;
mod key;
mod merge;
mod netlink;
mod outward;
mod packet;
mod pair;
mod peer;
mod shared;
mod socket;
mod split;
mod sys;
mod table;
mod tunnel;

pub use counter::Counters;
pub use device::{DeviceError, Settings, configure, remove};
pub use encryption::Encryption;
pub use kernel::{KernelTunnel, is_of_process};
pub use key::{BadKey, KEY_LEN, KeyPair, PublicKey};
pub use peer::Peer;
pub use table::TableError;
pub use tunnel::{PeerStatus, SessionStatus, StartError, Tunnel};
