//! The supervisor's clock: the one place of this program that reads the time.
//!
//! The supervisor is a program of its own, without a `Clock` to be handed: it decides nothing by
//! time, it only stamps log lines and the moment of exit.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a program of its own: nobody can hand it a clock")]
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}
