//! Environment variables: `NAME=value`, or a bare `NAME` with the value that the client has.

/// What looks up the client's own variables.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The lines of an environment file (`path` is for messages) followed by `flags`; the later of two
/// with one name wins, so flags win over files. A bare name that the client does not have is left out.
pub(crate) fn merge(
    files: &[(String, String)],
    flags: &[String],
    own: Lookup<'_>,
) -> Result<Vec<String>, String> {
    let mut env = Vec::new();
    for (path, text) in files {
        for line in lines(path, text)? {
            put(&mut env, &line, own);
        }
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(format!("invalid environment variable: `{flag}`"));
        }
        put(&mut env, flag, own);
    }
    Ok(env)
}

/// Sets one variable: in its place if it is there already, else at the end.
pub(crate) fn put(env: &mut Vec<String>, text: &str, own: Lookup<'_>) {
    let entry = match text.contains('=') {
        true => text.to_owned(),
        false => match own(text) {
            Some(value) => format!("{text}={value}"),
            None => return,
        },
    };
    let name = name(&entry);
    match env.iter_mut().find(|e| self::name(e) == name) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// The part before `=`.
pub(crate) fn name(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

fn lines(path: &str, text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = name(line);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("{path}:{number}: `{line}` has no variable name before `=`"));
        }
        found.push(line.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn flags_win_over_files_and_bare_names_are_looked_up() {
        let file = ("f".to_owned(), "# comment\n\nA=1\nB=x y=z \nHOME\nNOPE\n".to_owned());
        let env = merge(&[file], &["A=2".into(), "HOME=/x".into(), "C=".into()], &own).unwrap();
        assert_eq!(env, ["A=2", "B=x y=z ", "HOME=/x", "C="]);
        assert_eq!(merge(&[], &["HOME".into(), "NOPE".into()], &own).unwrap(), ["HOME=/root"]);
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        let file = ("my.env".to_owned(), "A=1\nB C=2\n".to_owned());
        assert_eq!(
            merge(&[file], &[], &own).unwrap_err(),
            "my.env:2: `B C=2` has no variable name before `=`"
        );
        assert!(merge(&[], &["=x".into()], &own).is_err());
    }
}
