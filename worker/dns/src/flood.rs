//! How much one source may ask: a bucket of questions for each, filled at a steady rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Sources remembered at once. A network's tasks on one node are far fewer; who invents addresses
/// shares what is left.
const MAX_SOURCES: usize = 4096;

/// The buckets of all sources.
#[derive(Debug)]
pub(crate) struct Flood {
    per_second: f64,
    burst: f64,
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Flood {
    /// Each source may ask `per_second` questions, and `burst` at once.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: per_second.into(), burst: burst.into(), buckets: HashMap::new() }
    }

    /// Whether one more question of `source` is to be answered.
    pub(crate) fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        let (rate, burst) = (self.per_second, self.burst);
        if self.buckets.len() >= MAX_SOURCES && !self.buckets.contains_key(&source) {
            // those that are full again say nothing
            self.buckets.retain(|_, b| b.left + now.duration_since(b.at).as_secs_f64() * rate < burst);
            if self.buckets.len() >= MAX_SOURCES {
                return false;
            }
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { left: burst, at: now });
        bucket.left = (bucket.left + now.duration_since(bucket.at).as_secs_f64() * rate).min(burst);
        bucket.at = bucket.at.max(now);
        let admitted = bucket.left >= 1.0;
        bucket.left -= f64::from(u8::from(admitted));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn excess_of_one_source_is_dropped_and_others_are_not() {
        let mut flood = Flood::new(100, 10);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        assert_eq!((0..50).filter(|_| flood.admit(one, start)).count(), 10);
        assert!(flood.admit(two, start));
        let later = start + Duration::from_millis(50);
        assert_eq!((0..50).filter(|_| flood.admit(one, later)).count(), 5);
    }

    #[test]
    fn invented_sources_take_no_memory_without_end() {
        let mut flood = Flood::new(100, 10);
        let start = Instant::now();
        let addrs = |from: u32| (from..).map(|n| IpAddr::from(n.to_be_bytes()));
        let admitted = addrs(0).take(10_000).filter(|addr| flood.admit(*addr, start)).count();
        assert_eq!((admitted, flood.buckets.len()), (MAX_SOURCES, MAX_SOURCES));
        assert!(flood.admit(IpAddr::from([10, 0, 0, 1]), start + Duration::from_secs(1)));
    }
}
