//! How managers reach each other: a trait, implemented where the sockets are.

use bytes::Bytes;

use crate::members::Member;
use crate::snapshot::SnapshotReader;

/// Carries messages to other managers. May lose, delay and repeat them.
///
/// Called on the driver's thread: must not block.
pub trait Transport: Send + Sync + 'static {
    /// Sends messages, in order if it can. Lost ones need no report, but a peer that cannot be
    /// reached is best reported with [`crate::node::RaftHandle::report_unreachable`].
    fn send(&self, to: &Member, messages: Vec<Bytes>);

    /// Streams a snapshot, then its message, to the receiver's
    /// [`crate::node::RaftHandle::receive_snapshot`].
    fn send_snapshot(&self, to: &Member, snapshot: OutgoingSnapshot);
}

/// A snapshot on its way to a manager that lags behind.
pub struct OutgoingSnapshot {
    /// The message that announces it.
    pub message: Bytes,
    /// Its content. Blocking reads: read it on a thread that may block.
    pub reader: SnapshotReader,
    pub(crate) report: Report,
}

/// Tells the driver how a snapshot's journey ended; "lost" if nobody says.
pub(crate) struct Report(pub(crate) Option<Box<dyn FnOnce(bool) + Send>>);

impl OutgoingSnapshot {
    /// The receiver has all of it.
    pub fn delivered(mut self) {
        self.report.tell(true);
    }
    /// It did not get through. Dropping the value says the same.
    pub fn failed(mut self) {
        self.report.tell(false);
    }
}

impl Report {
    fn tell(&mut self, arrived: bool) {
        if let Some(report) = self.0.take() {
            report(arrived);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(false);
    }
}
