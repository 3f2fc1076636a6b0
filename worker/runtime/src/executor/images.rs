//! The node's images in the agent's terms.

use futures::future::BoxFuture;
use futures::stream::StreamExt;
use swarm_types::placement::Platform;
use swarm_types::time::Timestamp;
use swarm_worker_agent::executor::{ArchiveStream, ExecError, ImageInfo, ImageService, RegistryAuth};
use time::format_description::well_known::Rfc3339;
use tokio_util::io::{ReaderStream, StreamReader};

use super::{fatal, temporary, words};
use crate::image::{self, ErrorClass, Image, ImageStore, PullProgress, Reference};

/// Fetches an image from its registry.
pub(super) async fn pull(
    store: &ImageStore,
    reference: &str,
    auth: Option<&image::RegistryAuth>,
) -> Result<(), ExecError> {
    let parsed = Reference::parse(reference).map_err(fatal)?;
    let quiet = |_: PullProgress| {};
    match store.pull(&parsed, auth, &quiet).await {
        Ok(_) => Ok(()),
        Err(e) => {
            let text = format!("No such image: {reference}: {}", words(&e));
            Err(match e.class() {
                ErrorClass::Temporary => ExecError::Temporary(text),
                ErrorClass::Fatal => ExecError::Fatal(text),
            })
        }
    }
}

async fn pulled(
    store: &ImageStore,
    reference: String,
    auth: Option<image::RegistryAuth>,
) -> Result<ImageInfo, ExecError> {
    pull(store, &reference, auth.as_ref()).await?;
    let missing = || ExecError::Fatal(format!("No such image: {reference}"));
    let found = store.resolve(&reference).ok_or_else(missing)?;
    let mut pulled = info(&found);
    // Another tag of the same image is not what was asked for.
    if let Ok(asked) = Reference::parse(&reference)
        && asked.digest().is_none()
    {
        pulled.tags = vec![asked.familiar()];
    }
    Ok(pulled)
}

fn info(image: &Image) -> ImageInfo {
    ImageInfo {
        id: image.id.to_string(),
        tags: image.repo_tags.iter().map(ToString::to_string).collect(),
        digests: image.repo_digests.iter().map(ToString::to_string).collect(),
        size: image.size,
        created: image.created.as_deref().map(created).unwrap_or_default(),
        platform: Platform { os: image.config.os.clone(), architecture: image.config.architecture.clone() },
    }
}

fn created(text: &str) -> Timestamp {
    let parsed = time::OffsetDateTime::parse(text, &Rfc3339).ok();
    let ms = parsed.map(|t| t.unix_timestamp_nanos() / 1_000_000);
    Timestamp(ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0))
}

impl ImageService for ImageStore {
    fn load(&self, archive: ArchiveStream) -> BoxFuture<'_, Result<Vec<ImageInfo>, ExecError>> {
        Box::pin(async move {
            let loaded =
                self.load_archive(StreamReader::new(archive)).await.map_err(|e| match e.class() {
                    ErrorClass::Temporary => temporary(e),
                    ErrorClass::Fatal => fatal(e),
                })?;
            let found = loaded.into_iter().filter_map(|l| Some((self.resolve(&l.id.to_string())?, l.names)));
            // The archive's names only: the image may have had others before.
            Ok(found.map(|(i, names)| ImageInfo { tags: names, digests: Vec::new(), ..info(&i) }).collect())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, ExecError>> {
        Box::pin(async move { Ok(ImageStore::list(self).iter().map(info).collect()) })
    }

    fn pull(&self, reference: String) -> BoxFuture<'_, Result<ImageInfo, ExecError>> {
        Box::pin(pulled(self, reference, None))
    }

    fn pull_as(&self, reference: String, auth: RegistryAuth) -> BoxFuture<'_, Result<ImageInfo, ExecError>> {
        let auth = image::RegistryAuth { username: auth.username, password: auth.password };
        Box::pin(pulled(self, reference, Some(auth)))
    }

    fn remove(&self, reference: String, force: bool) -> BoxFuture<'_, Result<Vec<String>, ExecError>> {
        Box::pin(async move {
            let store = self.clone();
            let removed =
                tokio::task::spawn_blocking(move || ImageStore::remove(&store, &reference, force)).await;
            let removed = removed.map_err(temporary)?.map_err(fatal)?;
            Ok(removed.iter().map(ToString::to_string).collect())
        })
    }

    fn export(&self, reference: String) -> BoxFuture<'_, Result<ArchiveStream, ExecError>> {
        Box::pin(async move {
            let reader = ImageStore::export(self, &reference).map_err(fatal)?;
            let stream: ArchiveStream = ReaderStream::with_capacity(reader, 256 << 10).boxed();
            Ok(stream)
        })
    }
}
