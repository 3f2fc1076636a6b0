//! Hosts are made, killed, started, paused, cut and removed, with a stand-in for the daemon that only
//! listens on its socket and has one child. Nothing may be left behind.

#![allow(clippy::unwrap_used)] // all of this file is test

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use swarm_deploy_dev::{
    Cluster, HostError, HostState, OpenError, Places, Programs, Settings, UpError, leftovers,
};

/// The stand-in's program: run by the script below, in a host. Not a test.
#[test]
#[ignore = "the program of a stand-in daemon"]
fn stand_in() {
    let Some(socket) = std::env::var_os("STAND_IN_SOCKET") else { return };
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    loop {
        drop(listener.accept());
    }
}

struct Rig {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Rig {
    fn new(name: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do\n  if [ \"$1\" = --socket ]; then export STAND_IN_SOCKET=\"$2\"; fi\n  \
             if [ \"$1\" = --state-dir ]; then state=\"$2\"; fi\n  \
             shift\ndone\necho started on \"$(hostname)\"\nsleep 1000 &\necho $! > \"$state/child\"\nexec {} --ignored --exact stand_in --nocapture\n",
            own.display()
        );
        let programs = Programs { swarmd: program(dir.path(), "swarmd", &script), swarmctl: "false".into() };
        let mut settings = Settings::new(name, programs);
        settings.places = Places { disk: dir.path().join("disk"), run: "/run/swarm-dev".into() };
        (settings.managers, settings.workers) = (1, 1);
        Rig { dir, settings }
    }

    fn up(&self) -> Cluster {
        Cluster::hosts_up(&self.settings, &mut |_| {}).unwrap()
    }

    fn down(&self) -> bool {
        let was_there = Cluster::down(&self.settings.places, &self.settings.name).unwrap();
        assert_eq!(leftovers(&self.settings.places, &self.settings.name), [""; 0]);
        was_there
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // also when a check failed: the machine is left as it was found
        Cluster::down(&self.settings.places, &self.settings.name).ok();
    }
}

fn program(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn sh(cluster: &Cluster, host: &str, script: &str) -> (i32, String) {
    let output = cluster.command(host, &words(&["sh", "-c", script])).unwrap().output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn state(cluster: &Cluster, host: &str) -> HostState {
    cluster.list().into_iter().find(|row| row.host.name == host).unwrap().state
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not in 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says whether `from` gets an answer of the other host's kernel: a refused connection is one.
fn reaches(cluster: &Cluster, from: &str, to: &str) -> bool {
    let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{to}/9' 2>&1");
    sh(cluster, from, &script).1.contains("refused")
}

#[test]
fn a_host_lives_dies_and_lives_again() {
    let rig = Rig::new("tlife");
    let cluster = rig.up();
    assert_eq!(sh(&cluster, "m1", "cat /proc/sys/kernel/hostname"), (0, "m1".to_owned()));
    assert_eq!(cluster.exec("w1", &words(&["sh", "-c", "exit 7"])).unwrap(), 7);
    assert_eq!(cluster.exec("w1", &words(&["no-such-program"])).unwrap(), 127);
    assert!(reaches(&cluster, "m1", "w1"), "hosts reach each other by name");
    assert!(reaches(&cluster, "client", "m1"), "the client reaches a host through the router");

    std::fs::write(cluster.state_dir("w1").join("kept"), "1").unwrap();
    let child = std::fs::read_to_string(cluster.state_dir("w1").join("child")).unwrap();
    let child = PathBuf::from(format!("/proc/{}/exe", child.trim()));
    assert!(child.exists());
    assert_eq!(state(&cluster, "w1"), HostState::Running);
    cluster.kill("w1").unwrap();
    assert_eq!(state(&cluster, "w1"), HostState::Stopped);
    assert!(!child.exists(), "what the daemon started ended with the host");
    assert!(matches!(cluster.pause("w1"), Err(HostError::Stopped { .. })));
    assert!(!reaches(&cluster, "m1", "w1"));
    cluster.start("w1").unwrap();
    assert_eq!(state(&cluster, "w1"), HostState::Running);
    assert!(cluster.state_dir("w1").join("kept").exists());
    assert!(reaches(&cluster, "m1", "w1"));
    assert!(matches!(cluster.start("w1"), Err(HostError::Running { .. })));
    assert!(matches!(cluster.kill("w9"), Err(HostError::Unknown { .. })));
    assert!(matches!(cluster.pause("client"), Err(HostError::NoDaemon { .. })));
    assert!(rig.down());
    assert!(!rig.down(), "removing it again is fine");
}

#[test]
fn the_daemon_alone_ends_and_comes_back() {
    let rig = Rig::new("tdaemon");
    let cluster = rig.up();
    let (_, before) = sh(&cluster, "m1", "readlink /proc/self/ns/mnt");
    let first = cluster.daemon_pid("m1").unwrap();
    cluster.kill_daemon("m1").unwrap();
    assert_eq!(state(&cluster, "m1"), HostState::Stopped);
    cluster.start("m1").unwrap();
    assert_ne!(cluster.daemon_pid("m1").unwrap(), first);
    assert_eq!(sh(&cluster, "m1", "readlink /proc/self/ns/mnt").1, before, "the host did not reboot");
    assert!(rig.down());
}

#[test]
fn pause_and_cut() {
    let rig = Rig::new("tpause");
    let cluster = rig.up();
    cluster.pause("w1").unwrap();
    until("paused", || state(&cluster, "w1") == HostState::Paused);
    assert!(reaches(&cluster, "m1", "w1"), "only the daemon is stopped");
    cluster.resume("w1").unwrap();
    until("running", || state(&cluster, "w1") == HostState::Running);
    cluster.cut("w1").unwrap();
    assert_eq!(state(&cluster, "w1"), HostState::Cut);
    assert!(!reaches(&cluster, "m1", "w1") && !reaches(&cluster, "w1", "m1"));
    cluster.kill("w1").unwrap();
    cluster.start("w1").unwrap();
    assert_eq!(state(&cluster, "w1"), HostState::Cut, "a cable stays pulled over a reboot");
    cluster.heal("w1").unwrap();
    until("healed", || reaches(&cluster, "m1", "w1"));
    assert!(rig.down());
}

#[test]
fn clusters_live_side_by_side() {
    let (one, two) = (Rig::new("tside1"), Rig::new("tside2"));
    let (a, b) = (one.up(), two.up());
    assert!(matches!(Cluster::hosts_up(&one.settings, &mut |_| {}), Err(UpError::Exists(_))));
    assert!(one.down());
    assert_eq!(state(&b, "m1"), HostState::Running);
    assert!(reaches(&b, "m1", "w1"));
    assert!(matches!(Cluster::open(&one.settings.places, Some(a.name())), Err(OpenError::Unknown(_))));
    assert!(two.down());
}

#[test]
fn a_failed_up_leaves_nothing() {
    let mut rig = Rig::new("tfail");
    rig.settings.programs.swarmd = program(rig.dir.path(), "ends", "#!/bin/sh\necho no disk >&2; exit 1\n");
    let error = Cluster::hosts_up(&rig.settings, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no disk"), "{error}");
    assert_eq!(leftovers(&rig.settings.places, "tfail"), [""; 0]);
    // a cluster that cannot be formed
    let mut rig = Rig::new("tform");
    rig.settings.programs.swarmctl =
        program(rig.dir.path(), "ctl", "#!/bin/sh\necho not today >&2; exit 1\n");
    let error = Cluster::up(&rig.settings, &mut |_| {}).unwrap_err();
    assert!(matches!(error, UpError::Form { .. }) && error.to_string().contains("not today"), "{error}");
    assert_eq!(leftovers(&rig.settings.places, "tform"), [""; 0]);
}
