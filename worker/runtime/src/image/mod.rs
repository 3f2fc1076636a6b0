//! Images of this node: a content-addressed store, fed by archives and registries, that hands unpacked layers to containers.
//!
//! Reading order: [`Reference`] and [`Digest`] name things, [`ImageConfig`] says what an image wants to run,
//! [`ImageStore`] keeps them, [`unpack`] makes a directory of a layer, [`pull`](ImageStore::pull) and
//! [`load_archive`](ImageStore::load_archive) bring images in, [`export`](ImageStore::export) carries them to another node.

mod archive;
mod auth;
mod beneath;
mod compression;
mod config;
mod digest;
mod error;
mod export;
mod flight;
mod index;
mod ingest;
mod lease;
mod load;
mod manifest;
mod pull;
mod reference;
mod registry;
mod remove;
mod store;
pub mod unpack;

#[cfg(test)]
mod testing;

pub use auth::{AuthFileError, RegistryAuth, auth_for};
pub use config::{Healthcheck, ImageConfig};
pub use digest::{Digest, DigestError};
pub use error::{
    ErrorClass, ExportError, LeaseError, LoadError, OpenError, PullError, RemoveError, StoreError,
};
pub use load::LoadedImage;
pub use pull::{Progress, PullProgress, Pulled};
pub use reference::{Reference, ReferenceError};
pub use registry::RegistrySettings;
pub use remove::Removed;
pub use store::{Image, ImageStore, Settings};
pub use unpack::{Limits, UnpackError};
