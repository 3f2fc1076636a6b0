//! Settings below `/proc/sys/net`, which are those of the namespace that the thread is in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::namespace::enter;

const FOLDER: &str = "/proc/sys/net";

/// A setting that is not as wanted, and what it is; none: there is no such setting (yet).
pub(crate) type Different = (String, Option<String>);

fn path(key: &str) -> io::Result<PathBuf> {
    let inside = Path::new(key).components().all(|part| matches!(part, Component::Normal(_)));
    if inside { Ok(Path::new(FOLDER).join(key)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The settings that are not as wanted.
pub(crate) fn differences(
    namespace: &File,
    home: &File,
    wanted: &BTreeMap<String, String>,
) -> io::Result<Vec<Different>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    enter(namespace)?;
    let look = |(key, value): (&String, &String)| {
        let there = path(key).and_then(fs::read_to_string).ok();
        let same = there.as_ref().is_some_and(|there| words(there) == words(value));
        (!same).then(|| (key.clone(), there.map(|there| there.trim().to_owned())))
    };
    let different = wanted.iter().filter_map(look).collect();
    enter(home)?;
    Ok(different)
}

/// Writes those settings that are not as wanted; says which could not be written. How many were.
pub(crate) fn apply(
    namespace: &File,
    home: &File,
    wanted: &BTreeMap<String, String>,
) -> io::Result<(usize, Vec<(String, io::Error)>)> {
    if wanted.is_empty() {
        return Ok((0, Vec::new()));
    }
    enter(namespace)?;
    let (mut written, mut failed) = (0, Vec::new());
    for (key, value) in wanted {
        let write = || {
            let path = path(key)?;
            if fs::read_to_string(&path).is_ok_and(|there| words(&there) == words(value)) {
                return Ok(0);
            }
            fs::write(&path, value).map(|()| 1)
        };
        match write() {
            Ok(count) => written += count,
            Err(err) => failed.push((key.clone(), err)),
        }
    }
    enter(home)?;
    Ok((written, failed))
}
