//! Exporting: an image as an OCI layout tar that any node, and most tools, can load. The copy has the same id and the same digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::compression::Compression;
use super::digest::Digest;
use super::error::{ExportError, StoreError};
use super::ingest::Ingest;
use super::load::own_manifest;
use super::manifest::{
    Descriptor, Document, Index, NAME_ANNOTATION, OCI_INDEX, OCI_MANIFEST, REF_ANNOTATION,
};
use super::reference::Reference;
use super::store::ImageStore;

const CHUNK: usize = 256 * 1024;
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// What goes into the archive.
struct Plan {
    index: Index,
    blobs: BTreeSet<Digest>,
    /// Made for this export, not on disk.
    fresh: Vec<(Digest, Vec<u8>)>,
}

impl ImageStore {
    /// The image as a stream of an OCI layout tar, with all its names. Nothing of it is removed while the stream lives.
    pub fn export(&self, reference: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, ExportError> {
        let ingest = Ingest::new(self);
        let plan = self.plan(reference, &ingest)?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
        let work = tokio::task::spawn_blocking(move || {
            let mut writer = ChunkWriter { sender: sender.clone(), buffer: Vec::with_capacity(CHUNK) };
            if let Err(e) = write(&plan, &ingest, &mut writer) {
                drop(sender.blocking_send(Err(e))); // nobody listens: nobody misses it
            }
        });
        drop(work); // it ends with the stream: its sends fail
        Ok(StreamReader::new(ReceiverStream::new(receiver).fuse()))
    }

    fn plan(&self, reference: &str, ingest: &Ingest) -> Result<Plan, ExportError> {
        let (id, record, names, metas) = {
            let state = self.inner.state();
            let id = state.find(reference).ok_or_else(|| ExportError::NoSuchImage(reference.to_string()))?;
            let record = state.index.images[&id].clone();
            let names: Vec<Reference> =
                state.index.names_of(&id).filter_map(|n| Reference::parse(n).ok()).collect();
            let metas: Vec<_> = record.layers.iter().filter_map(|l| state.layers.get(l).cloned()).collect();
            (id, record, names, metas)
        };
        record.layers.iter().chain(&record.documents).chain([&id]).for_each(|d| ingest.pin(d));
        let mut blobs = BTreeSet::from([id.clone()]);
        blobs.extend(metas.iter().map(|m| m.blob.clone()));
        let mut fresh = Vec::new();
        let mut tops: Vec<(Descriptor, bool)> = Vec::new();
        for digest in &record.documents {
            let bytes = fs::read(self.inner.blob_path(digest))
                .map_err(StoreError::of(format!("read manifest {digest}")))?;
            let Ok(document) = Document::parse(&bytes) else { continue };
            let descriptor = |digest: &Digest| self::descriptor(document.media_type(), digest, bytes.len());
            match &document {
                // packed differently here than in its manifest: that manifest cannot travel
                Document::Manifest(m) if !m.layers.iter().all(|l| blobs.contains(&l.digest)) => continue,
                Document::Manifest(_) => tops.push((descriptor(digest), true)),
                Document::Index(_) => tops.push((descriptor(digest), false)),
            }
            blobs.insert(digest.clone());
        }
        if !tops.iter().any(|(_, whole)| *whole) {
            tops.clear();
            let bytes = self.fresh_manifest(&id, &metas)?;
            let digest = Digest::of(&bytes);
            tops.push((descriptor(OCI_MANIFEST, &digest, bytes.len()), true));
            fresh.push((digest, bytes));
        }
        let index =
            Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: named(&tops, &names) };
        Ok(Plan { index, blobs, fresh })
    }

    fn fresh_manifest(&self, id: &Digest, metas: &[super::store::LayerMeta]) -> Result<Vec<u8>, StoreError> {
        let mut layers = Vec::new();
        for meta in metas {
            let mut start = Vec::new();
            let read =
                File::open(self.inner.blob_path(&meta.blob)).and_then(|f| f.take(4).read_to_end(&mut start));
            read.map_err(StoreError::of(format!("read blob {}", meta.blob)))?;
            let size = usize::try_from(meta.packed_bytes).unwrap_or(usize::MAX);
            layers.push(descriptor(Compression::of(&start).layer_media_type(), &meta.blob, size));
        }
        let size =
            fs::metadata(self.inner.blob_path(id)).map_err(StoreError::of(format!("read blob {id}")))?.len();
        Ok(own_manifest(id, size, layers))
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Descriptor {
    let annotations = BTreeMap::new();
    Descriptor {
        media_type: media_type.into(),
        digest: digest.clone(),
        size: size as u64,
        annotations,
        platform: None,
    }
}

/// One line per name: digest references at their own document, tags at the manifest.
fn named(tops: &[(Descriptor, bool)], names: &[Reference]) -> Vec<Descriptor> {
    let (manifest, _) = tops.iter().find(|(_, whole)| *whole).expect("the caller made sure of one");
    let mut out = Vec::new();
    for name in names {
        let at = match name.digest() {
            Some(digest) => tops.iter().map(|(d, _)| d).find(|d| d.digest == *digest),
            None => Some(manifest),
        };
        let Some(mut at) = at.cloned() else { continue };
        at.annotations.insert(NAME_ANNOTATION.into(), name.to_string());
        if let Some(tag) = name.tag() {
            at.annotations.insert(REF_ANNOTATION.into(), tag.into());
        }
        out.push(at);
    }
    if out.is_empty() {
        out.push(manifest.clone());
    }
    out
}

fn write(plan: &Plan, ingest: &Ingest, out: &mut ChunkWriter) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", LAYOUT, LAYOUT.len() as u64)?;
    let index = serde_json::to_vec(&plan.index).map_err(io::Error::other)?;
    append(&mut tar, "index.json", &index[..], index.len() as u64)?;
    for (digest, bytes) in &plan.fresh {
        append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), &bytes[..], bytes.len() as u64)?;
    }
    for digest in &plan.blobs {
        let file = ingest.blob(digest)?;
        let size = file.metadata()?.len();
        append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), file, size)?;
    }
    tar.into_inner()?.flush()
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: impl Read, size: u64) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

/// Sends what is written to an async reader.
struct ChunkWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buf);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        if chunk.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
