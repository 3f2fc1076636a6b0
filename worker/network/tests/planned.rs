//! The planner's own plans, made real by the driver: it has nothing to say against them, finds them as
//! they should be, and puts them right after others were there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::{World as Host, run, wait_within};
use swarm_types::endpoint::{Protocol, PublishMode};
use swarm_types::id::{NetworkId, TaskId};
use swarm_worker_core::network::kernel::Place;
use swarm_worker_core::network::planner::Planner;
use swarm_worker_core::network::testing::{World, facts, port};

const INGRESS: [&str; 2] = ["10.255.0.0/16", "fd53:255::/64"];
const APP: [&str; 2] = ["10.0.1.0/24", "fd53:1::/64"];

fn world(backends: u16) -> World {
    let mut world = World::new(&["10.200.0.1", "10.200.0.2", "10.200.0.3"], &INGRESS);
    world.network("ingress", 4096, &INGRESS, |network| network.ingress = true);
    world.network("app", 4097, &APP, |_| {});
    world.network("secret", 4098, &["10.0.2.0/24"], |network| network.encrypted = true);
    world.service("web", "app", &["10.0.1.100", "fd53:1::100"], |_| {});
    let published = [Protocol::Tcp, Protocol::Udp].map(|p| port(p, 80, 9000, PublishMode::Ingress));
    world.service("web", "ingress", &[], |service| service.ports = published.to_vec());
    for i in 1..=backends {
        let (app, ingress) = (format!("10.0.1.1{i},fd53:1::1{i}"), format!("10.255.0.1{i},fd53:255::1{i}"));
        let on = [("app", &app[..]), ("ingress", &ingress[..])];
        world.task(&format!("t{i}"), "web", (i - 1) % 3 + 1, &on);
    }
    world.service("alone", "secret", &[], |_| {});
    world.task("s1", "alone", 1, &[("secret", "10.0.2.10"), ("ingress", "10.255.0.90,fd53:255::90")]);
    world
}

#[tokio::test]
async fn a_plan_of_the_planner_is_made_real_and_kept_so() {
    let (host, outside) = (Host::new(), Host::new());
    let name = |host: &Host| host.path(Place::Host).file_name().unwrap().to_string_lossy().into_owned();
    let (here, there) = (name(&host), name(&outside));
    run(
        "ip",
        &["link", "add", "eth0", "netns", &here, "type", "veth", "peer", "name", "eth0", "netns", &there],
    );
    host.at(Place::Host, "ip addr add 10.200.0.1/24 dev eth0; ip link set eth0 up");
    let kernel = host.kernel();
    let mut planner = Planner::default();
    let repairs = kernel.repairs();
    for backends in [3, 6, 4, 1, 3] {
        let world = world(backends);
        let planned = planner.plan(&world.set(1), &world.local(1), &facts()).unwrap();
        let applied = kernel.apply(planned.plan).await.unwrap();
        assert_eq!(applied.problems, [], "{backends} backends");
        assert_eq!(kernel.check(None).await.unwrap(), [], "{backends} backends");
    }
    let sandbox = Place::Sandbox(NetworkId::new("app"));
    let rules = host.at(sandbox, "ip rule; ip -6 rule");
    for (place, damage) in [
        (Place::Host, "nft delete table ip sw_host || nft flush ruleset"),
        (
            sandbox,
            "ip rule flush; ip -6 rule flush; nft flush ruleset; ip route flush 10.0.1.0/24; ip link del vx0",
        ),
        (Place::Sandbox(NetworkId::new("ingress")), "ip rule flush; ip link set up0 down"),
        (Place::Task(TaskId::new("t1")), "ip link del gw0; nft flush ruleset"),
    ] {
        let before = *repairs.borrow();
        host.try_at(place, damage);
        wait_within(Duration::from_secs(2), damage, || *repairs.borrow() > before);
        let mut left = kernel.check(None).await.unwrap();
        // what was done to the other end may be news a little later
        for _ in 0..20 {
            if !left.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                left = kernel.check(None).await.unwrap();
            }
        }
        assert_eq!(left, [], "{damage}");
        let main = |text: &str| text.matches("lookup main").count();
        assert_eq!(main(&host.at(sandbox, "ip rule; ip -6 rule")), main(&rules), "{damage}");
    }
}
