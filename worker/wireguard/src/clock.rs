//! What is due by time: handshakes, keepalives, the end of sessions. One thread.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::poll::PollTimeout;

use crate::shared::Shared;
use crate::table::Wanted;

/// How often the thread looks, in milliseconds.
const TICK_MS: u8 = 100;

/// Runs until the tunnel stops.
pub(crate) fn run(shared: &Arc<Shared>, wanted: &Mutex<Wanted>) -> io::Result<()> {
    loop {
        shared.wait(&shared.hurry, PollTimeout::from(TICK_MS))?;
        if shared.stops.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(());
        }
        // nothing to read is what it says most of the time
        let _ = shared.hurry.read();
        let now = Instant::now();
        let table = shared.table.load_full();
        for own in &table.own {
            own.limiter.reset_count();
        }
        for entry in &table.entries {
            entry.tick(now, &shared.socket, &shared.count);
        }
        if table.has_expired(now) {
            let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = wanted.table(&shared.table.load(), now);
            shared.table.store(Arc::new(fresh));
        }
    }
}
