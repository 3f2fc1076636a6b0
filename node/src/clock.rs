//! The one place where wall time is read.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use swarm_types::time::{Clock, Timestamp};

/// A step of the machine's clock beyond this is believed at once: the machine was wrong before
/// (it booted without a battery, it was suspended). Smaller ones are made up for slowly.
const JUMP: Duration = Duration::from_secs(60);
/// Share of the time gone by that is given to making up for a step: one tenth.
const SLEW: u64 = 10;

/// The machine's clock without its steps: heartbeats and delays are counted in it, and a step must
/// not make a silent node of one that is not. It never runs backwards.
pub struct SystemClock {
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    shown_ms: u64,
    at: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        let last = Reading { shown_ms: wall_ms(), at: Instant::now() };
        SystemClock { last: Mutex::new(last) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let mut last = self.last.lock().expect("no code panics while it holds the reading");
        let at = Instant::now();
        let gone = u64::try_from((at - last.at).as_millis()).unwrap_or(u64::MAX);
        if gone > 0 {
            let shown_ms = next(last.shown_ms, gone, wall_ms());
            // What is less than a millisecond is counted the next time.
            *last = Reading { shown_ms, at: last.at + Duration::from_millis(gone) };
        }
        Timestamp(last.shown_ms)
    }
}

fn wall_ms() -> u64 {
    #[allow(clippy::disallowed_methods)]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What to show `gone` milliseconds after `shown`, when the machine's clock says `wall`.
fn next(shown: u64, gone: u64, wall: u64) -> u64 {
    let even = shown.saturating_add(gone);
    let jump = u64::try_from(JUMP.as_millis()).unwrap_or(u64::MAX);
    if wall > even.saturating_add(jump) {
        return wall;
    }
    if wall >= even {
        return even + (wall - even).min(gone / SLEW);
    }
    // Behind: slower, and for a long way back standing still.
    let slower = if even - wall > jump { gone } else { (even - wall).min(gone / SLEW) };
    even - slower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_with_the_machine() {
        assert_eq!(next(1000, 50, 1050), 1050);
        let clock = SystemClock::default();
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    #[test]
    fn steps_are_made_up_for_slowly() {
        assert_eq!(next(1000, 1000, 12_000), 2100, "ten seconds ahead");
        assert_eq!(next(100_000, 1000, 91_000), 100_900, "ten seconds back");
        assert_eq!(next(1000, 1000, 2003), 2003, "what is small is made up for at once");
    }

    #[test]
    fn a_clock_that_was_wrong_is_not_believed() {
        assert_eq!(next(1000, 1000, 10_000_000), 10_000_000, "it had been set at last");
        assert_eq!(next(10_000_000, 1000, 1000), 10_000_000, "set back by hours: stands still");
    }
}
