//! The tunnel's process as the data plane keeps it: one while a network needs it, kept by the next daemon,
//! replaced when it ends, gone with the last network that needs it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use swarm_types::network::NetworkDriver;
use swarm_types::network_set::{NetworkEntry, NetworkPart, NetworkSet, SelfPart};
use swarm_worker_agent::executor::NetworkService;
use swarm_worker_dataplane::{DataPlane, Settings};

const DEADLINE: Duration = Duration::from_secs(60);

/// The program with the helper, built if it is not there yet.
fn shim() -> PathBuf {
    if let Some(built) = std::env::var_os("SWARM_TEST_SHIM") {
        return built.into();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "swarm-worker-shim", "--bin", "swarmd-shim"]);
    assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success(), "building failed");
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("swarmd-shim")
}

fn octets(octets: &mut [u8; 32]) -> io::Result<()> {
    octets.fill(7);
    Ok(())
}

fn open(dir: &Path, shim: &Path) -> DataPlane {
    std::fs::write(dir.join("resolv.conf"), "").unwrap();
    let resolv_conf = dir.join("resolv.conf");
    let new = Settings::new(dir.join("run"), dir.join("state"), shim, octets);
    DataPlane::open(Settings { resolv_conf, ..new }).unwrap()
}

/// This node alone, on one network.
fn set(encrypted: bool) -> Arc<NetworkSet> {
    let own = SelfPart {
        node: "n1".into(),
        index: 1,
        addr: Some([192, 0, 2, 1].into()),
        data_port: 4789,
        ..SelfPart::default()
    };
    let network = NetworkPart {
        id: "app".into(),
        name: "app".into(),
        driver: NetworkDriver::Overlay,
        vni: 4097,
        subnets: vec![("10.0.1.0/24".parse().unwrap(), "10.0.1.1".parse().unwrap())],
        internal: false,
        ingress: false,
        encrypted,
        mtu: 0,
        options: BTreeMap::new(),
    };
    let mut set = NetworkSet { version: 1, own: Some(Arc::new(own)), ..NetworkSet::default() };
    let (endpoints, services) = (BTreeMap::new(), BTreeMap::new());
    let entry = NetworkEntry { network: Arc::new(network), endpoints, services };
    set.networks.insert("app".into(), entry);
    Arc::new(set)
}

/// The helpers of a folder: those whose open files name it.
fn helpers(dir: &Path) -> Vec<i32> {
    let log = dir.join("run/tunnel/log");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|path| path == log);
    pids.filter(ours).collect()
}

fn device() -> bool {
    Command::new("ip").args(["link", "show", "sw-wg0"]).output().unwrap().status.success()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

#[test]
fn one_process_outlives_daemons_is_replaced_and_ends_with_its_network() {
    let shim = shim();
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(none, "/", none, private, none).unwrap();
        let lines = "ip link set lo up; ip link add under0 type veth peer name wire; ip link set wire up; \
                     ip addr add 192.0.2.1/24 dev under0; ip link set under0 up";
        assert!(Command::new("sh").args(["-c", lines]).status().unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(life(&shim));
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

async fn life(shim: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let plane = open(dir, shim);
    plane.apply(set(false)).await;
    assert!(helpers(dir).is_empty() && !device(), "nobody needs it");
    plane.apply(set(true)).await;
    assert_eq!(plane.status().borrow().problems, []);
    let [first] = helpers(dir)[..] else { panic!("not one helper: {:?}", helpers(dir)) };
    assert!(device());

    // Daemons come and go.
    drop(plane);
    for _ in 0..3 {
        let plane = open(dir, shim);
        plane.apply(set(true)).await;
        assert_eq!(helpers(dir), [first]);
    }
    assert!(device() && helpers(dir) == [first], "nobody ends it");

    // It ends by itself: nobody tells the daemon but its end.
    let plane = open(dir, shim);
    plane.apply(set(true)).await;
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    until("another one", || matches!(helpers(dir)[..], [pid] if pid != first)).await;
    until("no problem", || plane.status().borrow().problems.is_empty()).await;
    let second = helpers(dir)[0];

    // Its device goes, and it with it.
    assert!(Command::new("ip").args(["link", "del", "sw-wg0"]).status().unwrap().success());
    until("a third", || matches!(helpers(dir)[..], [pid] if pid != second) && device()).await;

    // The network goes while no daemon is there.
    drop(plane);
    let plane = open(dir, shim);
    plane.apply(set(false)).await;
    until("nothing is left", || helpers(dir).is_empty() && !device()).await;
    let routes = Command::new("ip").args(["route", "show", "proto", "84"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&routes), "");

    // And with the node.
    plane.apply(set(true)).await;
    assert_eq!(helpers(dir).len(), 1);
    plane.apply(Arc::default()).await;
    assert!(helpers(dir).is_empty() && !device() && !dir.join("run/tunnel/socket").exists());
}
