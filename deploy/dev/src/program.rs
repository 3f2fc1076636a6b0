//! Programs of the machine (`ip`, `nsenter`, `swarmctl`), run to their end under a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::SystemError;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Runs `command` and returns what it wrote on its standard output.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String, SystemError> {
    run(command, None, limit, &NEVER)
}

/// Runs `command` as [`output`] does, and ends it when `cancel` is set.
pub(crate) fn output_unless(
    cancel: &AtomicBool,
    command: &mut Command,
    limit: Duration,
) -> Result<String, SystemError> {
    run(command, None, limit, cancel)
}

/// Runs `command` with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str, limit: Duration) -> Result<String, SystemError> {
    run(command, Some(input), limit, &NEVER)
}

fn run(
    command: &mut Command,
    input: Option<&str>,
    limit: Duration,
    cancel: &AtomicBool,
) -> Result<String, SystemError> {
    let line = shown(command);
    let failed = |source| SystemError::Run { command: line.clone(), source };
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child =
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (out, err, ended) = std::thread::scope(|scope| {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        scope.spawn(move || {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // a program that ends early says why on its own error output
                stdin.write_all(input.as_bytes()).ok();
            }
        });
        let out = scope.spawn(move || text(stdout));
        let err = scope.spawn(move || text(stderr));
        let ended = wait(&mut child, limit, cancel);
        (out.join().unwrap_or_default(), err.join().unwrap_or_default(), ended)
    });
    match ended.map_err(failed)? {
        None => Err(SystemError::Slow { command: line, seconds: limit.as_secs() }),
        Some(true) => Ok(out),
        Some(false) => {
            let said = if err.trim().is_empty() { out } else { err };
            Err(SystemError::Failed { command: line, output: said.trim().to_owned() })
        }
    }
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // what arrived before an error is still worth showing
        pipe.read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end; `None` if it had to be killed. `Some(true)` is success.
fn wait(child: &mut Child, limit: Duration, cancel: &AtomicBool) -> std::io::Result<Option<bool>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= end || cancel.load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy);
    let mut line = words.collect::<Vec<_>>().join(" ");
    // a join token is a secret and has no place in an error
    if let Some(at) = line.find("SWMTKN-") {
        let end = line[at..].find(' ').map_or(line.len(), |length| at + length);
        line.replace_range(at..end, "SWMTKN-…");
    }
    line
}

/// Finds a program as the shell would, and in the system directories a user's PATH may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command of the machine, found even when PATH lacks the system directories.
pub(crate) fn system(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_a_program_said() {
        let limit = Duration::from_secs(10);
        assert_eq!(output(Command::new("echo").arg("hi"), limit).unwrap(), "hi\n");
        assert_eq!(feed(&mut Command::new("cat"), "in", limit).unwrap(), "in");
        let failed = output(Command::new("sh").args(["-c", "echo no >&2; exit 3"]), limit).unwrap_err();
        assert_eq!(failed.to_string(), "run `sh -c echo no >&2; exit 3`: no");
    }

    #[test]
    fn ends_what_hangs() {
        let slow = output(Command::new("sleep").arg("60"), Duration::from_millis(20)).unwrap_err();
        assert!(matches!(slow, SystemError::Slow { .. }));
    }

    #[test]
    fn hides_a_token() {
        let mut command = Command::new("/x/swarmctl");
        command.args(["join", "--token", "SWMTKN-1-abc", "10.0.0.1:2377"]);
        assert_eq!(shown(&command), "swarmctl join --token SWMTKN-… 10.0.0.1:2377");
    }
}
