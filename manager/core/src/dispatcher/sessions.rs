//! Sessions: which nodes answer.
//!
//! Reads:   nodes, the cluster's heartbeat period.
//! Writes:  Node.description, Node.status.
//! Never:   stores a heartbeat; touches a task (see [`crate::enforcer`]).
//! Start:   [`Sessions::register`], [`Sessions::expire`].
//!
//! Sessions live in the leader's memory. A new leader knows none: nodes that the store shows as
//! ready keep that state and get some time to come back, so that a change of leader by itself writes
//! nothing and moves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_types::defaults;
use swarm_types::id::{NodeId, SessionId};
use swarm_types::node::{NetworkDescription, Node, NodeDescription, NodeState};
use swarm_types::time::Timestamp;

use crate::context::Context;
use crate::control_loop::{ControlLoop, Wake};
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Event, Object, View};

/// On top of the usual grace, what nodes get to find a new leader.
const FIND_LEADER: Duration = Duration::from_secs(1);
/// What a node gets between joining the cluster and its first session.
const FIRST_SESSION: Duration = Duration::from_secs(60);

/// What an agent says when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The session that it gets.
    pub session: SessionId,
    /// Its machine.
    pub description: NodeDescription,
    /// The address that it is seen under, without a port.
    pub addr: String,
}

/// A session that the leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub session: SessionId,
    /// Why.
    pub reason: CloseReason,
}

/// Why the leader ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The node registered anew: the agent behind this session is an old one.
    Replaced,
    /// The node does not belong to the cluster (any more).
    NodeRemoved,
    /// There is no such session: register again.
    UnknownSession,
    /// It was silent for too long: register again.
    Silent,
}

#[derive(Debug, Clone)]
struct Live {
    session: SessionId,
    seen: Timestamp,
    description: NodeDescription,
    addr: String,
}

/// Why a node is to be Down.
#[derive(Debug, Clone, Copy)]
struct Gone {
    reason: Reason,
    message: &'static str,
}

/// Which nodes answer.
#[derive(Debug, Clone)]
pub struct Sessions {
    live: BTreeMap<NodeId, Live>,
    /// Nodes that are not Down in the store and have no session, and until when they may come back.
    awaited: BTreeMap<NodeId, Timestamp>,
    /// Nodes that are Down here and not yet in the store.
    gone: BTreeMap<NodeId, Gone>,
    /// When to look at a node. Never later than its deadline, mostly earlier: a heartbeat does not
    /// touch the queue.
    queue: BTreeSet<(Timestamp, NodeId)>,
    /// Nodes whose stored status may differ from what is known here.
    dirty: BTreeSet<NodeId>,
    closes: Vec<Close>,
    period: Duration,
    /// The leader was asleep: nobody is given up before this.
    held_until: Timestamp,
    held: bool,
}

impl Sessions {
    /// What a new leader knows: nobody answers yet, and everybody gets time to.
    pub fn new(view: &View, now: Timestamp) -> Sessions {
        let mut sessions = Sessions::restore(view);
        let until = now.plus(sessions.grace() + FIND_LEADER);
        for node in view.nodes().filter(|node| node.status.state != NodeState::Down) {
            sessions.awaited.insert(node.id, until);
            sessions.queue.insert((until, node.id));
        }
        sessions
    }

    /// The time without any sign after which a node is Down.
    pub fn grace(&self) -> Duration {
        self.period * defaults::HEARTBEAT_GRACE
    }
    /// The session that a node has now.
    pub fn current(&self, node: &NodeId) -> Option<SessionId> {
        self.live.get(node).map(|live| live.session)
    }
    /// The node has a session.
    pub fn has(&self, node: &NodeId) -> bool {
        self.live.contains_key(node)
    }
    /// Nodes with a session.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, SessionId)> {
        self.live.iter().map(|(node, live)| (node, live.session))
    }

    /// An agent registered. False if its node is not of this cluster. The node's session before, if
    /// it had one, is closed: its agent is another process, or has lost its connection.
    pub fn register(&mut self, view: &View, node: NodeId, with: Registration, now: Timestamp) -> bool {
        let session = with.session;
        if view.node(&node).is_none() {
            self.closes.push(Close { node, session, reason: CloseReason::NodeRemoved });
            return false;
        }
        let live = Live { session, seen: now, description: with.description, addr: with.addr };
        if let Some(old) = self.live.insert(node, live)
            && old.session != session
        {
            self.closes.push(Close { node, session: old.session, reason: CloseReason::Replaced });
        }
        self.awaited.remove(&node);
        self.gone.remove(&node);
        self.queue.insert((now.plus(self.grace()), node));
        self.dirty.insert(node);
        true
    }

    /// A sign of life. False, and the session is closed, if it is not the node's current one.
    pub fn seen(&mut self, node: NodeId, session: SessionId, now: Timestamp) -> bool {
        match self.live.get_mut(&node) {
            Some(live) if live.session == session => {
                live.seen = live.seen.max(now);
                true
            }
            Some(_) | None => {
                self.closes.push(Close { node, session, reason: CloseReason::UnknownSession });
                false
            }
        }
    }

    /// A node's end of the networks is another one now. True if that is to be written.
    pub fn describe_network(&mut self, node: &NodeId, network: NetworkDescription) -> bool {
        match self.live.get_mut(node) {
            Some(live) if live.description.network != network => {
                live.description.network = network;
                self.dirty.insert(*node)
            }
            _ => false,
        }
    }

    /// A session ended. With a good-bye the node is Down at once; else it may come back until it
    /// would have been Down anyway. False if the session was not the current one.
    pub fn ended(&mut self, node: NodeId, session: SessionId, goodbye: bool) -> bool {
        if self.current(&node) != Some(session) {
            return false;
        }
        let Some(live) = self.live.remove(&node) else { return false };
        if goodbye {
            self.give_up(node, Reason::NodeLeft, "node said good-bye");
        } else {
            let until = live.seen.plus(self.grace());
            self.awaited.insert(node, until);
            self.queue.insert((until, node));
        }
        true
    }

    /// Gives up nodes that were silent for too long. True if there were any.
    ///
    /// If the look itself is late by more than the grace, then this leader was asleep (its machine
    /// was suspended, or its clock was set): that says nothing of the nodes, so all get the grace
    /// once more.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let Some(due) = self.next_deadline().filter(|due| *due <= now) else { return false };
        if now.since(due) > self.grace() && !self.held {
            self.held = true;
            self.held_until = now.plus(self.grace());
            return false;
        }
        self.held = false;
        let mut any = false;
        while let Some(&(at, node)) = self.queue.first() {
            if at > now {
                break;
            }
            self.queue.pop_first();
            any |= self.look_at(node, now);
        }
        any
    }

    /// Gives up one node if its time has come; else puts it back into the queue.
    fn look_at(&mut self, node: NodeId, now: Timestamp) -> bool {
        let live = self.live.get(&node).map(|live| live.seen.plus(self.grace()));
        let Some(deadline) = live.or_else(|| self.awaited.get(&node).copied()) else { return false };
        if deadline > now {
            self.queue.insert((deadline, node));
            return false;
        }
        match self.live.remove(&node) {
            Some(live) => {
                let session = live.session;
                self.closes.push(Close { node, session, reason: CloseReason::Silent });
                self.give_up(node, Reason::NodeSilent, "heartbeat failure");
            }
            None => self.give_up(node, Reason::NodeNotBack, "heartbeat failure: node did not come back"),
        }
        true
    }

    fn give_up(&mut self, node: NodeId, reason: Reason, message: &'static str) {
        self.awaited.remove(&node);
        self.gone.insert(node, Gone { reason, message });
        self.dirty.insert(node);
    }

    /// When [`Sessions::expire`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| (*at).max(self.held_until))
    }
    /// Sessions to be closed since it was asked last.
    pub fn take_closes(&mut self) -> Vec<Close> {
        std::mem::take(&mut self.closes)
    }
    /// Something is to be written.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
    /// The last plan may be lost: compares all nodes with the store again.
    pub fn replan(&mut self) {
        self.dirty.extend(self.live.keys().chain(self.gone.keys()));
    }

    fn plan_node(&self, plan: &mut Plan, id: &NodeId, now: Timestamp) {
        let Some(stored) = plan.node(id) else { return };
        let mut node = Node::clone(stored);
        let was = node.status.state;
        let reason = if let Some(live) = self.live.get(id) {
            node.description = live.description.clone();
            node.status.state = NodeState::Ready;
            node.status.message.clear();
            node.status.addr.clone_from(&live.addr);
            Reason::NodeRegistered
        } else if let Some(gone) = self.gone.get(id) {
            node.status.state = NodeState::Down;
            node.status.message = gone.message.into();
            gone.reason
        } else {
            return;
        };
        if node.status.state != was {
            node.status.since = now;
        }
        plan.put_node(node, reason);
    }
}

impl ControlLoop for Sessions {
    fn restore(view: &View) -> Sessions {
        Sessions {
            live: BTreeMap::new(),
            awaited: BTreeMap::new(),
            gone: BTreeMap::new(),
            queue: BTreeSet::new(),
            dirty: BTreeSet::new(),
            closes: Vec::new(),
            period: view.cluster().map_or(defaults::HEARTBEAT_PERIOD, |c| c.spec.heartbeat_period),
            held_until: Timestamp::ZERO,
            held: false,
        }
    }

    fn observe(&mut self, event: &Event) {
        match (event, event.latest()) {
            (Event::Created(_) | Event::Updated { .. }, Object::Cluster(cluster)) => {
                self.period = cluster.spec.heartbeat_period;
            }
            (Event::Created(_), Object::Node(node)) => {
                let fresh = node.status.state != NodeState::Down && !self.live.contains_key(&node.id);
                if fresh && !self.awaited.contains_key(&node.id) {
                    let until = node.meta.created_at.plus(FIRST_SESSION);
                    self.awaited.insert(node.id, until);
                    self.queue.insert((until, node.id));
                }
            }
            (Event::Updated { .. }, Object::Node(node)) => {
                if node.status.state == NodeState::Down {
                    self.gone.remove(&node.id);
                }
            }
            (Event::Deleted(_), Object::Node(node)) => {
                if let Some(live) = self.live.remove(&node.id) {
                    let (node, session) = (node.id, live.session);
                    self.closes.push(Close { node, session, reason: CloseReason::NodeRemoved });
                }
                self.awaited.remove(&node.id);
                self.gone.remove(&node.id);
            }
            (Event::Deleted(_), Object::Cluster(_))
            | (_, Object::Network(_) | Object::Service(_) | Object::Task(_)) => {}
        }
    }

    fn plan(&mut self, plan: &mut Plan, ctx: &mut Context<'_>) -> Wake {
        while let Some(id) = self.dirty.first().copied() {
            if plan.is_full() {
                return Wake::Now;
            }
            self.dirty.pop_first();
            self.plan_node(plan, &id, ctx.now);
        }
        Wake::Never
    }
}

#[cfg(test)]
mod tests;
