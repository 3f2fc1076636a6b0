//! Removing images: names first, then the image when it has none left, then whatever nothing refers to any more.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::digest::Digest;
use super::error::{RemoveError, StoreError};
use super::index::Index;
use super::reference::Reference;
use super::store::{ImageStore, State, remove_tree};

/// One thing that is gone. Prints as Docker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name.
    Untagged(String),
    /// An image.
    Deleted(Digest),
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Untagged(name) => write!(f, "Untagged: {name}"),
            Removed::Deleted(id) => write!(f, "Deleted: {id}"),
        }
    }
}

impl ImageStore {
    /// Takes the name away; with its last tag, or when named by id, deletes the image. An image in use loses only names, and its
    /// last one only by `force`. Blocks on the disk.
    pub fn remove(&self, reference: &str, force: bool) -> Result<Vec<Removed>, RemoveError> {
        let mut state = self.inner.state();
        let id = state.find(reference).ok_or_else(|| RemoveError::NoSuchImage(reference.to_string()))?;
        let names: Vec<String> = state.index.names_of(&id).map(str::to_string).collect();
        let going = going(reference, &names);
        let by_id = !going
            .iter()
            .any(|n| Reference::parse(reference).is_ok_and(|r| r.canonical().to_string() == **n));
        let tags = names.iter().filter(|n| !n.contains('@')).count();
        if by_id && tags > 1 && !force {
            return Err(RemoveError::ManyNames { image: id.short().to_string() });
        }
        let last = going.len() == names.len();
        let owner = state.leases.iter().find(|(_, held)| **held == id).map(|(owner, _)| owner.clone());
        if let (true, false, Some(owner)) = (last, force, &owner) {
            let (reference, owner) = (reference.to_string(), owner.clone());
            return Err(RemoveError::InUse { reference, owner, image: id.short().to_string() });
        }
        let mut index = state.index.clone();
        let mut removed = untag(&mut index, &going);
        if last && owner.is_none() {
            index.images.remove(&id);
            removed.push(Removed::Deleted(id.clone()));
        }
        self.inner.save(&mut state, index)?;
        drop(state);
        self.collect()?;
        Ok(removed)
    }

    /// Deletes images that nobody holds: those without a tag, or `all`. Blocks on the disk.
    pub fn prune(&self, all: bool) -> Result<Vec<Removed>, StoreError> {
        let mut state = self.inner.state();
        let mut index = state.index.clone();
        let mut removed = Vec::new();
        for id in state.index.images.keys() {
            let names: Vec<String> = state.index.names_of(id).map(str::to_string).collect();
            let tagged = names.iter().any(|n| !n.contains('@'));
            if state.leases.values().any(|held| held == id) || (tagged && !all) {
                continue;
            }
            removed.extend(untag(&mut index, &names));
            index.images.remove(id);
            removed.push(Removed::Deleted(id.clone()));
        }
        self.inner.save(&mut state, index)?;
        drop(state);
        self.collect()?;
        Ok(removed)
    }

    /// Removes every layer and blob that no image leads to and nobody has pinned.
    pub(crate) fn collect(&self) -> Result<(), StoreError> {
        let condemned = {
            let mut state = self.inner.state();
            let known = &state.index.images;
            let gone: Vec<Digest> =
                state.configs.keys().filter(|id| !known.contains_key(id)).cloned().collect();
            gone.iter().for_each(|id| drop(state.configs.remove(id)));
            self.condemn(&mut state).map_err(StoreError::of("collect unused layers"))?
        };
        for path in condemned {
            let done = if path.is_dir() { remove_tree(&path) } else { fs::remove_file(&path) };
            done.map_err(StoreError::of("remove unused layers"))?;
        }
        Ok(())
    }

    /// Moves what is dead to `tmp`, in one step each: nobody sees half of it.
    fn condemn(&self, state: &mut State) -> std::io::Result<Vec<PathBuf>> {
        let live = state.live();
        let mut condemned = Vec::new();
        for dir in ["layers", "blobs/sha256"] {
            for entry in fs::read_dir(self.inner.root.join(dir))? {
                let entry = entry?;
                let digest = entry.file_name().to_str().and_then(Digest::from_hex);
                if digest.as_ref().is_some_and(|d| live.contains(d)) {
                    continue;
                }
                let temp = self.inner.temp_path();
                fs::rename(entry.path(), &temp)?;
                condemned.push(temp);
                if let Some(digest) = digest.filter(|_| dir == "layers") {
                    state.layers.remove(&digest);
                }
            }
        }
        Ok(condemned)
    }
}

/// Which of an image's names go: the one given, and the repository's digests with its last tag; all if it was named by id.
fn going(reference: &str, names: &[String]) -> Vec<String> {
    let given = Reference::parse(reference).map(|r| r.canonical()).ok();
    let Some(given) = given.filter(|r| names.contains(&r.to_string())) else { return names.to_vec() };
    let parsed: Vec<Reference> = names.iter().filter_map(|n| Reference::parse(n).ok()).collect();
    let other_tag = parsed.iter().any(|n| n.name() == given.name() && n.tag().is_some() && *n != given);
    let goes =
        |n: &&Reference| **n == given || (given.tag().is_some() && !other_tag && n.name() == given.name());
    parsed.iter().filter(goes).map(Reference::to_string).collect()
}

fn untag(index: &mut Index, names: &[String]) -> Vec<Removed> {
    let familiar = |name: &String| Reference::parse(name).map_or_else(|_| name.clone(), |r| r.familiar());
    names
        .iter()
        .inspect(|n| drop(index.references.remove(*n)))
        .map(|n| Removed::Untagged(familiar(n)))
        .collect()
}
