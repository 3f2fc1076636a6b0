//! Entries and hard state on disk: a segmented, encrypted write-ahead log.
//!
//! One [`Log::append`] is one record is one `fdatasync`; a record is acknowledged when that
//! returned. Entries replace whatever has the same or a higher index, so a conflict needs no
//! rewriting. What may be lost is what was never acknowledged: the torn last record is dropped at
//! [`Log::open`]. Anything else that does not verify is damage, and is refused with its place.
//!
//! A file is only ever appended to by the process that made it: opening starts a new segment.

mod record;
mod recover;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::core::{Entry, HardState};
use crate::seal::DataKey;
use record::Record;
use segment::{Active, Closed};

/// How the log is cut into files.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A new segment is begun when one would grow beyond this, in bytes.
    pub segment_bytes: u64,
    /// Space is filled with zeros and synced this far ahead of use, in bytes.
    pub ahead_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, ahead_bytes: 1 << 20 }
    }
}

/// Why a log cannot be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Acknowledged data does not verify: the disk changed it, or the key is another one.
    #[error("the raft log is damaged: {file} at offset {offset}: {what}")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The file system refused.
    #[error("the raft log cannot be opened: {path}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why something was not made durable. After either, this log takes nothing more.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It could not be written: no space, most likely. Nothing of it is acknowledged.
    #[error("the raft log cannot be written: {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be synced. What is on disk is unknown until it is opened again.
    #[error("the raft log cannot be synced: {path}")]
    Sync {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An earlier append failed.
    #[error("the raft log failed before and takes nothing more")]
    Failed,
}

/// What a log held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The newest hard state.
    pub hard_state: HardState,
    /// The entries, continuous.
    pub entries: Vec<Entry>,
    /// The unacknowledged tail that was dropped, if there was one.
    pub dropped: Option<DroppedTail>,
}

/// A torn write that was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTail {
    /// In which file.
    pub file: PathBuf,
    /// Where it began, in bytes.
    pub offset: u64,
}

/// The log of one manager. Blocking; owned by the driver's thread.
pub struct Log {
    dir: PathBuf,
    key: DataKey,
    options: LogOptions,
    closed: Vec<Closed>,
    active: Active,
    hard_state: HardState,
    /// The newest hard state is not on disk yet (only its commit index may lag).
    lazy: bool,
    failed: bool,
}

impl Log {
    /// Opens the log in `dir`, which is made if missing, and gives back what it holds.
    pub fn open(dir: &Path, key: &DataKey, options: LogOptions) -> Result<(Self, Recovered), OpenError> {
        let io_at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io_at(dir))?;
        let found = recover::read_all(dir, key)?;
        for (path, valid) in &found.to_cut {
            segment::cut(path, *valid).map_err(io_at(path))?;
        }
        sync_dir(dir).map_err(io_at(dir))?;
        let sequence = found.next_sequence;
        let previous = found.closed.last().map_or(0, |c| c.records);
        let hard_state = found.recovered.hard_state;
        let path = segment::path(dir, sequence);
        let begin = Record::begin(previous, hard_state);
        let active = Active::create(dir, key, sequence, options.ahead_bytes, &begin).map_err(io_at(&path))?;
        let log = Self {
            dir: dir.to_owned(),
            key: key.clone(),
            options,
            closed: found.closed,
            active,
            hard_state,
            lazy: false,
            failed: false,
        };
        Ok((log, found.recovered))
    }

    /// Makes a new hard state and entries durable. Returns when they are.
    ///
    /// With `must_sync` false and no entries, nothing is written now: the hard state goes with
    /// the next record, or with [`Log::flush`].
    pub fn append(
        &mut self,
        hard_state: Option<HardState>,
        entries: &[Entry],
        must_sync: bool,
    ) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        if let Some(hs) = hard_state {
            self.hard_state = hs;
            self.lazy = true;
        }
        if entries.is_empty() && !must_sync {
            return Ok(());
        }
        self.write(&Record { entries: entries.to_vec(), ..Record::state(self.hard_state) })
    }

    /// Forgets all entries: a snapshot that was installed replaces them. Durable on return.
    pub fn reset(&mut self, hard_state: HardState) -> Result<(), AppendError> {
        self.hard_state = hard_state;
        self.write(&Record { reset: true, ..Record::state(hard_state) })
    }

    /// Writes a hard state that [`Log::append`] was lazy about.
    pub fn flush(&mut self) -> Result<(), AppendError> {
        if self.lazy { self.write(&Record::state(self.hard_state)) } else { Ok(()) }
    }

    /// Deletes the segments that hold nothing after `index`.
    pub fn compact(&mut self, index: u64) -> io::Result<()> {
        let old = self.closed.iter().take_while(|c| c.max_index <= index).count();
        for closed in self.closed.drain(..old) {
            fs::remove_file(&closed.path)?;
        }
        if old > 0 { sync_dir(&self.dir) } else { Ok(()) }
    }

    /// The newest hard state.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Number of files.
    pub fn segments(&self) -> usize {
        self.closed.len() + 1
    }

    fn write(&mut self, record: &Record) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        // Until it is known to be durable, nothing more may be built on it.
        self.failed = true;
        let plain = record.encode();
        if !self.active.has_room(plain.len(), self.options.segment_bytes) {
            self.rotate()?;
        }
        self.active.append(&plain, record.max_index())?;
        self.failed = false;
        self.lazy = false;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), AppendError> {
        let closed = self.active.close()?;
        let sequence = closed.sequence + 1;
        let begin = Record::begin(closed.records, self.hard_state);
        let ahead = self.options.ahead_bytes;
        self.active = Active::create(&self.dir, &self.key, sequence, ahead, &begin)
            .map_err(|source| AppendError::Write { path: segment::path(&self.dir, sequence), source })?;
        self.closed.push(closed);
        Ok(())
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
