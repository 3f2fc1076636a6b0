//! What can go wrong with images: one enum per thing attempted, in the words Docker's users know.

use std::io;
use std::sync::Arc;

use super::digest::Digest;
use super::reference::ReferenceError;
use super::unpack::{UnpackError, is_disk_full};

/// Whether it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call may do later.
    Temporary,
    /// It will fail the same way again.
    Fatal,
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("image store `{root}` is in use by another process")]
    InUse { root: String },
    /// The index is damaged: never guessed at.
    #[error("read image index `{path}`")]
    Index {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The disk refused something.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    what: String,
    #[source]
    source: io::Error,
}

impl StoreError {
    pub(crate) fn of(what: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
        let what = what.into();
        move |source| StoreError { what, source }
    }
    /// True if the disk is full or over quota.
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

/// An archive was not loaded. Nothing of it is in the index.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream broke, or is no tar.
    #[error("read archive")]
    Read {
        #[source]
        source: io::Error,
    },
    /// It holds neither `manifest.json` nor `index.json`.
    #[error("invalid archive: it holds neither manifest.json nor index.json")]
    NoImages,
    /// Something that is named is not in it.
    #[error("invalid archive: `{path}` is missing")]
    Missing { path: String },
    /// A JSON file in it cannot be read.
    #[error("invalid archive: read `{path}`")]
    Json {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    /// A file is not what its name says.
    #[error("invalid archive: `{path}` has digest {actual}")]
    Digest { path: String, actual: Digest },
    /// A size is not the one promised.
    #[error("invalid archive: `{path}` has {actual} bytes, want {wanted}")]
    Size { path: String, wanted: u64, actual: u64 },
    /// A file that must be small is not.
    #[error("invalid archive: `{path}` is larger than {limit} bytes")]
    TooLarge { path: String, limit: u64 },
    /// More than the limits allow.
    #[error("invalid archive: more than {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    /// Layers and configuration do not belong together.
    #[error("invalid archive: {layers} layers, but the configuration has {diff_ids}")]
    Layers { layers: usize, diff_ids: usize },
    /// Nothing in it runs here.
    #[error("no image for {platform} in the archive")]
    Platform { platform: String },
    /// A name in it is no name.
    #[error("invalid archive: name `{name}`")]
    Name {
        name: String,
        #[source]
        source: ReferenceError,
    },
    /// A layer was refused.
    #[error("unpack layer {diff_id}")]
    Unpack {
        diff_id: Digest,
        #[source]
        source: UnpackError,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was dropped with the daemon.
    #[error("loading was interrupted")]
    Interrupted,
}

impl LoadError {
    /// A full disk is temporary, as is an interruption; a broken archive stays broken.
    pub fn class(&self) -> ErrorClass {
        match self {
            LoadError::Store(_) | LoadError::Interrupted => ErrorClass::Temporary,
            LoadError::Unpack { source, .. } if source.is_disk_full() => ErrorClass::Temporary,
            _ => ErrorClass::Fatal,
        }
    }
}

/// An image was not pulled. Nothing of it is in the index; whole layers that came are kept for the next try until collected.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name is no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry does not have it.
    #[error("manifest for {reference} not found: manifest unknown")]
    ManifestUnknown { reference: String },
    /// No credentials were given and the registry wants some, or hides that the repository does not exist.
    #[error("pull access denied for {name}, repository does not exist or may require credentials")]
    Denied { name: String },
    /// Credentials were given and are not good enough.
    #[error("unauthorized: {registry} refused the credentials")]
    Unauthorized { registry: String },
    /// Nothing came for so long.
    #[error("give up on registry {registry}: nothing received for {seconds} s while trying to {what}")]
    Stalled { registry: String, what: String, seconds: u64 },
    /// The registry could not be reached, or answered with an error.
    #[error("{what} at registry {registry}")]
    Registry {
        registry: String,
        what: String,
        class: ErrorClass,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is an image, but none for this machine.
    #[error("no matching manifest for {platform} in the manifest list entries of {reference}")]
    Platform { reference: String, platform: String },
    /// What came is not what was named.
    #[error("{what} has digest {actual}, want {wanted}")]
    Digest { what: String, wanted: Digest, actual: Digest },
    /// What came is larger or smaller than promised.
    #[error("{what} has not the promised size of {wanted} bytes")]
    Size { what: String, wanted: u64 },
    /// A manifest or configuration cannot be read.
    #[error("read {what}")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    /// Layers and configuration do not belong together.
    #[error("image has {layers} layers, but its configuration has {diff_ids}")]
    Layers { layers: usize, diff_ids: usize },
    /// A layer was refused.
    #[error("unpack layer {digest}")]
    Unpack {
        digest: Digest,
        #[source]
        source: UnpackError,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another pull of the same image failed while this one waited for it.
    #[error(transparent)]
    Shared(#[from] Arc<PullError>),
    /// The work was dropped with the daemon.
    #[error("pulling was interrupted")]
    Interrupted,
}

impl PullError {
    /// Whether a later pull may do.
    pub fn class(&self) -> ErrorClass {
        match self {
            PullError::Stalled { .. } | PullError::Store(_) | PullError::Interrupted => ErrorClass::Temporary,
            PullError::Registry { class, .. } => *class,
            PullError::Unpack { source, .. } if source.is_disk_full() => ErrorClass::Temporary,
            PullError::Shared(inner) => inner.class(),
            _ => ErrorClass::Fatal,
        }
    }
}

/// An image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none of that name.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// A container stands on it.
    #[error(
        "conflict: unable to remove {reference} (must force) - container {owner} is using its referenced image {image}"
    )]
    InUse { reference: String, owner: String, image: String },
    /// It was named by its id and has several names.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories"
    )]
    ManyNames { image: String },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image was not leased.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is none of that name.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The owner's name cannot be a file name.
    #[error("invalid lease owner `{0}`: want 1 to 128 of a-z, A-Z, 0-9, `.`, `_`, `-`, the first no `.`")]
    Owner(String),
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is none of that name.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// A blob of it cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
