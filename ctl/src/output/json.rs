//! JSON as Docker prints it: one object a line, or indented by four.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Indented by four blanks.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).expect("a JSON value can be written to memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}
