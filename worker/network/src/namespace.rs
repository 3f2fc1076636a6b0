//! Network namespaces with names: files in a folder of ours that hold them (a bind mount each).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use swarm_types::id::{NetworkId, TaskId};
use swarm_worker_core::network::kernel::Place;

/// The folder of our namespaces.
#[derive(Debug, Clone)]
pub(crate) struct Folder(Arc<PathBuf>);

/// The namespace that the calling thread is in.
pub(crate) const OWN: &str = "/proc/thread-self/ns/net";

impl Folder {
    /// Makes it if need be, so that mounts in it are seen by everybody who can see the folder.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(Arc::new(path.to_owned())))
    }

    pub(crate) fn path(&self, place: Place) -> Option<PathBuf> {
        match place {
            Place::Host => None,
            Place::Sandbox(network) => Some(self.0.join(format!("n-{network}"))),
            Place::Task(task) => Some(self.0.join(format!("t-{task}"))),
        }
    }

    /// The namespaces that are there.
    pub(crate) fn list(&self) -> io::Result<Vec<Place>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&*self.0)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            match name.split_once('-') {
                Some(("n", id)) => found.extend(id.parse::<NetworkId>().map(Place::Sandbox)),
                Some(("t", id)) => found.extend(id.parse::<TaskId>().map(Place::Task)),
                _ => {}
            }
        }
        found.sort();
        Ok(found)
    }

    /// Opens a namespace, made if there is none. The calling thread must be one that may change
    /// namespaces; it is in `home` again afterwards.
    pub(crate) fn open(&self, place: Place, home: &File) -> io::Result<File> {
        let path = self.path(place).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(file) = look(&path)? {
            return Ok(file);
        }
        // a file that nothing is mounted on is what is left of a namespace that was being made
        File::create(&path)?;
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        let none: Option<&str> = None;
        let mounted = nix::mount::mount(Some(OWN), &path, none, MsFlags::MS_BIND, none);
        enter(home)?;
        mounted?;
        look(&path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes a namespace; fine if there is none. It lives on while a process or a socket is in it.
    pub(crate) fn remove(&self, place: Place) -> io::Result<()> {
        let path = self.path(place).ok_or(io::ErrorKind::InvalidInput)?;
        while nix::mount::umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

/// Opens a file if it is a namespace. An ordinary file is none.
pub(crate) fn look(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let kind = nix::sys::statfs::fstatfs(&file)?.filesystem_type();
    Ok((kind == nix::sys::statfs::NSFS_MAGIC).then_some(file))
}

/// Moves the calling thread, which must be one of our own, into a namespace.
pub(crate) fn enter(namespace: &File) -> io::Result<()> {
    Ok(nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)?)
}
