//! Managers in one process, with a net that can be cut: elections, writes, restarts, snapshots,
//! membership, hand-over, loss of quorum.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use swarm_manager_raft::core::Role;
use swarm_manager_raft::members::{Member, MemberRole};
use swarm_manager_raft::node::{
    ProposeError, RaftHandle, RaftNode, Response, RestoreError, Settings, SnapshotPolicy, SnapshotSource,
    StateMachine, Status,
};
use swarm_manager_raft::{DataKey, OutgoingSnapshot, Transport};
use swarm_types::id::{NodeId, Seed};

const TICK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

type Entries = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// Remembers all it was told, in order.
struct Ledger(Entries);

impl StateMachine for Ledger {
    fn apply(&mut self, index: u64, _term: u64, data: &[u8]) -> Response {
        self.0.lock().unwrap().push((index, data.to_vec()));
        Box::new(data.len())
    }
    fn snapshot(&mut self) -> Box<dyn SnapshotSource> {
        Box::new(Copy(self.0.lock().unwrap().clone()))
    }
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), RestoreError> {
        let mut all = Vec::new();
        let mut head = [0; 12];
        while from.read_exact(&mut head).is_ok() {
            let mut data = vec![0; u32::from_be_bytes(head[8..].try_into().unwrap()) as usize];
            from.read_exact(&mut data)?;
            all.push((u64::from_be_bytes(head[..8].try_into().unwrap()), data));
        }
        *self.0.lock().unwrap() = all;
        Ok(())
    }
}

struct Copy(Vec<(u64, Vec<u8>)>);

impl SnapshotSource for Copy {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        for (index, data) in &self.0 {
            out.write_all(&index.to_be_bytes())?;
            out.write_all(&u32::try_from(data.len()).unwrap().to_be_bytes())?;
            out.write_all(data)?;
        }
        Ok(())
    }
}

/// Who is up, and who is cut off.
#[derive(Default)]
struct Net {
    up: Mutex<BTreeMap<u64, RaftHandle>>,
    cut: Mutex<BTreeSet<u64>>,
}

impl Net {
    fn reach(&self, from: u64, to: u64) -> Option<RaftHandle> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        self.up.lock().unwrap().get(&to).cloned()
    }
}

struct Wire {
    me: u64,
    net: Weak<Net>,
}

impl Transport for Wire {
    fn send(&self, to: &Member, messages: Vec<Bytes>) {
        let Some(net) = self.net.upgrade() else { return };
        if let Some(peer) = net.reach(self.me, to.raft_id) {
            for m in messages {
                peer.step(m);
            }
        } else if let Some(me) = net.up.lock().unwrap().get(&self.me) {
            me.report_unreachable(to.raft_id);
        }
    }
    fn send_snapshot(&self, to: &Member, mut snapshot: OutgoingSnapshot) {
        let Some(peer) = self.net.upgrade().and_then(|n| n.reach(self.me, to.raft_id)) else {
            return;
        };
        std::thread::spawn(move || {
            let Ok(mut incoming) = peer.receive_snapshot(snapshot.message.clone()) else { return };
            if io::copy(&mut snapshot.reader, &mut incoming).is_ok() && incoming.finish().is_ok() {
                snapshot.delivered();
            }
        });
    }
}

struct Cluster {
    net: Arc<Net>,
    dir: tempfile::TempDir,
    ledgers: BTreeMap<u64, Entries>,
    policy: SnapshotPolicy,
    tick: Duration,
    starts: u64,
}

impl Cluster {
    fn new() -> Self {
        Self {
            net: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            ledgers: BTreeMap::new(),
            policy: SnapshotPolicy::default(),
            tick: TICK,
            starts: 0,
        }
    }

    fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    fn start(&mut self, id: u64, known: Vec<Member>) -> RaftHandle {
        self.starts += 1;
        let seed = Seed(id * 77 + self.starts * 1000);
        let mut settings = if id == 1 {
            Settings::found(NodeId::new("n1"), "m1".into(), seed)
        } else {
            Settings::new(id, seed)
        };
        settings.tick = self.tick;
        settings.known = known;
        settings.timeout = Duration::from_secs(5);
        settings.snapshots = self.policy.clone();
        let ledger = Entries::default();
        let transport = Arc::new(Wire { me: id, net: Arc::downgrade(&self.net) });
        let handle = RaftNode::start(
            settings,
            &self.dir_of(id),
            DataKey::new([5; 32]),
            Box::new(Ledger(ledger.clone())),
            transport,
        )
        .unwrap();
        self.ledgers.insert(id, ledger);
        self.net.up.lock().unwrap().insert(id, handle.clone());
        handle
    }

    fn get(&self, id: u64) -> RaftHandle {
        self.net.up.lock().unwrap()[&id].clone()
    }

    /// As if its host lost power.
    async fn kill(&self, id: u64) {
        let handle = self.net.up.lock().unwrap().remove(&id).unwrap();
        handle.abort().await;
    }

    async fn leader(&self) -> RaftHandle {
        until("a leader", || async {
            let cut = self.net.cut.lock().unwrap().clone();
            let up = self.net.up.lock().unwrap().clone();
            let mut leaders =
                up.into_iter().filter(|(id, h)| !cut.contains(id) && h.status().role == Role::Leader);
            leaders.next().map(|l| l.1)
        })
        .await
    }

    async fn join(&mut self, id: u64) -> Member {
        let leader = self.leader().await;
        let node = NodeId::new(format!("n{id}"));
        let member = leader.add_member(node, format!("m{id}")).await.unwrap();
        assert_eq!(member.raft_id, id);
        let known = leader.status().members.into_iter().map(|m| m.member).collect();
        self.start(id, known);
        member
    }

    async fn voters(&self, n: usize) {
        until("voters", || async {
            let up = self.net.up.lock().unwrap().clone();
            let all = up.values().all(|h| {
                let members = h.status().members;
                members.iter().filter(|m| m.member.role == MemberRole::Voter).count() == n
            });
            all.then_some(())
        })
        .await;
    }

    async fn grow(n: u64) -> Self {
        Self::new().grown(n).await
    }

    async fn grow_with(n: u64, policy: SnapshotPolicy) -> Self {
        Self { policy, ..Self::new() }.grown(n).await
    }

    async fn grown(mut self, n: u64) -> Self {
        self.start(1, Vec::new());
        for id in 2..=n {
            self.join(id).await;
        }
        self.voters(usize::try_from(n).unwrap()).await;
        self
    }

    fn ledger(&self, id: u64) -> Vec<(u64, Vec<u8>)> {
        self.ledgers[&id].lock().unwrap().clone()
    }

    async fn same_everywhere(&self) {
        until("the same everywhere", || async {
            let ids: Vec<u64> = self.net.up.lock().unwrap().keys().copied().collect();
            let first = self.ledger(ids[0]);
            ids.iter().all(|id| self.ledger(*id) == first).then_some(())
        })
        .await;
    }
}

/// Waits for a condition, with a deadline.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Proposes until it is accepted, wherever the leader is.
async fn insist(c: &Cluster, data: &str) -> u64 {
    until("a write", || async { c.leader().await.propose(data.to_owned()).await.ok().map(|a| a.index) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_proposals_at_once_reach_everybody_in_one_order() {
    let c = Cluster::grow(3).await;
    let leader = c.leader().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let leader = leader.clone();
        tasks.spawn(async move {
            let text = format!("write {n}");
            let applied = leader.propose(text.clone()).await.unwrap();
            assert_eq!(*applied.response.downcast::<usize>().unwrap(), text.len());
            (applied.index, text.into_bytes())
        });
    }
    let mut expected = tasks.join_all().await;
    expected.sort();
    c.same_everywhere().await;
    assert_eq!(c.ledger(1), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_leader_and_a_restart_of_all() {
    let mut c = Cluster::grow(3).await;
    let old = c.leader().await;
    let mut expected = Vec::new();
    for n in 0..50 {
        let text = format!("{n}");
        expected.push((old.propose(text.clone()).await.unwrap().index, text.into_bytes()));
    }
    let old_id = old.status().id;
    c.kill(old_id).await;
    let index = insist(&c, "after").await;
    expected.push((index, b"after".to_vec()));
    let new = c.leader().await.status();
    assert_ne!(new.id, old_id);
    c.start(old_id, Vec::new());
    c.same_everywhere().await;
    assert_eq!(c.get(old_id).status().role, Role::Follower, "the old leader comes back as follower");
    assert_eq!(c.leader().await.status().term, new.term, "and disturbs nobody");
    for id in 1..=3 {
        c.kill(id).await;
    }
    for id in 1..=3 {
        c.start(id, Vec::new());
    }
    insist(&c, "again").await;
    c.same_everywhere().await;
    assert_eq!(c.ledger(2)[..expected.len()], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_away_too_long_gets_a_snapshot() {
    let policy = SnapshotPolicy { every_entries: 40, keep_entries: 5, ..SnapshotPolicy::default() };
    let mut c = Cluster::grow_with(3, policy).await;
    let leader = c.leader().await;
    let away = if leader.status().id == 3 { 2 } else { 3 };
    c.kill(away).await;
    let big = "x".repeat(20_000);
    for n in 0..200 {
        leader.propose(format!("{n} {big}")).await.unwrap();
    }
    until("a snapshot", || async { (leader.status().snapshot > 150).then_some(()) }).await;
    c.start(away, Vec::new());
    c.same_everywhere().await;
    assert!(c.get(away).status().snapshot > 150);
    c.kill(away).await;
    c.start(away, Vec::new());
    insist(&c, "on").await;
    c.same_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_to_three_to_five_to_one() {
    let mut c = Cluster::grow(3).await;
    insist(&c, "three").await;
    c.join(4).await;
    c.join(5).await;
    c.voters(5).await;
    insist(&c, "five").await;
    c.same_everywhere().await;
    for id in [5, 4, 3, 2] {
        until("removal", || async {
            match c.leader().await.remove_member(id).await {
                Ok(()) => Some(()),
                Err(ProposeError::NotLeader { .. } | ProposeError::Busy) => None,
                Err(other) => panic!("removing {id}: {other}"),
            }
        })
        .await;
        let removed = c.get(id);
        until("its own removal", || async { removed.status().removed.then_some(()) }).await;
        c.kill(id).await;
    }
    insist(&c, "one").await;
    let status = c.get(1).status();
    assert_eq!(status.members.len(), 1);
    let last = c.get(1).remove_member(1).await.unwrap_err();
    assert_eq!(last.to_string(), "the last manager cannot be removed");
    let again = c.join(6).await;
    assert_eq!(again.raft_id, 6, "a removed raft id is never used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_is_not_given_away() {
    let c = Cluster::grow(3).await;
    let leader = c.leader().await;
    let me = leader.status().id;
    let others: Vec<u64> = (1..=3).filter(|id| *id != me).collect();
    c.kill(others[0]).await;
    until("silence", || async {
        let s = leader.status();
        s.members.iter().any(|m| m.member.raft_id == others[0] && !m.reachable).then_some(())
    })
    .await;
    let refused = leader.remove_member(others[1]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "this would leave the cluster without a quorum: 1 of 2 managers would be reachable, 2 needed"
    );
    leader.remove_member(others[0]).await.unwrap();
    leader.propose("works").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_hands_over_quickly() {
    // Who is not handed over to waits for six ticks at least (ADR 4).
    let c = Cluster { tick: Duration::from_millis(500), ..Cluster::new() }.grown(3).await;
    for round in 0..2 {
        insist(&c, "x").await;
        let leader = c.leader().await;
        let id = leader.status().id;
        let other = c.get(if id == 1 { 2 } else { 1 });
        let mut watch = other.watch();
        let started = Instant::now();
        if round == 0 {
            assert!(leader.transfer_leadership(None).await);
        } else {
            leader.stop().await;
            c.net.up.lock().unwrap().remove(&id);
        }
        let moved = |s: &Status| s.leader.as_ref().is_some_and(|l| l.raft_id != id);
        tokio::time::timeout(PATIENCE, watch.wait_for(moved)).await.unwrap().unwrap();
        let took = started.elapsed();
        assert!(took < c.tick * 5, "round {round}: {took:?}");
    }
    insist(&c, "y").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_quorum_nothing_is_accepted_and_it_says_why() {
    let c = Cluster::grow(3).await;
    let leader = c.leader().await;
    let id = leader.status().id;
    let cut: BTreeSet<u64> = (1..=3).filter(|other| *other != id).collect();
    *c.net.cut.lock().unwrap() = cut;
    let unknown = leader.propose("into the void").await.unwrap_err();
    assert!(matches!(unknown, ProposeError::Unknown { .. }), "{unknown}");
    assert_ne!(leader.status().role, Role::Leader, "an isolated leader steps down");
    let refused = until("no quorum", || async {
        let error = leader.propose("x").await.unwrap_err();
        matches!(error, ProposeError::QuorumLost(_)).then_some(error)
    })
    .await;
    assert_eq!(refused.to_string(), "the cluster has no quorum: 1 of 3 managers reachable, 2 needed");
    c.net.cut.lock().unwrap().clear();
    insist(&c, "back").await;
    c.same_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_proposal_is_never_reported_as_done() {
    let c = Cluster::grow(3).await;
    let old = c.leader().await;
    let id = old.status().id;
    *c.net.cut.lock().unwrap() = BTreeSet::from([id]);
    let lost = tokio::join!(old.propose("lost"), async {
        insist(&c, "kept").await;
        c.net.cut.lock().unwrap().clear();
    })
    .0;
    let told = lost.map(|a| a.index);
    c.same_everywhere().await;
    let there = c.ledger(1).iter().any(|(_, d)| d == b"lost");
    assert_eq!(told, Err(ProposeError::LostLeadership));
    assert!(!there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_sees_every_write_before_it_on_every_manager() {
    let c = Cluster::grow(3).await;
    for n in 0..20 {
        let index = insist(&c, &n.to_string()).await;
        for id in 1..=3 {
            let applied = c.get(id).read_barrier().await.unwrap();
            assert!(applied >= index, "manager {id}: {applied} < {index}");
            assert!(c.ledger(id).iter().any(|(i, _)| *i == index));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_changes_everywhere() {
    let c = Cluster::grow(2).await;
    c.leader().await.update_address(2, "elsewhere:1".into()).await.unwrap();
    until("the address", || async {
        let up = c.net.up.lock().unwrap().clone();
        let moved = |h: &RaftHandle| h.status().members.iter().any(|m| m.member.address == "elsewhere:1");
        up.values().all(moved).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_process_and_one_manager() {
    let mut c = Cluster::new();
    c.start(1, Vec::new());
    c.leader().await;
    let start = |id| {
        RaftNode::start(
            Settings::new(id, Seed(1)),
            &c.dir_of(1),
            DataKey::new([5; 32]),
            Box::new(Ledger(Entries::default())),
            Arc::new(Wire { me: id, net: Weak::new() }),
        )
        .map(|_| ())
        .map_err(|e| e.to_string())
    };
    assert!(start(1).unwrap_err().contains("is in use by another process"));
    c.get(1).stop().await;
    assert_eq!(start(2).unwrap_err(), "the raft directory belongs to manager 1, not 2");
    assert_eq!(RaftNode::stored_id(&c.dir_of(1)).unwrap(), Some(1));
}

/// A file system of a few MiB; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=4m", "tmpfs"], &at);
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _status = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &std::path::Path) {
    let done = std::process::Command::new("mount").args(args).arg(at).status().unwrap();
    assert!(done.success(), "these tests run as root");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_full_disk_stops_and_comes_back_when_there_is_space() {
    let mut c = Cluster::grow(3).await;
    let small = Small::mount(c.dir_of(4));
    c.join(4).await;
    c.voters(4).await;
    until("manager 4 leads", || async {
        let leader = c.leader().await;
        leader.transfer_leadership(Some(4)).await;
        (c.leader().await.status().id == 4).then_some(())
    })
    .await;
    let full = c.get(4);
    let mut done = Vec::new();
    let big = "x".repeat(200_000);
    let error = loop {
        match full.propose(format!("{} {big}", done.len())).await {
            Ok(applied) => done.push(applied.index),
            Err(error) => break error,
        }
        assert!(done.len() < 100, "4 MiB must be full by now");
    };
    assert!(matches!(error, ProposeError::Unknown { .. }), "{error}");
    full.ended().await;
    let failure = full.status().failure.unwrap();
    assert!(failure.contains("the raft log cannot be written"), "{failure}");
    assert_eq!(full.propose("more").await.unwrap_err(), ProposeError::Stopped);
    c.net.up.lock().unwrap().remove(&4);
    insist(&c, "the others go on").await;
    mount(&["-o", "remount,size=32m"], &small.0);
    c.start(4, Vec::new());
    c.same_everywhere().await;
    let there: BTreeSet<u64> = c.ledger(4).iter().map(|e| e.0).collect();
    assert!(done.iter().all(|index| there.contains(index)));
    c.kill(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_with_its_place() {
    let mut c = Cluster::new();
    c.start(1, Vec::new());
    for n in 0..5 {
        insist(&c, &n.to_string()).await;
    }
    c.kill(1).await;
    let log = c.dir_of(1).join("log/0000000000000001.log");
    let mut data = std::fs::read(&log).unwrap();
    data[300] ^= 1;
    std::fs::write(&log, &data).unwrap();
    let started = RaftNode::start(
        Settings::new(1, Seed(1)),
        &c.dir_of(1),
        DataKey::new([5; 32]),
        Box::new(Ledger(Entries::default())),
        Arc::new(Wire { me: 1, net: Weak::new() }),
    );
    let error = started.map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("the raft log is damaged: "), "{error}");
    assert!(error.contains("0000000000000001.log at offset "), "{error}");
}
