//! Pace: the cluster's time on one manager.
//!
//! Reads:   this machine's clock, the newest time in the store.
//! Writes:  nothing but what it said last.
//! Never:   runs backwards; stands still.
//! Start:   [`Pace::read`].
//!
//! A leader whose clock is ahead writes times that its successors' clocks reach only later. The successor
//! goes on from there, a little slower than its clock, until the two agree. If it only waited, nothing that waits for a
//! time (delays of restarts, deadlines of nodes) would happen for as long as the clocks differ.

use swarm_types::time::Timestamp;

/// Time passes by this part slower while it is ahead of the clock.
const SLOWER: u32 = 8;

/// The cluster's time on one manager.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// The clock and the time, when they were asked last.
    last: Option<(Timestamp, Timestamp)>,
}

impl Pace {
    /// The time now, if the machine's clock shows `clock` and nothing in the store is newer than `newest`.
    pub fn read(&mut self, clock: Timestamp, newest: Timestamp) -> Timestamp {
        let went_on = self.last.map(|(then, time)| {
            let passed = clock.since(then);
            time.plus(passed - passed / SLOWER)
        });
        let now = clock.max(newest).max(went_on.unwrap_or_default());
        self.last = Some((clock, now));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pace: &mut Pace, clock: u64, newest: u64) -> u64 {
        pace.read(Timestamp(clock), Timestamp(newest)).0
    }

    #[test]
    fn is_the_clock_if_nothing_is_newer() {
        let mut pace = Pace::default();
        for at in [1000, 1001, 5000, 5000] {
            assert_eq!(read(&mut pace, at, 900), at);
        }
    }

    #[test]
    fn goes_on_slower_until_the_clock_has_caught_up() {
        let mut pace = Pace::default();
        assert_eq!(read(&mut pace, 1000, 9000), 9000);
        assert_eq!(read(&mut pace, 1800, 9000), 9700, "and does not wait for 9000");
        assert_eq!(read(&mut pace, 1800, 9000), 9700);
        assert_eq!(read(&mut pace, 1000, 9000), 9700, "never back");
        assert_eq!(read(&mut pace, 65_000, 9700), 65_700);
        assert_eq!(read(&mut pace, 73_000, 9700), 73_000, "they agree again");
    }
}
