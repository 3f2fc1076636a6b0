//! What planning costs: 1,000 services of 10 tasks each on one network, all published, 20 nodes.
//! `cargo run --release -p swarm-worker-core --features testing --example plan_bench`
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Measuring needs a clock.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use swarm_types::endpoint::{Protocol, PublishMode};
use swarm_types::id::{NetworkId, TaskId};
use swarm_types::network_set::NetworkSet;
use swarm_worker_core::network::planner::Planner;
use swarm_worker_core::network::testing::{World, facts, port};

const NODES: u16 = 20;
const TASKS: u16 = 10;

fn world(services: u16) -> World {
    let addrs: Vec<_> = (1..=NODES).map(|i| format!("192.168.7.{i}")).collect();
    let addrs: Vec<_> = addrs.iter().map(String::as_str).collect();
    let mut world = World::new(&addrs, &["10.255.0.0/16"]);
    world.network("ingress", 4096, &["10.255.0.0/16"], |network| network.ingress = true);
    world.network("app", 4097, &["10.64.0.0/12"], |_| {});
    for s in 0..services {
        let name = format!("service{s:05}");
        let vip = format!("10.65.{}.{}", s / 200, s % 200 + 2);
        world.service(&name, "app", &[&vip], |_| {});
        world.service(&name, "ingress", &[], |service| {
            service.ports = vec![port(Protocol::Tcp, 10_000 + s, 80, PublishMode::Ingress)];
        });
        for t in 0..TASKS {
            let n = u32::from(s) * u32::from(TASKS) + u32::from(t) + 2000;
            let (app, ingress) =
                (format!("10.66.{}.{}", n / 256, n % 256), format!("10.255.{}.{}", n / 256, n % 256));
            let node = 1 + (s + t) % NODES;
            world.task(&format!("task{s:05}x{t:03}"), &name, node, &[("app", &app), ("ingress", &ingress)]);
        }
    }
    world
}

/// The set with one task's `serving` turned over, on both networks.
fn change(set: &mut NetworkSet, n: usize) {
    let task = TaskId::new(format!(
        "task{:05}x{:03}",
        n * 7 % set.networks[&NetworkId::new("app")].services.len(),
        n % 10
    ));
    for entry in set.networks.values_mut() {
        let endpoint = entry.endpoints.get_mut(&task).expect("the task is there");
        let endpoint = Arc::make_mut(endpoint);
        endpoint.serving = !endpoint.serving;
    }
}

/// Another address for a task, as if it were replaced.
fn replace(set: &mut NetworkSet, n: usize) {
    let task = TaskId::new(format!(
        "task{:05}x{:03}",
        n * 7 % set.networks[&NetworkId::new("app")].services.len(),
        n % 10
    ));
    for (id, entry) in &mut set.networks {
        let last = n % 200 + 1;
        let addr = if *id == NetworkId::new("app") {
            format!("10.79.0.{last}")
        } else {
            format!("10.255.250.{last}")
        };
        let endpoint = entry.endpoints.get_mut(&task).expect("the task is there");
        Arc::make_mut(endpoint).addrs = vec![addr.parse().expect("an address")];
    }
}

fn median(mut all: Vec<u128>) -> u128 {
    all.sort_unstable();
    all[all.len() / 2]
}

fn main() {
    for services in [1, 100, 1000] {
        let world = world(services);
        let (mut set, local, facts) = (world.set(1), world.local(1), facts());
        let full = median(
            (0..10)
                .map(|_| {
                    let start = Instant::now();
                    let planned = Planner::new().plan(&set, &local, &facts);
                    let took = start.elapsed().as_micros();
                    assert!(planned.is_some());
                    took
                })
                .collect(),
        );
        let mut planner = Planner::new();
        let mut last = planner.plan(&set, &local, &facts);
        let mut measure = |change: fn(&mut NetworkSet, usize)| {
            median(
                (0..100)
                    .map(|n| {
                        change(&mut set, n);
                        let start = Instant::now();
                        let planned = planner.plan(&set, &local, &facts);
                        let took = start.elapsed().as_micros();
                        // Who drives the kernel keeps the last plan, to compare.
                        last = planned;
                        took
                    })
                    .collect(),
            )
        };
        let (backend, task, nothing) = (measure(change), measure(replace), measure(|_, _| {}));
        println!(
            "{services} services x {TASKS}: all {full} us; one backend {backend} us; one task replaced {task} us; nothing {nothing} us"
        );
    }
}
