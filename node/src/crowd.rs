//! A crowd: tasks for people whom nobody knows yet. Only so many at once; when one more comes, the one
//! that has been there longest goes. Who is quick about it (any honest node) is done before that; who
//! sits and waits, to use up what there is, is the one that goes.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// A bounded set of tasks, oldest first.
pub(crate) struct Crowd<T> {
    limit: usize,
    tasks: JoinSet<T>,
    oldest_first: VecDeque<AbortHandle>,
}

impl<T: Send + 'static> Crowd<T> {
    /// Of at most `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        Crowd { limit, tasks: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    /// Lets one more in; the oldest goes if it is one too many.
    pub(crate) fn push(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.oldest_first.retain(|t| !t.is_finished());
        if self.oldest_first.len() >= self.limit
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(task));
    }

    /// What the next one that is done gives; none while nobody is there.
    pub(crate) async fn next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.join_next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes() {
        let mut crowd = Crowd::new(2);
        crowd.push(async { std::future::pending::<u8>().await });
        crowd.push(async { 2 });
        assert_eq!(crowd.next().await.unwrap().unwrap(), 2);
        crowd.push(async { std::future::pending::<u8>().await });
        crowd.push(async { 4 });
        let mut ends = Vec::new();
        for _ in 0..2 {
            ends.push(crowd.next().await.unwrap().map_err(|e| e.is_cancelled()));
        }
        ends.sort_unstable();
        assert_eq!(ends, [Ok(4), Err(true)]);
    }
}
