//! The core alone: a small simulated net, and nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::members::Member;
use swarm_types::id::NodeId;

/// A handful of cores, a queue of messages, and what each has persisted and applied.
struct World {
    cores: BTreeMap<u64, Core>,
    queue: Vec<(u64, u64, Envelope)>,
    dice: IdSource,
    cut: BTreeSet<u64>,
    applied: BTreeMap<u64, Vec<(u64, u64, Bytes)>>,
    trace: Vec<String>,
    loss_percent: u64,
    reads: Vec<(u64, ReadState)>,
}

fn member(id: u64) -> Member {
    let role = MemberRole::Voter;
    Member { raft_id: id, node_id: NodeId::new(format!("n{id}")), address: format!("h{id}"), role }
}

fn settings(id: u64, seed: u64) -> CoreSettings {
    CoreSettings::new(id, Seed(seed))
}

impl World {
    fn new(n: u64, seed: u64) -> Self {
        let mut members = Members::founder(NodeId::new("n1"), "h1".into());
        for id in 2..=n {
            members.apply(&Change::Add(member(id)));
        }
        let cores = (1..=n).map(|id| {
            let start = Core::bootstrap(members.clone());
            (id, Core::new(settings(id, seed), start).unwrap())
        });
        Self {
            cores: cores.collect(),
            queue: Vec::new(),
            dice: IdSource::new(Seed(seed)),
            cut: BTreeSet::new(),
            applied: BTreeMap::new(),
            trace: Vec::new(),
            loss_percent: 0,
            reads: Vec::new(),
        }
    }

    fn drain(&mut self, id: u64) {
        let Some(core) = self.cores.get_mut(&id) else { return };
        while let Some(mut ready) = core.ready() {
            let after = std::mem::take(&mut ready.persisted_messages);
            for e in std::mem::take(&mut ready.messages).into_iter().chain(after) {
                self.queue.push((id, e.to, e));
            }
            if let Some(s) = &ready.snapshot {
                self.trace.push(format!("{id} installs {}", s.index));
            }
            for e in &ready.committed {
                self.trace.push(format!("{id} applies {} {}", e.index, e.term));
                self.applied.entry(id).or_default().push((e.index, e.term, e.data.clone()));
            }
            if ready.role_changed {
                self.trace.push(format!("{id} {:?} {}", core.role(), core.term()));
            }
            self.reads.extend(ready.read_states.iter().map(|r| (id, *r)));
            core.advance(ready);
        }
    }

    fn deliver(&mut self) {
        for id in self.cores.keys().copied().collect::<Vec<_>>() {
            self.drain(id);
        }
        while !self.queue.is_empty() {
            let at = usize::try_from(self.dice.below(self.queue.len().min(3) as u64)).unwrap();
            let (from, to, e) = self.queue.remove(at);
            let lost = self.cut.contains(&from) || self.cut.contains(&to);
            if lost || self.dice.below(100) < self.loss_percent {
                if e.snapshot.is_some() {
                    self.cores.get_mut(&from).unwrap().report_snapshot(to, false);
                }
                continue;
            }
            let Some(core) = self.cores.get_mut(&to) else { continue };
            if e.snapshot.is_some() {
                core.step_snapshot(&e.message).unwrap();
                self.cores.get_mut(&from).unwrap().report_snapshot(to, true);
            } else {
                let _refused = core.step(&e.message);
            }
            self.drain(to);
            self.drain(from);
        }
    }

    fn tick(&mut self) {
        for core in self.cores.values_mut() {
            core.tick();
        }
        self.deliver();
    }

    fn leader(&self) -> Option<u64> {
        let leads = |(&id, c): (&u64, &Core)| (c.role() == Role::Leader).then(|| (c.term(), id));
        self.cores.iter().filter_map(leads).filter(|(_, id)| !self.cut.contains(id)).max().map(|l| l.1)
    }

    fn elect(&mut self) -> u64 {
        for _ in 0..200 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.tick();
        }
        panic!("no leader after 200 ticks");
    }

    fn propose(&mut self, text: &str) -> ProposalId {
        let leader = self.elect();
        let data = Bytes::copy_from_slice(text.as_bytes());
        let id = self.cores.get_mut(&leader).unwrap().propose(vec![data]).unwrap()[0];
        self.deliver();
        id
    }
}

#[test]
fn same_inputs_same_outputs_and_another_seed_another_story() {
    let run = |seed| {
        let mut w = World::new(5, seed);
        w.loss_percent = 10;
        for n in 0..40 {
            w.tick();
            if let Some(leader) = w.leader() {
                let data = Bytes::from(format!("{n}"));
                let _refused = w.cores.get_mut(&leader).unwrap().propose(vec![data]);
            }
            if n == 20 {
                w.cut = w.leader().into_iter().collect();
            }
            if n == 35 {
                w.cut.clear();
            }
        }
        w.trace
    };
    assert_eq!(run(1), run(1));
    assert!(run(1).len() > 50);
    assert_ne!(run(1), run(2));
}

#[test]
fn logs_agree_and_nothing_committed_is_lost_under_cuts_and_loss() {
    for seed in 0..30 {
        let mut w = World::new(3, seed);
        w.loss_percent = 5;
        let mut acked = BTreeSet::new();
        for n in 0..150u64 {
            w.tick();
            if let Some(leader) = w.leader() {
                let data = Bytes::from(format!("{n}"));
                let ids = w.cores.get_mut(&leader).unwrap().propose(vec![data]);
                w.deliver();
                if let Ok(ids) = ids {
                    let applied = w.applied.get(&leader).cloned().unwrap_or_default();
                    let made =
                        |id: &&ProposalId| applied.iter().any(|(i, t, _)| (*i, *t) == (id.index, id.term));
                    acked.extend(ids.iter().filter(made).copied());
                }
            }
            if n % 25 == 10 {
                let whom = 1 + w.dice.below(3);
                w.cut = BTreeSet::from([whom]);
            } else if n % 25 == 20 {
                w.cut.clear();
            }
        }
        w.cut.clear();
        w.loss_percent = 0;
        for _ in 0..30 {
            w.tick();
        }
        assert!(acked.len() > 30, "seed {seed}: only {} proposals", acked.len());
        let first = w.applied[&1].clone();
        for id in 1..=3 {
            assert_eq!(w.applied[&id], first, "seed {seed}: manager {id}");
        }
        let there: BTreeSet<_> = first.iter().map(|(i, t, _)| ProposalId { index: *i, term: *t }).collect();
        assert!(acked.is_subset(&there), "seed {seed}");
    }
}

#[test]
fn the_draw_is_within_its_bounds_and_differs_between_managers() {
    let w = World::new(7, 3);
    let draws: BTreeSet<_> = w.cores.values().map(Core::patience).collect();
    assert!(draws.iter().all(|d| (6..=10).contains(d)), "{draws:?}");
    assert!(draws.len() > 1);
}

#[test]
fn a_new_leader_within_fifteen_ticks_and_the_old_one_comes_back_as_follower() {
    for seed in 0..200 {
        let mut w = World::new(3, seed);
        let old = w.elect();
        w.propose("a");
        w.cut.insert(old);
        let mut ticks = 0;
        while w.leader().is_none() {
            w.tick();
            ticks += 1;
            assert!(ticks <= 15, "seed {seed}");
        }
        let (new, term) = (w.leader().unwrap(), w.cores[&w.leader().unwrap()].term());
        assert_ne!(new, old);
        for _ in 0..10 {
            w.tick();
        }
        assert_ne!(w.cores[&old].role(), Role::Leader, "an isolated leader steps down");
        w.cut.clear();
        for _ in 0..20 {
            w.tick();
        }
        assert_eq!((w.leader(), w.cores[&new].term()), (Some(new), term), "seed {seed}: undisturbed");
    }
}

#[test]
fn a_manager_joins_by_snapshot_and_is_promoted_and_removed() {
    let mut w = World::new(1, 5);
    w.elect();
    for n in 0..10 {
        w.propose(&n.to_string());
    }
    let mut joining = member(2);
    joining.role = MemberRole::Learner;
    let core = w.cores.get_mut(&1).unwrap();
    core.propose_change(&Change::Add(joining)).unwrap();
    w.deliver();
    w.cores.insert(2, Core::new(settings(2, 5), Restored::default()).unwrap());
    for _ in 0..3 {
        w.tick();
    }
    assert!(w.cores[&1].wants_snapshot(), "the one from before it joined does not do");
    let core = w.cores.get_mut(&1).unwrap();
    let (index, members) = (core.applied(), core.members().clone());
    let meta = SnapshotMeta { index, term: core.term_at(index).unwrap(), members };
    core.snapshotted(meta, 0);
    for _ in 0..5 {
        w.tick();
    }
    assert_eq!(w.cores[&2].applied(), w.cores[&1].applied());
    assert_eq!(w.cores[&1].caught_up_learners(), [2]);
    w.cores.get_mut(&1).unwrap().propose_change(&Change::Promote(2)).unwrap();
    w.deliver();
    w.tick();
    assert_eq!(w.cores[&2].members().voters(), BTreeSet::from([1, 2]));
    let leader = w.elect();
    let own = w.cores.get_mut(&leader).unwrap().propose_change(&Change::Remove(leader));
    assert_eq!(own, Err(Refused::RemovesLeader));
    let other = 3 - leader;
    w.cores.get_mut(&leader).unwrap().propose_change(&Change::Remove(other)).unwrap();
    w.deliver();
    let id = w.propose("alone again");
    assert_eq!(w.cores[&leader].applied(), id.index);
    assert_eq!(w.cores[&leader].members().next_id(), 3);
}

#[test]
fn reads_are_answered_on_leader_and_follower_with_their_own_number() {
    let mut w = World::new(3, 8);
    let leader = w.elect();
    let id = w.propose("x");
    w.tick();
    for asker in 1..=3u64 {
        assert!(w.cores.get_mut(&asker).unwrap().read_index(70 + asker));
        w.deliver();
        let got = std::mem::take(&mut w.reads);
        assert_eq!(got.len(), 1, "asker {asker}, leader {leader}");
        assert_eq!((got[0].0, got[0].1.ctx), (asker, 70 + asker));
        assert!(got[0].1.index >= id.index);
    }
}

#[test]
fn bad_messages_are_refused_and_never_panic() {
    let mut w = World::new(3, 1);
    let leader = w.elect();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let term = w.cores[&leader].term();
    let core = w.cores.get_mut(&follower).unwrap();
    assert!(matches!(core.step(b"\xff\xff\xff"), Err(StepError::Malformed(_))));
    let mut m = Message::default();
    (m.from, m.to, m.term) = (leader, 77, term);
    m.set_msg_type(MessageType::MsgHeartbeat);
    assert_eq!(core.step(&m.write_to_bytes().unwrap()), Err(StepError::NotForMe(follower)));
    (m.to, m.commit) = (follower, 10_000);
    assert!(matches!(core.step(&m.write_to_bytes().unwrap()), Err(StepError::LostLog { .. })));
    m.set_msg_type(MessageType::MsgSnapshot);
    assert!(matches!(core.step(&m.write_to_bytes().unwrap()), Err(StepError::Malformed(_))));
    m.set_msg_type(MessageType::MsgPropose);
    assert!(core.step(&m.write_to_bytes().unwrap()).is_err(), "nobody proposes through a follower");
    m.set_msg_type(MessageType::MsgReadIndex);
    assert!(matches!(core.step(&m.write_to_bytes().unwrap()), Err(StepError::Malformed(_))));
}

#[test]
fn proposals_that_cannot_be_are_refused() {
    let mut w = World::new(3, 1);
    let leader = w.elect();
    let core = w.cores.get_mut(&leader).unwrap();
    assert_eq!(core.propose(vec![Bytes::new()]), Err(Refused::Empty));
    let big = Bytes::from(vec![1; MAX_PROPOSAL + 1]);
    assert_eq!(core.propose(vec![big]), Err(Refused::TooLarge(MAX_PROPOSAL + 1)));
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let core = w.cores.get_mut(&follower).unwrap();
    assert_eq!(core.propose(vec![Bytes::from_static(b"x")]), Err(Refused::NotLeader));
}

#[test]
fn a_restart_continues_from_snapshot_and_log() {
    let mut w = World::new(1, 2);
    w.elect();
    for n in 0..20 {
        w.propose(&n.to_string());
    }
    let core = &w.cores[&1];
    let entries = core.entries(2, core.last_index() + 1);
    let hard_state = HardState { term: core.term(), vote: 1, commit: core.committed() };
    let snapshot =
        SnapshotMeta { index: 10, term: core.term_at(10).unwrap(), members: core.members().clone() };
    let last = core.last_index();
    let restored = Restored { hard_state, snapshot, entries };
    assert!(!restored.log_is_superseded());
    let mut w2 = World::new(0, 2);
    w2.cores.insert(1, Core::new(settings(1, 2), restored.clone()).unwrap());
    w2.elect();
    w2.deliver();
    let indexes: Vec<u64> = w2.applied[&1].iter().map(|a| a.0).collect();
    assert_eq!(indexes, (11..=last + 1).collect::<Vec<_>>());
    let mut newer = restored.clone();
    newer.snapshot.index = last + 50;
    assert!(newer.log_is_superseded());
    assert_eq!(Core::new(settings(1, 2), newer).unwrap().last_index(), last + 50);
    let mut gap = restored;
    gap.entries.drain(..15);
    assert!(matches!(Core::new(settings(1, 2), gap), Err(StartError::Gap { .. })));
}
