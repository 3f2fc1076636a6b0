//! Alarm: when core wants to be asked again, by the cluster's time.

use std::time::Duration;

use swarm_types::time::Timestamp;

/// When core wants to be asked again.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Option<Timestamp>,
}

impl Alarm {
    /// Replaces the time that was set before.
    pub(crate) fn set(&mut self, at: Timestamp) {
        self.at = Some(at);
    }

    /// It rang: nothing is set any more.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// Waits until the time has come by `now`; for ever if none is set. The cluster's time may pass slower
    /// than the runtime's (see `core::pace`): who slept for what was left may have slept too little, and core
    /// would find nothing due and ask for no other time.
    pub(crate) async fn rings(&self, now: impl Fn() -> Timestamp) {
        let Some(at) = self.at else { return std::future::pending().await };
        loop {
            match at.since(now()) {
                Duration::ZERO => return,
                left => tokio::time::sleep(left).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn rings_when_the_time_has_come_and_not_when_the_sleep_is_over() {
        // However long it sleeps, 10 ms have passed in the cluster when it looks again.
        let time = AtomicU64::new(1000);
        let now = || Timestamp(time.fetch_add(10, Ordering::Relaxed));
        let mut alarm = Alarm::default();
        alarm.set(Timestamp(1030));
        alarm.rings(now).await;
        assert!(now() > Timestamp(1030), "it rang early");
    }

    #[tokio::test]
    async fn rings_at_once_if_the_time_has_passed_and_never_if_none_is_set() {
        let now = || Timestamp(1000);
        let mut alarm = Alarm::default();
        assert_eq!(alarm.rings(now).now_or_never(), None);
        alarm.set(Timestamp(1000));
        assert_eq!(alarm.rings(now).now_or_never(), Some(()));
        alarm.clear();
        assert_eq!(alarm.rings(now).now_or_never(), None);
    }
}
