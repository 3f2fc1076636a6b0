//! Leases: a container's hold on its image. A leased image is not deleted; the layers below a running container stay.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::digest::Digest;
use super::error::{LeaseError, StoreError};
use super::store::{Image, ImageStore};

impl ImageStore {
    /// Holds `image` (a name or an id) for `owner` until [`release`](Self::release), over restarts too. A second lease of the same
    /// owner replaces the first. Not synced to disk: after a power cut no container runs that could need it.
    pub fn lease(&self, owner: &str, image: &str) -> Result<Image, LeaseError> {
        check_owner(owner)?;
        let mut state = self.inner.state();
        let id = state.find(image).ok_or_else(|| LeaseError::NoSuchImage(image.to_string()))?;
        if state.leases.get(owner) != Some(&id) {
            let temp = self.inner.temp_path();
            let written = fs::write(&temp, id.as_str())
                .and_then(|()| fs::rename(&temp, self.inner.root.join("leases").join(owner)));
            written
                .inspect_err(|_| drop(fs::remove_file(&temp)))
                .map_err(StoreError::of(format!("write lease of {owner}")))?;
            state.leases.insert(owner.to_string(), id.clone());
        }
        Ok(self.image(&state, &id))
    }

    /// Gives up what `owner` holds. False if it held nothing.
    pub fn release(&self, owner: &str) -> Result<bool, StoreError> {
        let mut state = self.inner.state();
        if state.leases.remove(owner).is_none() {
            return Ok(false);
        }
        match fs::remove_file(self.inner.root.join("leases").join(owner)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::of(format!("remove lease of {owner}"))(e))
            }
            _ => Ok(true),
        }
    }

    /// Who holds what, to compare with the containers that exist.
    pub fn leases(&self) -> BTreeMap<String, Digest> {
        self.inner.state().leases.clone()
    }
}

fn check_owner(owner: &str) -> Result<(), LeaseError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good = (1..=128).contains(&owner.len()) && !owner.starts_with('.') && owner.bytes().all(word);
    if good { Ok(()) } else { Err(LeaseError::Owner(owner.to_string())) }
}

/// A lease that cannot be read holds nothing.
pub(crate) fn read_leases(dir: &Path) -> io::Result<BTreeMap<String, Digest>> {
    let mut leases = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let id = fs::read_to_string(entry.path()).ok().and_then(|t| Digest::parse(&t).ok());
        if let (Ok(owner), Some(id)) = (entry.file_name().into_string(), id) {
            leases.insert(owner, id);
        }
    }
    Ok(leases)
}
