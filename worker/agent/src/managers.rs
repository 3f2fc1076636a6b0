//! Which manager to dial: those that are known, on disk too, and the one that was named as the leader.

use std::fs;
use std::io;
use std::path::PathBuf;

use swarm_types::id::IdSource;
use tracing::warn;

/// The managers that this node knows.
#[derive(Debug)]
pub(crate) struct Managers {
    file: PathBuf,
    /// Those that the cluster told of.
    learned: Vec<String>,
    /// Those that the settings name: tried too, when the learned ones do not answer.
    given: Vec<String>,
    leader: Option<String>,
    next: usize,
}

impl Managers {
    /// Those of the settings and those learned before the last restart.
    pub(crate) fn load(file: PathBuf, given: Vec<String>, dice: &mut IdSource) -> Self {
        let learned = match fs::read_to_string(&file) {
            Ok(text) => text.lines().filter(|l| l.contains(':')).map(str::to_owned).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => {
                warn!(file = %file.display(), error = %e, "cannot read the list of managers, using the settings");
                Vec::new()
            }
        };
        // Not all nodes that start at the same time ask the same manager first.
        let next = usize::try_from(dice.below(64)).unwrap_or(0);
        Self { file, learned, given, leader: None, next }
    }

    /// All addresses, each once.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut all = self.learned.clone();
        all.extend(self.given.iter().filter(|a| !self.learned.contains(a)).cloned());
        all
    }

    /// The address to dial now: the leader if one was named since the last try, else the next in turn.
    pub(crate) fn pick(&mut self) -> Option<String> {
        if let Some(leader) = self.leader.take() {
            return Some(leader);
        }
        let all = self.all();
        let picked = all.get(self.next % all.len().max(1)).cloned();
        self.next = self.next.wrapping_add(1);
        picked
    }

    /// Someone said that this one is the leader.
    pub(crate) fn named_leader(&mut self, addr: String) {
        self.leader = Some(addr);
    }

    /// The cluster's managers, the leader first. An empty list teaches nothing.
    pub(crate) fn learn(&mut self, addrs: &[String]) {
        if addrs.is_empty() || addrs == self.learned {
            return;
        }
        self.learned = addrs.to_vec();
        // After the leader is lost, the one after it in the list is asked first.
        self.next = 1;
        if let Err(e) = self.store() {
            warn!(file = %self.file.display(), error = %e, "cannot write the list of managers");
        }
    }

    fn store(&self) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let mut text = self.learned.join("\n");
        text.push('\n');
        fs::write(&new, text)?;
        fs::rename(&new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::id::Seed;

    #[test]
    fn learns_keeps_and_takes_turns() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("managers");
        let load = || Managers::load(file.clone(), vec!["given:1".into()], &mut IdSource::new(Seed(1)));
        let mut managers = load();
        assert_eq!(managers.pick(), Some("given:1".into()));
        managers.learn(&["a:1".into(), "b:1".into()]);
        managers.named_leader("c:1".into());
        let picked: Vec<_> = (0..4).filter_map(|_| managers.pick()).collect();
        assert_eq!(picked, ["c:1", "b:1", "given:1", "a:1"]);
        managers.learn(&[]);
        assert_eq!(load().all(), ["a:1", "b:1", "given:1"]);
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(load().all(), ["given:1"]);
    }
}
