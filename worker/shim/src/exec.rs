//! Which file to execute, and what to say if that fails: Docker's words and codes.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::record::StartFailure;

/// Docker's default search path.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment with what Docker adds where it is missing.
pub(crate) fn environment(given: &[String], hostname: &str, home: &str) -> Vec<String> {
    let mut env = Vec::with_capacity(given.len() + 3);
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)] {
        if value_of(given, name).is_none() {
            env.push(format!("{name}={value}"));
        }
    }
    env.extend(given.iter().cloned());
    if value_of(given, "HOME").is_none() {
        env.push(format!("HOME={home}"));
    }
    env
}

fn value_of<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Finds the program in the container's `$PATH`, with the rights of whoever runs it.
pub(crate) fn find(program: &str, env: &[String]) -> Result<String, StartFailure> {
    if program.contains('/') {
        return match usable(Path::new(program)) {
            Ok(()) => Ok(program.to_owned()),
            Err(e) if is_missing(&e) => {
                Err(failure(127, format!("exec: \"{program}\": stat {program}: {}", describe(&e))))
            }
            Err(e) => Err(failure(126, format!("exec: \"{program}\": {}", describe(&e)))),
        };
    }
    let mut denied = false;
    for dir in value_of(env, "PATH").unwrap_or_default().split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{program}");
        match usable(Path::new(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(e) => denied |= e.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    Err(if denied && !program.is_empty() {
        failure(126, format!("exec: \"{program}\": permission denied"))
    } else {
        failure(127, format!("exec: \"{program}\": executable file not found in $PATH"))
    })
}

fn usable(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn describe(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => reason(e),
    }
}

/// The cause in C's words, lower case, without the number.
pub(crate) fn reason(e: &io::Error) -> String {
    let text = match e.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => e.to_string(),
    };
    text.to_lowercase()
}

fn failure(code: i32, message: String) -> StartFailure {
    StartFailure { code, message, failed_at_ms: 0 }
}

/// Becomes the program. Returns only if that failed.
pub(crate) fn become_program(path: &str, args: &[String], env: &[String]) -> StartFailure {
    let c = |s: &String| CString::new(s.as_bytes());
    let strings = (
        CString::new(path),
        args.iter().map(c).collect::<Result<Vec<_>, _>>(),
        env.iter().map(c).collect::<Result<Vec<_>, _>>(),
    );
    let (Ok(path_c), Ok(args_c), Ok(env_c)) = strings else {
        return failure(125, "arguments and environment must not contain a zero byte".to_owned());
    };
    let Err(errno) = nix::unistd::execve(&path_c, &args_c, &env_c);
    let error = io::Error::from(errno);
    let code = if is_missing(&error) { 127 } else { 126 };
    failure(code, format!("exec {path}: {}", reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[&str]) -> Vec<String> {
        pairs.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn adds_only_what_is_missing() {
        let full = environment(&env(&["A=1"]), "box", "/root");
        assert_eq!(full, [&format!("PATH={DEFAULT_PATH}"), "HOSTNAME=box", "A=1", "HOME=/root"]);
        let given = env(&["PATH=/x", "HOME=/h", "HOSTNAME=me"]);
        assert_eq!(environment(&given, "box", "/root"), given);
    }

    #[test]
    fn says_what_docker_says() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = format!("PATH={}", dir.path().display());
        let text = |program: &str| {
            let failure = find(program, &env(&[&path])).expect_err("not there");
            (failure.code, failure.message)
        };
        assert_eq!(text("foo"), (127, "exec: \"foo\": executable file not found in $PATH".into()));
        assert_eq!(
            text("/no/foo"),
            (127, "exec: \"/no/foo\": stat /no/foo: no such file or directory".into())
        );
        assert_eq!(text("/etc/"), (126, "exec: \"/etc/\": is a directory".into()));
        std::fs::write(dir.path().join("foo"), "").expect("write");
        assert_eq!(text("foo"), (126, "exec: \"foo\": permission denied".into()));
    }

    #[test]
    fn finds_in_order() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("tool");
        std::fs::write(&file, "").expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let path = format!("PATH=/nowhere:{}", dir.path().display());
        assert_eq!(find("tool", &env(&[&path])), Ok(file.display().to_string()));
    }
}
