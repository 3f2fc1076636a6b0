//! [`Staged`]: an image archive taken apart on disk. Names within it are looked up in a map and never used as paths.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use tar::EntryType;

use super::beneath::components;
use super::compression::decoder;
use super::digest::{Digest, Hashing};
use super::error::{LoadError, StoreError};
use super::ingest::{Temp, read_small};
use super::store::private_dir;
use super::unpack::{Budgeted, HEADER_BYTES_MAX, Limits};

/// Manifests, indexes and configurations are a few KiB.
pub(crate) const JSON_MAX: u64 = 8 << 20;
const LINKS_MAX: u32 = 16;

/// A file of the archive, lying under a number of ours.
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// All files of an archive by their name in it.
pub(crate) struct Staged {
    files: BTreeMap<String, StagedFile>,
    /// Old `docker save` writes a layer once and links to it.
    links: BTreeMap<String, String>,
    dir: Temp,
}

impl Staged {
    /// Reads a whole archive, plain or packed, into the new directory `dir`. Blocks.
    pub(crate) fn read(reader: impl Read + Send, dir: Temp, limits: &Limits) -> Result<Staged, LoadError> {
        private_dir(&dir.0)?;
        let (_, plain) = decoder(reader).map_err(read_error)?;
        let budget = Rc::new(Cell::new(HEADER_BYTES_MAX));
        let inner = plain.take(limits.archive_bytes.saturating_add(1));
        let mut archive = tar::Archive::new(Budgeted { inner, budget: Rc::clone(&budget) });
        let mut staged = Staged { files: BTreeMap::new(), links: BTreeMap::new(), dir };
        let entries = archive.entries().map_err(read_error)?;
        let (mut count, mut total) = (0u64, 0u64);
        for entry in entries {
            let mut entry = entry.map_err(read_error)?;
            (count, total) = (count + 1, total.saturating_add(entry.size()));
            if count > limits.entries {
                return Err(LoadError::Limit { what: "entries", limit: limits.entries });
            }
            if total > limits.archive_bytes {
                return Err(LoadError::Limit { what: "bytes", limit: limits.archive_bytes });
            }
            budget.set(u64::MAX);
            staged.take(&mut entry, count)?;
            io::copy(&mut entry, &mut io::sink()).map_err(read_error)?;
            budget.set(HEADER_BYTES_MAX);
        }
        Ok(staged)
    }

    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, number: u64) -> Result<(), LoadError> {
        let Some(name) = plain_name(&entry.path_bytes()) else { return Ok(()) };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let path = self.dir.0.join(number.to_string());
                let file = stage(entry, path)?;
                self.links.remove(&name);
                self.files.insert(name, file);
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                if let Some(target) = beside(&name, &target) {
                    self.links.insert(name, target);
                }
            }
            EntryType::Link => {
                if let Some(target) = plain_name(&entry.link_name_bytes().unwrap_or_default()) {
                    self.links.insert(name, target);
                }
            }
            _ => {} // directories, and headers that only describe
        }
        Ok(())
    }

    /// The file called `name`.
    pub(crate) fn file(&self, name: &str) -> Result<&StagedFile, LoadError> {
        let missing = || LoadError::Missing { path: name.to_string() };
        let mut at = plain_name(name.as_bytes()).ok_or_else(missing)?;
        for _ in 0..LINKS_MAX {
            if let Some(file) = self.files.get(&at) {
                return Ok(file);
            }
            at = self.links.get(&at).ok_or_else(missing)?.clone();
        }
        Err(missing())
    }

    /// The file, which must be what its name promises if that ends in a digest: `blobs/sha256/<hex>`, `<hex>.json`.
    pub(crate) fn checked(&self, name: &str) -> Result<&StagedFile, LoadError> {
        let file = self.file(name)?;
        let last = name.rsplit('/').next().unwrap_or(name);
        let promised = Digest::from_hex(last.strip_suffix(".json").unwrap_or(last));
        if promised.is_some_and(|d| d != file.digest) {
            return Err(LoadError::Digest { path: name.to_string(), actual: file.digest.clone() });
        }
        Ok(file)
    }

    /// The blob with that digest, of an OCI layout.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<&StagedFile, LoadError> {
        self.checked(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// The bytes of a small file.
    pub(crate) fn bytes(&self, name: &str, file: &StagedFile) -> Result<Vec<u8>, LoadError> {
        let small = File::open(&file.path).and_then(|f| read_small(f, JSON_MAX)).map_err(read_error)?;
        small.ok_or_else(|| LoadError::TooLarge { path: name.to_string(), limit: JSON_MAX })
    }

    /// The JSON file called `name`; `None` if there is none.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LoadError> {
        let Ok(file) = self.file(name) else { return Ok(None) };
        let bytes = self.bytes(name, file)?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| LoadError::Json { path: name.to_string(), source })
    }
}

fn stage<R: Read>(entry: &mut tar::Entry<'_, R>, path: PathBuf) -> Result<StagedFile, LoadError> {
    let wanted = entry.size();
    let mut out = File::create(&path).map_err(StoreError::of("write archive to disk"))?;
    let mut hashing = Hashing::new(entry);
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let n = hashing.read(&mut buffer).map_err(read_error)?;
        if n == 0 {
            break;
        }
        io::Write::write_all(&mut out, &buffer[..n]).map_err(StoreError::of("write archive to disk"))?;
    }
    let (digest, size) = hashing.finish();
    if size != wanted {
        drop(fs::remove_file(&path)); // the directory goes in a moment anyway
        return Err(read_error(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(StagedFile { path, digest, size })
}

/// `./a//b` as `a/b`; `None` for what leads out, and for the root.
fn plain_name(name: &[u8]) -> Option<String> {
    let parts = components(name).ok()?;
    let parts: Option<Vec<&str>> = parts.iter().map(|p| p.to_str()).collect();
    parts.map(|p| p.join("/")).filter(|n| !n.is_empty())
}

/// Where a symbolic link at `name` leads within the archive.
fn beside(name: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let mut at: Vec<&str> = name.split('/').collect();
    at.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(at.pop()?),
            part => at.push(part),
        }
    }
    Some(at.join("/"))
}

fn read_error(source: io::Error) -> LoadError {
    LoadError::Read { source }
}
