//! The images of a [`FakeExecutor`].

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::StreamExt;

use super::FakeExecutor;
use crate::executor::{ArchiveStream, ExecError, ImageInfo, ImageService};

/// An archive is the reference of the image in it, as text.
impl ImageService for FakeExecutor {
    fn load(&self, mut archive: ArchiveStream) -> BoxFuture<'_, Result<Vec<ImageInfo>, ExecError>> {
        async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = archive.next().await {
                bytes.extend_from_slice(&chunk.map_err(|e| ExecError::Temporary(e.to_string()))?);
            }
            let text = String::from_utf8(bytes).map_err(|_| ExecError::Fatal("no image archive".into()))?;
            Ok(vec![self.add_image(text.trim())])
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, ExecError>> {
        async { Ok(self.lock().images.values().cloned().collect()) }.boxed()
    }

    fn pull(&self, reference: String) -> BoxFuture<'_, Result<ImageInfo, ExecError>> {
        async move { Ok(self.add_image(&reference)) }.boxed()
    }

    fn remove(&self, reference: String, _force: bool) -> BoxFuture<'_, Result<Vec<String>, ExecError>> {
        async move {
            let gone = self.change(|inner| inner.images.remove(&reference));
            let image = gone.ok_or_else(|| ExecError::Fatal(format!("no such image: {reference}")))?;
            Ok(vec![format!("Untagged: {reference}"), format!("Deleted: {}", image.id)])
        }
        .boxed()
    }

    fn export(&self, reference: String) -> BoxFuture<'_, Result<ArchiveStream, ExecError>> {
        async move {
            if !self.lock().images.contains_key(&reference) {
                return Err(ExecError::Fatal(format!("no such image: {reference}")));
            }
            Ok(futures::stream::iter([Ok(Bytes::from(reference))]).boxed())
        }
        .boxed()
    }
}

impl FakeExecutor {
    fn add_image(&self, reference: &str) -> ImageInfo {
        let image = ImageInfo {
            id: format!("sha256:{:064x}", crc32fast::hash(reference.as_bytes())),
            tags: vec![reference.to_owned()],
            size: 1 << 20,
            ..ImageInfo::default()
        };
        self.change(|inner| drop(inner.images.insert(reference.to_owned(), image.clone())));
        image
    }
}
