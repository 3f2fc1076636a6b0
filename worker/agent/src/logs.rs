//! Logs: sends up the lines that a manager's `StreamLogs` asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use swarm_proto::v1;
use swarm_types::id::TaskId;
use swarm_types::time::Timestamp;

use crate::executor::{Executor, LogLine, LogOptions, LogStream};
use crate::log_source::{self, Read};
use crate::task_states::TaskStates;

/// Most lines in one message.
const MAX_LINES: usize = 512;
/// Most bytes of text in one message, but for a single longer line.
const MAX_BYTES: usize = 256 << 10;
/// Lines that came in pieces are put together up to this length.
const MAX_LINE_BYTES: usize = 1 << 20;
/// How long a message may wait for more lines. Not a delay for the reader: lines that are there
/// already are taken at once, and this is only the bound for a writer that never pauses.
const MAX_GATHER: Duration = Duration::from_millis(20);

/// What to read, and for whom.
pub(crate) struct Request {
    pub(crate) session: String,
    pub(crate) command: String,
    pub(crate) node: String,
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) options: LogOptions,
}

/// The messages that answer `request`; the last one has `end`.
pub(crate) fn messages(
    executor: Arc<dyn Executor>,
    states: Arc<TaskStates>,
    request: Request,
) -> impl Stream<Item = v1::PublishLogsRequest> + Send + 'static {
    let Request { session, command, node, tasks, options } = request;
    let mut lines = log_source::lines(executor, states, tasks, &options);
    async_stream::stream! {
        let empty = v1::PublishLogsRequest {
            session_id: session,
            command_id: command,
            ..v1::PublishLogsRequest::default()
        };
        let mut reader = Reader { node, pieces: BTreeMap::new(), warnings: Vec::new() };
        while let Some(first) = lines.next().await {
            let mut message = empty.clone();
            let mut bytes = reader.add(&mut message, first);
            let gathered_by = tokio::time::Instant::now() + MAX_GATHER;
            while message.lines.len() < MAX_LINES && bytes < MAX_BYTES && tokio::time::Instant::now() < gathered_by {
                // Only what is there already.
                let Some(Some(next)) = futures::FutureExt::now_or_never(lines.next()) else { break };
                bytes += reader.add(&mut message, next);
            }
            if !message.lines.is_empty() {
                yield message;
            }
        }
        yield reader.end(empty);
    }
}

/// What is read, on its way into messages.
struct Reader {
    node: String,
    /// Beginnings of lines that came in pieces.
    pieces: BTreeMap<(TaskId, LogStream), v1::LogLine>,
    warnings: Vec<String>,
}

impl Reader {
    /// Adds a line, or a warning if it could not be read; how many bytes that are.
    fn add(&mut self, to: &mut v1::PublishLogsRequest, (task, line): Read) -> usize {
        let line = match line {
            Ok(line) => line,
            Err(e) => {
                self.warnings.push(format!("read logs of task {task}: {e}"));
                return 0;
            }
        };
        let (partial, key) = (line.partial, (task, line.stream));
        let whole = match self.pieces.remove(&key) {
            None => self.wire(task, line),
            Some(begun) => {
                let data = [begun.data, line.data].concat().into();
                v1::LogLine { data, ..begun }
            }
        };
        if partial && whole.data.len() < MAX_LINE_BYTES {
            self.pieces.insert(key, whole);
            return 0;
        }
        let bytes = whole.data.len();
        to.lines.push(whole);
        bytes
    }

    fn wire(&self, task: TaskId, line: LogLine) -> v1::LogLine {
        v1::LogLine {
            task_id: task.to_string(),
            node_id: self.node.clone(),
            at_ns: line.at.as_millis().saturating_mul(1_000_000),
            stderr: line.stream == LogStream::Stderr,
            data: line.data,
        }
    }

    /// The last message: lines that never ended, and what could not be read.
    fn end(self, empty: v1::PublishLogsRequest) -> v1::PublishLogsRequest {
        let lines = self.pieces.into_values().collect();
        v1::PublishLogsRequest { end: true, lines, warnings: self.warnings, ..empty }
    }
}

/// What the wire's options ask for. Neither stream named means both.
pub(crate) fn options(wire: Option<v1::LogOptions>) -> LogOptions {
    let wire = wire.unwrap_or(v1::LogOptions { tail: -1, ..v1::LogOptions::default() });
    let both = !wire.stdout && !wire.stderr;
    LogOptions {
        tail: u64::try_from(wire.tail).ok(),
        since: Timestamp(wire.since_ms),
        follow: wire.follow,
        stdout: wire.stdout || both,
        stderr: wire.stderr || both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::ExecError;

    #[test]
    fn pieces_become_lines() {
        let mut reader = Reader { node: "n".into(), pieces: BTreeMap::new(), warnings: vec![] };
        let mut message = v1::PublishLogsRequest::default();
        let piece = |stream, text: &str, partial| {
            let data = text.to_owned().into();
            ("t".into(), Ok(LogLine { at: Timestamp(5), stream, data, partial }))
        };
        use LogStream::{Stderr, Stdout};
        for read in [
            piece(Stdout, "a", true),
            piece(Stderr, "err", false),
            piece(Stdout, "b", true),
            piece(Stdout, "c", false),
            piece(Stdout, "rest", true),
            ("gone".into(), Err(ExecError::Fatal("damaged".into()))),
        ] {
            reader.add(&mut message, read);
        }
        let text = |m: &v1::PublishLogsRequest| -> Vec<_> {
            m.lines.iter().map(|l| (String::from_utf8_lossy(&l.data).into_owned(), l.stderr)).collect()
        };
        assert_eq!(text(&message), [("err".into(), true), ("abc".into(), false)]);
        assert_eq!(message.lines[0].at_ns, 5_000_000);
        let end = reader.end(v1::PublishLogsRequest::default());
        assert_eq!(text(&end), [("rest".into(), false)]);
        assert_eq!(end.warnings, ["read logs of task gone: damaged"]);
    }

    #[test]
    fn options_of_the_wire() {
        assert_eq!(options(None), LogOptions::default());
        let wire = v1::LogOptions { tail: 2, since_ms: 7, follow: true, stderr: true, ..Default::default() };
        let want =
            LogOptions { tail: Some(2), since: Timestamp(7), follow: true, stdout: false, stderr: true };
        assert_eq!(options(Some(wire)), want);
    }
}
