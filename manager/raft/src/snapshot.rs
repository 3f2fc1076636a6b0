//! Snapshots on disk: encrypted, in records of 1 MiB, complete or not there at all.
//!
//! Written to a temporary file, synced, renamed, the directory synced. Read as a stream that
//! verifies each record before it gives out a byte of it, and the end as an end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::log::sync_dir;
use crate::members::Members;
use crate::seal::{DataKey, FileSalt, Sealer, TAG, new_salt};

/// Content of one record, in bytes.
pub const CHUNK: usize = 1 << 20;
const MAGIC: &[u8; 8] = b"SWRAFTS\n";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const PURPOSE: &[u8] = b"raft snapshot";
const MORE: u8 = 1;
const LAST: u8 = 2;

/// What a snapshot stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// It holds the effect of all entries up to this one; 0 for "no snapshot".
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The members as of that entry.
    pub members: Members,
}

impl SnapshotMeta {
    fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        e.u64(self.index).u64(self.term).bytes(&self.members.encode());
        e.finish()
    }

    fn decode(data: Vec<u8>) -> Result<Self, Malformed> {
        let mut d = Decoder::new(Bytes::from(data));
        let (index, term) = (d.u64()?, d.u64()?);
        let members = Members::decode(d.bytes()?)?;
        d.end()?;
        Ok(Self { index, term, members })
    }
}

/// Why a snapshot cannot be written or found.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused.
    #[error("the snapshot cannot be kept: {path}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not verify.
    #[error("the snapshot is damaged: {file}: {what}")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The snapshots of one manager.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    key: DataKey,
}

impl Snapshots {
    /// Opens the directory, which is made if missing, and removes what was never completed.
    pub fn open(dir: &Path, key: &DataKey) -> Result<Self, SnapshotError> {
        let io_error = |source| SnapshotError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io_error)?;
        for entry in fs::read_dir(dir).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(&path).map_err(|source| SnapshotError::Io { path, source })?;
            }
        }
        Ok(Self { dir: dir.to_owned(), key: key.clone() })
    }

    /// Begins a snapshot. Nothing is there until [`Snapshots::install`].
    pub fn create(&self, meta: &SnapshotMeta) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(&self.dir, &self.key, meta)
    }

    /// Makes a finished snapshot the newest one.
    pub fn install(&self, written: Written) -> Result<(), SnapshotError> {
        let to = self.path(&written.meta);
        fs::rename(&written.temp.0, &to)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|source| SnapshotError::Io { path: to, source })
    }

    /// Opens the newest snapshot; none if there never was one.
    pub fn newest(&self) -> Result<Option<SnapshotReader>, SnapshotError> {
        match self.list()?.last() {
            Some((_, _, path)) => SnapshotReader::open(path, &self.key).map(Some),
            None => Ok(None),
        }
    }

    /// Removes all but the newest and `old` ones before it.
    pub fn prune(&self, old: usize) -> Result<(), SnapshotError> {
        let mut all = self.list()?;
        all.pop();
        for (_, _, path) in all.iter().rev().skip(old) {
            fs::remove_file(path).map_err(|source| SnapshotError::Io { path: path.clone(), source })?;
        }
        Ok(())
    }

    fn path(&self, meta: &SnapshotMeta) -> PathBuf {
        self.dir.join(format!("{:016x}-{:016x}.snap", meta.index, meta.term))
    }

    fn list(&self) -> Result<Vec<(u64, u64, PathBuf)>, SnapshotError> {
        let io_error = |source| SnapshotError::Io { path: self.dir.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let parsed = name.as_deref().and_then(|n| n.strip_suffix(".snap")).and_then(|n| {
                let (index, term) = n.split_once('-')?;
                Some((u64::from_str_radix(index, 16).ok()?, u64::from_str_radix(term, 16).ok()?))
            });
            if let Some((index, term)) = parsed {
                all.push((index, term, path));
            }
        }
        all.sort();
        Ok(all)
    }
}

/// A temporary file that goes with its owner unless it was renamed.
#[derive(Debug)]
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // Gone already if it was renamed; if not, the next start removes it.
        let _gone = fs::remove_file(&self.0);
    }
}

/// A complete, durable snapshot that is not in place yet.
#[derive(Debug)]
pub struct Written {
    temp: Temp,
    meta: SnapshotMeta,
}

impl Written {
    /// What it stands for.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }
}

/// Writes a snapshot. Dropped before [`SnapshotWriter::finish`], it leaves nothing.
pub struct SnapshotWriter {
    file: BufWriter<File>,
    temp: Temp,
    meta: SnapshotMeta,
    sealer: Sealer,
    number: u64,
    pending: Vec<u8>,
}

fn place(number: u64, kind: u8) -> [u8; 9] {
    let mut out = [kind; 9];
    out[..8].copy_from_slice(&number.to_be_bytes());
    out
}

fn file_header(salt: &FileSalt) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[..8].copy_from_slice(MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_be_bytes());
    h[12..28].copy_from_slice(salt);
    let crc = crc32fast::hash(&h[..28]);
    h[28..32].copy_from_slice(&crc.to_be_bytes());
    h
}

impl SnapshotWriter {
    fn create(dir: &Path, key: &DataKey, meta: &SnapshotMeta) -> Result<Self, SnapshotError> {
        let salt = new_salt().map_err(|source| SnapshotError::Io { path: dir.to_owned(), source })?;
        let unique = u64::from_be_bytes(*salt.first_chunk().expect("it has 16 bytes"));
        let path = dir.join(format!("{:016x}-{unique:016x}.tmp", meta.index));
        let open = || -> io::Result<File> {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(&file_header(&salt))?;
            Ok(file)
        };
        let file = open().map_err(|source| SnapshotError::Io { path: path.clone(), source })?;
        let mut writer = Self {
            file: BufWriter::new(file),
            temp: Temp(path),
            meta: meta.clone(),
            sealer: Sealer::new(key, &salt, PURPOSE),
            number: 0,
            pending: Vec::with_capacity(CHUNK + TAG),
        };
        writer.record(MORE, meta.encode()).map_err(|source| writer.error(source))?;
        Ok(writer)
    }

    fn error(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Io { path: self.temp.0.clone(), source }
    }

    fn record(&mut self, kind: u8, mut data: Vec<u8>) -> io::Result<()> {
        self.sealer.seal(self.number, &place(self.number, kind), &mut data, 0);
        self.number += 1;
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.file.write_all(&[kind])?;
        self.file.write_all(&length.to_be_bytes())?;
        self.file.write_all(&data)
    }

    /// Ends the snapshot and makes it durable.
    pub fn finish(mut self) -> Result<Written, SnapshotError> {
        let rest = std::mem::take(&mut self.pending);
        self.record(LAST, rest)
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(|source| self.error(source))?;
        Ok(Written { temp: self.temp, meta: self.meta })
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(CHUNK - self.pending.len());
        self.pending.extend_from_slice(&data[..n]);
        if self.pending.len() == CHUNK {
            let full = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK + TAG));
            self.record(MORE, full)?;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot's content. Damage is an error of the read, never wrong bytes.
pub struct SnapshotReader {
    file: BufReader<File>,
    path: PathBuf,
    meta: SnapshotMeta,
    sealer: Sealer,
    number: u64,
    chunk: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl SnapshotReader {
    fn open(path: &Path, key: &DataKey) -> Result<Self, SnapshotError> {
        let io_error = |source| SnapshotError::Io { path: path.to_owned(), source };
        let damaged = |what: String| SnapshotError::Damaged { file: path.to_owned(), what };
        let mut file = BufReader::new(File::open(path).map_err(io_error)?);
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|e| damaged(e.to_string()))?;
        let salt: FileSalt = header[12..28].try_into().expect("16 bytes");
        if header != file_header(&salt) {
            return Err(damaged("its header does not verify".into()));
        }
        let mut reader = Self {
            file,
            path: path.to_owned(),
            meta: SnapshotMeta::default(),
            sealer: Sealer::new(key, &salt, PURPOSE),
            number: 0,
            chunk: Vec::new(),
            taken: 0,
            ended: false,
        };
        let (kind, meta) = reader.record().map_err(|e| damaged(e.to_string()))?;
        if kind != MORE {
            return Err(damaged("it has no content".into()));
        }
        reader.meta = SnapshotMeta::decode(meta).map_err(|e| damaged(e.to_string()))?;
        Ok(reader)
    }

    /// What it stands for.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Bytes on disk, for showing progress.
    pub fn file_size(&self) -> u64 {
        self.file.get_ref().metadata().map_or(0, |m| m.len())
    }

    fn record(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let bad = |path: &Path, number: u64| {
            let text = format!("{}: record {number} does not verify", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut head = [0; 5];
        self.file.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > CHUNK + TAG {
            return Err(bad(&self.path, self.number));
        }
        let mut data = vec![0; length];
        self.file.read_exact(&mut data)?;
        let plain = self
            .sealer
            .open(self.number, &place(self.number, head[0]), data)
            .map_err(|_| bad(&self.path, self.number))?;
        self.number += 1;
        Ok((head[0], plain))
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            let (kind, chunk) = self.record()?;
            self.ended = kind == LAST;
            self.chunk = chunk;
            self.taken = 0;
        }
        let n = out.len().min(self.chunk.len() - self.taken);
        out[..n].copy_from_slice(&self.chunk[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::id::NodeId;

    fn meta(index: u64) -> SnapshotMeta {
        let members = Members::founder(NodeId::new("a"), "h:1".into());
        SnapshotMeta { index, term: 2, members }
    }

    fn store(dir: &Path) -> Snapshots {
        Snapshots::open(dir, &DataKey::new([3; 32])).unwrap()
    }

    fn write(s: &Snapshots, index: u64, content: &[u8]) {
        let mut w = s.create(&meta(index)).unwrap();
        w.write_all(content).unwrap();
        s.install(w.finish().unwrap()).unwrap();
    }

    #[test]
    fn comes_back_whole_and_only_the_newest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let s = store(dir.path());
        assert!(s.newest().unwrap().is_none());
        let big: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 17).collect();
        write(&s, 9, b"old");
        write(&s, 300, &big);
        let mut r = store(dir.path()).newest().unwrap().unwrap();
        assert_eq!(*r.meta(), meta(300));
        let mut back = Vec::new();
        r.read_to_end(&mut back).unwrap();
        assert_eq!(back, big);
        s.prune(1).unwrap();
        assert_eq!(s.list().unwrap().len(), 2);
        s.prune(0).unwrap();
        assert_eq!(s.list().unwrap().len(), 1);
        assert_eq!(s.newest().unwrap().unwrap().meta().index, 300);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let s = store(dir.path());
        let mut w = s.create(&meta(5)).unwrap();
        w.write_all(b"half").unwrap();
        drop(w);
        let mut w = s.create(&meta(6)).unwrap();
        w.write_all(b"half").unwrap();
        std::mem::forget(w);
        let s = store(dir.path());
        assert!(s.newest().unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let s = store(dir.path());
        write(&s, 4, b"the content of a snapshot");
        let path = s.list().unwrap()[0].2.clone();
        let good = fs::read(&path).unwrap();
        let read = || -> Result<Vec<u8>, String> {
            let mut r = s.newest().map_err(|e| e.to_string())?.ok_or("none")?;
            let mut out = Vec::new();
            r.read_to_end(&mut out).map_err(|e| e.to_string())?;
            Ok(out)
        };
        assert!(read().is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(read().is_err(), "flip at {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(read().is_err(), "cut at {at}");
        }
    }
}
