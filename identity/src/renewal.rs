//! When to renew a certificate. Pure: times and random numbers are handed in.
//!
//! As Docker Swarm does it: at a random point between 50 and 80 % of its life, so that nodes which joined
//! together do not come back together; a failed attempt is repeated after 5 s, then after twice as long, up
//! to 1 h.

use std::time::Duration;

use swarm_types::time::Timestamp;

use crate::ca::BACKDATE;

/// The wait after the first failed attempt.
pub const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest wait between attempts.
pub const RETRY_LONGEST: Duration = Duration::from_secs(3600);

/// When to renew a certificate that is valid from `not_before` to `expires`; `jitter` is any number, all of
/// them equally likely. Never before `now`: what is overdue is due now.
///
/// Life is counted from the moment of issue, an hour after `not_before`: counted from there, half the life of
/// a certificate for one hour would be over as soon as it is issued.
pub fn renew_at(not_before: Timestamp, expires: Timestamp, now: Timestamp, jitter: u64) -> Timestamp {
    let issued = not_before.plus(BACKDATE);
    let issued = if issued < expires { issued } else { not_before };
    let life = expires.since(issued);
    let earliest = life / 2;
    let spread = life.as_millis() * 3 / 10;
    let chosen = u128::from(jitter) % (spread + 1);
    let chosen = Duration::from_millis(u64::try_from(chosen).unwrap_or(u64::MAX));
    issued.plus(earliest).plus(chosen).max(now)
}

/// When to try again after `failures` failed attempts in a row (at least 1), the last of them `now`.
///
/// The wait doubles from 5 s to 1 h, with up to a quarter added by `jitter`. It never skips more than half of
/// what is left of the certificate's life: after `expires` no renewal is possible.
pub fn retry_at(now: Timestamp, expires: Timestamp, failures: u32, jitter: u64) -> Timestamp {
    let doublings = failures.saturating_sub(1).min(16);
    let base = (RETRY_FIRST * (1 << doublings)).min(RETRY_LONGEST);
    let quarter = u64::try_from((base / 4).as_millis()).unwrap_or(u64::MAX);
    let wait = base + Duration::from_millis(jitter % (quarter + 1));
    let half_left = (expires.since(now) / 2).max(RETRY_FIRST);
    now.plus(wait.min(RETRY_LONGEST).min(half_left))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const ISSUED: Timestamp = Timestamp(1_795_232_523_000);

    fn not_before() -> Timestamp {
        Timestamp(ISSUED.as_millis() - 3_600_000)
    }

    #[test]
    fn between_half_and_four_fifths() {
        let expires = ISSUED.plus(DAY * 90);
        assert_eq!(renew_at(not_before(), expires, ISSUED, 0), ISSUED.plus(DAY * 45));
        let spread = 27 * 86_400_000;
        assert_eq!(renew_at(not_before(), expires, ISSUED, spread), ISSUED.plus(DAY * 72));
        assert_eq!(renew_at(not_before(), expires, ISSUED, spread + 1), ISSUED.plus(DAY * 45));
    }

    #[test]
    fn a_fresh_certificate_for_one_hour_is_not_due() {
        assert_eq!(renew_at(not_before(), ISSUED.plus(HOUR), ISSUED, 0), ISSUED.plus(HOUR / 2));
    }

    #[test]
    fn overdue_is_due_now() {
        let late = ISSUED.plus(DAY * 89);
        assert_eq!(renew_at(not_before(), ISSUED.plus(DAY * 90), late, 7), late);
    }

    #[test]
    fn retries_double() {
        let expires = ISSUED.plus(DAY * 45);
        let waits: Vec<u64> =
            (1..=12).map(|n| retry_at(ISSUED, expires, n, 0).since(ISSUED).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(retry_at(ISSUED, expires, 1, 1250), ISSUED.plus(Duration::from_millis(6250)));
    }

    #[test]
    fn retries_hurry_when_the_end_is_near() {
        let wait = |left| retry_at(ISSUED, ISSUED.plus(left), 20, 0).since(ISSUED);
        assert_eq!(wait(HOUR), HOUR / 2);
        assert_eq!(wait(Duration::ZERO), RETRY_FIRST);
    }

    proptest! {
        #[test]
        fn within_the_window(start in 0u64..4_000_000_000_000, life in 7_200_000u64..1_000_000_000_000, jitter: u64) {
            let (not_before, expires) = (Timestamp(start), Timestamp(start + life));
            let issued = not_before.plus(BACKDATE);
            let life = expires.since(issued);
            let waited = renew_at(not_before, expires, issued, jitter).since(issued);
            prop_assert!(waited >= life / 2 && waited * 10 <= life * 8);
        }

        #[test]
        fn any_numbers_never_panic(a: u64, b: u64, now: u64, failures: u32, jitter: u64) {
            let now = Timestamp(now);
            prop_assert!(renew_at(Timestamp(a), Timestamp(b), now, jitter) >= now);
            let wait = retry_at(now, Timestamp(b), failures, jitter).since(now);
            prop_assert!(wait <= RETRY_LONGEST);
        }
    }
}
