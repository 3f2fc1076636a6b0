//! The consensus library's log lines, forwarded to `tracing` at debug.

use std::fmt::Write;

/// A logger for the library.
pub(super) fn to_tracing() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

struct Line(String);

/// The values that are printed. The library's messages, entries and snapshots are not: users' data
/// and the cluster's secrets are in them.
const HARMLESS: [&str; 12] = [
    "raft_id",
    "from",
    "to",
    "term",
    "index",
    "msg type",
    "message_term",
    "timeout",
    "commit",
    "snapshot_index",
    "snapshot_term",
    "reject_hint_index",
];

impl slog::Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        if !HARMLESS.contains(&key) {
            return Ok(());
        }
        write!(self.0, " {key}={value}").map_err(|_| slog::Error::Other)
    }
}

impl slog::Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        use slog::KV;
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return Ok(());
        }
        let mut line = Line(record.msg().to_string());
        // A value that cannot be printed is left out of a debug line.
        let _printed = values.serialize(record, &mut line);
        let _printed = record.kv().serialize(record, &mut line);
        tracing::debug!(raft.message = line.0, "consensus library");
        Ok(())
    }
}
