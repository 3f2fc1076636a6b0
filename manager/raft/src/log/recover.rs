//! Reading the log back, and telling a torn tail from damage.
//!
//! A torn write is the last record of the last file, and part of it never reached the disk: the
//! file ends within it, or a whole 512-byte sector's share of it is still zeros. Records are
//! written one after another, each only after the one before it was synced: so if a later record
//! can be found, the torn one was acknowledged, and this is damage.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::record::Record;
use super::segment::{
    self, ALIGN, Closed, HEADER, RECORD_HEADER, aad, parse_file_header, parse_record_header,
};
use super::{DroppedTail, OpenError, Recovered};
use crate::seal::{DataKey, Sealer, TAG};

const SECTOR: usize = 512;

/// All that is in a directory.
pub(super) struct Found {
    pub(super) closed: Vec<Closed>,
    pub(super) recovered: Recovered,
    /// Files to cut to this length (0: remove).
    pub(super) to_cut: Vec<(PathBuf, u64)>,
    pub(super) next_sequence: u64,
}

/// Reads every segment, changing nothing.
pub(super) fn read_all(dir: &Path, key: &DataKey) -> Result<Found, OpenError> {
    let sequences = list(dir)?;
    let mut found = Found {
        closed: Vec::new(),
        recovered: Recovered::default(),
        to_cut: Vec::new(),
        next_sequence: sequences.last().map_or(1, |s| s + 1),
    };
    for (at, &sequence) in sequences.iter().enumerate() {
        let path = segment::path(dir, sequence);
        if at > 0 && sequence != sequences[at - 1] + 1 {
            return Err(damaged(&path, 0, "the segment before it is missing"));
        }
        let data = fs::read(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let last = at + 1 == sequences.len();
        Reading { path, sequence, data, last }.read(key, &mut found)?;
    }
    Ok(found)
}

fn list(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let io_error = |source| OpenError::Io { path: dir.to_owned(), source };
    let mut sequences = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error)? {
        let name = entry.map_err(io_error)?.file_name();
        let name = name.to_string_lossy();
        if let Some(hex) = name.strip_suffix(".log") {
            sequences.extend(u64::from_str_radix(hex, 16));
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

fn damaged(path: &Path, offset: usize, what: &str) -> OpenError {
    OpenError::Damaged { file: path.to_owned(), offset: offset as u64, what: what.to_owned() }
}

struct Reading {
    path: PathBuf,
    sequence: u64,
    data: Vec<u8>,
    last: bool,
}

/// What stands at one place of a file.
enum Next {
    Record(Record, usize),
    End,
    /// Does not verify; the place, and whether it looks like a torn write.
    Bad(&'static str, bool),
}

impl Reading {
    fn read(&self, key: &DataKey, found: &mut Found) -> Result<(), OpenError> {
        let Some(salt) = parse_file_header(&self.data, self.sequence) else {
            let torn = self.data.len() < HEADER || self.data[..HEADER] == [0; HEADER];
            if self.last && torn && self.later_record(0, None).is_none() {
                return self.drop_tail(0, true, found);
            }
            return Err(damaged(&self.path, 0, "its header does not verify"));
        };
        let sealer = segment::sealer(key, &salt);
        let (mut offset, mut records, mut max_index) = (HEADER, 0u64, 0);
        loop {
            match self.next(&sealer, offset, records) {
                Next::Record(record, size) => {
                    self.check_begin(&record, records, offset, found)?;
                    max_index = max_index.max(record.max_index());
                    self.take(record, offset, found)?;
                    offset += size;
                    records += 1;
                }
                Next::End => break,
                Next::Bad(what, torn) => {
                    let later = self.later_record(offset, Some(records));
                    if !self.last || !torn || later.is_some() {
                        return Err(damaged(&self.path, offset, what));
                    }
                    if records == 0 {
                        return self.drop_tail(0, true, found);
                    }
                    self.drop_tail(offset, true, found)?;
                    break;
                }
            }
        }
        if self.last && offset < self.data.len() && found.to_cut.is_empty() {
            self.drop_tail(offset, false, found)?;
        }
        let path = self.path.clone();
        found.closed.push(Closed { path, sequence: self.sequence, records, max_index });
        Ok(())
    }

    fn next(&self, sealer: &Sealer, offset: usize, number: u64) -> Next {
        let rest = &self.data[offset..];
        if rest.is_empty() && (number > 0 || !self.last) {
            return if number > 0 { Next::End } else { Next::Bad("it has no records", false) };
        }
        let Some(header) = rest.first_chunk::<RECORD_HEADER>() else {
            return Next::Bad("a record is cut short", true);
        };
        if *header == [0; RECORD_HEADER] {
            let clean = number > 0 && self.last && self.later_record(offset, Some(number)).is_none();
            return if clean { Next::End } else { Next::Bad("a record is missing", self.last) };
        }
        let Some((length, found)) = parse_record_header(*header, self.sequence, offset as u64) else {
            return Next::Bad("a record's header does not verify", false);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if found != number || length < TAG + ALIGN {
            return Next::Bad("a record is not the one that belongs here", false);
        }
        let Some(body) = rest.get(RECORD_HEADER..RECORD_HEADER.saturating_add(length)) else {
            return Next::Bad("a record is cut short", true);
        };
        let place = aad(self.sequence, offset as u64, header);
        let Ok(plain) = sealer.open(number, &place, body.to_vec()) else {
            let torn = has_unwritten_sector(&self.data, offset, offset + RECORD_HEADER + length);
            return Next::Bad("a record does not verify (or the key is not the right one)", torn);
        };
        match decode(plain) {
            Some(record) => Next::Record(record, RECORD_HEADER + length),
            None => Next::Bad("a record was written by another version", false),
        }
    }

    /// The place of a record header with a number above `number`, after `offset`.
    fn later_record(&self, offset: usize, number: Option<u64>) -> Option<usize> {
        let mut at = offset.next_multiple_of(ALIGN).max(HEADER);
        while let Some(header) = self.data.get(at..).and_then(|d| d.first_chunk::<16>()) {
            let parsed = (*header != [0; 16])
                .then(|| parse_record_header(*header, self.sequence, at as u64))
                .flatten();
            if parsed.is_some_and(|(_, found)| number.is_none_or(|n| found > n)) {
                return Some(at);
            }
            at += ALIGN;
        }
        None
    }

    fn drop_tail(&self, valid: usize, torn: bool, found: &mut Found) -> Result<(), OpenError> {
        found.to_cut.push((self.path.clone(), valid as u64));
        if valid == 0 {
            found.next_sequence = self.sequence;
        }
        if torn {
            let (file, offset) = (self.path.clone(), valid as u64);
            found.recovered.dropped = Some(DroppedTail { file, offset });
        }
        Ok(())
    }

    fn check_begin(
        &self,
        record: &Record,
        number: u64,
        offset: usize,
        found: &Found,
    ) -> Result<(), OpenError> {
        let before = found.closed.last().map(|c| c.records);
        match (number, record.begin) {
            (0, Some(_)) if before.is_none() => Ok(()),
            (0, Some(previous)) if before == Some(previous) => Ok(()),
            (0, _) => Err(damaged(&self.path, offset, "the segment before it lost records")),
            (_, None) => Ok(()),
            (_, Some(_)) => Err(damaged(&self.path, offset, "a segment begins twice")),
        }
    }

    fn take(&self, record: Record, offset: usize, found: &mut Found) -> Result<(), OpenError> {
        let recovered = &mut found.recovered;
        recovered.hard_state = record.hard_state;
        if record.reset {
            recovered.entries.clear();
        }
        let Some(first) = record.entries.first().map(|e| e.index) else { return Ok(()) };
        while recovered.entries.last().is_some_and(|e| e.index >= first) {
            recovered.entries.pop();
        }
        if recovered.entries.last().is_some_and(|e| e.index + 1 != first) {
            return Err(damaged(&self.path, offset, "entries are missing before it"));
        }
        recovered.entries.extend(record.entries);
        Ok(())
    }
}

fn decode(plain: Vec<u8>) -> Option<Record> {
    let plain = Bytes::from(plain);
    let length = u32::from_be_bytes(*plain.first_chunk::<4>()?);
    let end = 4usize.checked_add(usize::try_from(length).ok()?)?;
    (end <= plain.len()).then(|| plain.slice(4..end)).and_then(|p| Record::decode(p).ok())
}

/// True if some sector's share of `from..to` is all zeros. Ciphertext is not: each share has 16 bytes or more.
fn has_unwritten_sector(data: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        let end = (at + 1).next_multiple_of(SECTOR).min(to);
        if data[at..end].iter().all(|&b| b == 0) {
            return true;
        }
        at = end;
    }
    false
}
