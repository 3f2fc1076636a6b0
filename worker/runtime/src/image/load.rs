//! Loading: the images of a `docker save` archive or an OCI layout, checked to the last byte, become images of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::archive::Staged;
use super::compression::Compression;
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::LoadError;
use super::ingest::{Arrival, Ingest, LayerError};
use super::manifest::{
    Descriptor, Document, Index, Manifest, NAME_ANNOTATION, OCI_CONFIG, OCI_MANIFEST, REF_ANNOTATION,
    architecture,
};
use super::reference::Reference;
use super::store::ImageStore;

const CHUNK: usize = 256 * 1024;
const NESTED_MAX: u32 = 3;

/// An image that an archive held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its id.
    pub id: Digest,
    /// Its names in familiar form; none if the archive gave none.
    pub names: Vec<String>,
}

impl LoadedImage {
    /// What `docker load` prints of it, a line per name.
    pub fn lines(&self) -> Vec<String> {
        if self.names.is_empty() {
            return vec![format!("Loaded image ID: {}", self.id)];
        }
        self.names.iter().map(|n| format!("Loaded image: {n}")).collect()
    }
}

/// An image of a `docker save` archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl ImageStore {
    /// Loads all images of an archive: `docker save` (old and new) or OCI layout, plain, gzip or zstd. Either all of them are
    /// there afterwards or none.
    pub async fn load_archive(
        &self,
        archive: impl AsyncRead + Send + Unpin,
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let (chunks, receiver) = mpsc::channel(8);
        let store = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            load(&store, ChunkReader { receiver, current: Bytes::new() })
        });
        let ((), done) = tokio::join!(feed(archive, chunks), work);
        done.unwrap_or(Err(LoadError::Interrupted))
    }
}

/// Hands the stream over until its end, its failure, or until nobody wants more.
async fn feed(mut from: impl AsyncRead + Send + Unpin, to: mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        let chunk = match from.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => Ok(buffer.split().freeze()),
            Err(e) => Err(e),
        };
        let failed = chunk.is_err();
        if to.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

/// The blocking end of a stream of chunks.
struct ChunkReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

fn load(store: &ImageStore, reader: impl Read + Send) -> Result<Vec<LoadedImage>, LoadError> {
    let ingest = Ingest::new(store);
    let staged = Staged::read(reader, ingest.temp(), &store.inner.settings.limits)?;
    let load = Load { ingest: &ingest, staged: &staged };
    let arrivals = if let Some(saved) = staged.json::<Vec<Saved>>("manifest.json")? {
        saved.iter().map(|s| load.saved(s)).collect::<Result<Vec<_>, _>>()?
    } else if let Some(index) = staged.json::<Index>("index.json")? {
        load.layout(&index)?
    } else {
        return Err(LoadError::NoImages);
    };
    if arrivals.is_empty() {
        return Err(LoadError::NoImages);
    }
    let arrivals = merge(arrivals);
    let loaded = arrivals.iter().map(|a| LoadedImage {
        id: a.id.clone(),
        names: a.names.iter().filter(|n| n.digest().is_none()).map(Reference::familiar).collect(),
    });
    let loaded = loaded.collect();
    ingest.commit(arrivals)?;
    Ok(loaded)
}

/// One image may be listed once per name.
fn merge(arrivals: Vec<Arrival>) -> Vec<Arrival> {
    let mut by_id: BTreeMap<Digest, Arrival> = BTreeMap::new();
    for arrival in arrivals {
        match by_id.get_mut(&arrival.id) {
            Some(known) => {
                known.documents.extend(arrival.documents);
                known.names.extend(arrival.names);
            }
            None => drop(by_id.insert(arrival.id.clone(), arrival)),
        }
    }
    by_id.into_values().collect()
}

struct Load<'a> {
    ingest: &'a Ingest,
    staged: &'a Staged,
}

impl Load<'_> {
    fn saved(&self, saved: &Saved) -> Result<Arrival, LoadError> {
        let (id, bytes, config) = self.config(&saved.config)?;
        let names = saved.repo_tags.iter().flatten().map(|n| name(n)).collect::<Result<Vec<_>, _>>()?;
        let mut layers = Vec::new();
        self.check_count(saved.layers.len(), &config)?;
        for (path, diff_id) in saved.layers.iter().zip(&config.diff_ids) {
            layers.push(self.layer(path, diff_id)?);
        }
        self.ingest.put_bytes(&id, &bytes)?;
        let document = self.put_manifest(&id, bytes.len() as u64, layers)?;
        Ok(Arrival { id, config, documents: BTreeSet::from([document]), names })
    }

    fn layout(&self, index: &Index) -> Result<Vec<Arrival>, LoadError> {
        let mut arrivals = Vec::new();
        for descriptor in &index.manifests {
            let Some((documents, manifest)) = self.find_manifest(descriptor, NESTED_MAX)? else { continue };
            arrivals.push(self.arrival(descriptor, documents, &manifest)?);
        }
        if arrivals.is_empty() && !index.manifests.is_empty() {
            return Err(LoadError::Platform { platform: format!("linux/{}", architecture()) });
        }
        Ok(arrivals)
    }

    fn arrival(
        &self,
        descriptor: &Descriptor,
        documents: Vec<Digest>,
        manifest: &Manifest,
    ) -> Result<Arrival, LoadError> {
        let (id, bytes, config) = self.config(&format!("blobs/sha256/{}", manifest.config.digest.hex()))?;
        self.check_count(manifest.layers.len(), &config)?;
        for (layer, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            self.layer(&format!("blobs/sha256/{}", layer.digest.hex()), diff_id)?;
        }
        self.ingest.put_bytes(&id, &bytes)?;
        for document in &documents {
            let file = self.staged.blob(document)?;
            self.ingest.put_bytes(document, &self.staged.bytes(document.as_str(), file)?)?;
        }
        let names = annotated_name(descriptor)?.into_iter().collect();
        Ok(Arrival { id, config, documents: documents.into_iter().collect(), names })
    }

    /// The manifest for this machine and what led to it; `None` if it is for another, or its content is not in this archive.
    fn find_manifest(
        &self,
        at: &Descriptor,
        nested: u32,
    ) -> Result<Option<(Vec<Digest>, Manifest)>, LoadError> {
        if at
            .platform
            .as_ref()
            .is_some_and(|p| !p.os.is_empty() && (p.os != "linux" || p.architecture != architecture()))
        {
            return Ok(None);
        }
        let file = self.staged.blob(&at.digest)?;
        if file.size != at.size {
            return Err(LoadError::Size { path: at.digest.to_string(), wanted: at.size, actual: file.size });
        }
        let json = |source| LoadError::Json { path: at.digest.to_string(), source };
        match Document::parse(&self.staged.bytes(at.digest.as_str(), file)?).map_err(json)? {
            Document::Manifest(manifest) => Ok(Some((vec![at.digest.clone()], manifest))),
            Document::Index(index) if nested > 0 => {
                let present =
                    index.for_this_machine().into_iter().find(|d| self.staged.blob(&d.digest).is_ok());
                let Some(child) = present else { return Ok(None) };
                let found = self.find_manifest(child, nested - 1)?;
                Ok(found.map(|(mut path, manifest)| {
                    path.push(at.digest.clone());
                    (path, manifest)
                }))
            }
            Document::Index(_) => Ok(None),
        }
    }

    fn config(&self, path: &str) -> Result<(Digest, Vec<u8>, ImageConfig), LoadError> {
        let file = self.staged.checked(path)?;
        let bytes = self.staged.bytes(path, file)?;
        let config = ImageConfig::parse(&bytes)
            .map_err(|source| LoadError::Json { path: path.to_string(), source })?;
        Ok((file.digest.clone(), bytes, config))
    }

    fn check_count(&self, layers: usize, config: &ImageConfig) -> Result<(), LoadError> {
        if layers == config.diff_ids.len() {
            return Ok(());
        }
        Err(LoadError::Layers { layers, diff_ids: config.diff_ids.len() })
    }

    fn layer(&self, path: &str, diff_id: &Digest) -> Result<Descriptor, LoadError> {
        // also when we have it: a broken archive is broken on every node
        let present = self.ingest.has_layer(diff_id);
        let file = self.staged.checked(path)?;
        let start = if present { None } else { Some(self.start_of(file)?) };
        let descriptor = Descriptor {
            media_type: start.unwrap_or(Compression::Plain).layer_media_type().to_string(),
            digest: file.digest.clone(),
            size: file.size,
            annotations: BTreeMap::new(),
            platform: None,
        };
        if present {
            return Ok(descriptor);
        }
        match self.ingest.put_layer(diff_id, &file.digest, &file.path) {
            Ok(()) => Ok(descriptor),
            Err(LayerError::Unpack(source)) => Err(LoadError::Unpack { diff_id: diff_id.clone(), source }),
            Err(LayerError::Store(e)) => Err(e.into()),
        }
    }

    fn start_of(&self, file: &super::archive::StagedFile) -> Result<Compression, LoadError> {
        let mut start = Vec::new();
        let read = std::fs::File::open(&file.path).and_then(|f| f.take(4).read_to_end(&mut start));
        read.map_err(|source| LoadError::Read { source })?;
        Ok(Compression::of(&start))
    }

    /// An old archive has no manifest: it gets one, so that the image can be handed on.
    fn put_manifest(&self, id: &Digest, size: u64, layers: Vec<Descriptor>) -> Result<Digest, LoadError> {
        let bytes = own_manifest(id, size, layers);
        let digest = Digest::of(&bytes);
        self.ingest.put_bytes(&digest, &bytes)?;
        Ok(digest)
    }
}

/// A manifest of our own making.
pub(crate) fn own_manifest(id: &Digest, size: u64, layers: Vec<Descriptor>) -> Vec<u8> {
    let config = Descriptor {
        media_type: OCI_CONFIG.into(),
        digest: id.clone(),
        size,
        annotations: BTreeMap::new(),
        platform: None,
    };
    let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers };
    serde_json::to_vec(&manifest).expect("plain fields always serialize")
}

fn name(text: &str) -> Result<Reference, LoadError> {
    Reference::parse(text).map_err(|source| LoadError::Name { name: text.to_string(), source })
}

/// The name a layout gives an image. A bare tag in the standard's annotation names nothing on a node.
fn annotated_name(descriptor: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let standard = descriptor.annotations.get(REF_ANNOTATION).filter(|n| n.contains([':', '/']));
    let Some(text) = descriptor.annotations.get(NAME_ANNOTATION).or(standard) else { return Ok(None) };
    let name = name(text)?;
    match name.digest() {
        Some(digest) if *digest != descriptor.digest => {
            Err(LoadError::Digest { path: text.clone(), actual: descriptor.digest.clone() })
        }
        _ => Ok(Some(name)),
    }
}

#[cfg(test)]
mod tests;
