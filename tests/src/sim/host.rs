//! A machine: its power, its daemon, its clock; a manager, a worker or both run on it.

use swarm_manager_core::control::cluster::{self, Founding, Joining};
use swarm_manager_core::leader::{Input, SessionInput};
use swarm_manager_core::role;
use swarm_manager_core::store::{Draft, Store};
use swarm_manager_raft::{Change, Core, Member, MemberRole, Members, SnapshotMeta};
use swarm_types::cluster::ClusterSpec;
use swarm_types::id::{NodeId, SessionId, TaskId};
use swarm_types::node::{Availability, ManagerMembership, NetworkDescription, NodeDescription, Role};
use swarm_types::placement::Platform;
use swarm_types::resources::{NANO_CPU, Resources};
use swarm_types::task::TaskStatus;
use swarm_types::time::Timestamp;

use super::Sim;
use super::clock::{Clock, START};
use super::disk::Snapshot;
use super::event::{Body, What};
use super::manager::Manager;
use super::net;
use super::worker::Worker;

/// A machine.
pub struct Host {
    /// As users call it; also its node's id.
    pub name: String,
    /// Its node.
    pub node: NodeId,
    /// It belongs to the cluster, or did until its node was removed.
    pub joined: bool,
    /// The machine has power.
    pub has_power: bool,
    /// The daemon runs.
    pub up: bool,
    /// Which daemon: counts starts.
    pub life: u64,
    /// The daemon is stopped (SIGSTOP).
    pub paused: bool,
    /// What waits for a daemon that is stopped.
    pub backlog: Vec<What>,
    /// Its clock.
    pub clock: Clock,
    /// Longest time of a sync in milliseconds.
    pub fsync_ms: u64,
    /// If it is or was a manager.
    pub manager: Option<Manager>,
    /// Every machine can work.
    pub worker: Worker,
    /// Last time that it worked as it should.
    pub good_ms: u64,
}

impl Sim {
    /// Founds a cluster of `managers` (drained) and `workers`, and starts all of them.
    pub fn found(&mut self, managers: usize, workers: usize, spec: ClusterSpec) {
        for n in 0..managers + workers {
            let name = if n < managers { format!("m{}", n + 1) } else { format!("n{}", n - managers + 1) };
            let mut host = new_host(name);
            host.joined = true;
            host.worker.managers.learn((0..managers).collect());
            self.hosts.push(host);
        }
        let (members, store) = self.first_state(managers, spec);
        let meta = SnapshotMeta { index: 1, term: 1, members: members.clone() };
        let snapshot = Snapshot::of(meta, &store.view());
        self.newest = store.view();
        self.invariants.begin(store.view());
        for host in 0..managers {
            let raft_id = host as u64 + 1;
            let start = Core::bootstrap(members.clone());
            self.hosts[host].manager = Some(Manager::new(raft_id, start, snapshot.clone()));
            self.raft_ids.insert(raft_id, host);
        }
        for host in 0..self.hosts.len() {
            self.boot(host);
        }
    }

    fn first_state(&self, managers: usize, spec: ClusterSpec) -> (Members, Store) {
        let first = self.hosts[0].node;
        let mut members = Members::founder(first, "h0".into());
        let mut draft = Draft::new(Store::default().view(), Timestamp(START));
        let membership = ManagerMembership { raft_id: 1, addr: "h0".into() };
        let founding = Founding {
            cluster: "simulated".into(),
            spec,
            node: first,
            availability: Availability::Drain,
            membership,
            ..Founding::default()
        };
        cluster::found(&mut draft, founding).expect("the first objects are valid");
        for (n, host) in self.hosts.iter().enumerate().skip(1) {
            let manages = n < managers;
            let joining = Joining {
                node: host.node,
                role: if manages { Role::Manager } else { Role::Worker },
                availability: if manages { Availability::Drain } else { Availability::Active },
                addr: format!("10.0.0.{n}"),
            };
            cluster::join(&mut draft, &joining).expect("the first nodes may join");
            if manages {
                let (raft_id, addr) = (n as u64 + 1, format!("h{n}"));
                let membership = ManagerMembership { raft_id, addr: addr.clone() };
                role::set_membership(&mut draft, &host.node, membership);
                let role = MemberRole::Voter;
                members.apply(&Change::Add(Member { raft_id, node_id: host.node, address: addr, role }));
            }
        }
        let mut store = Store::default();
        store.apply(1, &draft.into_transaction()).expect("the first transaction applies");
        (members, store)
    }

    /// The host's power is on and its daemon starts.
    pub fn boot(&mut self, host: net::Host) {
        let now = self.now_ms;
        let state = &mut self.hosts[host];
        if state.up || !state.joined {
            return;
        }
        state.has_power = true;
        state.up = true;
        state.paused = false;
        state.backlog.clear();
        state.life += 1;
        state.clock.restart();
        state.good_ms = now;
        self.note(|| format!("{host} boots"));
        self.start_manager(host);
        self.start_worker(host);
    }

    /// The daemon dies; containers live on. With `power`, everything stops at once.
    pub fn kill(&mut self, host: net::Host, power: bool) {
        self.note(|| format!("{host} is killed{}", if power { ": power loss" } else { "" }));
        if self.hosts[host].up {
            self.tear_manager(host);
        }
        let state = &mut self.hosts[host];
        state.good_ms = self.now_ms;
        state.up = false;
        state.life += 1;
        state.backlog.clear();
        state.worker.running = None;
        if power {
            state.has_power = false;
            state.worker.power_loss(&mut self.dice);
        }
    }

    /// The daemon is stopped for so long.
    pub fn pause(&mut self, host: net::Host, ms: Option<u64>) {
        let state = &mut self.hosts[host];
        if !state.up || state.paused {
            return;
        }
        state.paused = true;
        state.good_ms = self.now_ms;
        let life = state.life;
        self.note(|| format!("{host} is stopped"));
        if let Some(ms) = ms {
            self.after(ms, What::Resume { host, life });
        }
    }

    /// The daemon goes on, with all that has waited for it.
    pub fn resume(&mut self, host: net::Host) {
        if !self.hosts[host].paused {
            return;
        }
        self.note(|| format!("{host} goes on"));
        self.hosts[host].paused = false;
        self.hosts[host].good_ms = self.now_ms;
        for what in std::mem::take(&mut self.hosts[host].backlog) {
            self.after(0, what);
        }
    }

    /// A heartbeat arrives at a manager.
    pub fn heartbeat(&mut self, host: net::Host, from: net::Host, conn: u64, session: SessionId, n: u64) {
        if self.session_is_current(host, from, conn, session) {
            let node = self.hosts[from].node;
            self.leader_in(host, Input::Session(node, SessionInput::Heartbeat { session }));
            self.send_stream(host, from, conn, Body::HeartbeatSeen { conn, n });
        }
    }

    /// A report arrives at a manager.
    pub fn take_report(
        &mut self,
        host: net::Host,
        from: net::Host,
        (conn, session, n): (u64, SessionId, u64),
        statuses: Vec<(TaskId, TaskStatus)>,
    ) {
        if self.session_is_current(host, from, conn, session) {
            let node = self.hosts[from].node;
            let states = statuses.iter().map(|(id, s)| (*id, s.state)).collect();
            self.leader_in(host, Input::Statuses(node, session, statuses));
            self.send_stream(host, from, conn, Body::Reported { conn, n, states });
        }
    }

    /// The agent has heard what role its node has: a manager starts, or ends for good.
    pub fn follow_role(&mut self, host: net::Host, manager: net::Host) {
        let node = self.hosts[host].node;
        let Some((role, wanted)) = self.view().node(&node).map(|n| (n.role, n.spec.role)) else { return };
        match (role, self.hosts[host].manager.as_ref().filter(|m| !m.removed)) {
            (Role::Manager, None) => self.send(host, manager, Body::JoinGroup { raft_id: 0 }),
            (Role::Worker, Some(_)) => self.kill_manager(host, true),
            (Role::Manager, Some(own)) => {
                let alone = own.running.as_ref().is_some_and(|r| r.core.leader().is_none());
                if alone && wanted == Role::Manager {
                    self.send(host, manager, Body::JoinGroup { raft_id: own.raft_id });
                }
            }
            (Role::Worker, None) => {}
        }
    }

    /// The group goes on without this manager.
    pub fn outside(&mut self, host: net::Host, raft_id: u64) {
        if self.hosts[host].manager.as_ref().is_some_and(|m| m.raft_id == raft_id) {
            self.note(|| format!("{host} was taken out of the group"));
            self.kill_manager(host, true);
        }
    }

    /// Machines that are in no cluster yet.
    pub fn add_spares(&mut self, count: usize) {
        self.hosts.extend((1..=count).map(|n| new_host(format!("s{n}"))));
    }

    /// A machine was let into the cluster by the manager on `by`: its daemon starts as a node.
    pub fn admit(&mut self, host: net::Host, by: net::Host) {
        if self.hosts[host].joined {
            return;
        }
        self.hosts[host].joined = true;
        self.hosts[host].worker.managers.learn(vec![by]);
        self.boot(host);
    }

    /// A worker leaves: says good-bye, and stops and removes all that it has.
    pub fn leave(&mut self, host: net::Host) {
        let state = &self.hosts[host];
        let manages = state.manager.as_ref().is_some_and(|m| !m.removed);
        if state.up && !state.paused && !manages {
            self.note(|| format!("{host} leaves"));
            self.say_goodbye(host);
        }
    }

    /// Nothing of a node that leaves is left: the machine may join again, as another node.
    pub fn departed(&mut self, host: net::Host) {
        self.note(|| format!("{host} has left"));
        let state = &mut self.hosts[host];
        let name = format!("{}x", state.name);
        let (clock, life) = (std::mem::take(&mut state.clock), state.life + 1);
        *state = Host { clock, life, has_power: true, ..new_host(name) };
    }

    /// A node may take part under this number.
    pub fn joined(&mut self, host: net::Host, raft_id: u64) {
        if self.hosts[host].manager.as_ref().is_some_and(|m| m.raft_id == raft_id || !m.removed) {
            return;
        }
        let start = swarm_manager_raft::core::Restored::default();
        self.hosts[host].manager = Some(Manager::new(raft_id, start, Snapshot::default()));
        self.start_manager(host);
    }
}

fn new_host(name: String) -> Host {
    let description = NodeDescription {
        hostname: name.clone(),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: Resources { nano_cpus: 4 * NANO_CPU, memory_bytes: 8 << 30 },
        network: NetworkDescription { encryption: "kernel".into(), ..NetworkDescription::default() },
        ..NodeDescription::default()
    };
    Host {
        node: NodeId::new(&name),
        name,
        joined: false,
        has_power: false,
        up: false,
        life: 0,
        paused: false,
        backlog: Vec::new(),
        clock: Clock::default(),
        fsync_ms: 2,
        manager: None,
        worker: Worker { description, ..Worker::default() },
        good_ms: 0,
    }
}
