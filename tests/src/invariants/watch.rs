//! Where the simulator shows the invariants what happens.

use swarm_manager_core::store::{Event, Object, View};
use swarm_manager_raft::core::Entry;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;

use super::{
    no_acknowledged_write_lost, node_not_oversubscribed, ports_are_unique, quorum_never_given_away,
    slots_within_spec, state_only_grows, stopped_before_forgotten, task_keeps_its_node,
};
use crate::sim::Sim;

/// What applying a transaction did.
#[derive(Debug)]
pub struct Done<'a> {
    /// The store before.
    pub before: &'a View,
    /// The store after.
    pub view: &'a View,
    /// What changed.
    pub events: &'a [Event],
    /// Nothing was done: the store had changed since it was decided.
    pub refused: bool,
}

impl Sim {
    fn must(&mut self, invariant: &'static str, found: Result<(), String>) {
        if let Err(text) = found {
            self.broken(invariant, text);
        }
    }

    /// A manager was elected.
    pub fn check_elected(&mut self, host: usize, term: u64) {
        let found = self.invariants.leaders.elected(term, host);
        self.must("one_leader_per_term", found);
    }

    /// An agent takes what the leader of this term says.
    pub fn check_told(&mut self, host: usize, term: u64) {
        let life = self.hosts[host].life;
        let found = self.invariants.obeyed.told(host, life, term);
        self.must("newest_leader_obeyed", found);
    }

    /// A manager applied an entry; `done` if it was a transaction.
    pub fn check_applied(&mut self, host: usize, entry: &Entry, done: Option<Done<'_>>) {
        let first = entry.index > self.invariants.logs.newest();
        let data = fnv(&entry.data);
        self.mix_applied(host, entry.index, data);
        let found = self.invariants.logs.applied(host, entry.index, entry.term, data);
        self.must("logs_agree", found);
        let Some(Done { before, view, events, refused }) = done else { return };
        let found = self.invariants.stores.applied(host, entry.index, view);
        self.must("same_log_same_store", found);
        if first && !refused {
            let base = self.invariants.plans.get(&(entry.term, entry.index)).copied();
            self.set_newest(view);
            let found = self.invariants.addresses.check(view);
            self.must("addresses_are_unique", found);
            self.must("ports_are_unique", ports_are_unique::check(view));
            for event in events {
                self.check_event(before, view, event, base);
            }
        }
    }

    fn check_event(&mut self, before: &View, view: &View, event: &Event, base: Option<u64>) {
        match event {
            Event::Created(Object::Task(task)) => {
                let found = slots_within_spec::check(before, view, task, base);
                self.must("slots_within_spec", found);
                self.check_room(view, None, task);
            }
            Event::Updated { old: Object::Task(old), new: Object::Task(new) } => {
                self.must("state_only_grows", state_only_grows::check(old, new));
                self.must("task_keeps_its_node", task_keeps_its_node::check(old, new));
                self.check_room(view, Some(old), new);
            }
            Event::Deleted(Object::Task(task)) => {
                let host = self.hosts.iter().position(|h| h.node == task.node);
                let known = host.filter(|_| view.node(&task.node).is_some());
                let found = stopped_before_forgotten::check(self, task, known);
                self.must("stopped_before_forgotten", found);
            }
            Event::Created(_) | Event::Updated { .. } | Event::Deleted(_) => {}
        }
    }

    fn check_room(&mut self, view: &View, old: Option<&Task>, new: &Task) {
        let given = new.status.state == TaskState::Assigned
            && old.is_none_or(|o| o.status.state < TaskState::Assigned);
        if given {
            self.must("node_not_oversubscribed", node_not_oversubscribed::check(view, &new.node));
        }
    }

    /// A container was started.
    pub fn check_started(&mut self, host: usize, task: swarm_types::id::TaskId, starts: u32) {
        let found = self.invariants.containers.started(host, task, starts);
        self.must("no_container_twice", found);
        let node = self.hosts[host].node;
        if self.view().task(&task).is_some_and(|t| t.node != node) {
            self.broken("task_keeps_its_node", format!("task {task} runs on {node}, which is not its node"));
        }
    }

    /// A leader takes a member out of the group.
    pub fn check_removal(&mut self, host: usize, raft_id: u64) {
        let found = quorum_never_given_away::check(self, host, raft_id);
        self.must("quorum_never_given_away", found);
    }

    /// At the end: what users were told is there.
    pub fn check_acknowledged(&mut self) {
        let lost =
            self.invariants.acknowledged.iter().find(|index| !self.invariants.logs.has(**index)).copied();
        if let Some(index) = lost {
            self.broken("no_acknowledged_write_lost", format!("entry {index} is in nobody's log"));
        }
        let found = no_acknowledged_write_lost::check(&self.user, self.view());
        self.must("no_acknowledged_write_lost", found);
    }
}

fn fnv(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
