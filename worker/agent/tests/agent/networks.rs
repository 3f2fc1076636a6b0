//! What a manager says of the networks, on its way to the kernel and back.

use swarm_proto::v1;
use swarm_types::network_set::{NetworkDifference, NetworkProblem};
use v1::command::Command;
use v1::session_message::Message;

use super::World;

/// A complete set, or what comes after one: this node's part, with this epoch of keys.
fn networks(applies_to: Option<u64>, results_in: u64, key_epoch: u64) -> Message {
    let own = v1::SelfPart { node_id: "node1".into(), index: 1, key_epoch, ..v1::SelfPart::default() };
    let change = v1::network_change::Change::PutSelf(own);
    let changes = vec![v1::NetworkChange { change: Some(change) }];
    Message::Networks(v1::Networks { applies_to, results_in, changes })
}

impl World {
    fn epoch(&self) -> Option<u64> {
        self.executor.fake_networks().set().borrow().own.as_ref().map(|own| own.key_epoch)
    }
    async fn applied(&self, number: u64) -> v1::UpdateNetworkStatusRequest {
        let last = |s: &super::dispatcher::State| s.networks.last().filter(|r| r.applied == number).cloned();
        self.manager.until(&format!("set {number} applied"), last).await
    }
}

#[tokio::test]
async fn sets_are_applied_reported_and_outlive_the_daemon_and_the_managers() {
    let mut world = World::new().await;
    let node = world.node();
    world.session(1).await;
    world.manager.send(networks(None, 7, 1));
    world.manager.send(networks(Some(7), 8, 2));
    let report = world.applied(8).await;
    assert_eq!((report.session_id.as_str(), report.problems.len()), ("session1", 0));
    assert_eq!(world.epoch(), Some(2));

    // While the kernel is busy the newest set waits; the ones between are never applied.
    world.executor.fake_networks().stick(true);
    for n in 8..20 {
        world.manager.send(networks(Some(n), n + 1, n));
    }
    world.manager.command("c", Command::CheckNetworks(v1::CheckNodeNetworks::default()));
    world.manager.until("all was read", |s| (s.reports.len() == 1).then_some(())).await;
    assert_eq!(world.epoch(), Some(2));
    world.executor.fake_networks().stick(false);
    world.applied(20).await;
    assert!(world.manager.state().networks.len() < 6, "{:?}", world.manager.state().networks);
    node.stop().await;

    // Another daemon on the same machine, and nobody answers.
    world.managers.shutdown().await;
    let (executor, dir) = (super::FakeExecutor::new("host1"), world.dir.path().to_owned());
    let node = super::Node::start(&dir, &executor, &[&world.manager]);
    let mut set = executor.fake_networks().set();
    let kept = set.wait_for(|set| set.own.is_some()).await.unwrap().clone();
    assert_eq!((kept.version, kept.own.as_ref().map(|own| own.key_epoch)), (0, Some(19)));
    // A node that leaves keeps nothing.
    node.handle.leave();
    node.stopped().await;
    assert!(executor.fake_networks().set().borrow().own.is_none());
}

#[tokio::test]
async fn a_gap_is_closed_by_a_new_session() {
    let world = World::new().await;
    let _node = world.node();
    world.session(1).await;
    world.manager.send(networks(None, 3, 1));
    world.applied(3).await;
    world.manager.send(networks(Some(5), 6, 2));
    world.session(2).await;
    assert_eq!(world.epoch(), Some(1), "what was there stays");
    world.manager.send(networks(None, 2, 3));
    world.applied(2).await;
    assert_eq!(world.epoch(), Some(3));
}

#[tokio::test]
async fn problems_keys_and_differences_are_told() {
    let world = World::new().await;
    let fake = world.executor.fake_networks();
    let problem = NetworkProblem { subject: "port 80/tcp".into(), text: "is held by nginx".into() };
    fake.change_status(|status| {
        status.description.keys = vec!["old".into()];
        status.problems.push(problem.clone());
    });
    let _node = world.node();
    let report = world.applied(0).await;
    assert_eq!(report.problems[0].text, "is held by nginx");
    assert_eq!(report.description.unwrap().keys, ["old"]);
    assert_eq!(world.manager.state().descriptions[0].network.as_ref().unwrap().keys, ["old"]);

    fake.change_status(|status| status.description.keys.push("new".into()));
    let keys = |s: &super::dispatcher::State| Some(s.networks.last()?.description.clone()?.keys.len());
    world.manager.until("both keys", |s| keys(s).filter(|n| *n == 2)).await;
    fake.change_status(|status| status.problems.clear());
    let report =
        world.manager.until("no problem", |s| s.networks.last().filter(|r| r.problems.is_empty()).cloned());
    assert_eq!(report.await.description, None, "it is as the manager knows it");

    fake.change_status(|status| status.problems.push(problem));
    fake.differ(vec![NetworkDifference { place: "web".into(), what: "route".into(), how: "missing".into() }]);
    world.manager.command("check", Command::CheckNetworks(v1::CheckNodeNetworks::default()));
    let answer = world.manager.until("an answer", |s| s.reports.first().cloned()).await;
    assert_eq!((answer.differences[0].how.as_str(), answer.problems.len()), ("missing", 1));
}
