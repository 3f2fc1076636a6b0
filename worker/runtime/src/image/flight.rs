//! [`Flights`]: work that several want at the same time is done once.
//!
//! Nobody is spawned: the first caller does the work in its own future, the others wait. If the first is dropped, the next one
//! takes over; if it finished, they share what came of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Landing<T> = tokio::sync::Mutex<Option<T>>;

/// Work under way, by key.
pub(crate) struct Flights<K, T> {
    flying: Mutex<BTreeMap<K, Weak<Landing<T>>>>,
}

impl<K: Ord + Clone, T: Clone> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Flights { flying: Mutex::new(BTreeMap::new()) }
    }

    /// Does `work`, or waits for the one who does. True with the result of somebody else.
    pub(crate) async fn join<F: Future<Output = T>>(&self, key: &K, work: impl FnOnce() -> F) -> (T, bool) {
        let landing = self.board(key);
        let mut result = landing.lock().await;
        if let Some(done) = result.as_ref() {
            return (done.clone(), true);
        }
        let done = work().await;
        *result = Some(done.clone());
        // whoever comes from now on starts afresh
        self.flying.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        (done, false)
    }

    fn board(&self, key: &K) -> Arc<Landing<T>> {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        flying.retain(|_, landing| landing.strong_count() > 0);
        if let Some(landing) = flying.get(key).and_then(Weak::upgrade) {
            return landing;
        }
        let landing = Arc::new(tokio::sync::Mutex::new(None));
        flying.insert(key.clone(), Arc::downgrade(&landing));
        landing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_works_and_all_have_it() {
        let (flights, count) = (Flights::<u8, u32>::new(), AtomicU32::new(0));
        let work = || async {
            tokio::task::yield_now().await;
            count.fetch_add(1, Ordering::SeqCst) + 1
        };
        let got = futures::join!(flights.join(&1, work), flights.join(&1, work), flights.join(&2, work));
        assert_eq!((got.0, got.1.1, got.2.1), ((1, false), true, false));
        assert_eq!(flights.join(&1, work).await, (3, false), "after the landing, work is done again");
    }

    #[tokio::test]
    async fn a_dropped_worker_is_replaced() {
        let flights = Flights::<u8, u32>::new();
        let mut first = Box::pin(flights.join(&1, std::future::pending::<u32>));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.join(&1, || async { 7 }));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await, (7, false));
    }
}
