//! A place for containers in a temporary directory, with busybox as the image.
#![allow(dead_code, unreachable_pub, reason = "not every test file uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use swarm_types::time::{Clock, Timestamp};
use swarm_worker_runtime::container::{
    ContainerConfig, Containers, Exit, LogLine, LogOptions, Settings, StartError,
};

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(swarm_worker_shim::clock::now_ms())
    }
}

/// The supervisor, built if it is not there yet.
pub fn shim() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if let Some(built) = std::env::var_os("SWARM_TEST_SHIM") {
                return built.into();
            }
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "-p", "swarm-worker-shim", "--bin", "swarmd-shim"])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo runs");
            assert!(status.success(), "building swarmd-shim failed");
            let test = std::env::current_exe().expect("own path");
            let dir = test.parent().and_then(Path::parent).expect("target/debug/deps/test");
            dir.join("swarmd-shim")
        })
        .clone()
}

pub struct Place {
    pub dir: tempfile::TempDir,
    pub containers: Containers,
    pub parent: String,
}

impl Place {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers: run them as root");
        let dir = tempfile::tempdir().expect("temp dir");
        let parent = format!("/swarmd-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        image(&dir.path().join("image"));
        let containers = open(dir.path(), &parent);
        Self { dir, containers, parent }
    }

    /// As a daemon that was started anew.
    pub fn reopen(&mut self) {
        self.containers = open(self.dir.path(), &self.parent);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self, args: &[&str]) -> ContainerConfig {
        ContainerConfig {
            layers: vec![self.path("image")],
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            ..ContainerConfig::default()
        }
    }

    pub fn shell(&self, script: &str) -> ContainerConfig {
        self.config(&["sh", "-c", script])
    }

    pub async fn begin(&self, id: &str, config: ContainerConfig) -> Result<(), StartError> {
        self.containers.create(id, config).await.expect("create");
        self.containers.start(id).await.map(drop)
    }

    /// Runs to the end; the exit and all output.
    pub async fn run(&self, id: &str, config: ContainerConfig) -> (Exit, String) {
        self.begin(id, config).await.expect("start");
        let exit = within(self.containers.wait(id)).await.expect("wait");
        (exit, self.output(id).await)
    }

    pub async fn output(&self, id: &str) -> String {
        let lines = self.lines(id, LogOptions::default()).await;
        let text: Vec<String> =
            lines.iter().map(|l| String::from_utf8_lossy(&l.content).into_owned()).collect();
        text.join("\n")
    }

    pub async fn lines(&self, id: &str, options: LogOptions) -> Vec<LogLine> {
        let stream = self.containers.logs(id, options).await.expect("log");
        let lines: Vec<_> = within(stream.collect::<Vec<_>>()).await;
        lines.into_iter().map(|l| l.expect("readable")).collect()
    }

    /// Waits until the container has written `text`.
    pub async fn until_written(&self, id: &str, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.output(id).await.contains(text) {
            assert!(Instant::now() < deadline, "{id} never wrote {text:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Nothing of this place is left: no cgroup, mount or process.
    pub fn assert_clean(&self) {
        let ids = self.containers.controllers().ids(self.containers.cgroup_parent());
        assert!(ids.is_empty(), "cgroups left: {ids:?}");
        let here = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&here), "mounts left");
        let left = processes_naming(&here);
        assert!(left.is_empty(), "processes left: {left:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A failed test must not leave containers either.
        for pid in processes_naming(&self.dir.path().display().to_string()) {
            let _killed =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let controllers = self.containers.controllers();
        let deadline = Instant::now() + DEADLINE;
        let parent = self.containers.cgroup_parent();
        for id in controllers.ids(parent) {
            while !controllers.remove(parent, &id) && Instant::now() < deadline {
                for pid in controllers.processes(parent, &id) {
                    let _killed = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        while !controllers.ids(parent).is_empty() && Instant::now() < deadline {}
        controllers.remove_parent(parent);
        controllers.remove_parent(&self.parent);
    }
}

pub fn open(dir: &Path, parent: &str) -> Containers {
    let settings = Settings { root: dir.join("containers"), cgroup_parent: parent.to_owned(), shim: shim() };
    Containers::open(settings, Arc::new(SystemClock)).expect("open")
}

/// Supervisors that name `text` on their command line (zombies do not).
pub fn processes_naming(text: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("proc");
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("swarmd-shim") && line.contains(text)
    })
    .collect()
}

pub const DEADLINE: Duration = Duration::from_secs(60);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A layer with busybox, a user and a file without rights.
fn image(dir: &Path) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "/bin/busybox is missing: apt-get install busybox-static");
    for sub in ["bin", "etc", "tmp"] {
        fs::create_dir_all(dir.join(sub)).expect("mkdir");
    }
    fs::copy(busybox, dir.join("bin/busybox")).expect("copy");
    let list = Command::new(busybox).arg("--list").output().expect("busybox runs").stdout;
    for name in String::from_utf8(list).expect("utf-8").lines().filter(|n| *n != "busybox") {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(name)).expect("link");
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n")
        .expect("write");
    fs::write(dir.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:40:web\n").expect("write");
    fs::write(dir.join("etc/plain"), "not a program\n").expect("write");
    fs::write(dir.join("bin/garbage"), "\u{1}\u{2}\n").expect("write");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.join("bin/garbage"), executable).expect("chmod");
}

/// A network namespace at a file, with an `lo` that cannot be mistaken.
pub struct NetworkNamespace {
    file: PathBuf,
    pub name: String,
}

impl NetworkNamespace {
    pub fn at(file: &Path) -> Self {
        fs::write(file, "").expect("write");
        let place = file.to_owned();
        let made = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
            let own = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
            let (none, flags) = (None::<&str>, nix::mount::MsFlags::MS_BIND);
            nix::mount::mount(Some(own.as_str()), &place, none, flags, none).expect("bind");
            fs::read_link(own).expect("link").to_string_lossy().into_owned()
        });
        let made = Self { file: file.to_owned(), name: made.join().expect("made") };
        let mut net = std::ffi::OsString::from("--net=");
        net.push(file);
        let mut set = Command::new("nsenter");
        set.arg(net).args(["ip", "link", "set", "lo", "mtu", "4242", "up"]);
        assert!(set.status().expect("nsenter runs").success());
        made
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        nix::mount::umount2(&self.file, nix::mount::MntFlags::MNT_DETACH).expect("umount");
    }
}
