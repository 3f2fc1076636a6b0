//! Making snapshots beside the driver: at most one at a time, on a thread of its own.

use std::io;
use std::sync::Weak;
use std::thread::JoinHandle;

use super::SnapshotSource;
use super::handle::{Event, Shared};
use crate::snapshot::{SnapshotError, SnapshotMeta, Snapshots};

/// Starts writing a captured state; the driver hears of its end.
pub(super) fn write(
    snapshots: Snapshots,
    meta: SnapshotMeta,
    source: Box<dyn SnapshotSource>,
    driver: Weak<Shared>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("raft-snapshot".to_owned()).spawn(move || {
        let made = || {
            let mut writer = snapshots.create(&meta)?;
            source
                .write_to(&mut writer)
                .map_err(|source| SnapshotError::Io { path: "snapshot".into(), source })?;
            writer.finish()
        };
        let made = made();
        if let Some(shared) = driver.upgrade() {
            // A driver that has ended needs no snapshot; the temporary file goes with the value.
            let _ended = shared.events.send(Event::SnapshotMade(made));
        }
    })
}
