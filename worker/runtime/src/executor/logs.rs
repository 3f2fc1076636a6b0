//! A container's output in the agent's terms.

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use swarm_types::id::TaskId;
use swarm_types::time::Timestamp;
use swarm_worker_agent::executor::{ExecError, LogLine, LogOptions, LogStream};

use super::temporary;
use crate::container::{self, Containers, LogError};

/// What the task's container wrote.
pub(super) fn stream(
    containers: Containers,
    task: TaskId,
    options: LogOptions,
) -> BoxStream<'static, Result<LogLine, ExecError>> {
    let wanted = container::LogOptions {
        tail: options.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        since: (!options.since.is_zero()).then_some(options.since),
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let opened = async move {
        match containers.logs(task.as_str(), wanted).await {
            Ok(lines) => Ok(lines.map_ok(line).map_err(temporary).boxed()),
            // Removed already, or not made yet: it has written nothing that could be shown.
            Err(LogError::NotFound(_)) => Ok(stream::empty().boxed()),
            Err(e) => Err(temporary(e)),
        }
    };
    stream::once(opened).try_flatten().boxed()
}

fn line(line: container::LogLine) -> LogLine {
    LogLine {
        at: Timestamp(line.time_ns / 1_000_000),
        stream: match line.stream {
            container::LogStream::Stdout => LogStream::Stdout,
            container::LogStream::Stderr => LogStream::Stderr,
        },
        data: line.content,
        partial: line.partial,
    }
}
