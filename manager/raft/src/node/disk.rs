//! Opening a manager's directory: its lock, its raft id, its newest snapshot, its log.
//!
//! ```text
//! DIR/lock  DIR/id  DIR/log/*.log  DIR/snapshots/*.snap
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{RestoreError, Settings, StateMachine};
use crate::core::{self, Core, Restored};
use crate::log::{AppendError, Log, OpenError, sync_dir};
use crate::members::Members;
use crate::seal::DataKey;
use crate::snapshot::{SnapshotError, Snapshots};

/// Why a manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file system refused.
    #[error("the raft directory cannot be used: {path}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process holds it.
    #[error("the raft directory {0} is in use by another process")]
    InUse(PathBuf),
    /// The directory belongs to another member.
    #[error("the raft directory belongs to manager {stored}, not {asked}")]
    OtherId {
        /// Whose it is.
        stored: u64,
        /// Who asked.
        asked: u64,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Writing the log.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state machine refused its snapshot.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Log and snapshot do not fit together.
    #[error(transparent)]
    Core(#[from] core::StartError),
}

/// A manager's directory, open.
pub(super) struct Disk {
    pub(super) log: Log,
    pub(super) snapshots: Snapshots,
    /// Held as long as the directory is used.
    _lock: File,
}

/// Opens or makes the directory, and restores the state machine.
pub(super) fn open(
    settings: &Settings,
    dir: &Path,
    key: &DataKey,
    machine: &mut dyn StateMachine,
) -> Result<(Disk, Core), StartError> {
    fs::create_dir_all(dir).map_err(io_at(dir))?;
    let lock = lock(&dir.join("lock"))?;
    claim_id(dir, settings.core.id)?;
    let snapshots = Snapshots::open(&dir.join("snapshots"), key)?;
    found_cluster(settings, &snapshots, machine)?;
    let (mut log, recovered) = Log::open(&dir.join("log"), key, settings.log.clone())?;
    if let Some(dropped) = &recovered.dropped {
        tracing::warn!(
            raft.file = %dropped.file.display(),
            raft.offset = dropped.offset,
            "unfinished last write of the raft log was dropped"
        );
    }
    let mut restored =
        Restored { hard_state: recovered.hard_state, entries: recovered.entries, ..Restored::default() };
    if let Some(mut reader) = snapshots.newest()? {
        machine.restore(&mut reader)?;
        // The end must verify too, even if the state machine did not read up to it.
        io::copy(&mut reader, &mut io::sink()).map_err(|e| RestoreError(e.to_string()))?;
        restored.snapshot = reader.meta().clone();
    }
    if restored.log_is_superseded() {
        log.reset(restored.hard_state)?;
    }
    let core = Core::new(settings.core.clone(), restored)?;
    Ok((Disk { log, snapshots, _lock: lock }, core))
}

/// Writes the snapshot with which a new cluster begins, unless there is one already.
fn found_cluster(
    settings: &Settings,
    snapshots: &Snapshots,
    machine: &mut dyn StateMachine,
) -> Result<(), StartError> {
    let Some(founder) = &settings.founder else { return Ok(()) };
    if snapshots.newest()?.is_some() {
        return Ok(());
    }
    let members = Members::founder(founder.node_id, founder.address.clone());
    let first = Core::bootstrap(members);
    let mut writer = snapshots.create(&first.snapshot)?;
    machine.snapshot().write_to(&mut writer).map_err(RestoreError::from)?;
    snapshots.install(writer.finish()?)?;
    Ok(())
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |source| StartError::Io { path, source }
}

fn lock(path: &Path) -> Result<File, StartError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(io_at(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StartError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(io_at(path)(source)),
    }
}

/// The raft id a directory belongs to.
pub(super) fn stored_id(dir: &Path) -> Result<Option<u64>, StartError> {
    let path = dir.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it holds no raft id");
            StartError::Io { path, source }
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StartError::Io { path, source }),
    }
}

fn claim_id(dir: &Path, id: u64) -> Result<(), StartError> {
    match stored_id(dir)? {
        Some(stored) if stored == id => return Ok(()),
        Some(stored) => return Err(StartError::OtherId { stored, asked: id }),
        None => {}
    }
    let (temp, path) = (dir.join("id.tmp"), dir.join("id"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temp)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        sync_dir(dir)
    };
    write().map_err(io_at(&path))
}
