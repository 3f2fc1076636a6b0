//! [`Place`]: where an entry of a layer goes and what it shall look like: owner, mode, times, extended attributes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use tar::Entry;

use super::{UnpackError, create_error, is_kind, read_error};
use crate::image::beneath::{Components, through};

/// Where an entry goes and what it shall look like.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) parent: Components,
    pub(super) file: OsString,
    pub(super) mode: u32,
    pub(super) owner: (Uid, Gid),
    pub(super) time: TimeSpec,
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
}

pub(super) fn place<R: Read>(
    entry: &mut Entry<'_, R>,
    name: String,
    parent: Components,
    file: OsString,
) -> Result<Place, UnpackError> {
    let (mut time, mut xattrs) = (None, Vec::new());
    if let Some(records) = entry.pax_extensions().map_err(read_error)? {
        for record in records.flatten() {
            match record.key_bytes() {
                b"mtime" => time = pax_time(record.value_bytes()),
                key => {
                    if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                        xattrs.push((
                            OsStr::from_bytes(attribute).to_os_string(),
                            record.value_bytes().to_vec(),
                        ));
                    }
                }
            }
        }
    }
    let header = entry.header();
    let seconds = i64::try_from(header.mtime().map_err(read_error)?).unwrap_or(0);
    let id = |raw: io::Result<u64>| raw.map_err(read_error).map(|n| u32::try_from(n).unwrap_or(0));
    Ok(Place {
        name,
        parent,
        file,
        mode: header.mode().map_err(read_error)? & 0o7777,
        owner: (Uid::from_raw(id(header.uid())?), Gid::from_raw(id(header.gid())?)),
        time: time.unwrap_or_else(|| TimeSpec::new(seconds, 0)),
        xattrs,
    })
}

/// `1700000000.123456789`, possibly negative.
pub(super) fn pax_time(text: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some(TimeSpec::new(seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some(TimeSpec::new(seconds, nanos)),
    }
}

/// Owner first: changing it clears the set-user-id bits and capabilities that come after.
pub(super) fn dress_path(dir: &OwnedFd, place: &Place) -> Result<(), UnpackError> {
    let fail = |e: Errno| create_error(&place.name, e);
    let (uid, gid) = place.owner;
    fchownat(dir, place.file.as_os_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(fail)?;
    let stat = fstatat(dir, place.file.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(fail)?;
    if !is_kind(&stat, SFlag::S_IFLNK) {
        set_mode(dir, place, &stat)?;
    }
    let path = through(dir, &place.file);
    for (key, value) in &place.xattrs {
        // an image may not speak to overlayfs in its own words
        let key_bytes = key.as_bytes();
        if key_bytes.starts_with(b"trusted.overlay.") || key_bytes.starts_with(b"user.overlay.") {
            continue;
        }
        match xattr::set(&path, key, value) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => {}
            other => other.map_err(|source| UnpackError::Create { entry: place.name.clone(), source })?,
        }
    }
    Ok(())
}

/// `chmod` follows links; the file was made by us a moment ago in a directory that nobody else can reach, and is no link.
fn set_mode(dir: &OwnedFd, place: &Place, stat: &FileStat) -> Result<(), UnpackError> {
    let mode = Mode::from_bits_truncate(place.mode);
    let fail = |e: Errno| create_error(&place.name, e);
    if is_kind(stat, SFlag::S_IFREG) {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(dir, place.file.as_os_str(), flags, Mode::empty()).map_err(fail)?;
        return fchmod(&fd, mode).map_err(fail);
    }
    let path = through(dir, &place.file);
    fchmodat(AT_FDCWD, &path, mode, FchmodatFlags::FollowSymlink).map_err(fail)
}

pub(super) fn set_time(dir: &OwnedFd, place: &Place) -> Result<(), UnpackError> {
    utimensat(dir, place.file.as_os_str(), &place.time, &place.time, UtimensatFlags::NoFollowSymlink)
        .map_err(|e| create_error(&place.name, e))
}
