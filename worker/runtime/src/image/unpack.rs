//! Makes a directory of a layer: the tar of a layer becomes a tree that overlayfs can use as a lower directory.
//!
//! Source of the semantics: OCI image-spec v1 `layer.md`; kernel `overlayfs.rst` for how a whiteout looks on disk
//! (a character device 0:0, and `trusted.overlay.opaque=y` on a directory that hides everything below).

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use tar::{Entry, EntryType};

use super::beneath::{Components, Outside, Root, components, through};
use super::compression::decoder;
use super::digest::{Digest, Hashing};

mod place;

use place::{Place, dress_path, place, set_time};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Headers, long names and extended attributes of one entry may take so much memory.
pub(crate) const HEADER_BYTES_MAX: u64 = 4 << 20;

/// What a layer may at most be, against archives made to fill a disk.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Unpacked bytes of one layer.
    pub layer_bytes: u64,
    /// Entries of one layer, or of one archive.
    pub entries: u64,
    /// Bytes of one whole archive, unpacked once.
    pub archive_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { layer_bytes: 64 << 30, entries: 4_000_000, archive_bytes: 256 << 30 }
    }
}

/// Why a layer was not unpacked. Names the entry.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry's name leads out of the layer.
    #[error("refuse entry `{entry}`: it leads out of the layer")]
    Outside { entry: String },
    /// An entry lies behind a symbolic link, or below something that is no directory.
    #[error("refuse entry `{entry}`: its path goes through a link or a file")]
    ThroughLink { entry: String },
    /// A hard link to something that is not in this layer, or outside it.
    #[error("refuse hard link `{entry}`: its target `{target}` is not a file of this layer")]
    HardLink { entry: String, target: String },
    /// A kind of entry that no layer has.
    #[error("refuse entry `{entry}`: unknown kind {kind:#04x}")]
    Kind { entry: String, kind: u8 },
    /// A whiteout of nothing.
    #[error("refuse whiteout `{entry}`: it names nothing")]
    Whiteout { entry: String },
    /// Larger than allowed.
    #[error("refuse layer: more than {limit} {what}")]
    TooLarge { what: &'static str, limit: u64 },
    /// The stream is no tar, or it is damaged or cut off.
    #[error("read layer")]
    Read {
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("create `{entry}`")]
    Create {
        entry: String,
        #[source]
        source: io::Error,
    },
    /// The unpacked bytes are not those that the configuration names.
    #[error("layer has diff id {actual}, want {wanted}")]
    DiffId { wanted: Digest, actual: Digest },
}

impl UnpackError {
    /// True if the disk is full or over quota: the same layer may do later.
    pub fn is_disk_full(&self) -> bool {
        match self {
            UnpackError::Create { source, .. } | UnpackError::Read { source } => is_disk_full(source),
            _ => false,
        }
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Unpacks `packed` (plain, gzip or zstd) into the empty directory `target`, and refuses it if its diff id is not `wanted`.
/// Gives the size of the unpacked stream in bytes. Blocks; what is in `target` after an error is the caller's to remove.
pub fn unpack_layer(
    packed: impl Read + Send,
    target: &Path,
    wanted: &Digest,
    limits: &Limits,
) -> Result<u64, UnpackError> {
    let (_, plain) = decoder(packed).map_err(read_error)?;
    let budget = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let hashing = Hashing::new(plain.take(limits.layer_bytes.saturating_add(1)));
    let mut archive = tar::Archive::new(Budgeted { inner: hashing, budget: Rc::clone(&budget) });
    let root = Root::open(target).map_err(|e| create_error("/", e))?;
    let mut layer = Layer { root, directories: Vec::new(), entries: 0, limits: *limits };
    layer.unpack_all(&mut archive, &budget)?;
    layer.finish_directories()?;
    // the padding after the last entry belongs to the diff id
    budget.set(u64::MAX);
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(read_error)?;
    let (actual, size) = rest.inner.finish();
    if size > limits.layer_bytes {
        return Err(UnpackError::TooLarge { what: "bytes", limit: limits.layer_bytes });
    }
    if actual != *wanted {
        return Err(UnpackError::DiffId { wanted: wanted.clone(), actual });
    }
    Ok(size)
}

/// Fails when more is read between two entries than their headers may take: the `tar` crate reads those into memory.
pub(crate) struct Budgeted<R> {
    pub(crate) inner: R,
    pub(crate) budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let left = self.budget.get().checked_sub(n as u64);
        self.budget.set(left.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "headers of one entry are too large")
        })?);
        Ok(n)
    }
}

struct Layer {
    root: Root,
    /// Their times are set last, for creating something in them changes them.
    directories: Vec<(Components, TimeSpec)>,
    entries: u64,
    limits: Limits,
}

impl Layer {
    fn unpack_all<R: Read>(
        &mut self,
        archive: &mut tar::Archive<R>,
        budget: &Cell<u64>,
    ) -> Result<(), UnpackError> {
        let mut entries = archive.entries().map_err(read_error)?;
        loop {
            budget.set(HEADER_BYTES_MAX);
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry.map_err(read_error)?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(UnpackError::TooLarge { what: "entries", limit: self.limits.entries });
            }
            if entry.size() > self.limits.layer_bytes {
                return Err(UnpackError::TooLarge { what: "bytes", limit: self.limits.layer_bytes });
            }
            budget.set(u64::MAX);
            self.unpack_entry(&mut entry)?;
            // whatever the kind, its content is read here and not between entries
            io::copy(&mut entry, &mut io::sink()).map_err(read_error)?;
        }
    }

    fn unpack_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let parts = components(&entry.path_bytes()).map_err(|e| outside(e, &name))?;
        let Some((file, parent)) = parts.split_last() else {
            return self.root_entry(entry, name);
        };
        if file.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&name, parent, file.as_bytes());
        }
        let place = place(entry, name, parent.to_vec(), file.clone())?;
        match kind {
            EntryType::Directory => self.directory(place),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.regular(entry, &place),
            EntryType::Link => self.hard_link(entry, &place),
            EntryType::Symlink => self.symlink(entry, &place),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.node(entry, kind, &place),
            other => Err(UnpackError::Kind { entry: place.name, kind: other.as_byte() }),
        }
    }

    /// The layer's own root: `./`.
    fn root_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, name: String) -> Result<(), UnpackError> {
        if entry.header().entry_type() != EntryType::Directory {
            return Err(UnpackError::Outside { entry: name });
        }
        let place = place(entry, name, Vec::new(), OsString::from("."))?;
        let dir = self.parent(&place)?;
        dress_path(dir, &place)?;
        self.directories.push((Vec::new(), place.time));
        Ok(())
    }

    fn directory(&mut self, place: Place) -> Result<(), UnpackError> {
        let there = self.existing(&place)?;
        let dir = self.parent(&place)?;
        if !there.is_some_and(|s| is_kind(&s, SFlag::S_IFDIR)) {
            let hides = there.is_some_and(|s| is_kind(&s, SFlag::S_IFCHR) && s.st_rdev == 0);
            self.clear(&place, there)?;
            let dir = self.parent(&place)?;
            mkdirat(dir, place.file.as_os_str(), Mode::from_bits_truncate(0o700))
                .map_err(|e| create_error(&place.name, e))?;
            if hides {
                make_opaque(&through(dir, &place.file), &place.name)?;
            }
            dress_path(dir, &place)?;
        } else {
            dress_path(dir, &place)?;
        }
        let mut parts = place.parent;
        parts.push(place.file);
        self.directories.push((parts, place.time));
        Ok(())
    }

    fn regular<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<(), UnpackError> {
        let there = self.existing(place)?;
        self.clear(place, there)?;
        let dir = self.parent(place)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(dir, place.file.as_os_str(), flags, Mode::from_bits_truncate(0o600))
            .map_err(|e| create_error(&place.name, e))?;
        copy_content(entry, &mut File::from(fd), &place.name)?;
        dress_path(dir, place)?;
        set_time(dir, place)
    }

    /// The target is walked to as everything else is, and must already be there.
    fn hard_link<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<(), UnpackError> {
        let link = entry.link_name_bytes().unwrap_or_default();
        let refused = || UnpackError::HardLink {
            entry: place.name.clone(),
            target: String::from_utf8_lossy(&link).into_owned(),
        };
        let parts = components(&link).map_err(|_| refused())?;
        let (target, target_parent) = parts.split_last().ok_or_else(refused)?;
        if target_parent == place.parent.as_slice() && *target == place.file {
            return Err(refused());
        }
        let from = self
            .root
            .directory(target_parent, false)
            .and_then(|fd| fd.try_clone().map_err(|_| Errno::EMFILE));
        let from = from.map_err(|_| refused())?;
        let there =
            fstatat(&from, target.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|_| refused())?;
        if is_kind(&there, SFlag::S_IFDIR) {
            return Err(refused());
        }
        let old = self.existing(place)?;
        self.clear(place, old)?;
        let dir = self.parent(place)?;
        linkat(&from, target.as_os_str(), dir, place.file.as_os_str(), AtFlags::empty())
            .map_err(|e| create_error(&place.name, e))
    }

    fn symlink<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<(), UnpackError> {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        let there = self.existing(place)?;
        self.clear(place, there)?;
        let dir = self.parent(place)?;
        symlinkat(OsStr::from_bytes(&target), dir, place.file.as_os_str())
            .map_err(|e| create_error(&place.name, e))?;
        dress_path(dir, place)?;
        set_time(dir, place)
    }

    fn node<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        place: &Place,
    ) -> Result<(), UnpackError> {
        // archives with blank device fields are common and mean zero
        let number = |field: io::Result<Option<u32>>| u64::from(field.ok().flatten().unwrap_or(0));
        let device = makedev(number(entry.header().device_major()), number(entry.header().device_minor()));
        let (flag, device) = match kind {
            EntryType::Char => (SFlag::S_IFCHR, device),
            EntryType::Block => (SFlag::S_IFBLK, device),
            _ => (SFlag::S_IFIFO, 0),
        };
        let there = self.existing(place)?;
        self.clear(place, there)?;
        let dir = self.parent(place)?;
        mknodat(dir, place.file.as_os_str(), flag, Mode::from_bits_truncate(0o600), device)
            .map_err(|e| create_error(&place.name, e))?;
        dress_path(dir, place)?;
        set_time(dir, place)
    }

    /// `.wh.x` hides `x` of the layers below; `.wh..wh..opq` hides all of the directory's lower content.
    fn whiteout(&mut self, name: &str, parent: &[OsString], file: &[u8]) -> Result<(), UnpackError> {
        let dir = self.root.directory(parent, true).map_err(|e| walk_error(name, e))?;
        if file == OPAQUE {
            return make_opaque(&through(dir, OsStr::new(".")), name);
        }
        if file.starts_with(AUFS) {
            return Ok(()); // bookkeeping of a file system that is gone
        }
        let hidden = OsStr::from_bytes(&file[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout { entry: name.to_string() });
        }
        match fstatat(dir, hidden, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // this layer's own directory stays, and hides the one below
            Ok(there) if is_kind(&there, SFlag::S_IFDIR) => make_opaque(&through(dir, hidden), name),
            Ok(_) => Ok(()), // this layer's own file hides the one below anyway
            Err(Errno::ENOENT) => {
                mknodat(dir, hidden, SFlag::S_IFCHR, Mode::empty(), 0).map_err(|e| create_error(name, e))
            }
            Err(e) => Err(create_error(name, e)),
        }
    }

    fn parent(&mut self, place: &Place) -> Result<&OwnedFd, UnpackError> {
        self.root.directory(&place.parent, true).map_err(|e| walk_error(&place.name, e))
    }

    fn existing(&mut self, place: &Place) -> Result<Option<FileStat>, UnpackError> {
        let dir = self.parent(place)?;
        match fstatat(dir, place.file.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(create_error(&place.name, e)),
        }
    }

    /// A later entry replaces an earlier one of the same name.
    fn clear(&mut self, place: &Place, there: Option<FileStat>) -> Result<(), UnpackError> {
        let Some(stat) = there else { return Ok(()) };
        let path = through(self.parent(place)?, &place.file);
        let done = if is_kind(&stat, SFlag::S_IFDIR) {
            let mut gone = place.parent.clone();
            gone.push(place.file.clone());
            self.directories.retain(|(at, _)| !at.starts_with(&gone));
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if is_kind(&stat, SFlag::S_IFDIR) {
            self.root.forget();
        }
        done.map_err(|source| UnpackError::Create { entry: place.name.clone(), source })
    }

    fn finish_directories(&mut self) -> Result<(), UnpackError> {
        for (parts, time) in std::mem::take(&mut self.directories).iter().rev() {
            let shown = parts.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join("/");
            let dir = self.root.directory(parts, false).map_err(|e| walk_error(&shown, e))?;
            utimensat(dir, ".", time, time, UtimensatFlags::NoFollowSymlink)
                .map_err(|e| create_error(&shown, e))?;
        }
        Ok(())
    }
}

fn copy_content<R: Read>(entry: &mut Entry<'_, R>, file: &mut File, name: &str) -> Result<(), UnpackError> {
    let mut buffer = [0u8; 64 * 1024];
    let mut left = entry.size();
    loop {
        let n = entry.read(&mut buffer).map_err(read_error)?;
        if n == 0 {
            break;
        }
        left = left.saturating_sub(n as u64);
        io::Write::write_all(file, &buffer[..n])
            .map_err(|source| UnpackError::Create { entry: name.to_string(), source })?;
    }
    if left > 0 && entry.header().entry_type() != EntryType::GNUSparse {
        return Err(UnpackError::Read { source: io::ErrorKind::UnexpectedEof.into() });
    }
    Ok(())
}

fn make_opaque(path: &Path, name: &str) -> Result<(), UnpackError> {
    xattr::set(path, OPAQUE_XATTR, b"y")
        .map_err(|source| UnpackError::Create { entry: name.to_string(), source })
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

fn outside(_: Outside, name: &str) -> UnpackError {
    UnpackError::Outside { entry: name.to_string() }
}

fn walk_error(name: &str, error: Errno) -> UnpackError {
    match error {
        Errno::ENOTDIR | Errno::ELOOP => UnpackError::ThroughLink { entry: name.to_string() },
        other => create_error(name, other),
    }
}

fn create_error(name: &str, error: Errno) -> UnpackError {
    UnpackError::Create { entry: name.to_string(), source: io::Error::from(error) }
}

fn read_error(source: io::Error) -> UnpackError {
    UnpackError::Read { source }
}

#[cfg(test)]
mod tests;
