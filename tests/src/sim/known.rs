//! The managers that a node knows, as `worker/agent/src/managers.rs` keeps them on disk.

use super::net::Host;

/// So many former managers are kept.
const FORMER: usize = 16;

/// The managers that a node knows.
#[derive(Debug, Clone, Default)]
pub struct Managers {
    /// The leader first.
    learned: Vec<Host>,
    former: Vec<Host>,
    /// Those that this node's own manager finds in its log.
    given: Vec<Host>,
    named: Option<Host>,
    /// Whose turn it is.
    pub next: usize,
}

impl Managers {
    /// The one to dial now.
    pub fn pick(&mut self) -> Option<Host> {
        if let Some(named) = self.named.take() {
            return Some(named);
        }
        let all: Vec<Host> = self.now().collect();
        let former: Vec<Host> = self.former.iter().copied().filter(|f| !all.contains(f)).collect();
        let turns = (all.len() + usize::from(!former.is_empty())).max(1);
        let picked = match all.get(self.next % turns) {
            Some(manager) => Some(*manager),
            None => former.get(self.next / turns % former.len().max(1)).copied(),
        };
        self.next = self.next.wrapping_add(1);
        picked
    }
    /// Somebody said that this one is the leader.
    pub fn named(&mut self, leader: Option<Host>) {
        self.named = leader;
    }
    /// The daemon starts; its manager finds these in its log.
    pub fn given(&mut self, group: Vec<Host>) {
        self.given = group;
    }
    /// These are managers now.
    pub fn learn(&mut self, managers: Vec<Host>) {
        if managers.is_empty() || managers == self.learned {
            return;
        }
        let before = std::mem::replace(&mut self.learned, managers);
        self.former.retain(|a| !self.learned.contains(a) && !before.contains(a));
        self.former.splice(0..0, before.into_iter().filter(|a| !self.learned.contains(a)));
        self.former.truncate(FORMER);
        self.next = 1;
    }
    /// All that it ever was told of, as far as it remembers; those that are managers first.
    pub fn all(&self) -> impl Iterator<Item = Host> {
        self.now().chain(self.former.iter().copied())
    }

    fn now(&self) -> impl Iterator<Item = Host> {
        let given = self.given.iter().filter(|h| !self.learned.contains(h));
        self.learned.iter().chain(given).copied()
    }
}
