//! Networks: what this node was told of them, how far its kernel has come, what is owed to the
//! dispatcher.
//!
//! Reads:   one [`NetworksMessage`] at a time; what the data plane says.
//! Writes:  the set that the kernel is to agree with; one report at a time.
//! Never:   waits to gather: while one report is under way, the next one gathers.
//! Start:   [`Networks::told`].

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::network_set::{NetworkProblem, NetworkSet, NetworksMessage};
use swarm_types::node::NetworkDescription;

use crate::assignments::{Chain, Verdict};

/// How a node's networks are, as its data plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkStatus {
    /// What cannot be made so, or is wrong; sorted.
    pub problems: Vec<NetworkProblem>,
    /// The node's end of the networks.
    pub description: NetworkDescription,
}

/// What the dispatcher is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkReport {
    /// Number of the session's last message that the kernel agrees with; 0: none yet.
    pub applied: u64,
    /// All problems that there are.
    pub problems: Vec<NetworkProblem>,
    /// The node's end of the networks; none if the dispatcher has it from an earlier report.
    pub description: Option<NetworkDescription>,
}

/// The networks of a worker.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    chain: Chain,
    set: Arc<NetworkSet>,
    /// Counts the sets that the kernel was asked to agree with: the numbers of messages begin anew with
    /// each session, and an answer may come late.
    turn: u64,
    /// Of the turns that are not done, those of this session, and the numbers of their messages.
    pending: BTreeMap<u64, u64>,
    done: u64,
    cleared: bool,
    applied: u64,
    status: NetworkStatus,
    /// What the dispatcher of this session has of it.
    taken: Option<NetworkReport>,
    under_way: Option<NetworkReport>,
}

impl Networks {
    /// The set that is to be.
    pub fn set(&self) -> &Arc<NetworkSet> {
        &self.set
    }

    /// The kernel agrees with all that it was asked for.
    pub fn is_settled(&self) -> bool {
        self.done == self.turn
    }

    /// What was on disk when the daemon started: good until a manager says more.
    pub fn restored(&mut self, set: &NetworkSet) -> (u64, Arc<NetworkSet>) {
        self.wanted(NetworkSet { version: 0, ..set.clone() })
    }

    /// This node has left: nothing of any network is to stay. Said once.
    pub fn clear(&mut self) -> Option<(u64, Arc<NetworkSet>)> {
        let first = !std::mem::replace(&mut self.cleared, true);
        first.then(|| self.wanted(NetworkSet::default()))
    }

    /// A session begins or has ended: numbers mean nothing any more, and all is owed once.
    pub fn interrupted(&mut self) {
        self.chain.reset();
        self.pending.clear();
        self.applied = 0;
        self.taken = None;
        self.under_way = None;
    }

    /// A message of this session. If it fits, the turn and the set for the kernel.
    pub fn told(&mut self, message: &NetworksMessage) -> Result<Option<(u64, Arc<NetworkSet>)>, Gap> {
        match self.chain.accept_numbers(message.kind, message.results_in) {
            Verdict::Apply => {}
            Verdict::Ignore => return Ok(None),
            Verdict::Gap => return Err(Gap),
        }
        let mut set = NetworkSet::clone(&self.set);
        set.take(message);
        let (turn, set) = self.wanted(set);
        self.pending.insert(turn, message.results_in);
        Ok(Some((turn, set)))
    }

    /// The kernel agrees with the set of this turn, and so with what came before it.
    pub fn applied(&mut self, turn: u64) {
        self.done = self.done.max(turn);
        while let Some(entry) = self.pending.first_entry().filter(|e| *e.key() <= turn) {
            self.applied = entry.remove();
        }
    }

    /// How the networks are now.
    pub fn status(&mut self, status: NetworkStatus) {
        self.status = status;
    }

    /// The dispatcher has taken the report that was under way.
    pub fn taken(&mut self) {
        if let Some(report) = self.under_way.take() {
            self.taken = Some(report);
        }
    }

    /// What to report now, if there is something and no report is under way.
    pub fn next_report(&mut self) -> Option<NetworkReport> {
        if self.under_way.is_some() {
            return None;
        }
        let now = NetworkReport {
            applied: self.applied,
            problems: self.status.problems.clone(),
            description: Some(self.status.description.clone()),
        };
        let nothing =
            NetworkReport { description: Some(NetworkDescription::default()), ..Default::default() };
        let theirs = self.taken.as_ref().unwrap_or(&nothing);
        if *theirs == now {
            return None;
        }
        let known = theirs.description == now.description;
        self.under_way = Some(now.clone());
        Some(NetworkReport { description: now.description.filter(|_| !known), ..now })
    }

    fn wanted(&mut self, set: NetworkSet) -> (u64, Arc<NetworkSet>) {
        self.turn += 1;
        self.set = Arc::new(set);
        (self.turn, Arc::clone(&self.set))
    }
}

/// A message is missing before this one: the whole set is needed. Said once for each gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap;

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::assignment::AssignmentsKind;
    use swarm_types::network_set::{NetworkChange, SelfPart};

    fn whole(results_in: u64) -> NetworksMessage {
        let own = SelfPart { index: 7, ..SelfPart::default() };
        let changes = vec![NetworkChange::PutSelf(Arc::new(own))];
        NetworksMessage { kind: AssignmentsKind::Complete, results_in, changes }
    }
    fn diff(applies_to: u64) -> NetworksMessage {
        let kind = AssignmentsKind::Incremental { applies_to };
        NetworksMessage { kind, results_in: applies_to + 1, changes: vec![] }
    }
    fn problem(text: &str) -> NetworkStatus {
        let problem = NetworkProblem { subject: "port".into(), text: text.into() };
        NetworkStatus { problems: vec![problem], ..NetworkStatus::default() }
    }

    #[test]
    fn only_the_newest_number_is_reported_and_one_report_at_a_time() {
        let mut networks = Networks::default();
        assert_eq!(networks.next_report(), None, "nothing is known of it yet");
        let turns: Vec<u64> = [whole(4), diff(4), diff(5)]
            .iter()
            .map(|m| networks.told(m).expect("fits").expect("is new").0)
            .collect();
        assert!(!networks.is_settled());
        networks.applied(turns[0]);
        assert_eq!(networks.next_report().expect("is owed").applied, 4);
        networks.applied(turns[1]);
        networks.applied(turns[2]);
        assert_eq!(networks.next_report(), None, "one is under way");
        networks.taken();
        assert_eq!(networks.next_report().expect("is owed").applied, 6);
        networks.taken();
        assert_eq!(networks.next_report(), None);
        assert!(networks.is_settled());
    }

    #[test]
    fn a_late_answer_of_an_earlier_session_confirms_nothing() {
        let mut networks = Networks::default();
        let (old, _) = networks.told(&whole(9)).expect("fits").expect("is new");
        networks.interrupted();
        let (new, set) = networks.told(&whole(2)).expect("fits").expect("is new");
        assert_eq!(set.own.as_ref().map(|own| own.index), Some(7));
        networks.applied(old);
        assert_eq!(networks.next_report(), None);
        networks.applied(new);
        assert_eq!(networks.next_report().expect("is owed").applied, 2);
    }

    #[test]
    fn a_gap_is_said_once_and_the_set_of_before_stays() {
        let mut networks = Networks::default();
        networks.told(&whole(1)).expect("fits");
        assert_eq!(networks.told(&diff(3)), Err(Gap));
        assert_eq!(networks.told(&diff(4)), Ok(None));
        assert!(networks.set().own.is_some());
        assert!(networks.told(&whole(7)).expect("fits").is_some());
    }

    #[test]
    fn problems_and_the_description_are_told_when_they_change_and_once_a_session() {
        let mut networks = Networks::default();
        networks.status(problem("is taken"));
        let report = networks.next_report().expect("is owed");
        assert_eq!((report.problems.len(), report.description), (1, None));
        networks.taken();
        let description = NetworkDescription { keys: vec!["k".into()], ..NetworkDescription::default() };
        networks.status(NetworkStatus { description: description.clone(), ..problem("is taken") });
        assert_eq!(networks.next_report().expect("is owed").description, Some(description.clone()));
        networks.taken();
        networks.status(NetworkStatus { description: description.clone(), problems: vec![] });
        let report = networks.next_report().expect("is owed");
        assert_eq!((report.problems.len(), report.description), (0, None));
        networks.interrupted();
        assert_eq!(networks.next_report().expect("is owed").description, Some(description));
    }
}
