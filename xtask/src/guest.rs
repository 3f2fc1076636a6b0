//! `test kernel`: tests that need another kernel than this machine's, in a machine that is emulated: Debian's kernel,
//! a root of the few programs that they use, no disk, no network.
//!
//! They are the test targets `guest_*` of a crate, which `cargo test` leaves out (`test = false`).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::package::{self, GUEST};
use crate::program::{self, repository};

/// Package and name of each target.
const TARGETS: &[(&str, &str)] = &[("swarm-worker-wireguard", "guest_kernel")];
/// What tests call, and their libraries.
const PROGRAMS: &[&str] = &["ip", "ping"];
/// Kernels for clouds are small, and have all that networks need.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Without any acceleration it boots in five seconds.
const LIMIT: Duration = Duration::from_secs(420);
const BOOT: Duration = Duration::from_secs(120);

/// The first program of the guest: mounts what programs expect, runs the tests, switches off.
const INIT: &str = "#!/bin/sh
export PATH=/bin:/sbin HOME=/ RUST_BACKTRACE=1
mkdir -p /proc /sys /dev /tmp /run /var
ln -s /run /var/run
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
modprobe -a veth bridge tun
echo 'guest: '$(uname -r)
for test in /tests/*; do $test --test-threads 1 --show-output; echo \"guest: ended with $?\"; done
poweroff -f
";

/// Runs them and prints what they print; the lines of it.
pub fn run() -> Result<Vec<String>> {
    ensure!(cfg!(target_arch = "x86_64"), "the guest has a kernel for x86-64 only");
    package::install(GUEST)?;
    let work = program::built("guest")?;
    fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let kernel = kernel(&work)?;
    let root = work.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).context("remove the guest's root of before")?;
    }
    let tests = TARGETS.iter().map(|(crate_name, target)| {
        let built =
            cargo(&["test", "--no-run", "-p", crate_name, "--test", target, "--message-format", "json"])?;
        executable(&built).with_context(|| format!("find the program of {target}"))
    });
    make_root(&root, &kernel, &tests.collect::<Result<Vec<_>>>()?)?;
    let archive = pack(&work)?;
    println!("booting {} in an emulated machine", kernel.version);
    boot(&kernel.image, &archive)
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
    version: String,
}

/// Debian's, fetched once and never installed.
fn kernel(work: &Path) -> Result<Kernel> {
    let files = work.join("kernel");
    if !files.join("lib/modules").exists() {
        let package = || -> Result<String> {
            let depends = program::output(Command::new("apt-cache").args(["depends", KERNEL]), BOOT)?;
            let mut names =
                depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
            Ok(format!("linux-image-{}", names.next().context("the kernel's package is not known here")?))
        };
        let name = package().or_else(|_| {
            program::show(Command::new("apt-get").args(["update", "-qq"]))?;
            package()
        })?;
        println!("fetching {name}: a kernel with WireGuard, to be booted, not installed");
        let fetch = work.join("fetched");
        fs::create_dir_all(&fetch).context("make a folder for the kernel's package")?;
        program::show(Command::new("apt-get").args(["download", "-qq", &name]).current_dir(&fetch))?;
        let package = only_entry(&fetch)?;
        program::show(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&files))?;
        fs::remove_dir_all(&fetch).context("remove the kernel's package")?;
    }
    let modules = only_entry(&files.join("lib/modules"))?;
    let version = modules.file_name().and_then(OsStr::to_str).context("the kernel's version")?.to_owned();
    Ok(Kernel { image: files.join(format!("boot/vmlinuz-{version}")), modules, version })
}

fn only_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    Ok(entries.next().with_context(|| format!("{} is empty", dir.display()))??.path())
}

/// The path in what `cargo --message-format json` says.
fn executable(json: &str) -> Option<PathBuf> {
    let of = |line: &str| Some(line.split_once("\"executable\":\"")?.1.split_once('"')?.0.into());
    json.lines().rev().find_map(of)
}

fn make_root(root: &Path, kernel: &Kernel, tests: &[PathBuf]) -> Result<()> {
    for dir in ["bin", "sbin", "lib", "lib64", "tests", "etc"] {
        fs::create_dir_all(root.join(dir)).context("make the guest's root")?;
    }
    let busybox = package::find("busybox").context("busybox")?;
    fs::copy(busybox, root.join("bin/busybox")).context("copy busybox")?;
    for name in ["sh", "mount", "modprobe", "poweroff", "uname", "mkdir", "ln"] {
        symlink("/bin/busybox", root.join("bin").join(name)).context("link busybox")?;
    }
    // The kernel calls it by this name.
    symlink("/bin/busybox", root.join("sbin/modprobe")).context("link busybox")?;
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let path = package::find(name).with_context(|| format!("find {name}"))?;
        libraries.extend(libraries_of(&path)?);
        fs::copy(&path, root.join("bin").join(name)).with_context(|| format!("copy {name}"))?;
    }
    for test in tests {
        libraries.extend(libraries_of(test)?);
        let name = test.file_name().context("a test's name")?;
        fs::copy(test, root.join("tests").join(name)).context("copy a test")?;
    }
    for library in libraries {
        let to = root.join(library.strip_prefix("/").context("a library's path")?);
        fs::create_dir_all(to.parent().context("a library's folder")?).context("make the guest's root")?;
        fs::copy(&library, to).with_context(|| format!("copy {}", library.display()))?;
    }
    let modules = root.join("lib/modules");
    fs::create_dir_all(&modules).context("make the guest's root")?;
    program::show(Command::new("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
    let busybox = root.join("bin/busybox");
    program::show(Command::new(&busybox).arg("depmod").arg("-b").arg(root).arg(&kernel.version))?;
    let init = root.join("init");
    fs::write(&init, INIT).context("write the guest's init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("make it a program")
}

/// As `ldd` lists them.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = program::output(Command::new("ldd").arg(program), BOOT)?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(listed.lines().filter_map(path).collect())
}

fn pack(work: &Path) -> Result<PathBuf> {
    let archive = work.join("root.cpio");
    let to = fs::File::create(&archive).context("write the guest's root")?;
    let mut find =
        Command::new("find").arg(".").current_dir(work.join("root")).stdout(Stdio::piped()).spawn()?;
    let list = find.stdout.take().context("the list of files")?;
    let mut cpio = Command::new("busybox");
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(work.join("root"));
    let packed = cpio.stdin(list).stdout(to).stderr(Stdio::null()).status().context("run busybox cpio")?;
    let found = find.wait().context("list the guest's root")?;
    ensure!(packed.success() && found.success(), "packing the guest's root failed");
    Ok(archive)
}

fn boot(image: &Path, archive: &Path) -> Result<Vec<String>> {
    let mut machine = Command::new("timeout");
    machine.args(["--kill-after=10", &LIMIT.as_secs().to_string(), "qemu-system-x86_64"]);
    // Nested acceleration is not to be trusted: where it seems to be there, it may hang.
    machine.args([
        "-accel",
        "tcg,thread=multi",
        "-smp",
        "2",
        "-m",
        "1024",
        "-nographic",
        "-no-reboot",
        "-nic",
        "none",
    ]);
    machine.arg("-kernel").arg(image).arg("-initrd").arg(archive);
    machine.args(["-append", "console=ttyS0 panic=-1 quiet"]).stdin(Stdio::null());
    let ran = machine.output().context("run qemu-system-x86_64")?;
    let text = String::from_utf8_lossy(&ran.stdout).replace('\r', "");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.iter().for_each(|line| println!("  {line}"));
    if !ran.status.success() {
        bail!("the guest did not come to its end within {} s", LIMIT.as_secs());
    }
    let ended = lines.iter().filter(|line| line.contains("guest: ended with 0")).count();
    ensure!(ended == TARGETS.len(), "tests in the guest failed");
    Ok(lines)
}

/// Runs cargo in the repository, and gives what it prints.
fn cargo(args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let ran = command
        .args(args)
        .current_dir(repository())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    ensure!(ran.status.success(), "cargo {} failed", args.join(" "));
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_last_that_cargo_names() {
        let json = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                    {\"target\":{},\"executable\":\"/t/debug/deps/guest-1\",\"fresh\":true}\n{\"success\":true}";
        assert_eq!(executable(json), Some(PathBuf::from("/t/debug/deps/guest-1")));
        assert_eq!(executable("{}"), None);
    }
}
