//! [`ImageStore`]: the images of this node on disk, shared by everybody who wants them.
//!
//! ```text
//! lock                      held while a process has the store
//! index.json                names -> image ids -> layers
//! blobs/sha256/<hex>        configurations, manifests and packed layers, by content
//! layers/<diff id>/diff     an unpacked layer: a lower directory for overlayfs
//! layers/<diff id>/layer.json
//! leases/<owner>            the image id a container stands on
//! tmp/                      work in progress; emptied at open
//! ```
//!
//! Everything is built in `tmp` and moved into place whole; the index is written last. So a crash at any moment leaves an image
//! either there or not, and what it left lying is removed at the next open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::auth::RegistryAuth;
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{OpenError, PullError, StoreError};
use super::flight::Flights;
use super::index::Index;
use super::pull::Pulled;
use super::reference::Reference;
use super::registry::RegistrySettings;
use super::unpack::Limits;

/// How the store behaves.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Of registries.
    pub registry: RegistrySettings,
    /// Of layers and archives.
    pub limits: Limits,
}

/// The images of this node. Clones share one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

type PullKey = (String, Option<RegistryAuth>);

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) settings: Settings,
    state: Mutex<State>,
    temp_number: AtomicU64,
    pub(crate) pulls: Flights<PullKey, Result<Pulled, Arc<PullError>>>,
    pub(crate) layer_flights: Flights<Digest, bool>,
    _lock: Flock<File>,
}

/// What is known in memory. The disk is changed first, and only under this lock.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) configs: BTreeMap<Digest, Arc<ImageConfig>>,
    pub(crate) layers: BTreeMap<Digest, LayerMeta>,
    pub(crate) leases: BTreeMap<String, Digest>,
    /// Content that somebody is about to refer to.
    pub(crate) pins: BTreeMap<Digest, u32>,
}

/// What is known of an unpacked layer, kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    /// The packed bytes it came from.
    pub(crate) blob: Digest,
    pub(crate) packed_bytes: u64,
    pub(crate) bytes: u64,
}

/// An image that is present, whole.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// `nginx:1`, in familiar form.
    pub repo_tags: Vec<String>,
    /// `nginx@sha256:…`, in familiar form.
    pub repo_digests: Vec<String>,
    /// How it wants to run.
    pub config: Arc<ImageConfig>,
    /// Its unpacked layers, bottom first: reverse them for overlayfs' `lowerdir`.
    pub layers: Vec<PathBuf>,
    /// Unpacked bytes of all its layers.
    pub size: u64,
    /// RFC 3339, as its builder wrote it.
    pub created: Option<String>,
}

impl ImageStore {
    /// Opens the store at `root` with default settings; creates it if there is none.
    pub fn open(root: PathBuf) -> Result<ImageStore, OpenError> {
        ImageStore::open_with(root, Settings::default())
    }

    /// Opens the store at `root`; removes what a crash left lying. Blocks.
    pub fn open_with(root: PathBuf, settings: Settings) -> Result<ImageStore, OpenError> {
        for dir in ["", "blobs", "blobs/sha256", "layers", "leases"] {
            private_dir(&root.join(dir))?;
        }
        let lock = lock(&root)?;
        let temp = root.join("tmp");
        remove_tree(&temp).map_err(StoreError::of(format!("clean `{}`", temp.display())))?;
        private_dir(&temp)?;
        let state = read_state(&root)?;
        let inner = Inner {
            root,
            settings,
            state: Mutex::new(state),
            temp_number: AtomicU64::new(0),
            pulls: Flights::new(),
            layer_flights: Flights::new(),
            _lock: lock,
        };
        let store = ImageStore { inner: Arc::new(inner) };
        store.forget_incomplete()?;
        store.collect()?;
        Ok(store)
    }

    /// The image that `reference` means: a name with tag or digest, an id, or the unique start of an id.
    pub fn resolve(&self, reference: &str) -> Option<Image> {
        let state = self.inner.state();
        let id = state.find(reference)?;
        Some(self.image(&state, &id))
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        let state = self.inner.state();
        state.index.images.keys().map(|id| self.image(&state, id)).collect()
    }

    /// Gives an image one more name. False if there is no such image.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<bool, StoreError> {
        let mut state = self.inner.state();
        let Some(id) = state.find(image) else { return Ok(false) };
        let mut index = state.index.clone();
        index.references.insert(name.canonical().to_string(), id);
        self.inner.save(&mut state, index)?;
        Ok(true)
    }

    pub(crate) fn image(&self, state: &State, id: &Digest) -> Image {
        let record = &state.index.images[id];
        let config = Arc::clone(&state.configs[id]);
        let (mut repo_tags, mut repo_digests) = (Vec::new(), Vec::new());
        for name in state.index.names_of(id).filter_map(|n| Reference::parse(n).ok()) {
            let list = if name.digest().is_some() { &mut repo_digests } else { &mut repo_tags };
            list.push(name.familiar());
        }
        Image {
            id: id.clone(),
            repo_tags,
            repo_digests,
            layers: record.layers.iter().map(|l| self.inner.layer_dir(l).join("diff")).collect(),
            size: record.layers.iter().filter_map(|l| state.layers.get(l)).map(|l| l.bytes).sum(),
            created: config.created.clone(),
            config,
        }
    }

    /// An image whose parts are not all there is no image: somebody removed files by hand.
    fn forget_incomplete(&self) -> Result<(), StoreError> {
        let mut state = self.inner.state();
        let mut index = state.index.clone();
        let State { configs, layers, .. } = &*state;
        index.images.retain(|id, record| {
            let whole = configs.contains_key(id) && record.layers.iter().all(|l| layers.contains_key(l));
            if !whole {
                warn!(image.id = %id, "image is incomplete on disk and forgotten");
            }
            whole
        });
        let Index { references, images, .. } = &mut index;
        references.retain(|_, id| images.contains_key(id));
        if index.images.len() == state.index.images.len()
            && index.references.len() == state.index.references.len()
        {
            return Ok(());
        }
        self.inner.save(&mut state, index)
    }
}

impl State {
    /// The id that `text` means.
    pub(crate) fn find(&self, text: &str) -> Option<Digest> {
        if let Ok(id) = Digest::parse(text) {
            return self.index.images.contains_key(&id).then_some(id);
        }
        if let Some(id) = Digest::from_hex(text) {
            return self.index.images.contains_key(&id).then_some(id);
        }
        let named =
            Reference::parse(text).ok().and_then(|r| self.index.references.get(&r.canonical().to_string()));
        named.cloned().or_else(|| self.find_by_start(text))
    }

    fn find_by_start(&self, text: &str) -> Option<Digest> {
        let start = text.strip_prefix("sha256:").unwrap_or(text);
        if start.is_empty() || !start.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut fitting = self.index.images.keys().filter(|id| id.hex().starts_with(start));
        let first = fitting.next()?;
        fitting.next().is_none().then(|| first.clone())
    }

    /// Everything that an image, or somebody about to make one, needs: diff ids and blobs alike.
    pub(crate) fn live(&self) -> BTreeSet<Digest> {
        let mut live: BTreeSet<Digest> = self.pins.keys().cloned().collect();
        for (id, record) in &self.index.images {
            live.insert(id.clone());
            live.extend(record.documents.iter().cloned());
            live.extend(record.layers.iter().cloned());
        }
        let blobs: Vec<_> = live.iter().filter_map(|d| self.layers.get(d)).map(|l| l.blob.clone()).collect();
        live.extend(blobs);
        live
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
    pub(crate) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }
    /// A name nobody else has; emptied at the next open if it is left.
    pub(crate) fn temp_path(&self) -> PathBuf {
        self.root.join("tmp").join(self.temp_number.fetch_add(1, Ordering::Relaxed).to_string())
    }
    /// Puts `index` on disk, then in memory.
    pub(crate) fn save(&self, state: &mut State, index: Index) -> Result<(), StoreError> {
        let temp = self.temp_path();
        index
            .save(&self.root.join("index.json"), &temp)
            .inspect_err(|_| drop(fs::remove_file(&temp)))
            .map_err(StoreError::of("write image index"))?;
        state.index = index;
        Ok(())
    }
}

/// Only root may look in: layers hold other people's set-user-id programs.
pub(crate) fn private_dir(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::of(format!("create `{}`", path.display())))
}

/// `remove_dir_all`, content with nothing.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn lock(root: &Path) -> Result<Flock<File>, OpenError> {
    let path = root.join("lock");
    let options = File::options().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(StoreError::of(format!("open `{}`", path.display())))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(OpenError::InUse { root: root.display().to_string() }),
        Err((_, e)) => Err(StoreError::of(format!("lock `{}`", path.display()))(e.into()).into()),
    }
}

fn read_state(root: &Path) -> Result<State, OpenError> {
    let path = root.join("index.json");
    let index = match fs::read(&path) {
        Ok(json) => Index::parse(&json)
            .map_err(|source| OpenError::Index { path: path.display().to_string(), source })?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Index::default(),
        Err(e) => return Err(StoreError::of(format!("read `{}`", path.display()))(e).into()),
    };
    let layers = read_layers(root).map_err(StoreError::of("read layers"))?;
    let leases = super::lease::read_leases(&root.join("leases")).map_err(StoreError::of("read leases"))?;
    let config = |id: &Digest| {
        let json =
            fs::read(root.join("blobs/sha256").join(id.hex())).ok().filter(|json| Digest::of(json) == *id)?;
        Some((id.clone(), Arc::new(ImageConfig::parse(&json).ok()?)))
    };
    let configs = index.images.keys().filter_map(config).collect();
    Ok(State { index, configs, layers, leases, pins: BTreeMap::new() })
}

fn read_layers(root: &Path) -> io::Result<BTreeMap<Digest, LayerMeta>> {
    let mut layers = BTreeMap::new();
    for entry in fs::read_dir(root.join("layers"))? {
        let entry = entry?;
        let Some(diff_id) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
        let meta = fs::read(entry.path().join("layer.json")).ok();
        let meta: Option<LayerMeta> = meta.and_then(|json| serde_json::from_slice(&json).ok());
        let Some(meta) = meta else { continue };
        if root.join("blobs/sha256").join(meta.blob.hex()).exists() {
            layers.insert(diff_id, meta);
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests;
