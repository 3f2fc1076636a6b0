//! The networks' set on disk: what a daemon that starts goes by until a manager answers.
//!
//! One file: what it is, a checksum, the set as one complete message of the wire. It is written whole,
//! beside the old one, and renamed; nothing is synced, as whatever is missing after a power cut is
//! learned again from the managers.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use prost::Message;
use swarm_proto::v1;
use swarm_types::assignment::AssignmentsKind;
use swarm_types::network_set::{NetworkSet, NetworksMessage};
use tracing::warn;

const MAGIC: &[u8; 8] = b"SWNETWS1";
const SUM_BYTES: usize = 4;

/// Keeps the set at `path`.
pub(crate) fn write(path: &Path, set: &NetworkSet) -> io::Result<()> {
    let message = NetworksMessage {
        kind: AssignmentsKind::Complete,
        results_in: set.version,
        changes: set.to_changes(),
    };
    let content = v1::Networks::from(&message).encode_to_vec();
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32fast::hash(&content).to_le_bytes())?;
    file.write_all(&content)?;
    fs::rename(&new, path)
}

/// The set that was kept, if there is one and it can be read.
pub(crate) fn read(path: &Path) -> Option<NetworkSet> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            warn!(file = %path.display(), error = %e, "cannot read the networks, they will be learned from the managers");
            return None;
        }
    };
    let set = decode(&bytes);
    if set.is_none() {
        warn!(file = %path.display(), "the file of the networks is damaged, they will be learned from the managers");
    }
    set
}

fn decode(bytes: &[u8]) -> Option<NetworkSet> {
    let (sum, content) = bytes.strip_prefix(MAGIC.as_slice())?.split_at_checked(SUM_BYTES)?;
    if u32::from_le_bytes(sum.try_into().ok()?) != crc32fast::hash(content) {
        return None;
    }
    let message = NetworksMessage::try_from(v1::Networks::decode(content).ok()?).ok()?;
    let mut set = NetworkSet::default();
    set.take(&message);
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use swarm_types::network_set::{Peer, SelfPart};

    fn set() -> NetworkSet {
        let own = SelfPart { node: "n1".into(), index: 3, ..SelfPart::default() };
        let peer = Peer {
            node: "n2".into(),
            index: 4,
            addr: [10, 0, 0, 2].into(),
            entry: vec![],
            keys: vec!["k".into()],
            tunnel_port: 4790,
        };
        let mut set = NetworkSet { version: 9, own: Some(Arc::new(own)), ..NetworkSet::default() };
        set.peers.insert(peer.node, Arc::new(peer));
        set
    }

    #[test]
    fn comes_back_the_same_and_damage_anywhere_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks");
        assert_eq!(read(&path), None);
        write(&path, &set()).unwrap();
        assert_eq!(read(&path), Some(set()));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            assert_eq!(read(&path), None, "damage at {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(&path), None, "cut at {at}");
        }
        write(&path, &NetworkSet::default()).unwrap();
        assert_eq!(read(&path), Some(NetworkSet::default()));
    }
}
