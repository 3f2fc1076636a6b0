//! The cluster's state on this manager: committed entries go in, views and news come out.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use swarm_manager_core::store::{Event, Object, Refused, Store, Transaction, View, records};
use swarm_manager_raft::StateMachine;
use swarm_manager_raft::node::{Response, RestoreError, SnapshotSource};
use swarm_types::cluster::Cluster;
use swarm_types::time::Timestamp;
use tokio::sync::{broadcast, mpsc};

use crate::codec::{self, SnapshotReader, SnapshotWriter};
use crate::watch::News;

/// News kept for slow watchers; one that falls further behind starts again.
const NEWS_WINDOW: usize = 16_384;
/// Objects in one chunk of a snapshot.
const CHUNK_OBJECTS: usize = 512;
/// No chunk is larger than this, in bytes: a length beyond it is damage.
const MAX_CHUNK_BYTES: usize = 64 << 20;

/// What applying a transaction gave: nothing, or why nothing was applied.
pub type Verdict = Result<(), Rejected>;

/// Why an entry of the log was not applied. All managers decide alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The store had changed since it was decided.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is no transaction that this version can read.
    #[error("{0}")]
    Unreadable(String),
}

/// What is told of the cluster's settings.
pub type OnSettings = Box<dyn Fn(&Cluster) + Send + Sync>;

/// The state as everybody on this manager sees it.
pub struct ClusterState {
    /// Told of the cluster's settings when they change.
    settings: OnceLock<OnSettings>,
    view: ArcSwap<View>,
    news: broadcast::Sender<News>,
    leader: Mutex<Option<mpsc::UnboundedSender<Vec<Applied>>>>,
}

/// What one entry of the log changed.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its place in the log.
    pub index: u64,
    /// The changes, in order.
    pub events: Vec<Event>,
}

impl ClusterState {
    /// An empty state, and the machine that fills it.
    pub fn new() -> (Arc<ClusterState>, Machine) {
        let (news, _) = broadcast::channel(NEWS_WINDOW);
        let state = Arc::new(ClusterState {
            settings: OnceLock::new(),
            view: ArcSwap::from_pointee(View::default()),
            news,
            leader: Mutex::new(None),
        });
        let machine = Machine { store: Store::default(), state: state.clone(), applied: Vec::new() };
        (state, machine)
    }

    /// All that is committed and applied here.
    pub fn view(&self) -> View {
        self.view.load().as_ref().clone()
    }

    /// A view, and all news that come after it (some of it may be in the view already).
    pub fn watch(&self) -> (View, broadcast::Receiver<News>) {
        let news = self.news.subscribe();
        (self.view(), news)
    }

    /// Tells watchers of something that is not committed.
    pub fn announce(&self, news: News) {
        // Nobody watches: fine.
        let _nobody = self.news.send(news);
    }

    /// From now on the leader's driver gets all events, without gaps; the view is from before them.
    pub fn attach_leader(&self) -> (View, mpsc::UnboundedReceiver<Vec<Applied>>) {
        let (sender, events) = mpsc::unbounded_channel();
        *self.leader.lock().expect("no code panics while it holds the leader's line") = Some(sender);
        (self.view(), events)
    }

    /// The driver has ended.
    pub fn detach_leader(&self) {
        *self.leader.lock().expect("no code panics while it holds the leader's line") = None;
    }

    /// Tells `hear` of the cluster's settings, as they are and whenever they change.
    pub fn on_settings(&self, hear: OnSettings) {
        if let Some(cluster) = self.view().cluster() {
            hear(cluster);
        }
        // A second listener would be the same one.
        let _same = self.settings.set(hear);
    }

    fn tell_settings(&self, new: &View) {
        let version = |view: &View| view.cluster().map(|c| c.meta.version);
        if let (Some(hear), Some(cluster)) = (self.settings.get(), new.cluster())
            && version(&self.view.load()) != version(new)
        {
            hear(cluster);
        }
    }

    fn publish(&self, view: View, applied: Vec<Applied>) {
        self.tell_settings(&view);
        // The lock makes view and events one step for `attach_leader`.
        let leader = self.leader.lock().expect("no code panics while it holds the leader's line");
        self.view.store(Arc::new(view));
        if let Some(leader) = leader.as_ref() {
            // A driver that has just ended needs no events.
            let _ended = leader.send(applied.clone());
        }
        drop(leader);
        if self.news.receiver_count() > 0 {
            for event in applied.into_iter().flat_map(|a| a.events) {
                self.announce(News::Committed(event));
            }
        }
    }
}

/// Applies committed entries. Lives on the consensus thread.
pub struct Machine {
    store: Store,
    state: Arc<ClusterState>,
    applied: Vec<Applied>,
}

impl Machine {
    fn apply_bytes(&mut self, index: u64, data: &[u8]) -> Verdict {
        let tx: Transaction = match codec::decode(data) {
            Ok(tx) => tx,
            Err(e) => {
                // All managers of this version skip it alike; one of a newer version may not.
                tracing::error!(raft.index = index, error = %e, "a log entry cannot be read; it is skipped");
                return Err(Rejected::Unreadable(e.to_string()));
            }
        };
        let events = self.store.apply_owned(index, tx)?;
        self.applied.push(Applied { index, events });
        Ok(())
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, index: u64, _term: u64, data: &[u8]) -> Response {
        Box::new(self.apply_bytes(index, data))
    }

    fn applied(&mut self, _index: u64) {
        self.state.publish(self.store.view(), std::mem::take(&mut self.applied));
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotSource> {
        Box::new(Captured(self.store.view()))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), RestoreError> {
        let (version, newest_time, objects) = read_snapshot(from)?;
        self.store = Store::restore(version, newest_time, objects);
        self.applied.clear();
        self.state.publish(self.store.view(), Vec::new());
        Ok(())
    }
}

/// A view on its way to disk.
struct Captured(View);

impl SnapshotSource for Captured {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        let mut writer = SnapshotWriter::default();
        let (version, newest_time) = (self.0.version(), self.0.newest_time());
        let mut objects = records(&self.0).map(|r| r.object).peekable();
        // One chunk at least: it carries the version.
        loop {
            let part: Vec<Object> = objects.by_ref().take(CHUNK_OBJECTS).collect();
            let bytes = writer.chunk(version, newest_time, part.iter());
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(&bytes)?;
            if objects.peek().is_none() {
                // Says that nothing is missing.
                return out.write_all(&0u32.to_be_bytes());
            }
        }
    }
}

fn read_snapshot(from: &mut dyn Read) -> Result<(u64, Timestamp, Vec<Object>), RestoreError> {
    let mut reader = SnapshotReader::default();
    let (mut version, mut newest_time, mut objects) = (0, Timestamp::ZERO, Vec::new());
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok((version, newest_time, objects));
        }
        if length > MAX_CHUNK_BYTES {
            return Err(RestoreError(format!("a chunk of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        let (v, time, mut part) = reader.chunk(&bytes).map_err(|e| RestoreError(e.to_string()))?;
        (version, newest_time) = (v, time);
        objects.append(&mut part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_manager_core::store::Draft;
    use swarm_types::testing;
    use swarm_types::time::Timestamp;

    fn applied(machine: &mut Machine, index: u64, change: impl FnOnce(&mut Draft)) -> Verdict {
        let mut draft = Draft::new(machine.store.view(), Timestamp(1));
        change(&mut draft);
        let response = machine.apply(index, 1, &codec::encode(&draft.into_transaction()));
        machine.applied(index);
        *response.downcast::<Verdict>().expect("the machine answers with a verdict")
    }

    #[test]
    fn entries_become_views_and_events() {
        let (state, mut machine) = ClusterState::new();
        let (_, mut events) = state.attach_leader();
        applied(&mut machine, 7, |d| assert!(d.put_node(testing::node("n")))).unwrap();
        assert_eq!(state.view().version(), 7);
        assert_eq!(events.try_recv().unwrap().len(), 1);
    }

    #[test]
    fn a_snapshot_brings_everything_back() {
        let (_, mut machine) = ClusterState::new();
        for i in 1..2000u64 {
            applied(&mut machine, i, |d| assert!(d.put_node(testing::node(&format!("n{i}"))))).unwrap();
        }
        let mut bytes = Vec::new();
        machine.snapshot().write_to(&mut bytes).unwrap();
        let (state, mut other) = ClusterState::new();
        other.restore(&mut &bytes[..]).unwrap();
        assert_eq!(state.view(), machine.store.view());
        for end in [0, 3, 100, bytes.len() - 1] {
            assert!(ClusterState::new().1.restore(&mut &bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn noise_is_skipped_not_fatal() {
        let (_, mut machine) = ClusterState::new();
        let verdict = machine.apply(3, 1, b"\xff\xff\xff");
        assert!(verdict.downcast::<Verdict>().unwrap().is_err());
    }
}
