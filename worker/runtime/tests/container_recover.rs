//! Daemons and supervisors that die: what is found again, and that nothing is left behind.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{DEADLINE, Place, SystemClock, open, within};
use swarm_types::time::Clock;
use swarm_worker_runtime::container::{ContainerConfig, LogOptions, State};

fn kill_process(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
}

async fn started(place: &Place, id: &str) -> swarm_worker_runtime::container::Started {
    match place.containers.state(id).expect("state") {
        Some(State::Running(started)) => started,
        other => panic!("{id} is {other:?}"),
    }
}

#[tokio::test]
async fn a_new_daemon_finds_what_runs_and_what_has_ended() {
    let mut place = Place::new();
    place
        .begin("runs", place.shell("echo before; until [ -e /go ]; do sleep 0.01; done; echo after; exit 9"))
        .await
        .expect("start");
    place.run("ended", place.shell("exit 3")).await;
    place.containers.create("made", place.shell("true")).await.expect("create");
    let before = started(&place, "runs").await;
    place.reopen();
    let found = place.containers.recover().await.expect("recover");
    let states: Vec<_> = found.iter().map(|f| (f.id.as_str(), &f.state)).collect();
    assert_eq!(states.len(), 3);
    assert!(matches!(states[0], ("ended", State::Exited(exit)) if exit.code == 3));
    assert_eq!(states[1], ("made", &State::Created));
    assert_eq!(states[2], ("runs", &State::Running(before)));
    fs::write(place.path("containers/runs/upper/go"), "").expect("write");
    // The overlay may not show changes below it: ask by signal if it did not end.
    let exit = tokio::time::timeout(Duration::from_secs(2), place.containers.wait("runs")).await;
    let code = match exit {
        Ok(exit) => exit.expect("wait").code,
        Err(_) => within(place.containers.kill("runs")).await.expect("kill").code,
    };
    assert!(code == 9 || code == 137);
    assert!(place.output("runs").await.contains("before"));
    for id in ["runs", "ended", "made"] {
        place.containers.remove(id).await.expect("remove");
    }
    place.assert_clean();
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_container_with_it() {
    let place = Place::new();
    place.begin("c", place.shell("trap '' TERM HUP; sleep 1000 & sleep 1000 & wait")).await.expect("start");
    let processes = started(&place, "c").await;
    let wait = within(place.containers.wait("c"));
    kill_process(processes.supervisor.pid);
    let exit = wait.await.expect("wait");
    assert_eq!((exit.code, exit.error.as_deref()), (255, Some("supervisor lost")));
    let deadline = Instant::now() + DEADLINE;
    while processes.init.is_present() {
        assert!(Instant::now() < deadline, "the container lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    place.containers.remove("c").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn a_killed_container_is_told_as_killed() {
    let place = Place::new();
    place.begin("c", place.shell("sleep 1000")).await.expect("start");
    kill_process(started(&place, "c").await.init.pid);
    let exit = within(place.containers.wait("c")).await.expect("wait");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
}

#[tokio::test]
async fn power_loss_is_settled_at_the_next_start() {
    let mut place = Place::new();
    place.begin("c", place.shell("echo before; sleep 1000")).await.expect("start");
    place.until_written("c", "before").await;
    let processes = started(&place, "c").await;
    kill_process(processes.supervisor.pid);
    kill_process(processes.init.pid);
    fs::create_dir(place.path("containers/.creating-x")).expect("mkdir");
    fs::create_dir(place.path("containers/.removing-y")).expect("mkdir");
    fs::create_dir(place.path("containers/empty")).expect("mkdir");
    place.reopen();
    let found = place.containers.recover().await.expect("recover");
    assert_eq!(found.len(), 1);
    let State::Exited(exit) = &found[0].state else { panic!("{found:?}") };
    assert_eq!(exit.error.as_deref(), Some("supervisor lost"));
    assert!(exit.finished_at_ms <= SystemClock.now().as_millis());
    assert_eq!(place.output("c").await, "before", "the log is still there");
    assert_eq!(fs::read_dir(place.path("containers")).expect("read").count(), 1);
    place.containers.remove("c").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn only_groups_of_lost_containers_are_swept_away() {
    let place = Place::new();
    let Some(hierarchy) = place.containers.controllers().hierarchies.last().cloned() else { return };
    let own = hierarchy.mount.join(place.parent.trim_start_matches('/')).join("host");
    let stray = hierarchy.mount.join(place.containers.cgroup_parent().trim_start_matches('/')).join("stray");
    fs::create_dir(&own).expect("mkdir");
    fs::create_dir_all(stray.join("below")).expect("mkdir");
    let mut lost = Command::new("sleep").arg("1000").spawn().expect("sleep");
    fs::write(stray.join("below/cgroup.procs"), lost.id().to_string()).expect("join");
    place.begin("c", place.shell("sleep 1000")).await.expect("start");
    let reaper = tokio::task::spawn_blocking(move || lost.wait());
    let found = place.containers.recover().await.expect("recover");
    assert!(matches!(found[0].state, State::Running(_)), "{found:?}");
    assert!(!stray.exists() && own.exists());
    assert!(!reaper.await.expect("reaper").expect("wait").success(), "killed");
    fs::remove_dir(own).expect("rmdir");
    place.containers.remove("c").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn a_hundred_lives_leave_nothing() {
    let place = Place::new();
    let count = |what: &str| fs::read_dir(what).expect("read").count();
    let before = count("/proc/self/fd");
    for n in 0..100 {
        let id = format!("c{n}");
        if n % 2 == 0 {
            let (exit, output) = place.run(&id, place.shell("echo hi; exit 1")).await;
            assert_eq!((exit.code, output.as_str()), (1, "hi"));
        } else {
            place.begin(&id, place.shell("sleep 1000 & sleep 1000")).await.expect("start");
        }
        place.containers.remove(&id).await.expect("remove");
    }
    place.assert_clean();
    assert_eq!(count(place.path("containers").to_str().expect("utf-8")), 0);
    // Descriptors of other tests in this process come and go; ours would be at least a hundred.
    assert!(count("/proc/self/fd") < before + 80, "descriptors left");
}

/// Not a test by itself: the daemon that `killed_daemons_leave_nothing` kills.
#[tokio::test]
async fn daemon_to_be_killed() {
    let (Ok(dir), Ok(parent)) = (std::env::var("SWARM_TEST_DIR"), std::env::var("SWARM_TEST_PARENT")) else {
        return;
    };
    let containers = open(dir.as_ref(), &parent);
    containers.recover().await.expect("recover");
    let args = ["sh", "-c", "sleep 0.003; echo done"].map(str::to_owned).to_vec();
    let image = std::path::Path::new(&dir).join("image");
    for n in 0.. {
        let id = format!("c{}", n % 3);
        let config =
            ContainerConfig { layers: vec![image.clone()], args: args.clone(), ..ContainerConfig::default() };
        containers.remove(&id).await.expect("remove");
        containers.create(&id, config).await.expect("create");
        if n % 4 != 3 {
            containers.start(&id).await.expect("start");
        }
        if n % 2 == 0 && n % 4 != 3 {
            containers.wait(&id).await.expect("wait");
        }
    }
}

#[tokio::test]
async fn killed_daemons_leave_nothing() {
    let mut place = Place::new();
    let mut seen = [0u32; 3]; // created, running, exited
    // On a machine that is busy a daemon comes less far in the same time: more rounds, and longer ones.
    for round in 0u64..600 {
        if round >= 60 && round % 10 == 0 && seen.iter().all(|n| *n > 0) {
            return;
        }
        let mut daemon = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "daemon_to_be_killed", "--nocapture"])
            .env("SWARM_TEST_DIR", place.dir.path())
            .env("SWARM_TEST_PARENT", &place.parent)
            .env("SWARM_TEST_SHIM", support::shim())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run");
        // Another moment each time, over several lives of a container.
        tokio::time::sleep(Duration::from_micros(15_000 + round * 1_237 % (40_000 + 200 * round))).await;
        daemon.kill().expect("kill");
        daemon.wait().expect("reap");
        place.reopen();
        let found = place.containers.recover().await.expect("recover");
        for f in &found {
            match &f.state {
                State::Created => seen[0] += 1,
                State::Running(_) => seen[1] += 1,
                State::Exited(exit) => {
                    seen[2] += 1;
                    // 137: killed by a removal that was cut short.
                    let lost = exit.error.as_deref() == Some("supervisor lost");
                    let fine = exit.code == 0 || exit.code == 137 || lost;
                    assert!(fine, "round {round}: {exit:?}");
                }
                other => panic!("round {round}: {other:?} lasts"),
            }
        }
        if round % 10 == 9 {
            for f in found {
                if matches!(f.state, State::Running(_)) {
                    assert_eq!(within(place.containers.wait(&f.id)).await.expect("wait").code, 0);
                    let lines = place.lines(&f.id, LogOptions::default()).await;
                    assert_eq!(&lines.last().expect("a line").content[..], b"done");
                }
                place.containers.remove(&f.id).await.expect("remove");
            }
            place.assert_clean();
            let left = fs::read_dir(place.path("containers")).expect("read").count();
            assert_eq!(left, 0);
        }
    }
    panic!("not every state was met: {seen:?}");
}
