//! A clock that can be moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use swarm_node::SystemClock;
use swarm_types::time::{Clock, Timestamp};

/// The real time, and as much more as it was moved forward.
#[derive(Default)]
pub struct TestClock {
    real: SystemClock,
    ahead_ms: AtomicU64,
    beside: Option<Arc<TestClock>>,
}

impl TestClock {
    /// A clock that moves with `other`, and can be moved alone.
    pub fn beside(other: Arc<TestClock>) -> TestClock {
        TestClock { beside: Some(other), ..TestClock::default() }
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).expect("less than an age of the world");
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let base = self.beside.as_ref().map_or_else(|| self.real.now(), |other| other.now());
        base.plus(Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst)))
    }
}
