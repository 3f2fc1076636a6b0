//! What a node knows about itself across restarts, besides its keys: one small file, written whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_types::id::{ClusterId, NodeId};

/// How long a daemon that starts waits for the one before it to be gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The node's folder.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// What a node must remember to be the same one after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    node_id: String,
    cluster_id: String,
    /// `host:port` that others are told.
    pub(crate) advertise_addr: String,
    /// `host:port` that is listened on, as a manager.
    pub(crate) listen_addr: String,
    /// `host:port` of the managers that it knows.
    pub(crate) managers: Vec<String>,
    /// The address for the traffic of networks; none: the one that it is seen under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_path_addr: Option<IpAddr>,
    /// It was a manager once: nodes that were away since then may know no other.
    #[serde(default)]
    pub(crate) was_manager: bool,
}

impl NodeRecord {
    pub(crate) fn new(node: NodeId, cluster: ClusterId, advertise_addr: String, listen_addr: String) -> Self {
        NodeRecord {
            node_id: node.to_string(),
            cluster_id: cluster.to_string(),
            advertise_addr,
            listen_addr,
            managers: Vec::new(),
            data_path_addr: None,
            was_manager: false,
        }
    }
    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(&self.node_id)
    }
    pub(crate) fn cluster(&self) -> ClusterId {
        ClusterId::new(&self.cluster_id)
    }
}

/// The node's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    #[error("make the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    #[error("another swarmd uses the folder {0}")]
    Taken(PathBuf),
    #[error("read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("read {0}: it is damaged; restore it, or leave the swarm with --force and join again")]
    Damaged(PathBuf, #[source] serde_json::Error),
    #[error("write {0}")]
    Write(PathBuf, #[source] io::Error),
}

impl StateDir {
    /// Takes the folder for this process; the file is the lock that says so.
    pub(crate) fn open(dir: &Path) -> Result<(StateDir, File), StateDirError> {
        let make = |d: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(d);
        make(dir).map_err(|e| StateDirError::Folder(dir.to_owned(), e))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|e| StateDirError::Write(path, e))?;
        lock.try_lock().map_err(|_| StateDirError::Taken(dir.to_owned()))?;
        Ok((StateDir(dir.to_owned()), lock))
    }

    /// As [`StateDir::open`], but waits for a daemon that is just ending: one that was killed holds the
    /// lock until the system has taken it apart.
    pub(crate) async fn open_patiently(dir: &Path) -> Result<(StateDir, File), StateDirError> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match StateDir::open(dir) {
                Err(StateDirError::Taken(_)) if tokio::time::Instant::now() < end => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// A folder or file in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What was kept; none if this node belongs to no cluster.
    pub(crate) fn load(&self) -> Result<Option<NodeRecord>, StateDirError> {
        let path = self.join("node.json");
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|e| StateDirError::Damaged(path, e))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StateDirError::Read(path, e)),
        }
    }

    /// Keeps `record`: after a crash there is the old one or the new one.
    pub(crate) fn save(&self, record: &NodeRecord) -> Result<(), StateDirError> {
        let path = self.join("node.json");
        self.write(&path, record).map_err(|e| StateDirError::Write(path, e))
    }

    fn write(&self, path: &Path, record: &NodeRecord) -> io::Result<()> {
        let next = self.join("node.json.next");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        File::open(&self.0)?.sync_all()
    }

    /// Forgets all that belongs to a cluster. The record goes first: without it, what is left over
    /// by a crash is never used.
    pub(crate) fn clear(&self) -> Result<(), StateDirError> {
        for name in ["node.json", "certs", "manager", "worker"] {
            let path = self.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StateDirError::Write(path, e)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        NodeRecord::new("n".into(), "c".into(), "a:1".into(), "b:2".into())
    }

    #[test]
    fn keeps_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _lock) = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.load().unwrap(), None);
        state.save(&record()).unwrap();
        assert_eq!(state.load().unwrap(), Some(record()));
        // Records of before there were networks have no address for them.
        assert!(!fs::read_to_string(state.join("node.json")).unwrap().contains("data_path_addr"));
        let apart = NodeRecord { data_path_addr: Some([10, 1, 0, 1].into()), ..record() };
        state.save(&apart).unwrap();
        assert_eq!(state.load().unwrap(), Some(apart));
        state.clear().unwrap();
        assert_eq!(state.load().unwrap(), None);
    }

    #[test]
    fn damage_is_named_and_a_second_daemon_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _lock) = StateDir::open(dir.path()).unwrap();
        fs::write(state.join("node.json"), "{").unwrap();
        assert!(state.load().unwrap_err().to_string().contains("damaged"));
        assert!(matches!(StateDir::open(dir.path()), Err(StateDirError::Taken(_))));
    }
}
