//! Real containers: what a program sees inside, and how its end is told.

mod support;

use std::fs;
use std::time::Duration;

use support::{Place, within};
use swarm_worker_runtime::container::config::{FileMount, Limits, Mount, Network, Propagation, Rlimit};
use swarm_worker_runtime::container::{ContainerConfig, SignalError, StartError, State, WaitError};

fn bind(source: &std::path::Path, target: &str, read_only: bool) -> Mount {
    Mount::Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        propagation: Propagation::Rprivate,
        non_recursive: false,
    }
}

#[tokio::test]
async fn exit_code_and_output_are_kept() {
    let place = Place::new();
    let (exit, output) = place.run("c", place.shell("echo out; echo err >&2; exit 42")).await;
    assert_eq!((exit.code, exit.signal, exit.error), (42, None, None));
    assert!(output.contains("out") && output.contains("err"), "{output}");
    place.containers.remove("c").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn signals_end_it_and_are_told() {
    let place = Place::new();
    place
        .begin("c", place.shell("trap 'echo got; exit 7' USR1; echo up; while :; do sleep 0.01; done"))
        .await
        .expect("start");
    place.until_written("c", "up").await;
    place.containers.signal("c", libc::SIGUSR1).expect("signal");
    assert_eq!(within(place.containers.wait("c")).await.expect("wait").code, 7);
    assert!(matches!(place.containers.signal("c", libc::SIGUSR1), Err(SignalError::NotRunning(_))));

    place.begin("d", place.config(&["sleep", "1000"])).await.expect("start");
    let exit = within(place.containers.kill("d")).await.expect("kill");
    assert_eq!((exit.code, exit.signal), (137, Some(libc::SIGKILL)));
    place.containers.remove("c").await.expect("remove");
    place.containers.remove("d").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn who_ignores_the_stop_signal_is_killed() {
    let place = Place::new();
    place
        .begin("c", place.shell("trap '' TERM; echo up; while :; do sleep 0.01; done"))
        .await
        .expect("start");
    place.until_written("c", "up").await;
    let stop = place.containers.stop("c", libc::SIGTERM, Duration::from_millis(100));
    let exit = within(stop).await.expect("stop");
    assert_eq!(exit.code, 137);

    place
        .begin("d", place.shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"))
        .await
        .expect("start");
    place.until_written("d", "up").await;
    let stop = place.containers.stop("d", libc::SIGTERM, Duration::from_secs(15));
    assert_eq!(within(stop).await.expect("stop").code, 0);
}

#[tokio::test]
async fn memory_limit_kills_and_is_told() {
    let place = Place::new();
    if !place.containers.controllers().has("memory") {
        return;
    }
    let limits = Limits { memory_bytes: 16 << 20, ..Limits::default() };
    let hog = place.shell("a=x; while :; do a=$a$a; done");
    let (exit, _) = place.run("c", ContainerConfig { limits, ..hog }).await;
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exit.code, 137);
}

#[tokio::test]
async fn limits_are_in_force() {
    let place = Place::new();
    let limits = Limits { nano_cpus: 500_000_000, memory_bytes: 64 << 20, pids: 5 };
    let forks = place.shell("for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo never");
    let warnings = place.containers.create("c", ContainerConfig { limits, ..forks }).await.expect("create");
    place.containers.start("c").await.expect("start");
    if place.containers.controllers().has("pids") {
        let exit = within(place.containers.wait("c")).await.expect("wait");
        assert_ne!(exit.code, 0);
        assert!(place.output("c").await.contains("can't fork"));
    } else {
        assert!(warnings.iter().any(|w| w.starts_with("pids limit dropped")));
    }
    let show = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
                /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    let (_, output) = place.run("d", ContainerConfig { limits, ..place.shell(show) }).await;
    if place.containers.controllers().has("cpu") {
        assert!(output.contains("50000"), "{output}");
    }
    if place.containers.controllers().has("memory") {
        assert!(output.contains("67108864"), "{output}");
    }
}

#[tokio::test]
async fn stats_see_a_running_container() {
    let place = Place::new();
    let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
    let busy = place.shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000 & echo up; wait");
    place.begin("c", ContainerConfig { limits, ..busy }).await.expect("start");
    place.until_written("c", "up").await;
    let stats = place.containers.stats("c");
    if place.containers.controllers().has("memory") {
        assert_eq!(stats.memory_limit_bytes, 64 << 20);
        assert!(stats.memory_bytes > 0);
    }
    if place.containers.controllers().has("pids") {
        assert_eq!(stats.pids, 2);
    }
    assert!(stats.cpu_nanos > 0 || !place.containers.controllers().has("cpuacct"));
    place.containers.remove("c").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn a_read_only_root_has_writable_mounts() {
    let place = Place::new();
    let script =
        "touch /x 2>&1; touch /tmp/y && echo tmp; touch /dev/shm/z && echo shm; df -k /tmp | tail -1";
    let mut config = ContainerConfig { read_only: true, ..place.shell(script) };
    config.mounts.push(Mount::Tmpfs { target: "/tmp".into(), size_bytes: 1 << 20, mode: 0 });
    let (exit, output) = place.run("c", config).await;
    assert_eq!(exit.code, 0);
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(output.contains("tmp") && output.contains("shm") && output.contains("1024"), "{output}");
}

#[tokio::test]
async fn binds_are_mounted_and_made() {
    let place = Place::new();
    let (data, file) = (place.path("data"), place.path("hosts"));
    fs::create_dir_all(data.join("sub")).expect("mkdir");
    fs::write(data.join("a"), "from the host\n").expect("write");
    fs::write(&file, "1.2.3.4 here\n").expect("write");
    let script = "cat /new/place/a; echo back > /new/place/b; touch /ro/x 2>&1; cat /etc/hosts";
    let mut config = place.shell(script);
    config.mounts = vec![bind(&data, "/new/place", false), bind(&data, "/ro", true)];
    config.files = vec![FileMount { source: file, target: "/etc/hosts".into(), read_only: true }];
    let (exit, output) = place.run("c", config).await;
    assert_eq!(exit.code, 0, "{output}");
    assert!(output.contains("from the host") && output.contains("1.2.3.4 here"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert_eq!(fs::read_to_string(data.join("b")).expect("written inside"), "back\n");
    assert!(!place.path("image/new").exists(), "the image is untouched");
}

#[tokio::test]
async fn a_link_in_the_image_leads_nowhere_outside() {
    let place = Place::new();
    let (data, outside) = (place.path("data"), place.path("outside"));
    fs::create_dir(&data).expect("mkdir");
    fs::create_dir(&outside).expect("mkdir");
    std::os::unix::fs::symlink(&outside, place.path("image/trap")).expect("link");
    let mut config = place.shell("touch /trap/inside/x");
    config.mounts = vec![bind(&data, "/trap/inside", false)];
    let failed = place.begin("c", config).await;
    assert!(fs::read_dir(&outside).expect("outside").next().is_none(), "nothing was made outside");
    assert!(failed.is_err() || !data.join("nothing").exists());
}

#[tokio::test]
async fn a_missing_bind_source_is_said() {
    let place = Place::new();
    let mut config = place.shell("true");
    config.mounts = vec![bind(std::path::Path::new("/no/such/dir"), "/x", false)];
    let error = place.begin("c", config).await.expect_err("no source");
    assert_eq!(error.to_string(), "bind source path does not exist: /no/such/dir");
    let exit = within(place.containers.wait("c")).await.expect("wait");
    assert_eq!(
        (exit.code, exit.error.as_deref()),
        (125, Some("bind source path does not exist: /no/such/dir"))
    );
    place.containers.remove("c").await.expect("remove");
    place.assert_clean();
}

#[tokio::test]
async fn later_mounts_of_the_host_come_through_a_slave_bind() {
    let place = Place::new();
    let shared = place.path("shared");
    fs::create_dir_all(shared.join("m")).expect("mkdir");
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).status().expect("mount runs");
        assert!(status.success(), "mount {args:?}");
    };
    let path = shared.to_str().expect("utf-8");
    mount(&["--bind", path, path]);
    mount(&["--make-shared", path]);
    let mut config = place.shell("until [ -e /s/m/flag ]; do sleep 0.01; done; echo seen");
    config.mounts = vec![Mount::Bind {
        source: shared.clone(),
        target: "/s".into(),
        read_only: false,
        propagation: Propagation::Rslave,
        non_recursive: false,
    }];
    place.begin("c", config).await.expect("start");
    mount(&["-t", "tmpfs", "tmpfs", &format!("{path}/m")]);
    fs::write(shared.join("m/flag"), "").expect("write");
    let ended = within(place.containers.wait("c")).await;
    for dir in [shared.join("m"), shared.clone()] {
        nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH).expect("umount");
    }
    assert_eq!(ended.expect("wait").code, 0);
}

#[tokio::test]
async fn user_environment_and_place_are_as_asked() {
    let place = Place::new();
    let script = "id -u; id -g; id -G; pwd; hostname; echo $HOME $PATH $A; stat -c %a:%u /made/here; \
                  echo ok > /dev/stdout; ulimit -n; umask";
    let config = ContainerConfig {
        user: "web".into(),
        hostname: "box".into(),
        cwd: "/made/here".into(),
        env: vec!["A=b c".into()],
        rlimits: vec![Rlimit { name: "nofile".into(), soft: 123, hard: 456 }],
        ..place.shell(script)
    };
    let (exit, output) = place.run("c", config).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("33\n34\n34 40\n/made/here\nbox\n/srv {path} b c\n755:0\nok\n123\n0022");
    assert_eq!((exit.code, output), (0, expected));

    let ghost = ContainerConfig { user: "ghost".into(), ..place.shell("true") };
    let error = place.begin("d", ghost).await.expect_err("no such user");
    assert_eq!(error.to_string(), "unable to find user ghost: no matching entries in passwd file");
}

#[tokio::test]
async fn confinement_is_dockers() {
    let place = Place::new();
    let script = "grep -E '^(Cap(Prm|Eff|Bnd|Inh|Amb)|Seccomp|NoNewPrivs):' /proc/self/status; \
                  unshare -m true; mount -t tmpfs x /tmp; wc -c < /proc/timer_list; \
                  ls /proc/acpi /sys/firmware | grep -c '^[a-z]'; echo 1 > /proc/sys/kernel/panic; \
                  chroot / true && echo chroot; ls /proc | grep -c '^[0-9]'; mknod /d b 7 0 && cat /d";
    let (_, output) = place.run("c", place.shell(script)).await;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
        "chroot",
    ] {
        assert!(output.lines().any(|l| l == line), "{line} missing in\n{output}");
    }
    assert!(output.contains("unshare: unshare(0x20000): Operation not permitted"), "{output}");
    assert!(output.contains("permission denied"), "mount: {output}");
    assert!(output.contains("/proc/sys/kernel/panic: Read-only file system"), "{output}");
    if place.containers.controllers().has("devices") {
        assert!(output.contains("'/d': Operation not permitted"), "block device: {output}");
    }

    let hardened = ContainerConfig {
        no_new_privileges: true,
        capabilities: vec![],
        user: "1000:1000".into(),
        ..place.shell("grep -E '^(Cap(Eff|Bnd)|Seccomp|NoNewPrivs):' /proc/self/status")
    };
    let (_, output) = place.run("d", hardened).await;
    let expected = "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2";
    assert_eq!(output, expected);
}

#[tokio::test]
async fn namespaces_are_its_own() {
    let place = Place::new();
    let script = "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done; ip -o link | wc -l; \
                  cat /sys/class/net/lo/operstate; ping -c1 -W1 127.0.0.1 > /dev/null && echo pong; \
                  cat /proc/self/cgroup | grep memory; echo $$";
    let (_, output) = place.run("c", place.shell(script)).await;
    for name in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("namespace");
        assert!(!output.contains(host.to_str().expect("utf-8")), "{name} is the host's");
    }
    let tail: Vec<&str> = output.lines().skip(6).collect();
    assert_eq!(tail[0], "1", "loopback only");
    assert!(tail.contains(&"pong") && tail.last() == Some(&"1"), "{tail:?}");

    let shared = ContainerConfig { network: Network::Host, ..place.shell("readlink /proc/self/ns/net") };
    let (_, output) = place.run("d", shared).await;
    let host = fs::read_link("/proc/self/ns/net").expect("namespace");
    assert_eq!(output, host.to_str().expect("utf-8"));
}

#[tokio::test]
async fn a_network_namespace_that_somebody_made_is_joined() {
    let place = Place::new();
    let file = place.path("netns");
    let made = support::NetworkNamespace::at(&file);
    let script = "readlink /proc/self/ns/net; ls /sys/class/net; cat /sys/class/net/lo/mtu";
    let joined = ContainerConfig { network: Network::Namespace(file.clone()), ..place.shell(script) };
    let (_, output) = place.run("c", joined.clone()).await;
    assert_eq!(output, format!("{}\nlo\n4242", made.name), "the one that was made, with its /sys");
    drop(made);

    // What is left is a file like any other.
    match place.begin("d", joined).await {
        Err(StartError::Failed { code, message }) => {
            assert_eq!((code, message.as_str()), (125, "join the network namespace: invalid argument"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_executed_is_said_in_dockers_words() {
    let place = Place::new();
    let cases: [(&str, i32, &str); 6] = [
        ("foo", 127, "exec: \"foo\": executable file not found in $PATH"),
        ("/no/foo", 127, "exec: \"/no/foo\": stat /no/foo: no such file or directory"),
        ("/etc/plain", 126, "exec: \"/etc/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("garbage", 126, "exec /bin/garbage: exec format error"),
        ("", 127, "exec: \"\": executable file not found in $PATH"),
    ];
    for (n, (program, code, words)) in cases.into_iter().enumerate() {
        let id = format!("c{n}");
        match place.begin(&id, place.config(&[program])).await {
            Err(StartError::Failed { code: c, message }) => assert_eq!((c, message.as_str()), (code, words)),
            other => panic!("{program}: {other:?}"),
        }
        assert_eq!(within(place.containers.wait(&id)).await.expect("wait").code, code);
        place.containers.remove(&id).await.expect("remove");
    }
    place.assert_clean();
}

#[tokio::test]
async fn states_follow_the_life() {
    let place = Place::new();
    assert_eq!(place.containers.state("c").expect("state"), None);
    assert!(matches!(place.containers.wait("c").await, Err(WaitError::NotFound(_))));
    assert!(matches!(place.containers.start("c").await, Err(StartError::NotFound(_))));
    place.containers.create("c", place.shell("read x; sleep 1000")).await.expect("create");
    assert!(place.containers.create("c", place.shell("true")).await.is_err(), "taken");
    assert_eq!(place.containers.state("c").expect("state"), Some(State::Created));
    assert!(matches!(place.containers.wait("c").await, Err(WaitError::NotStarted(_))));
    place.containers.start("c").await.expect("start");
    assert!(matches!(place.containers.state("c").expect("state"), Some(State::Running(_))));
    assert!(matches!(place.containers.start("c").await, Err(StartError::AlreadyStarted(_))));
    assert_eq!(place.containers.list().expect("list").len(), 1);
    place.containers.remove("c").await.expect("remove kills");
    place.containers.remove("c").await.expect("remove again");
    assert_eq!(place.containers.list().expect("list"), []);
    assert!(place.containers.create("../x", place.shell("true")).await.is_err());
    place.assert_clean();
}

#[tokio::test]
async fn many_may_wait_and_give_up() {
    let place = Place::new();
    place.begin("c", place.shell("sleep 0.2; exit 5")).await.expect("start");
    for _ in 0..3 {
        let impatient = tokio::time::timeout(Duration::from_millis(1), place.containers.wait("c")).await;
        assert!(impatient.is_err());
    }
    let wait = || within(place.containers.wait("c"));
    let (a, b, c) = tokio::join!(wait(), wait(), wait());
    assert_eq!([a, b, c].map(|e| e.expect("wait").code), [5, 5, 5]);
}
