//! Answers → text. Pure but for this file, which alone writes to the terminal.
#![allow(clippy::print_stdout)]

pub(crate) mod endpoint;
pub(crate) mod human;
pub(crate) mod inspect;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod pretty;
pub(crate) mod table;
pub(crate) mod template;

use std::io::{IsTerminal, Write};

/// Writes to standard output. If its reader has gone (`| head`), there is nothing more to do.
pub(crate) fn text(text: &str) {
    bytes(text.as_bytes());
}

/// As [`text`], with a newline.
pub(crate) fn line(line: &str) {
    bytes(format!("{line}\n").as_bytes());
}

/// As [`text`], for what need not be UTF-8.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line to standard error; there is nobody to tell if that fails.
pub(crate) fn note(line: &str) {
    let mut err = std::io::stderr().lock();
    let _told = writeln!(err, "{line}").is_ok();
}

/// Tells a failure.
pub(crate) fn error(text: &str) {
    note(&format!("Error: {text}"));
}

/// Tells warnings.
pub(crate) fn warnings(texts: &[String]) {
    for text in texts {
        note(&format!("Warning: {text}"));
    }
}

/// A person is looking at standard output.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Raw bytes to standard error.
pub(crate) fn error_bytes(bytes: &[u8]) {
    let mut err = std::io::stderr().lock();
    let _told = err.write_all(bytes).is_ok();
}
