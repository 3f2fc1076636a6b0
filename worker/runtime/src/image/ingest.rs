//! [`Ingest`]: brings one or more images in. What it touches is pinned until it is dropped, so no collection takes it away in between.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::StoreError;
use super::index::Record;
use super::reference::Reference;
use super::store::{ImageStore, LayerMeta, private_dir, remove_tree};
use super::unpack::{UnpackError, unpack_layer};

/// Someone who brings images in.
pub(crate) struct Ingest {
    store: ImageStore,
    pinned: Mutex<Vec<Digest>>,
}

/// One image that is ready: all its content is in place.
pub(crate) struct Arrival {
    pub(crate) id: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) documents: BTreeSet<Digest>,
    pub(crate) names: Vec<Reference>,
}

/// Why a layer did not get in.
pub(crate) enum LayerError {
    Unpack(UnpackError),
    Store(StoreError),
}

/// A path below `tmp` that goes when this is dropped.
pub(crate) struct Temp(pub(crate) PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        if fs::remove_file(&self.0).is_err() {
            drop(remove_tree(&self.0)); // what stays is removed at the next open
        }
    }
}

impl Ingest {
    pub(crate) fn new(store: &ImageStore) -> Ingest {
        Ingest { store: store.clone(), pinned: Mutex::new(Vec::new()) }
    }

    pub(crate) fn temp(&self) -> Temp {
        Temp(self.store.inner.temp_path())
    }

    /// From now on, no collection removes it.
    pub(crate) fn pin(&self, digest: &Digest) {
        let mut state = self.store.inner.state();
        *state.pins.entry(digest.clone()).or_insert(0) += 1;
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).push(digest.clone());
    }

    /// Pins the layer and says whether it is there.
    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.pin(diff_id);
        self.store.inner.state().layers.contains_key(diff_id)
    }

    /// Puts bytes that are known to have `digest` into the blobs.
    pub(crate) fn put_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let temp = self.temp();
        fs::write(&temp.0, bytes).map_err(StoreError::of(format!("write blob {digest}")))?;
        self.put_file(digest, &temp.0)
    }

    /// Moves a file that is known to have `digest` into the blobs.
    pub(crate) fn put_file(&self, digest: &Digest, file: &Path) -> Result<(), StoreError> {
        self.pin(digest);
        fs::rename(file, self.store.inner.blob_path(digest))
            .map_err(StoreError::of(format!("store blob {digest}")))
    }

    /// Reads a small blob again.
    pub(crate) fn blob(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.store.inner.blob_path(digest))
    }

    /// Unpacks the packed layer in `file`, whose digest is known to be `blob`, and keeps both. Blocks.
    pub(crate) fn put_layer(&self, diff_id: &Digest, blob: &Digest, file: &Path) -> Result<(), LayerError> {
        let fail = |what: &str| StoreError::of(format!("{what} layer {diff_id}"));
        self.pin(diff_id);
        let temp = self.temp();
        private_dir(&temp.0).map_err(LayerError::Store)?;
        let diff = temp.0.join("diff");
        fs::create_dir(&diff).map_err(|e| LayerError::Store(fail("create")(e)))?;
        set_mode_755(&diff).map_err(|e| LayerError::Store(fail("create")(e)))?;
        let packed = File::open(file).map_err(|e| LayerError::Store(fail("read")(e)))?;
        let packed_bytes = packed.metadata().map_err(|e| LayerError::Store(fail("read")(e)))?.len();
        let bytes = unpack_layer(packed, &diff, diff_id, &self.store.inner.settings.limits)
            .map_err(LayerError::Unpack)?;
        let meta = LayerMeta { blob: blob.clone(), packed_bytes, bytes };
        let json = serde_json::to_vec(&meta).map_err(|e| LayerError::Store(fail("describe")(e.into())))?;
        fs::write(temp.0.join("layer.json"), json).map_err(|e| LayerError::Store(fail("describe")(e)))?;
        self.put_file(blob, file).map_err(LayerError::Store)?;
        self.place_layer(diff_id, meta, &temp.0).map_err(|e| LayerError::Store(fail("store")(e)))
    }

    /// Moves an unpacked layer into place, unless somebody else was faster.
    fn place_layer(&self, diff_id: &Digest, meta: LayerMeta, unpacked: &Path) -> io::Result<()> {
        let mut state = self.store.inner.state();
        if state.layers.contains_key(diff_id) {
            return Ok(());
        }
        let target = self.store.inner.layer_dir(diff_id);
        remove_tree(&target)?;
        fs::rename(unpacked, target)?;
        state.layers.insert(diff_id.clone(), meta);
        Ok(())
    }

    /// Makes the arrivals visible, all at once, after everything they consist of has reached the disk. Blocks.
    pub(crate) fn commit(&self, arrivals: Vec<Arrival>) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        let root = File::open(&inner.root).map_err(StoreError::of("open image store"))?;
        nix::unistd::syncfs(&root).map_err(|e| StoreError::of("write images to disk")(e.into()))?;
        let mut state = inner.state();
        let mut index = state.index.clone();
        for arrival in &arrivals {
            let record =
                Record { layers: arrival.config.diff_ids.clone(), documents: arrival.documents.clone() };
            index.add(&arrival.id, record);
            for name in &arrival.names {
                index.references.insert(name.canonical().to_string(), arrival.id.clone());
            }
        }
        inner.save(&mut state, index)?;
        for arrival in arrivals {
            state.configs.insert(arrival.id, Arc::new(arrival.config));
        }
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let mut state = self.store.inner.state();
        for digest in self.pinned.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(count) = state.pins.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(&digest);
                }
            }
        }
    }
}

fn set_mode_755(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Reads a whole stream that must not be larger than `limit`; `None` if it is.
pub(crate) fn read_small(reader: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
