//! Connections of what dies end at once: of a task that is killed, of a node without power.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use swarm_tests::hosts::{Hosts, Inside, TaskRow, until, until_in};

use crate::network_names::addrs;
use crate::network_update::{SERVER, address, vip};

#[test]
fn connections_of_the_dead_end() {
    let mut hosts = Hosts::up(1, 2);
    hosts.expect_log(&["node is down"]);
    hosts.ok("m1", "network create app");
    hosts.ok("m1", "service create -d --stop-grace-period 200ms --name caller --network app --constraint node.hostname==m1 demo:1 sleep 1000");
    let flags = "--name web --mode global --constraint node.role==worker --network app -p 8080:80 \
                 --stop-grace-period 200ms --restart-condition none";
    hosts.ok("m1", &format!("service create -d {}", hosts.server(SERVER, flags, 0)));
    let caller = hosts.until_running("m1", "caller", 1).remove(0);
    let web = hosts.until_running("m1", "web", 2);
    let on = |node: &str| web.iter().find(|task| task.node == node).unwrap().clone();
    a_task_that_is_killed(&hosts, &caller, &on("w1"));
    a_node_without_power(&hosts, &caller, &on("w2"));
    hosts.end();
}

/// A connection with an answer that never comes.
struct Open {
    what: String,
    ended: Arc<Mutex<Option<(Instant, String)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Open {
    /// Connects until the task of this name answers, then waits; says something now and then if it `speaks`.
    fn to(what: &str, from: Inside, to: SocketAddr, task: &TaskRow, speaks: bool) -> Open {
        let name = task.id[..12].to_owned();
        let mut found = None;
        until(&format!("{what}: {to} leads to {}", task.name), || {
            found = from.run(|| connected(to, &name));
            found.is_some()
        });
        let (stream, ended) = (found.unwrap(), Arc::new(Mutex::new(None)));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, stopped) = (ended.clone(), stop.clone());
        let thread = std::thread::spawn(move || hold(stream, speaks, &stopped, &told));
        Open { what: what.to_owned(), ended, stop, thread: Some(thread) }
    }

    fn end(&self) -> Option<(Instant, String)> {
        self.ended.lock().unwrap().clone()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn connected(to: SocketAddr, name: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[..length]).contains(name).then_some(())?;
    stream.write_all(b"GET /slow?ms=600000 HTTP/1.1\r\n\r\n").ok()?;
    // who is silent is found out by the kernel's probes only
    setsockopt(&stream, sockopt::KeepAlive, &true).ok()?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &1).ok()?;
    setsockopt(&stream, sockopt::TcpKeepInterval, &1).ok()?;
    Some(stream)
}

fn hold(mut stream: TcpStream, speaks: bool, stop: &AtomicBool, told: &Mutex<Option<(Instant, String)>>) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let said = if speaks { stream.write_all(b"x") } else { Ok(()) };
        let heard = said.and_then(|()| stream.read(&mut [0; 64]));
        let why = match heard {
            Ok(0) => "closed".to_owned(),
            Ok(_) => continue,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) => e.to_string(),
        };
        *told.lock().unwrap() = Some((Instant::now(), why));
        return;
    }
}

fn open_all(h: &Hosts, caller: &TaskRow, task: &TaskRow) -> Vec<Open> {
    let inside = SocketAddr::new(vip(h, "web"), 80);
    let own = addrs(h, task, "app")[0].parse().unwrap();
    let mut all = Vec::new();
    for speaks in [true, false] {
        let how = if speaks { "speaking" } else { "silent" };
        for entry in ["m1", "w1", "w2"].iter().filter(|entry| **entry == "m1" || **entry == task.node) {
            let to = SocketAddr::new(address(h, entry), 8080);
            all.push(Open::to(&format!("{how}, by {entry}"), h.inside("client"), to, task, speaks));
        }
        let from = || h.inside_task("m1", caller);
        all.push(Open::to(&format!("{how}, by the virtual address"), from(), inside, task, speaks));
        let straight = SocketAddr::new(own, 80);
        all.push(Open::to(&format!("{how}, straight"), from(), straight, task, speaks));
    }
    all
}

fn a_task_that_is_killed(h: &Hosts, caller: &TaskRow, task: &TaskRow) {
    let open = open_all(h, caller, task);
    let pid = h.pid_of("m1", &task.id).to_string();
    let began = Instant::now();
    assert_eq!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().code(), Some(0));
    for one in &open {
        until_in(Duration::from_secs(5), &format!("{}: it ends", one.what), || one.end().is_some());
        let (at, how) = one.end().unwrap();
        println!("task killed: {}: {how} after {:?}", one.what, at - began);
    }
    // a second is promised; the machine may be busy
    assert!(open.iter().all(|one| one.end().unwrap().0 - began < Duration::from_secs(3)));
}

fn a_node_without_power(h: &Hosts, caller: &TaskRow, task: &TaskRow) {
    let mut open = open_all(h, caller, task);
    // nobody is there to say anything to those who came by the node itself
    open.retain(|one| !one.what.ends_with(&task.node));
    let began = Instant::now();
    h.cluster.kill(&task.node).unwrap();
    until("it is Down", || h.node("m1", &task.node).is_some_and(|row| row["Status"] == "Down"));
    let known = Instant::now();
    println!("managers know after {:?}", known - began);
    for one in &open {
        // at its next packet: TCP repeats what was not answered after 0.2, 0.4, 0.8 … seconds
        until_in(Duration::from_secs(30), &format!("{}: it ends", one.what), || one.end().is_some());
        let (at, how) = one.end().unwrap();
        println!("node dead: {}: {how} after {:?}", one.what, at - began);
    }
    assert!(open.iter().all(|one| one.end().unwrap().0 < known + Duration::from_secs(10)));
}
