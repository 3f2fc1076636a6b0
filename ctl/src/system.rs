//! The clock and the dice of the command line: the one place where they are read.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarm_types::time::{Clock, Timestamp};

/// The system's clock.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// The time now.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A number that nobody can foresee.
pub(crate) fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
