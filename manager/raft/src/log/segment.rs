//! A segment: one file of the log.
//!
//! ```text
//! header   64 bytes: magic 8 | version 4 | sequence 8 | salt 16 | crc32 4 | zero
//! record   length 4 | number 8 | crc32 4 | ciphertext | tag 16     all sizes multiples of 16
//! ```
//! The crc covers sequence, place, length and number; the tag covers the same and the content.
//! Space is filled with zeros and synced ahead of use, so that what was never written reads as zeros.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::AppendError;
use super::record::Record;
use crate::log::sync_dir;
use crate::seal::{DataKey, FileSalt, Sealer, TAG, new_salt};

pub(super) const HEADER: usize = 64;
pub(super) const RECORD_HEADER: usize = 16;
pub(super) const ALIGN: usize = 16;
const MAGIC: &[u8; 8] = b"SWRAFTL\n";
const VERSION: u32 = 1;
const PURPOSE: &[u8] = b"raft log segment";

/// A segment that is complete.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    pub(super) records: u64,
    /// The highest index of an entry in it; 0 for none.
    pub(super) max_index: u64,
}

/// The segment that is written.
pub(super) struct Active {
    file: File,
    path: PathBuf,
    sequence: u64,
    sealer: Sealer,
    ahead: u64,
    pub(super) end: u64,
    zeroed: u64,
    records: u64,
    max_index: u64,
}

pub(super) fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.log"))
}

/// Cuts a file to its valid part; removes it if nothing in it is valid.
pub(super) fn cut(path: &Path, valid: u64) -> io::Result<()> {
    if valid == 0 {
        return fs::remove_file(path);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(valid)?;
    file.sync_all()
}

pub(super) fn file_header(sequence: u64, salt: &FileSalt) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[..8].copy_from_slice(MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_be_bytes());
    h[12..20].copy_from_slice(&sequence.to_be_bytes());
    h[20..36].copy_from_slice(salt);
    let crc = crc32fast::hash(&h[..36]);
    h[36..40].copy_from_slice(&crc.to_be_bytes());
    h
}

/// The salt, if the header is right in every byte.
pub(super) fn parse_file_header(h: &[u8], sequence: u64) -> Option<FileSalt> {
    let salt: FileSalt = h.get(20..36)?.try_into().ok()?;
    (h.get(..HEADER)? == file_header(sequence, &salt)).then_some(salt)
}

pub(super) fn sealer(key: &DataKey, salt: &FileSalt) -> Sealer {
    Sealer::new(key, salt, PURPOSE)
}

pub(super) fn record_header(sequence: u64, offset: u64, length: u32, number: u64) -> [u8; 16] {
    let mut h = [0; RECORD_HEADER];
    h[..4].copy_from_slice(&length.to_be_bytes());
    h[4..12].copy_from_slice(&number.to_be_bytes());
    let crc = crc32fast::hash(&aad(sequence, offset, &h));
    h[12..].copy_from_slice(&crc.to_be_bytes());
    h
}

/// What a record's tag vouches for besides its content: where it stands.
pub(super) fn aad(sequence: u64, offset: u64, header: &[u8; 16]) -> [u8; 28] {
    let mut out = [0; 28];
    out[..8].copy_from_slice(&sequence.to_be_bytes());
    out[8..16].copy_from_slice(&offset.to_be_bytes());
    out[16..].copy_from_slice(&header[..12]);
    out
}

/// Length and number, if the header is right.
pub(super) fn parse_record_header(h: [u8; 16], sequence: u64, offset: u64) -> Option<(u32, u64)> {
    let length = u32::from_be_bytes(h[..4].try_into().ok()?);
    let number = u64::from_be_bytes(h[4..12].try_into().ok()?);
    (record_header(sequence, offset, length, number) == h).then_some((length, number))
}

fn sealed_length(plain: usize) -> usize {
    (4 + plain).next_multiple_of(ALIGN) + TAG
}

impl Active {
    /// Makes a new file that holds its header and first record, durably.
    pub(super) fn create(
        dir: &Path,
        key: &DataKey,
        sequence: u64,
        ahead: u64,
        begin: &Record,
    ) -> io::Result<Self> {
        let path = path(dir, sequence);
        let salt = new_salt()?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&file_header(sequence, &salt))?;
        file.sync_all()?;
        let mut active = Self {
            file,
            path,
            sequence,
            sealer: sealer(key, &salt),
            ahead: ahead.max(1),
            end: HEADER as u64,
            zeroed: HEADER as u64,
            records: 0,
            max_index: 0,
        };
        active.append(&begin.encode(), 0).map_err(io::Error::other)?;
        sync_dir(dir)?;
        Ok(active)
    }

    pub(super) fn has_room(&self, plain: usize, limit: u64) -> bool {
        let size = (RECORD_HEADER + sealed_length(plain)) as u64;
        self.records <= 1 || self.end + size <= limit
    }

    /// Writes and syncs one record.
    pub(super) fn append(&mut self, plain: &[u8], max_index: u64) -> Result<(), AppendError> {
        let bytes = self.seal(plain);
        let size = bytes.len() as u64;
        self.reserve(size)?;
        self.file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(|source| AppendError::Write { path: self.path.clone(), source })?;
        self.file.sync_data().map_err(|source| AppendError::Sync { path: self.path.clone(), source })?;
        self.end += size;
        self.records += 1;
        self.max_index = self.max_index.max(max_index);
        Ok(())
    }

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let sealed = sealed_length(plain.len());
        let length = u32::try_from(sealed).expect("a record is far smaller than 4 GiB");
        let header = record_header(self.sequence, self.end, length, self.records);
        let mut record = Vec::with_capacity(RECORD_HEADER + sealed);
        record.extend_from_slice(&header);
        record.extend_from_slice(&u32::try_from(plain.len()).expect("as above").to_be_bytes());
        record.extend_from_slice(plain);
        record.resize(RECORD_HEADER + sealed - TAG, 0);
        let place = aad(self.sequence, self.end, &header);
        self.sealer.seal(self.records, &place, &mut record, RECORD_HEADER);
        record
    }

    /// Fills with zeros ahead, so that syncing a record later changes data only, not the file's size.
    fn reserve(&mut self, size: u64) -> Result<(), AppendError> {
        if self.end + size <= self.zeroed {
            return Ok(());
        }
        let to = (self.end + size).next_multiple_of(self.ahead);
        let zeros = vec![0; 64 << 10];
        let fill = |file: &mut File| -> io::Result<()> {
            file.seek(SeekFrom::Start(self.zeroed))?;
            let mut left = to - self.zeroed;
            while left > 0 {
                let n = left.min(zeros.len() as u64);
                file.write_all(&zeros[..usize::try_from(n).expect("at most 64 KiB")])?;
                left -= n;
            }
            Ok(())
        };
        fill(&mut self.file).map_err(|source| AppendError::Write { path: self.path.clone(), source })?;
        self.file.sync_all().map_err(|source| AppendError::Sync { path: self.path.clone(), source })?;
        self.zeroed = to;
        Ok(())
    }

    /// Ends the file exactly after its last record.
    pub(super) fn close(&mut self) -> Result<Closed, AppendError> {
        self.file
            .set_len(self.end)
            .map_err(|source| AppendError::Write { path: self.path.clone(), source })?;
        self.file.sync_all().map_err(|source| AppendError::Sync { path: self.path.clone(), source })?;
        Ok(Closed {
            path: self.path.clone(),
            sequence: self.sequence,
            records: self.records,
            max_index: self.max_index,
        })
    }
}
