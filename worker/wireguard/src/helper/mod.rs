//! The tunnel in a process of its own, so that it goes on while the daemon is dead or being replaced.
//!
//! ```text
//! daemon   Helper ── requests, and the device and socket once ──▶ serve   the helper
//!                 ◀── an answer to each ──
//! ```
//!
//! The daemon makes the device and the socket, with the rights that this takes, and hands them over; the
//! helper needs no rights at all. Both talk over a socket of the daemon's folder: frames of a length (four
//! octets, the least first) and so much JSON. Each request has one answer. Secrets are in memory and on this
//! socket only.
//!
//! A daemon that is started finds the helper of the one before. It keeps it if both speak the same
//! [`PROTOCOL`], whatever else is new, and replaces it otherwise: what a frame is, `hello` and `stop` are the
//! same in all versions.

mod client;
mod frame;
mod message;
mod place;
mod server;

pub use client::{Helper, HelperError};
pub use message::PROTOCOL;
pub use place::Place;
pub use server::{Ended, READY, ServeError, serve};
