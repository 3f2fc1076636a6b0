//! What a command printed, and command lines.

use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// 124: it was still going on when its time was over.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}\nout: {}\nerr: {}", self.code, self.out, self.err)
    }
}

/// Runs a command to its end, or to the end of its time.
pub(super) fn run(mut command: Command, limit: Duration) -> Said {
    use std::os::unix::process::ExitStatusExt;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run a command");
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    std::thread::scope(|scope| {
        let out = scope.spawn(|| read(&mut pipes.0));
        let err = scope.spawn(|| read(&mut pipes.1));
        let mut status = None;
        let ended = super::poll(limit, || {
            status = child.try_wait().expect("wait for a command");
            status.is_some()
        });
        if !ended {
            child.kill().ok();
            child.wait().ok();
        }
        let code = status.map_or(124, |s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0)));
        Said { code, out: out.join().unwrap(), err: err.join().unwrap() }
    })
}

/// Splits at blanks; 'single quotes' keep blanks.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_blanks() {
        assert_eq!(words(" a  'b c'd '' "), ["a", "b cd", ""]);
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("100");
        assert_eq!(run(command, Duration::from_millis(50)).code, 124);
    }
}
