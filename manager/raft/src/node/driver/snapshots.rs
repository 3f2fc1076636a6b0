//! Making, sending and installing snapshots.

use super::{Driver, Fatal, RETRY_TICKS, describe};
use crate::core::Envelope;
use crate::node::handle::Event;
use crate::node::{RestoreError, snapshotter};
use crate::snapshot::{SnapshotError, SnapshotMeta, Written};
use crate::transport::{OutgoingSnapshot, Report};

impl Driver {
    pub(super) fn restore(&mut self, meta: &SnapshotMeta) -> Result<(), Fatal> {
        let reader = self.disk.snapshots.newest()?;
        let mut reader = reader.filter(|r| r.meta() == meta).ok_or(Fatal::NoContent)?;
        self.machine.restore(&mut reader)?;
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(RestoreError::from)?;
        self.bytes_since_snapshot = 0;
        self.tidy_up();
        tracing::info!(raft.id = self.core.id(), raft.index = meta.index, "caught up from a snapshot");
        Ok(())
    }

    pub(super) fn send_snapshot(&mut self, envelope: Envelope) {
        let to = envelope.to;
        let shared = self.shared.clone();
        let report = Report(Some(Box::new(move |arrived| {
            if let Some(shared) = shared.upgrade() {
                let _ended = shared.events.send(Event::SnapshotSent { to, arrived });
            }
        })));
        match (self.member(to), self.disk.snapshots.newest()) {
            (Some(member), Ok(Some(reader))) if Some(reader.meta()) == envelope.snapshot.as_ref() => {
                tracing::info!(raft.member = to, raft.index = reader.meta().index, "sending a snapshot");
                let snapshot = OutgoingSnapshot { message: envelope.message, reader, report };
                self.transport.send_snapshot(&member, snapshot);
            }
            (_, Err(error)) => {
                tracing::error!(raft.member = to, error = %error, "snapshot cannot be sent");
            }
            // Dropping the report says "failed"; the core tries again.
            _ => {}
        }
    }

    pub(super) fn maybe_snapshot(&mut self) {
        let (applied, last) = (self.core.applied(), self.core.snapshot().index);
        let due = applied - last >= self.policy.every_entries
            || self.bytes_since_snapshot >= self.policy.every_bytes
            || self.core.wants_snapshot();
        let too_soon = self.ticks < self.snapshot_after;
        if self.writing.is_some() || applied <= last || !due || too_soon {
            return;
        }
        let Some(term) = self.core.term_at(applied) else { return };
        let meta = SnapshotMeta { index: applied, term, members: self.core.members().clone() };
        let source = self.machine.snapshot();
        self.bytes_since_snapshot = 0;
        let snapshots = self.disk.snapshots.clone();
        match snapshotter::write(snapshots, meta, source, self.shared.clone()) {
            Ok(thread) => self.writing = Some(thread),
            Err(error) => tracing::error!(error = %error, "snapshot thread cannot be started"),
        }
    }

    pub(super) fn snapshot_made(&mut self, made: Result<Written, SnapshotError>) -> Result<(), Fatal> {
        if let Some(thread) = self.writing.take() {
            // It has sent its last message.
            let _ended = thread.join();
        }
        let written = match made {
            Ok(written) => written,
            Err(error) => {
                // The log goes on growing; it is tried again after a while.
                self.snapshot_after = self.ticks + RETRY_TICKS;
                tracing::error!(error = %describe(&error), "snapshot failed");
                return Ok(());
            }
        };
        let meta = written.meta().clone();
        if meta.index <= self.core.snapshot().index {
            return Ok(());
        }
        self.disk.snapshots.install(written)?;
        self.core.snapshotted(meta, self.policy.keep_entries);
        self.tidy_up();
        Ok(())
    }

    pub(super) fn tidy_up(&mut self) {
        let pruned = self.disk.snapshots.prune(self.policy.keep_old);
        let compacted = self.disk.log.compact(self.core.compacted());
        if let Err(error) = pruned {
            tracing::warn!(error = %describe(&error), "old snapshots cannot be removed");
        }
        if let Err(error) = compacted {
            tracing::warn!(error = %error, "old log segments cannot be removed");
        }
    }
}
