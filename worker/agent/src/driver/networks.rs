//! The driver's work for the networks: one application at a time, one write at a time, always of the
//! newest set.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use swarm_types::network_set::NetworkSet;
use swarm_worker_core::networks::NetworkReport;
use tracing::{Instrument, debug, error, warn};

use super::{Done, Driver};
use crate::network_file;
use crate::session::Order;

/// Between two writes of the file: many small changes cost one write.
const KEEP_PAUSE: Duration = Duration::from_millis(100);
/// Before a set is applied again after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// What waits, and what is under way.
pub(super) struct Networks {
    file: PathBuf,
    wanted: Option<(u64, Arc<NetworkSet>)>,
    applying: bool,
    unkept: Option<Arc<NetworkSet>>,
    keeping: bool,
}

impl Networks {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, wanted: None, applying: false, unkept: None, keeping: false }
    }

    /// The file is being written, or is to be: its folder cannot be removed yet.
    pub(super) fn is_keeping(&self) -> bool {
        self.keeping || self.unkept.is_some()
    }
}

impl Driver {
    pub(super) fn want_networks(&mut self, turn: u64, set: Arc<NetworkSet>) {
        self.networks.wanted = Some((turn, Arc::clone(&set)));
        self.networks.unkept = Some(set);
        self.apply_networks();
        self.keep_networks();
    }

    /// The set of this turn was applied; or not, as applying it panicked.
    pub(super) fn networks_applied(&mut self, turn: u64, set: Arc<NetworkSet>, good: bool) {
        self.networks.applying = false;
        if good {
            self.handle(swarm_worker_core::agent::Input::NetworksApplied(turn));
        } else {
            self.networks.wanted.get_or_insert((turn, set));
        }
        self.apply_networks();
    }

    pub(super) fn networks_kept(&mut self) {
        self.networks.keeping = false;
        self.keep_networks();
    }

    fn apply_networks(&mut self) {
        if self.networks.applying {
            return;
        }
        let Some((turn, set)) = self.networks.wanted.take() else { return };
        self.networks.applying = true;
        let executor = Arc::clone(&self.agent.executor);
        let work = async move {
            let work = AssertUnwindSafe(executor.networks().apply(Arc::clone(&set))).catch_unwind();
            let good = work.await.is_ok();
            if !good {
                error!("applying the networks panicked, trying again");
                tokio::time::sleep(PANIC_PAUSE).await;
            }
            Done::NetworksApplied(turn, set, good)
        };
        self.running.spawn(work.in_current_span());
    }

    fn keep_networks(&mut self) {
        if self.networks.keeping {
            return;
        }
        let Some(set) = self.networks.unkept.take() else { return };
        self.networks.keeping = true;
        let file = self.networks.file.clone();
        let work = async move {
            let written = tokio::task::spawn_blocking(move || keep(&file, &set)).await;
            if let Err(e) = written {
                error!(error = %e, "writing the networks panicked");
            }
            tokio::time::sleep(KEEP_PAUSE).await;
            Done::NetworksKept
        };
        self.running.spawn(work.in_current_span());
    }

    /// What is not on disk yet, at the end.
    pub(super) fn flush_networks(&mut self) {
        if let Some(set) = self.networks.unkept.take() {
            keep(&self.networks.file, &set);
        }
    }

    pub(super) fn report_networks(&mut self, report: NetworkReport) {
        for problem in &report.problems {
            debug!(subject = problem.subject, problem = problem.text, "a problem with the networks");
        }
        // As with statuses: if it cannot be handed over, the session is ending, and all is owed again.
        if let Some(orders) = &self.orders
            && orders.try_send(Order::ReportNetworks(report)).is_err()
        {
            debug!("the session ends, the networks stay owed");
        }
    }
}

fn keep(file: &std::path::Path, set: &NetworkSet) {
    if let Err(e) = network_file::write(file, set) {
        warn!(file = %file.display(), error = %e, "cannot keep the networks for the next daemon");
    }
}
