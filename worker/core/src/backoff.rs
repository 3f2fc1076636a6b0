//! Backoff: how long to wait before the next try.
//!
//! Reads:   how many tries failed; a seed.
//! Writes:  nothing but its own count.
//! Never:   sleeps.
//! Start:   [`Backoff::failed`].

use std::time::Duration;

use swarm_types::id::{IdSource, Seed};

/// Shortest wait before a manager is dialled again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a manager is dialled again: a new leader is found within this.
pub const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// So many redirects in a row are followed at once; managers that disagree about the leader for
/// longer are asked at the pace of failures.
pub const FREE_REDIRECTS: u32 = 3;

/// A session that lasted so long worked: what comes after it starts anew. (Two daemons with one
/// identity end each other's sessions at once: they do not do so at full speed.)
pub const CALM: Duration = Duration::from_secs(5);

/// `min` doubled with each failure, at most `max`.
pub fn doubled(min: Duration, max: Duration, failures: u32) -> Duration {
    min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(max)
}

/// The wait before the next connection.
#[derive(Debug, Clone)]
pub struct Backoff {
    dice: IdSource,
    failures: u32,
    redirects: u32,
}

impl Backoff {
    /// No failures so far.
    pub fn new(seed: Seed) -> Self {
        Self { dice: IdSource::new(seed), failures: 0, redirects: 0 }
    }

    /// The connection worked for a while.
    pub fn worked(&mut self) {
        self.failures = 0;
        self.redirects = 0;
    }

    /// It failed: the wait before the next try. Half of it is by chance, so that the nodes of a
    /// manager that died do not come all at once.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let whole = doubled(RECONNECT_MIN, RECONNECT_MAX, self.failures);
        let half = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / 2;
        Duration::from_millis(half + self.dice.below(half + 1))
    }

    /// Another manager was named as the leader: none at all, if that does not go on for ever.
    pub fn redirected(&mut self) -> Duration {
        self.redirects = self.redirects.saturating_add(1);
        if self.redirects <= FREE_REDIRECTS { Duration::ZERO } else { self.failed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_starts_again() {
        let mut backoff = Backoff::new(Seed(1));
        for n in 1..40 {
            let whole = doubled(RECONNECT_MIN, RECONNECT_MAX, n);
            let wait = backoff.failed();
            assert!(wait >= whole / 2 && wait <= whole, "{n}: {wait:?} of {whole:?}");
        }
        assert_eq!(doubled(RECONNECT_MIN, RECONNECT_MAX, 40), RECONNECT_MAX);
        backoff.worked();
        assert!(backoff.failed() <= RECONNECT_MIN);
    }

    #[test]
    fn redirects_are_followed_at_once_but_not_for_ever() {
        let mut backoff = Backoff::new(Seed(1));
        for _ in 0..FREE_REDIRECTS {
            assert_eq!(backoff.redirected(), Duration::ZERO);
        }
        assert!(backoff.redirected() > Duration::ZERO);
    }
}
