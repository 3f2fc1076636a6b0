//! Pulling: an image of a registry, checked against its digests, becomes an image of this node.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};
use tracing::info;

use super::archive::JSON_MAX;
use super::auth::RegistryAuth;
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{PullError, StoreError};
use super::ingest::{Arrival, Ingest, LayerError, Temp};
use super::manifest::{Descriptor, Document, Manifest, architecture};
use super::reference::Reference;
use super::registry::{BlobSink, Registry};
use super::store::ImageStore;

const REPORT_EVERY: u64 = 512 * 1024;
const NESTED_MAX: u32 = 3;

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its id.
    pub id: Digest,
    /// The digest of its manifest for this platform.
    pub manifest: Digest,
    /// `nginx@sha256:…` in familiar form: the digest that names it on every platform.
    pub repo_digest: String,
}

/// How far a pull is. Digests are those of the packed layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// The registry said what the name means.
    Resolved { manifest: Digest, layers: usize },
    /// The layer is here already.
    Exists { layer: Digest },
    /// So many bytes of it have come.
    Downloading { layer: Digest, bytes: u64, total: u64 },
    /// It came whole and is being unpacked.
    Unpacking { layer: Digest },
    /// It is in place.
    Done { layer: Digest },
}

/// Where progress goes.
pub type Progress<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

impl ImageStore {
    /// Pulls `reference`. Layers that are here are not fetched again; the same image wanted twice at the same time is fetched once
    /// (the one who waits sees no progress). Dropping the future stops the pull; nothing half-done becomes visible;
    /// a layer that is being unpacked at that moment is finished, and collected later if nobody wants it.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        progress: Progress<'_>,
    ) -> Result<Pulled, PullError> {
        let key = (reference.canonical().to_string(), auth.cloned());
        let work = || async { Box::pin(self.pull_alone(reference, auth, progress)).await.map_err(Arc::new) };
        let (done, shared) = self.inner.pulls.join(&key, work).await;
        done.map_err(|e| {
            if shared { PullError::Shared(e) } else { Arc::try_unwrap(e).unwrap_or_else(PullError::Shared) }
        })
    }

    async fn pull_alone(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        progress: Progress<'_>,
    ) -> Result<Pulled, PullError> {
        let settings = &self.inner.settings.registry;
        let registry = Registry::new(settings, reference, auth)?;
        let ingest = Arc::new(Ingest::new(self));
        let found = find(&registry, reference).await?;
        let pull = Pull { store: self, ingest: &ingest, registry: &registry, progress };
        let (id, config_bytes, config) = pull.config(&found.manifest).await?;
        progress(PullProgress::Resolved {
            manifest: found.path[0].0.clone(),
            layers: found.manifest.layers.len(),
        });
        // Collected first: a lazy closure over references would make this future not `Send`.
        let layers = found.manifest.layers.iter().zip(&config.diff_ids);
        let fetches: Vec<BoxFuture<'_, Result<(), PullError>>> =
            layers.map(|(layer, diff_id)| Box::pin(pull.layer(layer, diff_id)) as BoxFuture<'_, _>).collect();
        let fetches = stream::iter(fetches).buffer_unordered(settings.parallel_layers.max(1));
        fetches.try_collect::<Vec<()>>().await?;
        let top = found.path.last().expect("a manifest was found on some path").0.clone();
        let repo_digest = reference.with_digest(top);
        let arrival = Arrival {
            id: id.clone(),
            config,
            documents: found.path.iter().map(|(digest, _)| digest.clone()).collect::<BTreeSet<_>>(),
            names: Vec::from([repo_digest.clone()])
                .into_iter()
                .chain(reference.digest().is_none().then(|| reference.clone()))
                .collect(),
        };
        let manifest = found.path[0].0.clone();
        let keep = (found.path, id.clone(), config_bytes);
        let done = tokio::task::spawn_blocking(move || {
            let (documents, id, config_bytes) = keep;
            for (digest, bytes) in &documents {
                ingest.put_bytes(digest, bytes)?;
            }
            ingest.put_bytes(&id, &config_bytes)?;
            ingest.commit(vec![arrival])
        });
        done.await.map_err(|_| PullError::Interrupted)??;
        info!(image.reference = %reference, image.id = %id, "image pulled");
        Ok(Pulled { id, manifest, repo_digest: repo_digest.familiar() })
    }
}

/// A manifest for this machine, and the documents that led to it, itself first.
struct Found {
    manifest: Manifest,
    path: Vec<(Digest, Vec<u8>)>,
}

async fn find(registry: &Registry<'_>, reference: &Reference) -> Result<Found, PullError> {
    let mut path = Vec::new();
    let mut next: Option<Digest> = None;
    for _ in 0..NESTED_MAX {
        let (bytes, digest) = registry.manifest(next.as_ref()).await?;
        let json = |source| PullError::Json { what: format!("manifest {digest}"), source };
        let document = Document::parse(&bytes).map_err(json)?;
        path.insert(0, (digest, bytes));
        match document {
            Document::Manifest(manifest) => return Ok(Found { manifest, path }),
            Document::Index(index) => next = index.for_this_machine().first().map(|d| d.digest.clone()),
        }
        if next.is_none() {
            break;
        }
    }
    Err(PullError::Platform {
        reference: reference.familiar(),
        platform: format!("linux/{}", architecture()),
    })
}

/// One pull under way.
struct Pull<'a> {
    store: &'a ImageStore,
    ingest: &'a Arc<Ingest>,
    registry: &'a Registry<'a>,
    progress: Progress<'a>,
}

impl Pull<'_> {
    async fn config(&self, manifest: &Manifest) -> Result<(Digest, Vec<u8>, ImageConfig), PullError> {
        let Descriptor { digest, size, .. } = &manifest.config;
        let what = || format!("configuration {digest}");
        if *size > JSON_MAX {
            return Err(PullError::Size { what: what(), wanted: JSON_MAX });
        }
        let mut memory = Memory(Vec::new());
        self.registry.blob(digest, *size, &mut memory).await?;
        let actual = Digest::of(&memory.0);
        if actual != *digest {
            return Err(PullError::Digest { what: what(), wanted: digest.clone(), actual });
        }
        let config =
            ImageConfig::parse(&memory.0).map_err(|source| PullError::Json { what: what(), source })?;
        if config.diff_ids.len() != manifest.layers.len() {
            return Err(PullError::Layers { layers: manifest.layers.len(), diff_ids: config.diff_ids.len() });
        }
        Ok((digest.clone(), memory.0, config))
    }

    /// Fetches and unpacks a layer, unless it is there or somebody else brings it.
    async fn layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<(), PullError> {
        loop {
            if self.ingest.has_layer(diff_id) {
                (self.progress)(PullProgress::Exists { layer: layer.digest.clone() });
                return Ok(());
            }
            let mut mine = None;
            let flight = self.store.inner.layer_flights.join(diff_id, || async {
                mine = Some(self.fetch_layer(layer, diff_id).await);
                mine.as_ref().is_some_and(Result::is_ok)
            });
            flight.await;
            // somebody else's failure is not ours: look again, and try ourselves
            if let Some(done) = mine {
                return done;
            }
        }
    }

    async fn fetch_layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<(), PullError> {
        let temp = self.ingest.temp();
        self.ingest.pin(&layer.digest);
        let mut download = Download::new(&temp, layer, self.progress)?;
        self.registry.blob(&layer.digest, layer.size, &mut download).await?;
        let actual = Digest::from_hasher(download.hasher);
        if actual != layer.digest {
            return Err(PullError::Digest { what: "layer".into(), wanted: layer.digest.clone(), actual });
        }
        (self.progress)(PullProgress::Unpacking { layer: layer.digest.clone() });
        let (ingest, diff_id, blob) = (Arc::clone(self.ingest), diff_id.clone(), layer.digest.clone());
        let unpacked = tokio::task::spawn_blocking(move || ingest.put_layer(&diff_id, &blob, &temp.0));
        match unpacked.await.map_err(|_| PullError::Interrupted)? {
            Ok(()) => (self.progress)(PullProgress::Done { layer: layer.digest.clone() }),
            Err(LayerError::Unpack(source)) => {
                return Err(PullError::Unpack { digest: layer.digest.clone(), source });
            }
            Err(LayerError::Store(e)) => return Err(e.into()),
        }
        Ok(())
    }
}

/// A blob that is small enough for memory.
struct Memory(Vec<u8>);

impl BlobSink for Memory {
    fn write<'a>(&'a mut self, offset: u64, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), PullError>> {
        if offset == 0 {
            self.0.clear();
        }
        self.0.extend_from_slice(bytes);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A blob on its way to disk, hashed as it comes. Written from the async side: chunks are small and go to the page cache.
struct Download<'a> {
    file: File,
    hasher: Sha256,
    layer: &'a Descriptor,
    reported: u64,
    progress: Progress<'a>,
}

impl<'a> Download<'a> {
    fn new(temp: &Temp, layer: &'a Descriptor, progress: Progress<'a>) -> Result<Self, PullError> {
        let file = File::create(&temp.0).map_err(StoreError::of(format!("write layer {}", layer.digest)))?;
        Ok(Download { file, hasher: Sha256::new(), layer, reported: 0, progress })
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        if offset == 0 {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.hasher = Sha256::new();
            self.reported = 0;
        }
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

impl BlobSink for Download<'_> {
    fn write<'a>(&'a mut self, offset: u64, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), PullError>> {
        let done =
            self.put(offset, bytes).map_err(StoreError::of(format!("write layer {}", self.layer.digest)));
        let (now, total) = (offset + bytes.len() as u64, self.layer.size);
        if now - self.reported >= REPORT_EVERY || now == total {
            self.reported = now;
            (self.progress)(PullProgress::Downloading {
                layer: self.layer.digest.clone(),
                bytes: now,
                total,
            });
        }
        Box::pin(std::future::ready(done.map_err(PullError::from)))
    }
}

#[cfg(test)]
mod tests;
