//! Mounts inside the new root: kernel file systems, devices, what the user asked for, and what must
//! not be seen or changed. All paths here are the container's: a link in the image cannot lead out.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::cgroup::View;
use crate::config::{ContainerConfig, Mount, Propagation};
use crate::exec::reason;
use crate::record::StartFailure;
use crate::sys;

type Done = Result<(), StartFailure>;

/// What a bind needs from the host, taken before the root changes.
pub(crate) struct Source {
    tree: OwnedFd,
    is_dir: bool,
}

/// One mount over the root, ready to be attached.
pub(crate) struct Prepared {
    target: PathBuf,
    what: What,
}

enum What {
    Bind { source: Source, propagation: MsFlags },
    Tmpfs { options: String },
}

fn fail(what: impl Into<String>, e: &io::Error) -> StartFailure {
    StartFailure::setup(format!("{}: {}", what.into(), reason(e)))
}

/// Opens the sources of all mounts, in the order in which they are to be attached.
pub(crate) fn prepare(config: &ContainerConfig) -> Result<Vec<Prepared>, StartFailure> {
    let mut prepared = Vec::with_capacity(config.mounts.len() + config.files.len());
    for file in &config.files {
        let source = open(&file.source, false, file.read_only)?;
        let what = What::Bind { source, propagation: MsFlags::MS_PRIVATE };
        prepared.push(Prepared { target: target(&file.target)?, what });
    }
    for m in &config.mounts {
        prepared.push(match m {
            Mount::Bind { source, target: t, read_only, propagation, non_recursive } => Prepared {
                target: target(t)?,
                what: What::Bind {
                    source: open(source, !non_recursive, *read_only)?,
                    propagation: flags(*propagation),
                },
            },
            Mount::Tmpfs { target: t, size_bytes, mode } => Prepared {
                target: target(t)?,
                what: What::Tmpfs { options: tmpfs_options(*size_bytes, *mode) },
            },
        });
    }
    prepared.sort_by_key(|p| p.target.components().count()); // stable: parents before children
    Ok(prepared)
}

fn open(source: &Path, recursive: bool, read_only: bool) -> Result<Source, StartFailure> {
    let meta = fs::metadata(source).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            StartFailure::setup(format!("bind source path does not exist: {}", source.display()))
        }
        _ => fail(format!("open bind source {}", source.display()), &e),
    })?;
    let tree = sys::open_tree(source, recursive)
        .map_err(|e| fail(format!("open bind source {}", source.display()), &e))?;
    if read_only {
        sys::make_tree_read_only(tree.as_fd(), recursive)
            .map_err(|e| fail(format!("make bind source {} read-only", source.display()), &e))?;
    }
    Ok(Source { tree, is_dir: meta.is_dir() })
}

/// The target without `.` and `..`; it must be absolute and not the root itself.
fn target(text: &str) -> Result<PathBuf, StartFailure> {
    let mut clean = PathBuf::from("/");
    if !text.starts_with('/') {
        return Err(StartFailure::setup(format!("mount target must be an absolute path: {text}")));
    }
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(StartFailure::setup("mount target must not be the root"));
    }
    Ok(clean)
}

fn flags(propagation: Propagation) -> MsFlags {
    match propagation {
        Propagation::Rprivate => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::Rslave => MsFlags::MS_SLAVE | MsFlags::MS_REC,
        Propagation::Slave => MsFlags::MS_SLAVE,
        Propagation::Rshared => MsFlags::MS_SHARED | MsFlags::MS_REC,
        Propagation::Shared => MsFlags::MS_SHARED,
    }
}

fn tmpfs_options(size_bytes: u64, mode: u32) -> String {
    let mode = if mode == 0 { 0o1777 } else { mode };
    if size_bytes == 0 { format!("mode={mode:o}") } else { format!("mode={mode:o},size={size_bytes}") }
}

fn put(source: &str, at: &str, fstype: &str, flags: MsFlags, options: &str) -> Done {
    mount(Some(source), at, Some(fstype), flags, Some(options))
        .map_err(|e| fail(format!("mount {fstype} at {at}"), &e.into()))
}

/// A directory of the image that a kernel file system is to cover; a link there would be a trick.
fn own_dir(path: &str) -> Done {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(StartFailure::setup(format!("{path} of the image is not a directory"))),
        Err(_) => fs::create_dir(path).map_err(|e| fail(format!("create {path}"), &e)),
    }
}

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

/// `/proc`, `/sys` and `/dev`.
pub(crate) fn kernel_file_systems(shm_bytes: u64) -> Done {
    for path in ["/proc", "/sys", "/dev"] {
        own_dir(path)?;
    }
    put("proc", "/proc", "proc", PLAIN, "")?;
    put("sysfs", "/sys", "sysfs", PLAIN | MsFlags::MS_RDONLY, "")?;
    put("tmpfs", "/dev", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, "mode=755,size=65536k")?;
    devices()?;
    for dir in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        fs::create_dir(dir).map_err(|e| fail(format!("create {dir}"), &e))?;
    }
    let no_run = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    put("devpts", "/dev/pts", "devpts", no_run, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    put("shm", "/dev/shm", "tmpfs", PLAIN, &format!("mode=1777,size={shm_bytes}"))?;
    put("mqueue", "/dev/mqueue", "mqueue", PLAIN, "")
}

fn devices() -> Done {
    const NODES: [(&str, u64, u64); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    const LINKS: [(&str, &str); 5] = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    for (path, major, minor) in NODES {
        mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .map_err(|e| fail(format!("create {path}"), &e.into()))?;
    }
    for (path, to) in LINKS {
        std::os::unix::fs::symlink(to, path).map_err(|e| fail(format!("create {path}"), &e))?;
    }
    Ok(())
}

/// Attaches what the user asked for.
pub(crate) fn attach(prepared: &[Prepared]) -> Done {
    prepared.iter().try_for_each(|p| {
        let at = p.target.display();
        let is_dir = !matches!(&p.what, What::Bind { source, .. } if !source.is_dir);
        make_target(&p.target, is_dir).map_err(|e| fail(format!("create mount target {at}"), &e))?;
        match &p.what {
            What::Bind { source, propagation } => {
                let none = None::<&str>;
                sys::move_mount(source.tree.as_fd(), &p.target)
                    .and_then(|()| Ok(mount(none, &p.target, none, *propagation, none)?))
            }
            What::Tmpfs { options } => {
                mount(Some("tmpfs"), &p.target, Some("tmpfs"), PLAIN, Some(options.as_str()))
                    .map_err(Into::into)
            }
        }
        .map_err(|e| fail(format!("mount at {at}"), &e))
    })
}

fn make_target(target: &Path, is_dir: bool) -> io::Result<()> {
    if is_dir {
        return fs::create_dir_all(target);
    }
    if target.exists() {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(target).map(drop)
}

/// Shows the container its own control groups below `/sys/fs/cgroup`, read-only.
pub(crate) fn cgroup_views(views: &[View]) -> Done {
    const AT: &str = "/sys/fs/cgroup";
    if views.iter().any(|v| !v.name.is_empty()) {
        put("tmpfs", AT, "tmpfs", PLAIN, "mode=755")?;
    }
    for view in views {
        let mut at = PathBuf::from(AT);
        if !view.name.is_empty() {
            at.push(&view.name);
            fs::create_dir(&at).map_err(|e| fail(format!("create {}", at.display()), &e))?;
        }
        let flags = PLAIN | MsFlags::MS_RDONLY | MsFlags::MS_RELATIME;
        put("cgroup", &at.to_string_lossy(), &view.fstype, flags, &view.options)?;
    }
    if views.iter().all(|v| v.name.is_empty()) {
        return Ok(());
    }
    make_read_only(Path::new(AT)).map_err(|e| fail(format!("make {AT} read-only"), &e))
}

/// Makes `paths` read as empty; those that are not there need no mask.
pub(crate) fn mask(paths: &[String]) -> Done {
    let none = None::<&str>;
    paths.iter().try_for_each(|path| {
        let Ok(meta) = fs::metadata(path) else { return Ok(()) };
        if meta.is_dir() {
            return put("tmpfs", path, "tmpfs", PLAIN | MsFlags::MS_RDONLY, "size=0k");
        }
        mount(Some("/dev/null"), path.as_str(), none, MsFlags::MS_BIND, none)
            .map_err(|e| fail(format!("mask {path}"), &e.into()))
    })
}

/// Makes `paths` read-only; those that are not there need no protection.
pub(crate) fn protect(paths: &[String]) -> Done {
    paths.iter().try_for_each(|path| {
        let path = Path::new(path);
        let outcome = sys::open_tree(path, true).and_then(|tree| {
            sys::make_tree_read_only(tree.as_fd(), true)?;
            sys::move_mount(tree.as_fd(), path)
        });
        match outcome {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| fail(format!("make {} read-only", path.display()), &e)),
        }
    })
}

/// Makes the root read-only, not what is mounted below it.
pub(crate) fn protect_root() -> Done {
    make_read_only(Path::new("/")).map_err(|e| fail("make the root read-only", &e))
}

/// The mount at `path` alone.
fn make_read_only(path: &Path) -> io::Result<()> {
    sys::make_tree_read_only(File::open(path)?.as_fd(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_absolute_and_stay_inside() {
        assert_eq!(target("/a/./b/../c"), Ok("/a/c".into()));
        assert_eq!(target("/../../x"), Ok("/x".into()));
        assert!(target("a").is_err() && target("/").is_err() && target("/a/..").is_err());
    }

    #[test]
    fn a_missing_source_is_said_in_dockers_words() {
        let failure = open(Path::new("/no/such"), true, false).err().expect("missing");
        assert_eq!(failure.message, "bind source path does not exist: /no/such");
    }

    #[test]
    fn tmpfs_defaults_to_the_sticky_mode() {
        assert_eq!(tmpfs_options(0, 0), "mode=1777");
        assert_eq!(tmpfs_options(4096, 0o700), "mode=700,size=4096");
    }
}
