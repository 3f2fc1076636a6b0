//! Walking below a directory without ever leaving it: every step is an `openat` that refuses symbolic links.
//!
//! A name read from an archive is only ever used one component at a time, relative to a directory that was reached the same
//! way. So neither `..` nor a link that the archive itself planted can lead outside, and no check can be raced.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};

/// Names below a root, none of them empty, `.` or `..`.
pub(crate) type Components = Vec<OsString>;

/// Why a name cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// It has a `..` in it.
    DotDot,
    /// It has a NUL in it, or a component longer than a file system takes.
    Malformed,
}

/// Splits an archive's name; a leading `/` means the root of the archive.
pub(crate) fn components(name: &[u8]) -> Result<Components, Outside> {
    let mut out = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Outside::DotDot),
            _ if part.contains(&0) || part.len() > 255 => return Err(Outside::Malformed),
            _ => out.push(OsStr::from_bytes(part).to_os_string()),
        }
    }
    Ok(out)
}

/// A directory below which everything happens. Remembers the last directory walked to.
pub(crate) struct Root {
    fd: OwnedFd,
    last: Option<(Components, OwnedFd)>,
}

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Root, Errno> {
        Ok(Root { fd: open(path, DIRECTORY, Mode::empty())?, last: None })
    }

    /// The directory at `parts`. `ENOTDIR` if something on the way is a link or no directory.
    pub(crate) fn directory(&mut self, parts: &[OsString], create: bool) -> Result<&OwnedFd, Errno> {
        if parts.is_empty() {
            return Ok(&self.fd);
        }
        let known = self.last.as_ref().is_some_and(|(at, _)| at == parts);
        if !known {
            let fd = self.walk(parts, create)?;
            self.last = Some((parts.to_vec(), fd));
        }
        Ok(&self.last.as_ref().expect("set just above").1)
    }

    fn walk(&self, parts: &[OsString], create: bool) -> Result<OwnedFd, Errno> {
        let mut at = self.fd.try_clone().map_err(|_| Errno::EMFILE)?;
        for part in parts {
            at = match openat(&at, part.as_os_str(), DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) if create => {
                    mkdirat(&at, part.as_os_str(), Mode::from_bits_truncate(0o755))?;
                    openat(&at, part.as_os_str(), DIRECTORY, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    /// Must be called when a directory may have been removed or replaced.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// A path to `name` within an open directory, for calls that take only paths. The link in `/proc` is the kernel's own and leads to
/// exactly that directory; callers use calls that do not follow `name` itself.
pub(crate) fn through(dir: impl AsFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_safely() {
        assert_eq!(components(b"/etc//./passwd").unwrap(), ["etc", "passwd"]);
        assert!(components(b"./").unwrap().is_empty());
        assert_eq!(components(b"a/../../b"), Err(Outside::DotDot));
        assert_eq!(components(b"a\0b"), Err(Outside::Malformed));
        assert_eq!(components(&[b'a'; 256]), Err(Outside::Malformed));
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let mut root = Root::open(dir.path()).unwrap();
        assert_eq!(root.directory(&["link".into()], true).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(root.directory(&["new".into()], false).unwrap_err(), Errno::ENOENT);
        assert!(root.directory(&["new".into(), "deep".into()], true).is_ok());
        assert!(dir.path().join("new/deep").is_dir());
    }
}
