//! The lines of several tasks as one stream: by time if that can be known, else as they come.

use std::sync::Arc;

use futures::future::FutureExt;
use futures::stream::{BoxStream, StreamExt, select_all};
use swarm_types::id::TaskId;

use crate::executor::{ExecError, Executor, LogLine, LogOptions};
use crate::task_states::TaskStates;

/// A line of a task, or why it could not be read.
pub(crate) type Read = (TaskId, Result<LogLine, ExecError>);
/// Lines of some tasks.
pub(crate) type Lines = BoxStream<'static, Read>;

/// The lines of `tasks`. With `follow`, those of tasks that have not started yet come when they have.
pub(crate) fn lines(
    executor: Arc<dyn Executor>,
    states: Arc<TaskStates>,
    tasks: Vec<TaskId>,
    options: &LogOptions,
) -> Lines {
    let one = |id: TaskId| -> Lines {
        let (executor, states, options) = (Arc::clone(&executor), Arc::clone(&states), options.clone());
        let opened = async move {
            if options.follow {
                states.until_started(id).await;
            }
            executor.logs(id, options)
        };
        opened.flatten_stream().map(move |line| (id, line)).boxed()
    };
    let streams = tasks.into_iter().map(one);
    if options.follow {
        return select_all(streams).boxed();
    }
    merged(streams.collect())
}

/// Oldest first; lines that could not be read come as soon as they are met.
fn merged(streams: Vec<Lines>) -> Lines {
    async_stream::stream! {
        let mut heads = Vec::new();
        for mut stream in streams {
            if let Some(first) = stream.next().await {
                heads.push((first, stream));
            }
        }
        let when = |(_, line): &Read| line.as_ref().ok().map(|line| line.at);
        while let Some(at) = (0..heads.len()).min_by_key(|n| when(&heads[*n].0)) {
            let next = heads[at].1.next().await;
            match next {
                Some(next) => yield std::mem::replace(&mut heads[at].0, next),
                None => yield heads.swap_remove(at).0,
            }
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::LogStream;
    use swarm_types::time::Timestamp;

    #[tokio::test]
    async fn merges_by_time() {
        let line = |at| LogLine {
            at: Timestamp(at),
            stream: LogStream::Stdout,
            data: format!("{at}").into(),
            partial: false,
        };
        let stream = |id: &'static str, times: &'static [u64]| -> Lines {
            futures::stream::iter(times.iter().map(move |at| (id.into(), Ok(line(*at))))).boxed()
        };
        let all = merged(vec![stream("a", &[1, 4, 5]), stream("b", &[]), stream("c", &[2, 3, 9])]);
        let times: Vec<_> = all.map(|(_, line)| line.expect("a line").at.0).collect().await;
        assert_eq!(times, [1, 2, 3, 4, 5, 9]);
    }
}
