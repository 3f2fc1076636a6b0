//! Assignments: does a message fit on the set that we have, and what does it change?
//!
//! Reads:   one [`AssignmentsMessage`]; the ids of the tasks that the node has.
//! Writes:  the number of the set, as a value.
//! Never:   touches a task; guesses what a missing message said.
//! Start:   [`Chain::accept`].

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_types::assignment::{AssignmentChange, AssignmentsKind, AssignmentsMessage};
use swarm_types::id::TaskId;
use swarm_types::task::Task;

/// Which message of the session's chain was applied last.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    applied: Option<u64>,
    resync_asked: bool,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Apply,
    /// It was applied already, or the whole set is on its way.
    Ignore,
    /// One is missing before it: ask for the whole set. Said once for each gap.
    Gap,
}

impl Chain {
    /// A new session: nothing fits but a complete set.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether a complete set was applied in this session.
    pub fn has_set(&self) -> bool {
        self.applied.is_some()
    }

    /// Decides whether `message` is the next one, and remembers it if so.
    pub fn accept(&mut self, message: &AssignmentsMessage) -> Verdict {
        self.accept_numbers(message.kind, message.results_in)
    }

    /// As [`Chain::accept`], for a message of any kind with these numbers.
    pub fn accept_numbers(&mut self, kind: AssignmentsKind, results_in: u64) -> Verdict {
        match kind {
            // A session has one; said again, it is older than what came after it.
            AssignmentsKind::Complete if self.applied.is_some_and(|at| results_in <= at) => Verdict::Ignore,
            AssignmentsKind::Complete => {
                self.applied = Some(results_in);
                self.resync_asked = false;
                Verdict::Apply
            }
            AssignmentsKind::Incremental { applies_to } => match self.applied {
                Some(at) if at == applies_to => {
                    self.applied = Some(results_in);
                    Verdict::Apply
                }
                Some(at) if results_in <= at => Verdict::Ignore,
                _ if self.resync_asked => Verdict::Ignore,
                _ => {
                    self.applied = None;
                    self.resync_asked = true;
                    Verdict::Gap
                }
            },
        }
    }
}

/// What a message that was accepted changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Tasks to have as they are here.
    pub update: Vec<Arc<Task>>,
    /// Tasks to have no more.
    pub remove: BTreeSet<TaskId>,
}

/// What `message` changes for a node that has the tasks `known`.
pub fn changes(message: &AssignmentsMessage, known: impl Iterator<Item = TaskId>) -> Changes {
    let mut changes = Changes::default();
    if message.kind == AssignmentsKind::Complete {
        changes.remove.extend(known);
    }
    for change in &message.changes {
        match change {
            AssignmentChange::Update(task) => {
                changes.remove.remove(&task.id);
                changes.update.push(Arc::clone(task));
            }
            AssignmentChange::Remove(id) => {
                changes.update.retain(|t| t.id != *id);
                changes.remove.insert(*id);
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: AssignmentsKind, results_in: u64, changes: Vec<AssignmentChange>) -> AssignmentsMessage {
        AssignmentsMessage { kind, results_in, changes }
    }
    fn diff(applies_to: u64) -> AssignmentsMessage {
        message(AssignmentsKind::Incremental { applies_to }, applies_to + 1, vec![])
    }
    fn whole(results_in: u64) -> AssignmentsMessage {
        message(AssignmentsKind::Complete, results_in, vec![])
    }

    #[test]
    fn refuses_a_gap_once_and_waits_for_the_whole_set() {
        let mut chain = Chain::default();
        let said: Vec<_> =
            [diff(3), diff(4), whole(7), diff(7), diff(7), diff(9), diff(10), whole(2), diff(2)]
                .iter()
                .map(|m| chain.accept(m))
                .collect();
        use Verdict::{Apply, Gap, Ignore};
        assert_eq!(said, [Gap, Ignore, Apply, Apply, Ignore, Gap, Ignore, Apply, Apply]);
    }

    #[test]
    fn a_complete_set_that_comes_again_brings_nothing_back() {
        let mut chain = Chain::default();
        let said: Vec<_> = [whole(1), diff(1), whole(1), diff(2)].iter().map(|m| chain.accept(m)).collect();
        assert_eq!(said, [Verdict::Apply, Verdict::Apply, Verdict::Ignore, Verdict::Apply]);
        chain.reset();
        assert_eq!(chain.accept(&whole(1)), Verdict::Apply, "of another session");
    }

    #[test]
    fn what_a_complete_set_does_not_name_is_gone() {
        let task = |id: &str| Arc::new(Task { id: id.into(), ..Task::default() });
        let set = message(AssignmentsKind::Complete, 1, vec![AssignmentChange::Update(task("a"))]);
        let got = changes(&set, ["a".into(), "b".into()].into_iter());
        assert_eq!(got.update, [task("a")]);
        assert_eq!(got.remove, BTreeSet::from(["b".into()]));

        let part = message(
            AssignmentsKind::Incremental { applies_to: 1 },
            2,
            vec![AssignmentChange::Update(task("c")), AssignmentChange::Remove("c".into())],
        );
        let got = changes(&part, ["a".into()].into_iter());
        assert_eq!((got.update, got.remove), (vec![], BTreeSet::from(["c".into()])));
    }
}
