//! What Docker Swarm takes for the same, on four hosts like ours: the same image, three managers and a
//! worker, asked through its API, which is polled every 50 ms.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::cluster::image_name;
use super::docker_hosts::{Hosts, until};
use super::http::Connection;
use super::sample::Sample;
use super::{Order, cpu};

/// dockerd and containerd of one host together.
pub(crate) struct Idle {
    /// RSS.
    pub(crate) memory_mib: f64,
    /// Of one core.
    pub(crate) percent: f64,
}

/// Wall seconds, and CPU seconds per container.
pub(crate) async fn deploy(order: &Order, replicas: u64) -> Result<(Sample, Sample)> {
    block_in_place(|| {
        let hosts = Hosts::up()?;
        let mut api = hosts.api(0)?;
        let (mut wall, mut used) = (Vec::new(), Vec::new());
        for round in 0..order.times(3, 1) {
            let name = format!("deploy{round}");
            let (before, began) = (hosts.cpu()?, Instant::now());
            api.post("/services/create", &sleepers(&name, replicas, 5))?;
            await_running(&mut api, &name, replicas)?;
            wall.push(began.elapsed().as_secs_f64());
            used.push((hosts.cpu()? - before) / replicas as f64);
            remove(&hosts, &mut api, &name)?;
        }
        Ok((Sample::of(wall), Sample::of(used)))
    })
}

/// Seconds from a container's kill to its replacement, without a restart delay.
pub(crate) async fn restart(order: &Order) -> Result<Sample> {
    block_in_place(|| {
        let hosts = Hosts::up()?;
        let mut api = hosts.api(0)?;
        api.post("/services/create", &sleepers("restart", 4, 0))?;
        await_running(&mut api, "restart", 4)?;
        let own = api.get("/info")?["Swarm"]["NodeID"].clone();
        let mut took = Vec::new();
        // From the fifth failure on Swarm places the replacement on another host.
        for _ in 0..order.times(4, 2) {
            let tasks = running(&mut api, "restart")?;
            let task = tasks.iter().find(|task| task["NodeID"] == own).context("a task on the first host")?;
            let container =
                task["Status"]["ContainerStatus"]["ContainerID"].as_str().context("its container")?;
            let (id, slot) = (task["ID"].clone(), task["Slot"].clone());
            let began = Instant::now();
            api.post(&format!("/containers/{container}/kill"), &Value::Null)?;
            until("a replacement", || {
                let tasks = running(&mut api, "restart")?;
                Ok(tasks.iter().any(|task| task["Slot"] == slot && task["ID"] != id))
            })?;
            took.push(began.elapsed().as_secs_f64());
            until("a task on the first host", || {
                Ok(running(&mut api, "restart")?.iter().any(|task| task["NodeID"] == own))
            })?;
        }
        Ok(Sample::of(took))
    })
}

/// Services of no task that are created in a second, by one client and by eight.
pub(crate) async fn rate(order: &Order) -> Result<(Sample, Sample)> {
    block_in_place(|| {
        let hosts = Hosts::up()?;
        let (mut one, mut eight) = (Vec::new(), Vec::new());
        for round in 0..order.times(3, 1) {
            one.push(created(&hosts, 1, 200, &format!("a{round}"))?);
            eight.push(created(&hosts, 8, 400, &format!("b{round}"))?);
        }
        Ok((Sample::of(one), Sample::of(eight)))
    })
}

fn created(hosts: &Hosts, clients: usize, count: usize, prefix: &str) -> Result<f64> {
    let mut apis = (0..clients).map(|_| hosts.api(0)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    thread::scope(|scope| {
        let work = |(client, api): (usize, &mut Connection)| {
            for n in 0..count / clients {
                api.post("/services/create", &sleepers(&format!("{prefix}-{client}-{n}"), 0, 5))?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let threads: Vec<_> =
            apis.iter_mut().enumerate().map(|pair| scope.spawn(move || work(pair))).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    Ok((count / clients * clients) as f64 / began.elapsed().as_secs_f64())
}

/// What the daemons of a host cost that does nothing.
pub(crate) async fn idle(span: Duration) -> Result<Idle> {
    block_in_place(|| {
        let hosts = Hosts::up()?;
        thread::sleep(Duration::from_secs(3));
        let daemons = hosts.daemons();
        let used = || daemons.iter().map(|pid| cpu::of_process(*pid)).sum::<Result<f64>>();
        let (before, began) = (used()?, Instant::now());
        thread::sleep(span);
        let percent = (used()? - before) / began.elapsed().as_secs_f64() * 100.0;
        let memory_mib = daemons.iter().map(|pid| cpu::memory(*pid, "Rss")).sum::<Result<f64>>()?;
        Ok(Idle { memory_mib, percent })
    })
}

/// Seconds from a worker's end to Down, and to its tasks running elsewhere.
pub(crate) async fn loss(tasks: u64) -> Result<(Sample, Sample)> {
    block_in_place(|| {
        let mut hosts = Hosts::up()?;
        let mut api = hosts.api(0)?;
        let dead = hosts.api(hosts.count() - 1)?.get("/info")?["Swarm"]["NodeID"].clone();
        api.post("/services/create", &sleepers("loss", tasks, 5))?;
        await_running(&mut api, "loss", tasks)?;
        let began = Instant::now();
        hosts.kill_last();
        until("the node to be down", || {
            let nodes = api.get("/nodes")?;
            let down = |node: &Value| node["ID"] == dead && node["Status"]["State"] == "down";
            Ok(nodes.as_array().is_some_and(|nodes| nodes.iter().any(down)))
        })?;
        let down = began.elapsed().as_secs_f64();
        until("the replacements", || {
            let tasks_now = running(&mut api, "loss")?;
            Ok(tasks_now.iter().filter(|task| task["NodeID"] != dead).count() as u64 == tasks)
        })?;
        Ok((Sample::one(down), Sample::one(began.elapsed().as_secs_f64())))
    })
}

fn sleepers(name: &str, replicas: u64, delay_s: u64) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image_name(), "Args": ["sleep", "86400"], "StopSignal": "SIGKILL",
            },
            "RestartPolicy": { "Condition": "any", "Delay": delay_s * 1_000_000_000 },
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
}

fn await_running(api: &mut Connection, name: &str, replicas: u64) -> Result<()> {
    until("all tasks to run", || {
        let services = api.get(&format!("/services?status=true&filters={{\"name\":[\"{name}\"]}}"))?;
        Ok(services[0]["ServiceStatus"]["RunningTasks"] == replicas)
    })
}

fn running(api: &mut Connection, name: &str) -> Result<Vec<Value>> {
    let filter = format!("{{\"service\":[\"{name}\"],\"desired-state\":[\"running\"]}}");
    let tasks = api.get(&format!("/tasks?filters={filter}"))?;
    let runs = |task: &&Value| task["Status"]["State"] == "running";
    Ok(tasks.as_array().into_iter().flatten().filter(runs).cloned().collect())
}

/// Removes a service and waits until no host has a container any more.
fn remove(hosts: &Hosts, api: &mut Connection, name: &str) -> Result<()> {
    api.delete(&format!("/services/{name}"))?;
    for n in 0..hosts.count() {
        let mut api = hosts.api(n)?;
        until("the containers to be gone", || {
            let left = api.get("/containers/json?all=1")?;
            Ok(left.as_array().is_some_and(Vec::is_empty))
        })?;
    }
    Ok(())
}
