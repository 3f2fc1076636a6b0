//! Creating: a bundle is made beside its place and renamed into it, whole.

use std::fs;
use std::io;

use swarm_worker_shim::bundle::Bundle;
use swarm_worker_shim::config::{CONFIG_VERSION, ContainerConfig};
use swarm_worker_shim::record::{self, Durability};

use super::{Containers, CreateError};

pub(super) const CREATING: &str = ".creating-";
pub(super) const REMOVING: &str = ".removing-";

/// Ids become names of directories: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 128 characters.
pub(super) fn check_id(id: &str) -> Result<(), CreateError> {
    let fits = id.len() <= 128
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if fits { Ok(()) } else { Err(CreateError::Id(id.to_owned())) }
}

impl Containers {
    /// Makes a container, without starting it. `id`, `version` and `cgroup` of the configuration are
    /// filled in here. Returns warnings about limits that cannot be enforced on this machine.
    ///
    /// # Errors
    /// If the id is no name or is taken, or the bundle cannot be written.
    pub async fn create(&self, id: &str, config: ContainerConfig) -> Result<Vec<String>, CreateError> {
        check_id(id)?;
        let _turn = self.turn(id).await;
        let (cgroup, warnings) = self.shared.controllers.plan(self.cgroup_parent(), id, config.limits);
        let config = ContainerConfig { id: id.to_owned(), version: CONFIG_VERSION, cgroup, ..config };
        let root = &self.shared.settings.root;
        let (making, place) = (Bundle::new(root.join(format!("{CREATING}{id}"))), self.bundle(id));
        let id = id.to_owned();
        let done = tokio::task::spawn_blocking(move || {
            if place.dir().exists() {
                return Err(CreateError::Exists(id));
            }
            write(&making, &config)
                .and_then(|()| fs::rename(making.dir(), place.dir()))
                .map_err(|source| CreateError::Bundle { path: place.dir().to_owned(), source })
        });
        done.await.expect("creating does not panic and is not aborted")?;
        Ok(warnings)
    }
}

fn write(bundle: &Bundle, config: &ContainerConfig) -> io::Result<()> {
    match fs::create_dir(bundle.dir()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir_all(bundle.dir())?;
            fs::create_dir(bundle.dir())?;
        }
        other => other?,
    }
    for dir in [bundle.rootfs(), bundle.upper(), bundle.work(), bundle.log()] {
        fs::create_dir(dir)?;
    }
    record::write(&bundle.config(), config, Durability::ThisBoot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_directories() {
        for good in ["a", "web.1.x_y-z", "0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".creating-x", "a/b", "-a", "é", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
