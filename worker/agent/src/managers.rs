//! Which manager to dial: those that are known, on disk too, and the one that was named as the leader.
//!
//! A node that was away may come back when all the managers it knew are none any more. So those that
//! were managers once are kept too: the daemon of a former manager says who the managers are now
//! ([`crate::dial::DialError::Elsewhere`]).

use std::fs;
use std::io;
use std::path::PathBuf;

use swarm_types::id::IdSource;
use tracing::warn;

/// So many former managers are kept, those that were it last.
const FORMER: usize = 16;
/// In the file: what follows were managers once.
const MARK: &str = "# former";

/// The managers that this node knows.
#[derive(Debug)]
pub(crate) struct Managers {
    file: PathBuf,
    /// Those that the cluster told of.
    learned: Vec<String>,
    /// Those that it told of before.
    former: Vec<String>,
    /// Those that the settings name: tried too, when the learned ones do not answer.
    given: Vec<String>,
    leader: Option<String>,
    next: usize,
}

impl Managers {
    /// Those of the settings and those learned before the last restart.
    pub(crate) fn load(file: PathBuf, given: Vec<String>, dice: &mut IdSource) -> Self {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                warn!(file = %file.display(), error = %e, "cannot read the list of managers, using the settings");
                String::new()
            }
        };
        let (learned, former) = text.split_once(MARK).unwrap_or((&text, ""));
        let lines = |text: &str| text.lines().filter(|l| l.contains(':')).map(str::to_owned).collect();
        // Not all nodes that start at the same time ask the same manager first.
        let next = usize::try_from(dice.below(64)).unwrap_or(0);
        Self { file, learned: lines(learned), former: lines(former), given, leader: None, next }
    }

    /// All addresses of managers, each once.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut all = self.learned.clone();
        all.extend(self.given.iter().filter(|a| !self.learned.contains(a)).cloned());
        all
    }

    /// The address to dial now: the leader if one was named since the last try, else the next in turn.
    /// After each round of those that are managers comes one that was.
    pub(crate) fn pick(&mut self) -> Option<String> {
        if let Some(leader) = self.leader.take() {
            return Some(leader);
        }
        let all = self.all();
        let former: Vec<&String> = self.former.iter().filter(|a| !all.contains(a)).collect();
        let turns = (all.len() + usize::from(!former.is_empty())).max(1);
        let picked = match all.get(self.next % turns) {
            Some(manager) => Some(manager.clone()),
            None => former.get(self.next / turns % former.len().max(1)).map(|f| (*f).clone()),
        };
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
        let before = std::mem::replace(&mut self.learned, addrs.to_vec());
        self.former.retain(|a| !addrs.contains(a) && !before.contains(a));
        self.former.splice(0..0, before.into_iter().filter(|a| !addrs.contains(a)));
        self.former.truncate(FORMER);
        // After the leader is lost, the one after it in the list is asked first.
        self.next = 1;
        if let Err(e) = self.store() {
            warn!(file = %self.file.display(), error = %e, "cannot write the list of managers");
        }
    }

    fn store(&self) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let mut text = self.learned.join("\n");
        if !self.former.is_empty() {
            text = format!("{text}\n{MARK}\n{}", self.former.join("\n"));
        }
        text.push('\n');
        fs::write(&new, text)?;
        fs::rename(&new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::id::Seed;

    fn load(dir: &tempfile::TempDir, given: &str) -> Managers {
        Managers::load(dir.path().join("managers"), vec![given.into()], &mut IdSource::new(Seed(1)))
    }

    fn picks<const N: usize>(managers: &mut Managers) -> [String; N] {
        std::array::from_fn(|_| managers.pick().unwrap())
    }

    #[test]
    fn learns_keeps_and_takes_turns() {
        let dir = tempfile::tempdir().unwrap();
        let mut managers = load(&dir, "given:1");
        assert_eq!(managers.pick(), Some("given:1".into()));
        managers.learn(&["a:1".into(), "b:1".into()]);
        managers.named_leader("c:1".into());
        assert_eq!(picks(&mut managers), ["c:1", "b:1", "given:1", "a:1"]);
        managers.learn(&[]);
        assert_eq!(load(&dir, "given:1").all(), ["a:1", "b:1", "given:1"]);
        fs::write(dir.path().join("managers"), [0xff, 0xfe]).unwrap();
        assert_eq!(load(&dir, "given:1").all(), ["given:1"]);
    }

    #[test]
    fn those_that_were_managers_are_asked_last_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut managers = load(&dir, "a:1");
        for now in [["a:1", "b:1"], ["c:1", "b:1"], ["c:1", "d:1"], ["a:1", "c:1"]] {
            managers.learn(&now.map(str::to_owned));
        }
        assert_eq!(managers.all(), ["a:1", "c:1"]);
        let turns = ["c:1", "d:1", "a:1", "c:1", "b:1", "a:1", "c:1", "d:1"];
        assert_eq!(picks(&mut managers), turns);
        let mut again = load(&dir, "a:1");
        assert_eq!(again.all(), ["a:1", "c:1"]);
        again.next = 1;
        assert_eq!(picks(&mut again), turns, "after a restart too");
        for n in 0..100 {
            again.learn(&[format!("n{n}:1")]);
        }
        assert_eq!(again.former.len(), FORMER);
        assert_eq!(again.former[0], "n98:1");
    }
}
