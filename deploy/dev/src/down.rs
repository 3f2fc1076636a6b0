//! Removes a cluster, whole or half made, and says what is left of one.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::boot::Boot;
use crate::cgroup;
use crate::error::{DownError, SystemError};
use crate::network;
use crate::place::{Place, Places, is_name};

/// Removes everything that carries the name; says whether there was anything.
pub(crate) fn down(places: &Places, name: &str) -> Result<bool, DownError> {
    if !is_name(name) {
        return Err(DownError::Name(name.to_owned()));
    }
    let place = places.of(name);
    let was_there = !leftovers(places, name).is_empty();
    end_processes(&place);
    cgroup::end(name)?;
    for namespace in network::namespaces(name) {
        network::remove(&namespace)?;
    }
    for mount in mounts_below(&place) {
        umount2(&mount, MntFlags::MNT_DETACH)
            .map_err(|errno| SystemError::file("unmount", &mount)(errno.into()))?;
    }
    for dir in [&place.disk, &place.run] {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(SystemError::file("remove", dir)(error).into());
            }
            _ => {}
        }
    }
    tidy(places, &place);
    let left = leftovers(places, name);
    if left.is_empty() { Ok(was_there) } else { Err(DownError::Left { name: name.to_owned(), left }) }
}

/// What a cluster of this name still has: processes, namespaces, mounts, cgroups, files; empty when gone.
pub fn leftovers(places: &Places, name: &str) -> Vec<String> {
    let place = places.of(name);
    let mut left = Vec::new();
    for dir in cgroup::directories(name) {
        left.extend(cgroup::processes(&dir).iter().map(|pid| format!("process {pid}")));
        left.push(format!("cgroup {}", dir.display()));
    }
    left.extend(boots(&place).iter().flat_map(|boot| {
        [boot.up(), boot.running()]
            .into_iter()
            .flatten()
            .map(|p| format!("process {}", p.pid))
            .collect::<Vec<_>>()
    }));
    left.extend(network::namespaces(name).iter().map(|namespace| format!("namespace {namespace}")));
    left.extend(mounts_below(&place).iter().map(|mount| format!("mount {}", mount.display())));
    for dir in [&place.disk, &place.run] {
        if dir.symlink_metadata().is_ok() {
            left.push(format!("directory {}", dir.display()));
        }
    }
    left.dedup();
    left
}

fn boots(place: &Place) -> Vec<Boot> {
    let entries = std::fs::read_dir(&place.disk).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|host| Boot::load(place, &host))
        .collect()
}

/// Ends what a record names, for the case that it left its cgroup; the rest ends with the cgroup.
fn end_processes(place: &Place) {
    for boot in boots(place) {
        for process in [boot.daemon, boot.idle].into_iter().flatten() {
            process.signal(Signal::SIGKILL);
        }
    }
}

/// Mounts of this namespace below the cluster's directories, innermost first.
fn mounts_below(place: &Place) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points =
        text.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescaped(point)));
    let ours = |point: &PathBuf| [&place.disk, &place.run].iter().any(|dir| point.starts_with(dir));
    let mut mounts: Vec<PathBuf> = points.filter(ours).collect();
    mounts.reverse();
    mounts
}

/// The kernel writes blanks in mount points as octal escapes.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Removes the common parents when no other cluster is in them.
fn tidy(places: &Places, place: &Place) {
    cgroup::tidy();
    let parent = place.disk.parent().unwrap_or(Path::new("/"));
    for dir in [&places.run, &places.disk, parent] {
        // one that is not empty belongs to another cluster and stays
        std::fs::remove_dir(dir).ok();
    }
}
