//! The log of the tunnel's process: lines on standard error.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock;

/// Takes what this process says from here on.
pub(super) fn install() {
    // An error: there is one already, and it is this one.
    let _first = tracing::subscriber::set_global_default(Lines);
}

struct Lines;

impl Subscriber for Lines {
    /// The library below talks of what is ours to handle (see `docs/adr`, number 10).
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("swarm_")
    }

    fn event(&self, event: &Event<'_>) {
        let line = line(clock::now_ms(), *event.metadata().level(), |fields| event.record(fields));
        // Nobody could be told that it cannot be written.
        let _written = std::io::stderr().write_all(line.as_bytes());
    }

    // There are no spans here.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn line(now_ms: u64, level: Level, record: impl FnOnce(&mut Fields)) -> String {
    let mut fields = Fields::default();
    record(&mut fields);
    let (seconds, thousandths) = (now_ms / 1000, now_ms % 1000);
    format!("{seconds}.{thousandths:03} {level} {}{}\n", fields.message, fields.others)
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_message_and_fields() {
        let shown = line(1_700_000_000_042, Level::WARN, |fields| {
            fields.message.push_str("it rains");
            fields.others.push_str(" where=\"here\"");
        });
        assert_eq!(shown, "1700000000.042 WARN it rains where=\"here\"\n");
    }
}
